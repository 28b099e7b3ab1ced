"""The bytes of each command, as foreign clients of these cards send them."""

import pytest

from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit
from demail_hw.tcos import commands


def encoded(command: CommandApdu) -> str:
    return b"".join(command.encode()).hex()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (commands.select_master_file(), "00a4000c023f00"),
        (commands.select_application(bytes.fromhex("D2760000030102")), "00a4040c07d2760000030102"),
        (commands.select_elementary_file(0x2F02), "00a4020c022f02"),
        (commands.read_binary(0), "00b0000000"),
        (commands.read_binary(0x102, 16), "00b0010210"),
        (commands.read_record(2), "00b2020400"),
        (commands.pin_status(0x81), "00200081"),
        (commands.manage_security_environment_for_signature(0x80), "002241b606800102840180"),
        (commands.manage_security_environment_for_decipher(0x82), "002241b803840182"),
        (commands.compute_digital_signature(b"\xaa" * 51), "002a9e9a33" + "aa" * 51 + "00"),
        (commands.decipher(b"\xbb" * 256), "002a808600010100" + "bb" * 256 + "0100"),
        (commands.decipher(b"\xbb" * 128), "002a80868100" + "bb" * 128 + "80"),
    ],
)
def test_bytes(command: CommandApdu, expected: str) -> None:
    assert encoded(command) == expected


def test_verify_spends_its_permit_and_copies_no_pin() -> None:
    pin = Pin(bytearray(b"123456"))
    permit = PinPermit(_GUARD_KEY, 0x81, (pin,))
    command = commands.verify(permit)
    assert encoded(command) == "0020008106313233343536"
    assert "123456" not in repr(command)
    assert "313233343536" not in repr(command)
    with pytest.raises(RuntimeError):
        commands.verify(permit)
    pin.wipe()
    assert b"".join(command.encode())[5:] == bytes(6)


@pytest.mark.parametrize("offset", [-1, 0x8000])
def test_offset_of_read_binary(offset: int) -> None:
    with pytest.raises(ValueError, match="32767"):
        commands.read_binary(offset)
