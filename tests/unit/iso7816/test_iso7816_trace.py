import logging
from collections.abc import Sequence

import pytest

from demail_hw.errors import CardMute, Outcome, ProtocolViolation
from demail_hw.interfaces import Buffers, CardLimits
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.trace import (
    BadTrace,
    CardPowered,
    CommandSent,
    LoggingTracer,
    PowerUp,
    ReaderOpened,
    Recorder,
    SeveralTracers,
    Trace,
    TracedExchange,
    TraceEntry,
    TraceEvent,
    Tracer,
    mask,
)

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
    with pytest.raises(ProtocolViolation, match="Line 2 of the trace") as caught:
        Trace.parse(text)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_second_response_is_named() -> None:
    with pytest.raises(ProtocolViolation, match="Line 3 of the trace"):
        Trace.parse("> 00a4000c\n< 9000\n< 9000")


def test_a_malformed_secret_command_stays_masked() -> None:
    assert Trace.parse("> 0020008106**").entries[0].command == "00200081****"


def test_a_half_masked_secret_is_masked_whole() -> None:
    assert Trace.parse("> 0020008106**3233343536").entries[0].command == "0020008106" + "**" * 6


# What a tracer in a file writes, and what people write into it.
SEVERAL = f"""\
# demail-hw 0.1.0, trace begun 2026-11-24T14:42:31+00:00
# reader: Identiv uTrust 2700 F, Köln
# reader serial: 53692013000000
# connected ATR {ATR}
# SELECT MF
> 00a4000c023f00
# no answer: CardRemoved: The card was taken out.
# connected ATR {ATR[:-2]}ff
> 00a4000c023f00
<  9000
# the ATR 3b00 of another card
# connected ATR
> 00b0000004
"""


def test_reader_and_later_power_ups_are_read() -> None:
    trace = Trace.parse(SEVERAL)
    assert (trace.reader, trace.serial) == ("Identiv uTrust 2700 F, Köln", "53692013000000")
    assert trace.atr == bytes.fromhex(ATR)
    assert trace.powered == (PowerUp(1, bytes.fromhex(ATR[:-2] + "ff")),)
    assert [entry.failure for entry in trace.entries] == ["CardRemoved: The card was taken out.", "", ""]
    assert Trace.parse(trace.format()) == trace


def test_only_the_words_of_a_tracer_are_a_power_up() -> None:
    text = f"> 00a4000c\n<  9000\n# the card with the ATR {ATR}\n> 00a4000c\n<  9000\n"
    trace = Trace.parse(text)
    assert trace.atr == bytes.fromhex(ATR)
    assert trace.powered == ()


def test_an_unknown_atr_may_be_written_down() -> None:
    trace = Trace((TraceEntry("00a4000c", "9000"),), powered=(PowerUp(1, b""),))
    assert Trace.parse(trace.format()) == trace


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_end_of_line_will_do(end: str) -> None:
    assert Trace.parse(SEVERAL.replace("\n", end)) == Trace.parse(SEVERAL)


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ufffd", "\0"])
def test_nothing_else_ends_a_comment(odd: str) -> None:
    assert Trace.parse(f"# odd{odd}> 00\n> 00a4000c\n").entries[0].line == 2


def test_a_line_that_is_longer_than_any_apdu_is_named() -> None:
    longest = "> 00d60000" + "000000"[:6] + "ab" * 65535 + "0000"
    assert len(Trace.parse(longest).entries[0].command) == 2 * 65544
    for line in ("> " + "00" * 200_000, "# " + "x" * 300_000, "x" * 300_000):
        with pytest.raises(BadTrace, match="Line 2 of the trace is longer than any command") as caught:
            Trace.parse(f"# trace\n{line}\n")
        assert caught.value.line == 2


@pytest.mark.parametrize(("response", "data", "status"), [
    ("9000", "", 0x9000), ("5a00ff6282", "5a00ff", 0x6282), ("", "", None), ("90", "", None), ("****", "", None),
    ("**9000", "**", 0x9000),
])  # fmt: skip
def test_data_and_status_of_a_response(response: str, data: str, status: int | None) -> None:
    entry = TraceEntry("00a4000c", response)
    assert (entry.data, entry.status) == (data, status)


# --- Recording -------------------------------------------------------------------------------------------------


class Connection:
    """A card that answers as told, and whose epoch somebody else may change."""

    limits = EXTENDED_LIMITS

    def __init__(self, *answers: bytes | BaseException) -> None:
        self.atr = bytes.fromhex(ATR)
        self.epoch = 0
        self._answers = iter(answers)

    def transmit(self, command: Buffers, *, deadline: float) -> bytes:
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Witness:
    """A tracer that keeps the events."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.events: list[TraceEvent] = []

    def trace(self, event: TraceEvent) -> None:
        self.events.append(event)


VERIFY = (bytes.fromhex("0020008106"), bytearray(b"123456"))
MASKED_VERIFY = "0020008106" + "**" * 6


def exchange(connection: Connection, tracer: Witness | Recorder, *commands: Buffers) -> None:
    traced = TracedExchange(connection, tracer)  # type: ignore[arg-type]  # it needs no more of a connection
    for command in commands:
        traced(command, deadline=DEADLINE)


def test_a_command_is_told_before_it_leaves() -> None:
    witness = Witness()
    told_before: list[TraceEvent] = []

    class Curious(Connection):
        def transmit(self, command: Buffers, *, deadline: float) -> bytes:
            told_before.extend(witness.events)
            return b"\x90\0"

    exchange(Curious(), witness, VERIFY)
    assert told_before == [CardPowered(bytes.fromhex(ATR)), CommandSent(MASKED_VERIFY)]
    assert witness.events[2:] == [TraceEntry(MASKED_VERIFY, "9000")]


def test_a_new_epoch_is_told_with_the_atr() -> None:
    recorder, connection = Recorder(), Connection(*[b"\x90\0"] * 4)
    traced = TracedExchange(connection, recorder)  # type: ignore[arg-type]
    for epoch in (3, 3, 4, 4):
        connection.epoch = epoch
        traced((b"\0\xa4\0\x0c",), deadline=DEADLINE)
    trace = recorder.recorded()
    assert trace.atr == bytes.fromhex(ATR)
    assert trace.powered == (PowerUp(2, bytes.fromhex(ATR)),)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CardMute("The card does not answer.\nNever."), r"CardMute: The card does not answer.\nNever."),
        (ValueError("123456"), "ValueError"),
        (KeyboardInterrupt("123456"), "KeyboardInterrupt"),
    ],
)
def test_why_no_answer_came_is_told(error: BaseException, told: str) -> None:
    recorder = Recorder()
    with pytest.raises(type(error)):
        exchange(Connection(error), recorder, VERIFY)
    (entry,) = recorder.recorded().entries
    assert (entry.command, entry.response, entry.failure) == (MASKED_VERIFY, "", told)
    assert list(entry.lines()) == [f"> {MASKED_VERIFY}", f"# no answer: {told}"]
    assert Trace.parse(recorder.recorded().format()).entries[0].failure == told


DECIPHERING = (
    ("002a808601aa00", "5ec2e75ec2e76103"),
    ("00c0000003", "5ec2e79000"),
    ("00b0000003", "0102039000"),
)
HIDDEN = ["************6103", "******9000", "0102039000"]
WHOLE = [response for _, response in DECIPHERING]


def decipher(tracer: Tracer) -> None:
    connection = Connection(*(bytes.fromhex(response) for _, response in DECIPHERING))
    traced = TracedExchange(connection, tracer)  # type: ignore[arg-type]
    for command, _ in DECIPHERING:
        traced((bytes.fromhex(command),), deadline=DEADLINE)


def responses(events: Sequence[TraceEvent]) -> list[str]:
    return [event.response for event in events if isinstance(event, TraceEntry)]


def test_no_tracer_sees_what_was_deciphered_unless_it_asks_for_it() -> None:
    witness, silent, curious = Witness(), Recorder(), Recorder(deciphered=True)
    for tracer in (witness, silent, curious):
        decipher(tracer)
    assert responses(witness.events) == responses(silent.recorded().entries) == HIDDEN
    assert responses(curious.recorded().entries) == WHOLE


def test_of_several_tracers_only_who_asks_sees_what_was_deciphered() -> None:
    witness, curious = Witness(), Recorder(deciphered=True)
    decipher(SeveralTracers((curious, SeveralTracers((witness,)))))
    assert responses(witness.events) == HIDDEN
    assert responses(curious.recorded().entries) == WHOLE


def test_what_follows_a_command_that_was_not_traced_may_be_deciphered() -> None:
    witness = Witness(enabled=False)
    connection = Connection(b"\x61\x03", b"\x5e\xc2\xe7\x90\0")
    traced = TracedExchange(connection, witness)  # type: ignore[arg-type]
    traced((bytes.fromhex("002a808601aa00"),), deadline=DEADLINE)
    witness.enabled = True
    traced((bytes.fromhex("00c0000003"),), deadline=DEADLINE)
    assert responses(witness.events) == ["******9000"]


@pytest.mark.parametrize("ins", ["c2", "c3"])
def test_an_envelope_may_hold_a_pin_or_a_decipher(ins: str) -> None:
    command = f"00{ins}00000b0020008106313233343536"
    assert mask((bytes.fromhex(command),)) == f"00{ins}00000b" + "**" * 11
    recorder = Recorder()
    exchange(Connection(b"\x5e\xc2\x90\0"), recorder, (bytes.fromhex(command),))
    assert responses(recorder.recorded().entries) == ["****9000"]


def test_who_wants_nothing_is_told_nothing() -> None:
    witness = Witness(enabled=False)
    exchange(Connection(b"\x90\0"), witness, VERIFY)
    assert witness.events == []


def test_several_tracers_see_the_same() -> None:
    first, second, deaf = Witness(), Witness(), Witness(enabled=False)
    several = SeveralTracers((first, deaf, second))
    several.trace(CommandSent("00"))
    assert several.enabled
    assert (first.events, second.events, deaf.events) == ([CommandSent("00")], [CommandSent("00")], [])
    assert not SeveralTracers((deaf,)).enabled


def test_a_recorder_knows_the_reader() -> None:
    recorder = Recorder()
    for name, serial in (("first", "1"), ("second", "2")):
        recorder.trace(ReaderOpened(name, serial))
    assert (recorder.recorded().reader, recorder.recorded().serial) == ("first", "1")


@pytest.mark.parametrize(
    ("name", "written"), [("uTrust\n> 00", r"uTrust\n> 00"), ("Köln\u2028", r"Köln\u2028"), ("a\0", r"a\x00")]
)
def test_a_name_cannot_break_out_of_its_line(name: str, written: str) -> None:
    trace = Trace((), reader=name, serial=name)
    assert trace.format() == f"# reader: {written}\n# reader serial: {written}\n"


def test_the_limits_are_those_of_extended_apdus() -> None:
    assert CardLimits(True, 65544, 65538) == EXTENDED_LIMITS


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
