import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from demail_hw.errors import DeviceLost, Layer, ProtocolViolation
from demail_hw.interfaces import Buffers, CardLimits, Deadline
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.processors import Send
from demail_hw.iso7816.trace import LoggingTracer, Recorder, TraceEntry

DEADLINE = 99.0
VERIFY = CommandApdu(0, 0x20, 0, 0x81, (b"123456",), name="VERIFY")
READ = CommandApdu(0, 0xB0, 0, 0, ne=8, name="READ BINARY")


class Connection:
    """A powered card that does what ``answer`` says."""

    atr = b""
    epoch = 0

    def __init__(self, answer: Callable[[bytes], bytes], limits: CardLimits = EXTENDED_LIMITS) -> None:
        self._answer = answer
        self.limits = limits
        self.sent: list[str] = []

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        return nullcontext()

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        assert deadline == DEADLINE
        encoded = b"".join(command)
        self.sent.append(encoded.hex())
        return self._answer(encoded)

    def reset(self, *, deadline: Deadline) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def answering(response: str) -> Connection:
    return Connection(lambda command: bytes.fromhex(response))


def test_a_command_and_its_response() -> None:
    connection = answering("aabb9000")
    channel = Channel(connection)
    assert channel.send(READ, deadline=DEADLINE) == ResponseApdu(b"\xaa\xbb", 0x9000)
    assert connection.sent == ["00b0000008"]
    assert channel.connection is connection


def test_an_error_status_is_no_error_of_the_channel() -> None:
    assert Channel(answering("6982")).send(READ, deadline=DEADLINE) == ResponseApdu(b"", 0x6982)


def test_any_status_word_is_handed_up_unchanged_and_a_pin_is_sent_once() -> None:
    connection = Connection(lambda command: statuses.pop().to_bytes(2, "big"))
    channel = Channel(connection)
    statuses: list[int] = []
    for status in range(0x10000):
        statuses.append(status)
        assert channel.send(VERIFY, deadline=DEADLINE) == ResponseApdu(b"", status)
    assert len(connection.sent) == 0x10000


@pytest.mark.parametrize("response", ["", "90"])
def test_a_response_without_a_status_word_is_a_violation(response: str) -> None:
    with pytest.raises(ProtocolViolation, match="no status word"):
        Channel(answering(response)).send(READ, deadline=DEADLINE)


def test_the_longest_response_is_ne_and_a_status_word() -> None:
    assert len(Channel(answering("00" * 8 + "9000")).send(READ, deadline=DEADLINE).data) == 8
    with pytest.raises(ProtocolViolation, match="READ BINARY with 11 bytes, where 10 are the most") as caught:
        Channel(answering("00" * 9 + "9000")).send(READ, deadline=DEADLINE)
    assert caught.value.layer is Layer.CARD


def test_a_command_without_le_has_a_bare_status_word() -> None:
    with pytest.raises(ProtocolViolation, match="VERIFY with 3 bytes"):
        Channel(answering("009000")).send(VERIFY, deadline=DEADLINE)


def test_a_response_of_65537_bytes_is_a_violation() -> None:
    read = CommandApdu(0, 0xB0, 0, 0, ne=65536)
    assert len(Channel(answering("00" * 65536 + "9000")).send(read, deadline=DEADLINE).data) == 65536
    with pytest.raises(ProtocolViolation):
        Channel(answering("00" * 65537 + "9000")).send(read, deadline=DEADLINE)


def test_processors_stand_in_the_order_given() -> None:
    class Marking:
        def __init__(self, mark: bytes) -> None:
            self._mark = mark

        def process(self, command: CommandApdu, send: Send, deadline: Deadline) -> ResponseApdu:
            marked = CommandApdu(
                command.cla, command.ins, command.p1, command.p2, (*command.data, self._mark), command.ne
            )
            return send(marked, deadline)

    connection = answering("9000")
    Channel(connection, [Marking(b"\1"), Marking(b"\2")]).send(READ, deadline=DEADLINE)
    assert connection.sent == ["00b0000002010208"]


def test_a_bare_channel_has_no_processors() -> None:
    connection = answering("6c04")
    assert Channel(connection, ()).send(READ, deadline=DEADLINE).status == 0x6C04


def test_a_short_link_gets_the_default_stack() -> None:
    def answer(command: bytes) -> bytes:
        return b"\x90\0" if command[0] & 0x10 else b"\x61\x04" if command[1] != 0xC0 else b"done\x90\0"

    connection = Connection(answer, CardLimits(False, 261, 258))
    response = Channel(connection).send(CommandApdu(0, 0xDB, 0, 0, (bytes(300),), 256), deadline=DEADLINE)
    assert response == ResponseApdu(b"done", 0x9000)
    assert [sent[:10] for sent in connection.sent] == ["10db0000ff", "00db00002d", "00c0000004"]


def test_the_tracer_sees_the_wire_with_the_pin_masked() -> None:
    recorder = Recorder()
    connection = Connection(lambda command: bytes.fromhex("9000" if command[1] == 0x20 else "6c04"))
    channel = Channel(connection, tracer=recorder)
    channel.send(VERIFY, deadline=DEADLINE)
    channel.send(READ, deadline=DEADLINE)
    assert recorder.recorded().entries == (
        TraceEntry("0020008106" + "**" * 6, "9000"),
        TraceEntry("00b0000008", "6c04"),
        TraceEntry("00b0000004", "6c04"),
    )


def test_every_piece_of_a_chained_secret_is_masked() -> None:
    recorder = Recorder()
    connection = Connection(lambda command: b"\x90\0", CardLimits(False, 261, 258))
    change = CommandApdu(0, 0x24, 0, 0x81, (b"1" * 200, b"2" * 200))
    Channel(connection, tracer=recorder).send(change, deadline=DEADLINE)
    assert [entry.command for entry in recorder.recorded().entries] == [
        "10240081ff" + "**" * 255,
        "0024008191" + "**" * 145,
    ]


def test_the_exchange_that_failed_is_traced() -> None:
    def answer(command: bytes) -> bytes:
        raise DeviceLost("gone")

    recorder = Recorder()
    with pytest.raises(DeviceLost):
        Channel(Connection(answer), tracer=recorder).send(VERIFY, deadline=DEADLINE)
    assert recorder.recorded().entries == (TraceEntry("0020008106" + "**" * 6, ""),)


def test_a_malformed_response_is_traced() -> None:
    recorder = Recorder()
    with pytest.raises(ProtocolViolation):
        Channel(answering("90"), tracer=recorder).send(READ, deadline=DEADLINE)
    assert recorder.recorded().entries == (TraceEntry("00b0000008", "90"),)


def test_the_log_holds_the_traffic_at_debug_level_only(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test.apdu")
    channel = Channel(answering("aa9000"), tracer=LoggingTracer(logger))
    with caplog.at_level(logging.INFO, "test.apdu"):
        channel.send(READ, deadline=DEADLINE)
    assert caplog.messages == []
    with caplog.at_level(logging.DEBUG, "test.apdu"):
        channel.send(READ, deadline=DEADLINE)
    assert caplog.messages == ["> 00b0000008", "< aa 9000"]
