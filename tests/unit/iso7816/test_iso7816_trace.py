import logging

import pytest

from demail_hw.errors import CardMute, Outcome, ProtocolViolation
from demail_hw.interfaces import CardConnection, CardLimits
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS, CommandApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.trace import (
    EXTENDED_LIMITS,
    LoggingTracer,
    Recorder,
    ReplayConnection,
    Trace,
    TraceEntry,
    mask,
)
from demail_hw.transaction_lock import TransactionLock

DEADLINE = 1e12
ATR = "3bbf96008131fe5d00640411030131c073f701d00090007d"

TEXT = f"""\
# connected ATR {ATR}
# ctl power on
> 00a4000c023f00
<  9000

> 00b0000004
< 5a0a8949 6282
> 0020008106313233343536
<  63c2
"""


def replay(text: str) -> ReplayConnection:
    return ReplayConnection(Trace.parse(text), TransactionLock())


# --- Masking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cla", [0x00, 0x02, 0x0C, 0x10, 0x1C, 0x41, 0x80, 0xFF])
@pytest.mark.parametrize("ins", sorted(SECRET_INSTRUCTIONS))
def test_the_data_field_of_a_secret_command_is_masked(cla: int, ins: int) -> None:
    header = f"{cla:02x}{ins:02x}0081"
    assert mask((bytes.fromhex(header + "06"), b"123", b"456")) == header + "06" + "**" * 6
    assert mask((bytes.fromhex(header + "06"), b"123456", b"\0")) == header + "06" + "**" * 6 + "00"
    assert mask((bytes.fromhex(header + "000006"), b"123456")) == header + "000006" + "**" * 6


@pytest.mark.parametrize("command", ["00200081", "0020008100", "00a4000c023f00", "00", "", "0022", "002a9e9a0131"])
def test_what_holds_no_secret_is_shown_whole(command: str) -> None:
    assert mask((bytes.fromhex(command),)) == command


@pytest.mark.parametrize("body", ["3132", "0631323334", "06313233343536373839", "00000631", "0000", "000000313233"])
def test_of_a_malformed_secret_command_nothing_behind_the_header_is_shown(body: str) -> None:
    assert mask((bytes.fromhex("00200081" + body),)) == "00200081" + "**" * (len(body) // 2)


@pytest.mark.parametrize("fragment", ["0020", "002000"])
def test_a_fragment_of_a_header_holds_no_secret(fragment: str) -> None:
    assert mask((bytes.fromhex(fragment),)) == fragment


def test_masking_leaves_the_buffers_alone() -> None:
    pin = bytearray(b"123456")
    mask((b"\0\x20\0\x81\6", memoryview(pin)))
    assert pin == b"123456"


# --- Text ------------------------------------------------------------------------------------------------------


def test_a_trace_is_read_masked() -> None:
    trace = Trace.parse(TEXT)
    assert trace.atr == bytes.fromhex(ATR)
    assert trace.entries == (
        TraceEntry("00a4000c023f00", "9000"),
        TraceEntry("00b0000004", "5a0a89496282"),
        TraceEntry("0020008106************", "63c2"),
    )
    assert [entry.line for entry in trace.entries] == [3, 6, 8]
    assert "3132" not in repr(trace)


def test_a_trace_is_written_as_it_is_read() -> None:
    trace = Trace.parse(TEXT)
    assert trace.format() == (
        f"# connected ATR {ATR}\n"
        "> 00a4000c023f00\n<  9000\n"
        "> 00b0000004\n< 5a0a8949 6282\n"
        "> 0020008106************\n<  63c2\n"
    )
    assert Trace.parse(trace.format()) == trace


def test_case_and_spaces_do_not_matter() -> None:
    assert Trace.parse("> 00 A4 00 0C\n<9000\n> 00B0000001\n< AB 90 00").entries == (
        TraceEntry("00a4000c", "9000"),
        TraceEntry("00b0000001", "ab9000"),
    )


def test_a_command_may_be_without_response() -> None:
    trace = Trace.parse("> 00a4000c\n> 00b0000001\n< ab 9000\n")
    assert trace.entries == (TraceEntry("00a4000c", ""), TraceEntry("00b0000001", "ab9000"))
    assert Trace.parse(trace.format()) == trace


@pytest.mark.parametrize(
    "text",
    [
        "> 00a4000c\nhello",
        "> 00a4000c\n> 0",
        "# nothing was sent\n< 9000",
        "> 00a4000c\n> 00b00000**",  # masked, but no secret command
        "\n>",
        "\n> 00a40\n",
        "\n00a4000c",
    ],
)
def test_a_line_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ProtocolViolation, match="Line 2 of the trace"):
        Trace.parse(text)


def test_a_second_response_is_named() -> None:
    with pytest.raises(ProtocolViolation, match="Line 3 of the trace"):
        Trace.parse("> 00a4000c\n< 9000\n< 9000")


def test_a_malformed_secret_command_stays_masked() -> None:
    assert Trace.parse("> 0020008106**").entries[0].command == "00200081****"


def test_a_half_masked_secret_is_masked_whole() -> None:
    assert Trace.parse("> 0020008106**3233343536").entries[0].command == "0020008106" + "**" * 6


# --- Logging ---------------------------------------------------------------------------------------------------


def test_what_was_deciphered_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test.trace")
    tracer = LoggingTracer(logger)
    with caplog.at_level(logging.DEBUG, "test.trace"):
        for command, response in [
            ("002a808601aa00", "5ec2e75ec2e76103"),
            ("00c0000003", "5ec2e79000"),
            ("00c0000003", "1122339000"),
            ("00b0000003", "0102039000"),
            ("00c0000003", "0405069000"),
        ]:
            tracer.trace(TraceEntry(command, response))
    assert [message for message in caplog.messages if message.startswith("<")] == [
        "< ************ 6103",
        "< ****** 9000",
        "< ****** 9000",
        "< 010203 9000",
        "< 040506 9000",
    ]


def test_a_log_can_be_read_as_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    tracer = LoggingTracer(logging.getLogger("test.trace"))
    with caplog.at_level(logging.DEBUG, "test.trace"):
        tracer.trace(TraceEntry("002a808601aa00", "5ec2e79000"))
    assert Trace.parse("\n".join(caplog.messages)).entries == (TraceEntry("002a808601aa00", "******9000"),)


# --- Replay ----------------------------------------------------------------------------------------------------


def test_a_recorded_card_answers() -> None:
    connection: CardConnection = replay(TEXT)
    assert connection.atr == bytes.fromhex(ATR)
    assert connection.limits == EXTENDED_LIMITS
    with connection.transaction(deadline=DEADLINE):
        assert connection.transmit((bytes.fromhex("00a4000c02"), b"\x3f\0"), deadline=DEADLINE) == b"\x90\0"
        assert connection.transmit((bytes.fromhex("00b0000004"),), deadline=DEADLINE).hex() == "5a0a89496282"
        assert connection.transmit((bytes.fromhex("0020008106"), b"999999"), deadline=DEADLINE).hex() == "63c2"
    assert isinstance(connection, ReplayConnection)
    assert connection.exhausted


def test_what_was_recorded_can_be_replayed() -> None:
    source, recorder = replay(TEXT), Recorder()
    commands = [
        CommandApdu(0, 0xA4, 0, 0x0C, (b"\x3f\0",)),
        CommandApdu(0, 0xB0, 0, 0, ne=4),
        CommandApdu(0, 0x20, 0, 0x81, (b"123456",)),
    ]
    with source.transaction(deadline=DEADLINE):
        channel = Channel(source, tracer=recorder)
        first = [channel.send(command, deadline=DEADLINE) for command in commands]
    copy = ReplayConnection(Trace.parse(recorder.recorded(source.atr).format()), TransactionLock())
    with copy.transaction(deadline=DEADLINE):
        channel = Channel(copy)
        assert [channel.send(command, deadline=DEADLINE) for command in commands] == first
    assert copy.atr == source.atr


@pytest.mark.parametrize(
    ("skip", "command", "message"),
    [
        (0, "00b0000004", "Line 3 of the trace has 00a4000c023f00, and 00b0000004 came."),
        (2, "002000810731323334353637", "Line 8 of the trace has 0020008106************, and"),
        (2, "002c008106313233343536", "and 002c008106************ came."),
        (3, "0020008106313233343536", "The trace has ended, and 0020008106************ came."),
    ],
)
def test_another_command_is_a_violation_that_names_the_line(skip: int, command: str, message: str) -> None:
    trace = Trace.parse(TEXT)
    connection = ReplayConnection(trace, TransactionLock())
    with connection.transaction(deadline=DEADLINE):
        for sent in ("00a4000c023f00", "00b0000004", "0020008106303030303030")[:skip]:
            connection.transmit((bytes.fromhex(sent),), deadline=DEADLINE)
        with pytest.raises(ProtocolViolation) as caught:
            connection.transmit((bytes.fromhex(command),), deadline=DEADLINE)
    assert message in str(caught.value)
    assert "3132" not in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_long_command_is_named_by_its_beginning() -> None:
    connection = replay("> 002a9e9a" + "ff" * 200)
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation) as caught:
        connection.transmit((bytes(200),), deadline=DEADLINE)
    assert len(str(caught.value)) < 200


def test_an_entry_from_memory_is_named_by_its_number() -> None:
    connection = ReplayConnection(Trace((TraceEntry("00a4000c", "9000"),)), TransactionLock())
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation, match="Exchange 1 of the trace"):
        connection.transmit((b"\0\0\0\0",), deadline=DEADLINE)


def test_a_mismatch_does_not_move_the_trace_on() -> None:
    connection = replay(TEXT)
    with connection.transaction(deadline=DEADLINE):
        with pytest.raises(ProtocolViolation):
            connection.transmit((b"\0\0\0\0",), deadline=DEADLINE)
        assert connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=DEADLINE) == b"\x90\0"


def test_a_missing_response_is_a_mute_card() -> None:
    connection = replay("> 00a4000c\n")
    with connection.transaction(deadline=DEADLINE), pytest.raises(CardMute, match="Line 1"):
        connection.transmit((bytes.fromhex("00a4000c"),), deadline=DEADLINE)


def test_a_masked_response_cannot_be_replayed() -> None:
    connection = replay("> 00a4000c\n< ** 9000\n")
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation, match="masked response"):
        connection.transmit((bytes.fromhex("00a4000c"),), deadline=DEADLINE)


def test_no_command_outside_a_transaction_or_after_the_end() -> None:
    connection = replay(TEXT)
    with pytest.raises(RuntimeError):
        connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=DEADLINE)
    connection.close()
    connection.close()
    with connection.transaction(deadline=DEADLINE), pytest.raises(RuntimeError):
        connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=DEADLINE)


def test_a_reset_begins_a_new_epoch() -> None:
    connection = replay(TEXT)
    before = connection.epoch
    connection.reset(deadline=DEADLINE)
    assert connection.epoch != before


def test_the_limits_can_be_chosen() -> None:
    limits = CardLimits(False, 261, 258)
    assert ReplayConnection(Trace(()), TransactionLock(), limits=limits).limits == limits
