import pathlib

import pytest

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816.apdu import (
    MAX_EXTENDED_LC,
    MAX_EXTENDED_NE,
    SECRET_INSTRUCTIONS,
    CommandApdu,
    ResponseApdu,
    data_field,
)

VECTORS = pathlib.Path(__file__).parent / "vectors" / "client_commands.txt"


def client_commands() -> list[bytes]:
    lines = VECTORS.read_text(encoding="ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def join(command: CommandApdu) -> bytes:
    return b"".join(command.encode())


# ISO 7816-4, 5.1, cases 1, 2S, 3S, 4S, 2E, 3E, 4E; lengths at both ends.
CASES = [
    (CommandApdu(0, 0xA4, 0, 0x0C), "00a4000c"),
    (CommandApdu(0, 0xB0, 0, 0, ne=1), "00b0000001"),
    (CommandApdu(0, 0xB0, 0, 0, ne=256), "00b0000000"),
    (CommandApdu(0, 0xA4, 2, 0x0C, (b"\x2f\x02",)), "00a4020c022f02"),
    (CommandApdu(0, 0xD6, 0, 0, (bytes(255),)), "00d60000ff" + "00" * 255),
    (CommandApdu(0, 0xA4, 8, 4, (b"\x2f", b"\x00"), 256), "00a40804022f0000"),
    (CommandApdu(0, 0xB0, 0, 0, ne=257), "00b00000000101"),
    (CommandApdu(0, 0xB0, 0, 0, ne=MAX_EXTENDED_NE), "00b00000000000"),
    (CommandApdu(0, 0xD6, 0, 0, (bytes(256),)), "00d60000000100" + "00" * 256),
    (CommandApdu(0, 0x2A, 0x80, 0x86, (b"\0", bytes(256)), 256), "002a8086000101" + "00" * 257 + "0100"),
    (CommandApdu(0, 0xD6, 0, 0, (bytes(MAX_EXTENDED_LC),)), "00d6000000ffff" + "00" * MAX_EXTENDED_LC),
]


@pytest.mark.parametrize(("command", "encoded"), CASES)
def test_every_case_is_encoded_as_the_standard_says(command: CommandApdu, encoded: str) -> None:
    assert join(command).hex() == encoded
    read = CommandApdu.decode(bytes.fromhex(encoded))
    assert join(read).hex() == encoded
    assert (read.nc, read.ne) == (command.nc, command.ne)


def test_what_clients_really_send_survives_decoding_and_encoding() -> None:
    commands = client_commands()
    assert len(commands) > 250
    assert [join(CommandApdu.decode(command)) for command in commands] == commands


def test_data_buffers_are_passed_on_uncopied() -> None:
    secret = bytearray(b"123456")
    command = CommandApdu(0, 0x20, 0, 0x81, (memoryview(secret),))
    (_, sent) = command.encode()
    secret[:] = bytes(6)
    assert bytes(sent) == bytes(6)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "00a400",
        "00a40000022f",  # Lc announces more than there is
        "00a40000012f0000",  # two bytes of Le behind a short Lc
        "00a400000000",  # extended length field cut off
        "00a4000000000000",  # extended Lc of zero
        "00a4000000000112" + "00",  # one byte of Le behind an extended Lc
        "00a40000000002aa",
    ],
)
def test_contradicting_lengths_are_refused(encoded: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        CommandApdu.decode(bytes.fromhex(encoded))
    assert caught.value.layer is Layer.CARD


@pytest.mark.parametrize(
    ("cla", "ins", "length", "ne"),
    [
        (0x100, 0xB0, 0, 0),
        (0, -1, 0, 0),
        (0, 0xB0, 0, -1),
        (0, 0xB0, 0, MAX_EXTENDED_NE + 1),
        (0, 0xD6, MAX_EXTENDED_LC + 1, 0),
    ],
)
def test_what_does_not_fit_is_the_callers_mistake(cla: int, ins: int, length: int, ne: int) -> None:
    with pytest.raises(ValueError):
        CommandApdu(cla, ins, 0, 0, (bytes(length),), ne)


def test_the_commands_that_may_carry_a_pin() -> None:
    secret = {ins for ins in range(256) if CommandApdu(0, ins, 0, 0).secret}
    assert secret == SECRET_INSTRUCTIONS == {0x20, 0x21, 0x24, 0x25, 0x26, 0x28, 0x2C, 0x2D}


@pytest.mark.parametrize("cla", [0x00, 0x0C, 0x10, 0x03, 0x4F, 0x80])
@pytest.mark.parametrize("ins", sorted(SECRET_INSTRUCTIONS))
def test_a_pin_is_not_in_the_repr(cla: int, ins: int) -> None:
    command = CommandApdu(cla, ins, 0, 0x81, (b"123456",))
    assert command.secret
    assert "313233" not in repr(command)
    assert "6 secret bytes" in repr(command)


def test_the_label_is_the_name_or_the_header() -> None:
    assert CommandApdu(0, 0xA4, 4, 0x0C, name="SELECT").label == "SELECT"
    assert CommandApdu(0, 0xA4, 4, 0x0C).label == "00a4040c"


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ("00200081", (4, 4)),
        ("0020008100", (4, 4)),
        ("0020008106313233343536", (5, 11)),
        ("002000810631323334353600", (5, 11)),
        ("0020008100000131", (7, 8)),
    ],
)
def test_the_data_field_is_found_in_the_encoded_command(encoded: str, expected: tuple[int, int]) -> None:
    assert data_field(memoryview(bytes.fromhex(encoded))) == expected


def test_a_data_field_is_not_looked_for_in_half_a_header() -> None:
    with pytest.raises(ProtocolViolation):
        data_field(memoryview(b"\0\x20\0"))


def test_a_response_is_data_and_status() -> None:
    assert ResponseApdu.decode(bytes.fromhex("5a0a6282")) == ResponseApdu(b"\x5a\x0a", 0x6282)
    assert ResponseApdu(b"\x5a", 0x9000).encode() == bytes.fromhex("5a9000")


@pytest.mark.parametrize("encoded", [b"", b"\x90"])
def test_a_response_without_a_status_word_is_refused(encoded: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="no status word"):
        ResponseApdu.decode(encoded)
