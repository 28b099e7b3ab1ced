"""From the ATR to a card that takes APDUs, for every kind of reader; and what becomes of a connection over TPDUs."""

import dataclasses
import functools
import operator
import time
from collections.abc import Callable

import pytest

from demail_hw.ccid.activation import PpsFailed, activate
from demail_hw.ccid.class_descriptor import CcidDescriptor, Features
from demail_hw.ccid.code_points import CommandStatus, IccStatus
from demail_hw.ccid.exchange_levels import ExtendedApduLevel, Level, ShortApduLevel
from demail_hw.ccid.messages import (
    Command,
    DataBlock,
    GetParameters,
    IccPowerOff,
    IccPowerOn,
    Parameters,
    Response,
    SetParameters,
    SlotStatus,
    Status,
    XfrBlock,
    decode_command,
)
from demail_hw.ccid.reader import CcidReader
from demail_hw.ccid.slot_errors import SlotErrorCode, slot_error
from demail_hw.ccid.tpdu_levels import T0Level, T1Level
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
    ReaderError,
    SlotError,
)
from demail_hw.interfaces import Buffers, CardLimits, Deadline, UsbIdentity
from demail_hw.iso7816.atr import Atr
from demail_hw.iso7816.limits import EXTENDED_LIMITS, SHORT_LIMITS
from demail_hw.iso7816.t1_blocks import IBlock, RBlock, SBlock, decode_block, encode_block
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.ccid_device import UTRUST_2700F

TCOS = "3bff9600008131fe4380318065b0850300ef120fff82900019"
T0_ONLY = "3b6800000073c84000009000"
BOTH = "3b9096800187"  # TA1 = 96, T=0 first, then T=1.


def specific(ta2: int) -> str:
    """An ATR with this TA2. TA1 = 97 is faster than the reader; IFSC 254, BWI 4, CWI 5."""
    body = bytes((0x90, 0x97, 0x91, ta2, 0x71, 0xFE, 0x45, 0x00))
    return f"3b{body.hex()}{functools.reduce(operator.xor, body):02x}"


TPDU = 0x000100BA
AUTO_IFSD = 0x000104BA
HOST_PPS = 0x00010230
NEGOTIATES = 0x00010240
SHORT = 0x000204BA
EXTENDED = 0x000404BA

FAILED = Status(IccStatus.ACTIVE, CommandStatus.FAILED)


def descriptor(features: int, **changes: int) -> CcidDescriptor:
    base = dataclasses.replace(UTRUST_2700F.descriptor, features=Features(features), max_message_length=271)
    return dataclasses.replace(base, **changes)


def obliging(command: Command) -> Response:
    """A reader with a card that does all that is asked of it."""
    match command:
        case XfrBlock(data):
            return DataBlock(_card(b"".join(data)))
        case SetParameters(protocol, data):
            return Parameters(protocol, data)
        case GetParameters():
            return Parameters(1, bytes(7))
        case _:
            raise AssertionError(command)


def _card(sent: bytes) -> bytes:
    if sent[0] == 0xFF:
        return sent
    block = decode_block(sent)
    assert isinstance(block, SBlock)
    return b"".join(encode_block(block.reply()))


def run(
    reader: CcidDescriptor, atr: str, answer: Callable[[Command], Response] = obliging, *, negotiate: bool = True
) -> tuple[Level, list[str]]:
    """The level, and the data of every command on the way to it."""
    steps = activate(reader, Atr.decode(bytes.fromhex(atr)), negotiate=negotiate)
    sent = []
    try:
        command = next(steps)
        while True:
            sent.append(b"".join(command.encode(0, 0))[10:].hex() or type(command).__name__)
            response = answer(command)
            failed = response.status.command is CommandStatus.FAILED
            command = steps.throw(slot_error(response)) if failed else steps.send(response)
    except StopIteration as done:
        level: Level = done.value
        return level, sent


T1_96 = "9610004300fe00"
T1_11 = "1110004300fe00"
IFS_252 = "00c101fc3c"
IFS_254 = "00c101fe3e"


@pytest.mark.parametrize(
    ("features", "atr", "level", "commands"),
    [
        (EXTENDED, TCOS, ExtendedApduLevel, [T1_96]),
        (EXTENDED | 0x40, TCOS, ExtendedApduLevel, []),
        (SHORT, TCOS, ShortApduLevel, [T1_96]),
        (TPDU, TCOS, T1Level, [T1_96, IFS_254]),
        (AUTO_IFSD, TCOS, T1Level, [T1_96]),
        (HOST_PPS, TCOS, T1Level, ["ff119678", T1_96, IFS_254]),
        (HOST_PPS, T0_ONLY, T0Level, ["1100000a00"]),
        (HOST_PPS, BOTH, T0Level, ["ff109679", "9600000a00"]),
        (HOST_PPS, specific(0x81), T1Level, ["9710004500fe00", IFS_254]),
        (NEGOTIATES, TCOS, T1Level, ["GetParameters", IFS_254]),
    ],
)
def test_reader_is_told_what_it_leaves_to_the_host(
    features: int, atr: str, level: type[Level], commands: list[str]
) -> None:
    made, sent = run(descriptor(features), atr)
    assert isinstance(made, level)
    assert sent == commands


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        ({"max_ifsd": 252}, [T1_96, IFS_252]),
        ({"max_ifsd": 32}, [T1_96]),
        ({"max_ifsd": 0}, [T1_96]),
        ({"max_ifsd": 1024}, [T1_96, IFS_254]),
        ({"max_message_length": 263}, [T1_96, "00c101f838"]),
        ({"max_data_rate": 200000}, ["9910004300fe00", IFS_254]),
        ({"default_clock": 0}, [T1_96, IFS_254]),
    ],
)
def test_sizes_and_speeds_are_those_that_the_reader_can(changes: dict[str, int], commands: list[str]) -> None:
    assert run(descriptor(TPDU, **changes), TCOS)[1] == commands


def test_reader_that_speaks_one_protocol_is_given_that() -> None:
    level, sent = run(descriptor(HOST_PPS, protocols=2, max_ifsd=32), BOTH)
    assert isinstance(level, T1Level)
    assert sent == ["ff119678", "9610004d002000"]


def test_protocol_is_agreed_on_even_at_the_default_speed() -> None:
    _, sent = run(descriptor(HOST_PPS, protocols=2, max_ifsd=32, max_data_rate=9000), BOTH)
    assert sent == ["ff01fe", "1110004d002000"]


def test_card_whose_protocol_the_reader_does_not_speak_is_refused() -> None:
    with pytest.raises(ReaderError, match="speaks T=1, which") as caught:
        run(descriptor(TPDU, protocols=1), TCOS)
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("features", [TPDU, HOST_PPS, SHORT, EXTENDED])
@pytest.mark.parametrize(
    ("ta2", "protocols", "why"),
    [(0x81, 1, "speaks T=1, which"), (0x00, 2, "speaks T=0, which"), (0x91, 3, "does not tell")],
)
def test_card_in_a_specific_mode_that_cannot_be_followed_is_refused(
    features: int, ta2: int, protocols: int, why: str
) -> None:
    with pytest.raises(ReaderError, match=why) as caught:
        run(descriptor(features, protocols=protocols), specific(ta2))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert caught.value.remedy


def test_reader_that_negotiates_itself_may_know_what_the_card_does_not_tell() -> None:
    assert run(descriptor(NEGOTIATES), specific(0x91))[1] == ["GetParameters", IFS_254]


def test_card_that_cannot_be_followed_loses_its_power() -> None:
    wire = Wire(descriptor(TPDU), atr=specific(0x91))
    with pytest.raises(ReaderError, match="does not tell"):
        reader_on(wire).connect(deadline=soon())
    assert wire.types() == ["GetSlotStatus", "IccPowerOff", "IccPowerOn", "IccPowerOff"]


def test_limits_say_what_fits_through() -> None:
    assert run(descriptor(TPDU), TCOS)[0].limits == EXTENDED_LIMITS
    assert run(descriptor(SHORT), TCOS)[0].limits == SHORT_LIMITS == CardLimits(False, 261, 258)
    assert run(descriptor(SHORT, max_message_length=110), TCOS)[0].limits == CardLimits(False, 100, 100)
    assert run(descriptor(TPDU), T0_ONLY)[0].limits == SHORT_LIMITS
    assert run(descriptor(TPDU), "3b0241ff")[0].limits == SHORT_LIMITS  # No COMPACT-TLV.
    assert run(descriptor(TPDU), "3b058073c00180")[0].limits == SHORT_LIMITS  # Command chaining.
    assert run(descriptor(TPDU), "3b058073c00140")[0].limits == EXTENDED_LIMITS  # Extended Lc and Le.


@pytest.mark.parametrize(("features", "atr"), [(TPDU, TCOS), (TPDU, T0_ONLY), (SHORT, TCOS)])
def test_command_over_the_limits_is_the_callers_mistake(features: int, atr: str) -> None:
    level, _ = run(descriptor(features), atr)
    with pytest.raises(ValueError, match="at most"):
        next(level.exchange((bytes(level.limits.max_command + 1),)))


def test_short_apdu_travels_as_it_is() -> None:
    exchange = ShortApduLevel(descriptor(SHORT)).exchange((b"\0\xa4\0\0",))
    assert next(exchange) == XfrBlock((b"\0\xa4\0\0",))
    with pytest.raises(StopIteration) as done:
        exchange.send(DataBlock(b"\x90\0"))
    assert done.value.value == b"\x90\0"


# --- PPS that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        DataBlock(b"", FAILED, SlotErrorCode.ICC_MUTE),
        DataBlock(b"", FAILED, SlotErrorCode.XFR_PARITY_ERROR),
        DataBlock(bytes.fromhex("ff119578")),
        DataBlock(bytes.fromhex("ff109679")),
        DataBlock(),
        SlotStatus(),
    ],
)
def test_pps_that_fails_is_told_from_other_errors(answer: Response) -> None:
    with pytest.raises(PpsFailed) as caught:
        run(descriptor(HOST_PPS), TCOS, lambda _: answer)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_card_that_takes_the_protocol_without_the_speed_is_worked_with_slowly() -> None:
    def slow(command: Command) -> Response:
        pps = isinstance(command, XfrBlock) and b"".join(command.data) == bytes.fromhex("ff119678")
        return DataBlock(bytes.fromhex("ff01fe")) if pps else obliging(command)

    assert run(descriptor(HOST_PPS), TCOS, slow)[1][1] == T1_11


def test_without_negotiation_the_defaults_hold() -> None:
    assert run(descriptor(HOST_PPS), TCOS, negotiate=False)[1] == [T1_11, IFS_254]


def test_card_that_was_taken_out_in_mid_pps_is_gone() -> None:
    absent = DataBlock(b"", Status(IccStatus.ABSENT, CommandStatus.FAILED), SlotErrorCode.ICC_MUTE)
    with pytest.raises(CardRemoved):
        run(descriptor(HOST_PPS), TCOS, lambda _: absent)


# --- Parameters that are refused --------------------------------------------------------------------------------


def refuses_parameters(code: int) -> Callable[[Command], Response]:
    def answer(command: Command) -> Response:
        return Parameters(0, b"", FAILED, code) if isinstance(command, SetParameters) else obliging(command)

    return answer


def test_parameters_that_cannot_be_changed_are_left() -> None:
    assert run(descriptor(TPDU), TCOS, refuses_parameters(10))[1] == [T1_96, IFS_254]


def test_other_refusals_of_parameters_are_errors() -> None:
    with pytest.raises(SlotError, match="F6"):
        run(descriptor(TPDU), TCOS, refuses_parameters(SlotErrorCode.ICC_PROTOCOL_NOT_SUPPORTED))


def test_protocol_that_is_neither_t0_nor_t1_is_refused() -> None:
    with pytest.raises(ReaderError, match="protocol 80"):
        run(descriptor(NEGOTIATES), TCOS, lambda _: Parameters(0x80, b""))


# --- Readers that cannot be used --------------------------------------------------------------------------------


class Wire:
    """A reader at the end of a cable, as a :class:`~demail_hw.interfaces.UsbTransport`; its card speaks T=1.

    ``answers`` come first, whatever was sent; a float in them is a deadline that is over.
    """

    def __init__(self, reader: CcidDescriptor, *, atr: str = TCOS) -> None:
        self.atr = bytes.fromhex(atr)
        self.identity = UsbIdentity(0x04E6, 0x5811, "1", "test", "1-1")
        self.configuration = dataclasses.replace(UTRUST_2700F, descriptor=reader).configuration_descriptor()
        self.sent: list[Command] = []
        self.answers: list[Response | float] = []
        self.done: list[bytes] = []
        self._send = 0

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        header, command = decode_command(b"".join(out))
        self.sent.append(command)
        scripted = self._scripted(command)
        answer = self._answer(command) if scripted is None else scripted
        if isinstance(answer, float):
            raise DeadlineExceeded("It is over.")
        return b"".join(answer.encode(header.slot, header.seq))

    def _scripted(self, command: Command) -> Response | float | None:
        """What the reader says of a block; where the line is at fault, the card has done its part."""
        if not self.answers or not isinstance(command, XfrBlock):
            return None
        answer = self.answers.pop(0)
        if answer in (NOISE, MUTE, OVERRUN):
            self._answer(command)
        return answer

    def _answer(self, command: Command) -> Response:
        match command:
            case IccPowerOn():
                self._send = 0
                return DataBlock(self.atr)
            case XfrBlock(data) if b"".join(data)[0] != 0xFF:
                return DataBlock(b"".join(encode_block(self._block(decode_block(b"".join(data))))))
            case XfrBlock() | SetParameters():
                return obliging(command)
            case _:
                return SlotStatus(
                    Status(IccStatus.INACTIVE if isinstance(command, IccPowerOff) else IccStatus.ACTIVE)
                )

    def _block(self, block: IBlock | RBlock | SBlock) -> IBlock | RBlock | SBlock:
        match block:
            case IBlock():
                self.done.append(b"".join(block.information))
                self._send ^= 1
                return IBlock(self._send ^ 1, (b"\x90\0",))
            case RBlock():
                return IBlock(self._send ^ 1, (b"\x90\0",))
            case SBlock():
                return block.reply()

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        raise AssertionError((length, deadline))

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        raise AssertionError((data, deadline))

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        raise AssertionError(deadline)

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        return b""

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        raise AssertionError((endpoint, deadline))

    def close(self) -> None:
        pass

    def types(self) -> list[str]:
        names = [type(command).__name__ for command in self.sent]
        self.sent.clear()
        return names


def soon() -> Deadline:
    return time.monotonic() + 20


def reader_on(wire: Wire) -> CcidReader:
    return CcidReader(wire, lock=TransactionLock(), grace=soon, pause=pause)


def test_reader_of_the_character_level_is_refused() -> None:
    with pytest.raises(ReaderError, match=r"exchanges characters \(dwFeatures 000000BA\)") as caught:
        reader_on(Wire(descriptor(0x000000BA)))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert caught.value.remedy


@pytest.mark.parametrize(("features", "length"), [(EXTENDED, 10), (SHORT, 10), (TPDU, 15)])
def test_reader_whose_messages_hold_nothing_is_refused(features: int, length: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"have {length} bytes at most"):
        reader_on(Wire(descriptor(features, max_message_length=length)))
    assert reader_on(Wire(descriptor(features, max_message_length=length + 1)))


# --- Connections over TPDUs -------------------------------------------------------------------------------------

NOISE = DataBlock(b"", FAILED, SlotErrorCode.XFR_PARITY_ERROR)
OVERRUN = DataBlock(b"", FAILED, SlotErrorCode.XFR_OVERRUN)
MUTE = DataBlock(b"", FAILED, SlotErrorCode.ICC_MUTE)
BUSY = DataBlock(b"", FAILED, SlotErrorCode.CMD_SLOT_BUSY)
HARDWARE = DataBlock(b"", FAILED, SlotErrorCode.HW_ERROR)
SELECT = (b"\0\xa4\4\0",)
VERIFY = (b"\0\x20\0\x81\x04", b"1234")


@pytest.mark.parametrize("answers", [[], [NOISE], [MUTE], [OVERRUN], [NOISE, MUTE]])
def test_noise_between_reader_and_card_is_healed(answers: list[Response | float]) -> None:
    wire = Wire(descriptor(TPDU))
    connection = reader_on(wire).connect(deadline=soon())
    assert connection.limits == EXTENDED_LIMITS
    with connection.transaction(deadline=soon()):
        wire.answers = list(answers)
        assert connection.transmit(VERIFY, deadline=soon()) == b"\x90\0"
        assert connection.transmit(SELECT, deadline=soon()) == b"\x90\0"
    assert connection.alive
    assert wire.done == [b"".join(VERIFY), *SELECT]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([NOISE] * 6, CardMute),
        ([NOISE] * 3, ProtocolViolation),
        ([HARDWARE], SlotError),
        ([NOISE, BUSY], ReaderBusy),
        ([NOISE, 0.0], DeadlineExceeded),
        ([0.0], DeadlineExceeded),
    ],
)
def test_command_that_may_have_been_done_kills_the_connection(
    answers: list[Response | float], error: type[Exception]
) -> None:
    wire = Wire(descriptor(TPDU))
    connection = reader_on(wire).connect(deadline=soon())
    wire.answers = list(answers)
    with connection.transaction(deadline=soon()):
        with pytest.raises(error) as caught:
            connection.transmit(VERIFY, deadline=soon())
        assert getattr(caught.value, "outcome", None) is Outcome.UNKNOWN
        assert not connection.alive
        with pytest.raises(DeviceLost if error is DeadlineExceeded else CardRemoved):
            connection.transmit(VERIFY, deadline=soon())
    assert len(wire.done) == (answers[0] is NOISE)


def test_command_that_a_busy_reader_did_not_take_leaves_the_connection_alone() -> None:
    wire = Wire(descriptor(TPDU))
    connection = reader_on(wire).connect(deadline=soon())
    wire.answers = [BUSY]
    with connection.transaction(deadline=soon()):
        with pytest.raises(ReaderBusy):
            connection.transmit(VERIFY, deadline=soon())
        assert connection.transmit(VERIFY, deadline=soon()) == b"\x90\0"
    assert wire.done == [b"".join(VERIFY)]


def test_exchange_whose_deadline_was_over_is_aborted_before_the_next() -> None:
    wire = Wire(descriptor(TPDU))
    reader = reader_on(wire)
    connection = reader.connect(deadline=soon())
    wire.answers = [NOISE, 0.0]
    with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded):
        connection.transmit(VERIFY, deadline=soon())
    wire.types()
    connection = reader.connect(deadline=soon())
    assert wire.types()[:4] == ["Abort", "GetSlotStatus", "IccPowerOff", "IccPowerOn"]
    with connection.transaction(deadline=soon()):
        assert connection.transmit(VERIFY, deadline=soon()) == b"\x90\0"


def test_card_that_refuses_a_pps_is_reset_and_worked_with_at_its_default() -> None:
    wire = Wire(descriptor(HOST_PPS))
    wire.answers = [MUTE]
    connection = reader_on(wire).connect(deadline=soon())
    parameters = [command.data.hex() for command in wire.sent if isinstance(command, SetParameters)]
    assert parameters == [T1_11]
    assert wire.types() == [
        "GetSlotStatus",
        "IccPowerOff",
        "IccPowerOn",
        "XfrBlock",
        "IccPowerOff",
        "IccPowerOn",
        "SetParameters",
        "XfrBlock",
    ]
    with connection.transaction(deadline=soon()):
        assert connection.transmit(VERIFY, deadline=soon()) == b"\x90\0"


def test_card_that_does_not_begin_t1_is_mute_and_was_sent_nothing() -> None:
    wire = Wire(descriptor(TPDU))
    wire.answers = [MUTE] * 3
    with pytest.raises(CardMute) as caught:
        reader_on(wire).connect(deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT


def test_reset_of_the_card_begins_t1_anew() -> None:
    wire = Wire(descriptor(TPDU))
    connection = reader_on(wire).connect(deadline=soon())
    with connection.transaction(deadline=soon()):
        connection.transmit(VERIFY, deadline=soon())
        connection.reset(deadline=soon())
        connection.transmit(VERIFY, deadline=soon())
    *_, last = wire.sent
    assert isinstance(last, XfrBlock)
    assert decode_block(b"".join(last.data)) == IBlock(0, (b"".join(VERIFY),))
