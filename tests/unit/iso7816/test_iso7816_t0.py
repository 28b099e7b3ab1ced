"""APDUs over T=0 (ISO/IEC 7816-3:2006, 12.2)."""

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816 import t0
from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.iso7816.tpdu import BufferQueue


def play(command: tuple[bytes, ...], script: list[tuple[str, str]]) -> str:
    """The response, after each TPDU was what the script says."""
    exchange = t0.exchange(command)
    transmission = next(exchange)
    lines = list(script)
    try:
        while lines:
            sent, answer = lines.pop(0)
            assert b"".join(transmission.data).hex() == sent
            assert not transmission.waiting
            transmission = exchange.send(bytes.fromhex(answer))
    except StopIteration as done:
        assert not lines
        return bytes(done.value).hex()
    raise AssertionError(f"it goes on with {b''.join(transmission.data).hex()}")


CASES = {
    "case 1": ("00a40000", [("00a4000000", "9000")], "9000"),
    "case 2": ("00b0000004", [("00b0000004", "010203049000")], "010203049000"),
    "case 2, Ne 256": ("00b0000000", [("00b0000000", "019000")], "019000"),
    "case 2, less there": ("00b0000004", [("00b0000004", "6c02"), ("00b0000002", "01029000")], "01029000"),
    "case 2, more there": ("00b0000004", [("00b0000004", "6c05")], "6c05"),
    "case 2, twice wrong": ("00b0000004", [("00b0000004", "6c02"), ("00b0000002", "6c01")], "6c01"),
    "case 2, fetched": ("00b0000004", [("00b0000004", "6104"), ("00c0000004", "010203049000")], "010203049000"),
    "case 2E": ("00b00000000001", [("00b0000001", "019000")], "019000"),
    "case 2E, in parts": (
        "00b00000000200",
        [("00b0000000", "6100"), ("00c0000000", "01" * 256 + "6100"), ("00c0000000", "02" * 256 + "9000")],
        "01" * 256 + "02" * 256 + "9000",
    ),
    "case 3": ("00d6000002aabb", [("00d6000002aabb", "9000")], "9000"),
    "case 3E that is short": ("00d60000000002aabb", [("00d6000002aabb", "9000")], "9000"),
    "case 3, 61": ("00d6000002aabb", [("00d6000002aabb", "6110")], "6110"),
    "case 4": ("00a40000023f0000", [("00a40000023f00", "6103"), ("00c0000003", "0102039000")], "0102039000"),
    "case 4, Ne less": ("00a40000023f0002", [("00a40000023f00", "6103"), ("00c0000002", "01026101")], "01026101"),
    "case 4, parts": (
        "00a40000023f0000",
        [("00a40000023f00", "6102"), ("00c0000002", "01026101"), ("00c0000001", "039000")],
        "0102039000",
    ),
    "case 4, wrong length": (
        "00a40000023f0000",
        [("00a40000023f00", "6105"), ("00c0000005", "6c02"), ("00c0000002", "01029000")],
        "01029000",
    ),
    "case 4, nothing comes": ("00a40000023f0000", [("00a40000023f00", "6103"), ("00c0000003", "6103")], "6103"),
    "case 4, an error": ("00a40000023f0000", [("00a40000023f00", "6a82")], "6a82"),
    "another channel": ("02a40000023f0000", [("02a40000023f00", "6101"), ("02c0000001", "019000")], "019000"),
}


@pytest.mark.parametrize(("command", "script", "response"), CASES.values(), ids=CASES)
def test_apdu(command: str, script: list[tuple[str, str]], response: str) -> None:
    assert play((bytes.fromhex(command),), script) == response


def test_command_that_may_carry_a_pin_is_never_repeated() -> None:
    assert play((bytes.fromhex("0020008104"),), [("0020008104", "6c02")]) == "6c02"


def test_long_apdu_travels_in_envelopes() -> None:
    apdu = CommandApdu(0, 0xD6, 0, 0, (b"\1" * 300,), 0).encode()
    whole = b"".join(apdu).hex()
    script = [("00c20000ff" + whole[:510], "9000"), ("00c2000034" + whole[510:], "9000")]
    assert play(tuple(map(bytes, apdu)), script) == "9000"


def test_response_to_an_envelope_is_fetched() -> None:
    apdu = CommandApdu(0, 0x2A, 0, 0, (b"\1" * 300,), 256).encode()
    whole = b"".join(apdu).hex()
    script = [("00c20000ff" + whole[:510], "9000"), ("00c2000036" + whole[510:], "6102"), ("00c0000002", "aabb9000")]
    assert play(tuple(map(bytes, apdu)), script) == "aabb9000"


def test_piece_that_is_refused_is_the_last_one() -> None:
    apdu = CommandApdu(0, 0xD6, 0, 0, (b"\1" * 300,), 0).encode()
    whole = b"".join(apdu).hex()
    assert play(tuple(map(bytes, apdu)), [("00c20000ff" + whole[:510], "6d00")]) == "6d00"


def test_data_are_the_callers_buffer() -> None:
    secret = bytearray(b"1234")
    transmission = next(t0.exchange((b"\0\x20\0\x81\x04", secret)))
    secret[:] = bytes(4)
    assert b"".join(transmission.data) == b"\0\x20\0\x81\x04\0\0\0\0"


@pytest.mark.parametrize(
    "command", ["", "00a400", "00a4000002aa", "00a4000002aabbccdd", "00a4000000000001", "00a400000001"]
)
def test_bytes_that_are_no_command_are_the_callers_mistake(command: str) -> None:
    with pytest.raises(ValueError, match="contradict"):
        next(t0.exchange((bytes.fromhex(command),)))


@pytest.mark.parametrize("answer", ["", "90"])
def test_answer_without_a_status_word_is_a_violation(answer: str) -> None:
    exchange = t0.exchange((b"\0\xa4\0\0",))
    next(exchange)
    with pytest.raises(ProtocolViolation):
        exchange.send(bytes.fromhex(answer))


def test_buffers_are_taken_from_the_front_across_their_borders() -> None:
    queue = BufferQueue((b"abc", b"", bytearray(b"defg")))
    assert [b"".join(queue.take(2)), b"".join(queue.take(3)), queue.length] == [b"ab", b"cde", 2]
    assert b"".join(queue.take(9)) == b"fg"
    assert queue.take(1) == ()
    assert queue.length == 0
