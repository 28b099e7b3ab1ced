"""The reader's side of CCID, without any I/O: what a simulated reader is built on.

Feed what came on the bulk-OUT endpoint, ask for the next event, answer it::

    device.receive_data(transfer)
    event = device.next_event()      # ApduReceived(...): ask the card
    message = device.answer(response)                # bulk-IN

What needs no card the machine answers itself: the event is a :class:`Reply`. It works at the level that its class
descriptor names, with one slot. At the TPDU level two more things need the card: the event is a
:class:`TpduReceived`, and, where the reader does PPS itself, a :class:`ParametersProposed`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from demail_hw.ccid.class_descriptor import CcidDescriptor, ExchangeLevel, Features
from demail_hw.ccid.code_points import (
    ChainParameter,
    ClockCommand,
    ClockStatus,
    CommandStatus,
    IccStatus,
    LevelParameter,
    MessageType,
    PowerSelect,
)
from demail_hw.ccid.framing import HEADER_SIZE, MessageAssembler
from demail_hw.ccid.host import NEED_DATA, NeedData
from demail_hw.ccid.messages import (
    Abort,
    BadField,
    Command,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeData,
    GetParameters,
    GetSlotStatus,
    Header,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    NotifySlotChange,
    Parameters,
    ResetParameters,
    Response,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotChange,
    SlotStatus,
    Status,
    T0Apdu,
    XfrBlock,
    decode_command,
)
from demail_hw.ccid.parameters import T0ProtocolData, T1ProtocolData, parameters_for
from demail_hw.ccid.slot_errors import SlotErrorCode
from demail_hw.errors import HardwareError
from demail_hw.iso7816.atr import Atr
from demail_hw.iso7816.limits import MAX_COMMAND_APDU, SHORT_LIMITS

__all__ = [
    "ApduReceived",
    "CcidDevice",
    "DeviceEvent",
    "EscapeReceived",
    "ParametersProposed",
    "PowerOffRequested",
    "PowerOnRequested",
    "Reply",
    "TpduReceived",
]

_SLOT: Final = 0
_LENGTH_INDEX: Final = 1
_SLOT_INDEX: Final = 5
_OWN_INDEX: Final = 7
_LEVEL_INDEX: Final = 8
_FI_DI_INDEX: Final = 0
_SEQ_SHIFT: Final = 8
_SLOT_MASK: Final = 0xFF

# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__
_ACTIVE: Final = IccStatus.ACTIVE
_OK: Final = Status()
_WHOLE: Final = int(ChainParameter.WHOLE)
_POWER_SELECTS: Final = frozenset(PowerSelect)
_CLOCK_COMMANDS: Final = frozenset(ClockCommand)

_DEFAULT_PARAMETERS: Final = SetParameters(T0ProtocolData.protocol, T0ProtocolData().encode())
_PARAMETER_DECODERS: Final[Mapping[int, Callable[[bytes], object]]] = MappingProxyType(
    {T0ProtocolData.protocol: T0ProtocolData.decode, T1ProtocolData.protocol: T1ProtocolData.decode}
)


class PowerOnRequested(NamedTuple):
    """Power the card: ``answer`` with the ATR."""

    power_select: int


class PowerOffRequested(NamedTuple):
    """Take the power from the card, then ``answer``."""


class ApduReceived(NamedTuple):
    """A whole command APDU: ``answer`` with the response APDU, or ask for more time."""

    apdu: bytes


class TpduReceived(NamedTuple):
    """Something for the card's line: ``answer`` with what the card says to it. ``waiting``: bBWI, so many times the
    block waiting time may its answer take; 0 for one."""

    tpdu: bytes
    waiting: int


class ParametersProposed(NamedTuple):
    """Agree with the card: ``answer`` without data if it did. ``fi_di``: Fi and Di, as TA1 has them."""

    protocol: int
    fi_di: int


class EscapeReceived(NamedTuple):
    """A command of the vendor: ``answer`` with what it returns."""

    data: bytes


class Reply(NamedTuple):
    """A message for the bulk-IN endpoint."""

    message: bytes


DeviceEvent: TypeAlias = (
    PowerOnRequested | PowerOffRequested | ApduReceived | TpduReceived | ParametersProposed | EscapeReceived | Reply
)
"""What the host wants."""

_FAILURES: Final[Mapping[int, Callable[[Status, int], Response]]] = MappingProxyType(
    {
        MessageType.ICC_POWER_ON: lambda status, error: DataBlock(b"", status, error),
        MessageType.XFR_BLOCK: lambda status, error: DataBlock(b"", status, error),
        MessageType.SECURE: lambda status, error: DataBlock(b"", status, error),
        MessageType.GET_PARAMETERS: lambda status, error: Parameters(0, b"", status, error),
        MessageType.RESET_PARAMETERS: lambda status, error: Parameters(0, b"", status, error),
        MessageType.SET_PARAMETERS: lambda status, error: Parameters(0, b"", status, error),
        MessageType.ESCAPE: lambda status, error: EscapeData(b"", status, error),
        MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY: lambda status, error: DataRateAndClockFrequency(
            0, 0, status, error
        ),
    }
)
"""How a command fails; any other with a SlotStatus."""


class CcidDevice:
    """The state of a reader with one slot. ``packet_size``: wMaxPacketSize of bulk-OUT, or 1 for a stream.
    ``aborts``: does it know ABORT?"""

    def __init__(self, descriptor: CcidDescriptor, *, packet_size: int, aborts: bool = True) -> None:
        self._assembler = MessageAssembler(descriptor.max_message_length, packet_size=packet_size)
        self._capacity = descriptor.max_message_length - HEADER_SIZE
        self._messages: deque[bytes] = deque()
        self._icc = IccStatus.ABSENT
        self._clock = ClockStatus.RUNNING
        self._parameters = self._proposal = _DEFAULT_PARAMETERS
        self._pending: Header | None = None
        self._command = bytearray()
        self._chaining = False
        self._response = b""
        self._aborts = aborts
        self._aborting: int | None = None
        self._abort_sent: int | None = None
        self._features = descriptor.features
        self._level = descriptor.exchange_level
        self._power_selects = _power_selects(descriptor)
        transfers: Mapping[ExchangeLevel, Callable[[Header, XfrBlock], DeviceEvent]] = {
            ExchangeLevel.TPDU: self._transfer_tpdu,
            ExchangeLevel.SHORT_APDU: self._transfer_short_apdu,
        }
        self._transfer = transfers.get(self._level, self._transfer_apdu)
        self._handlers: Mapping[type[Command], Callable[[Header, Command], DeviceEvent]] = {
            XfrBlock: self._xfr_block,
            IccPowerOn: self._power_on,
            IccPowerOff: self._power_off,
            GetSlotStatus: self._slot_status,
            GetParameters: self._get_parameters,
            ResetParameters: self._reset_parameters,
            SetParameters: self._set_parameters,
            Escape: self._escape,
            IccClock: self._icc_clock,
            T0Apdu: self._slot_status,
            SetDataRateAndClockFrequency: self._set_rates,
        }

    @property
    def icc(self) -> IccStatus:
        """The card's state."""
        return self._icc

    @property
    def busy(self) -> bool:
        """True while a command waits for its answer."""
        return self._pending is not None

    @property
    def slot_change(self) -> NotifySlotChange:
        """What the interrupt endpoint has to say after a change."""
        return NotifySlotChange((SlotChange(self._icc is not IccStatus.ABSENT, changed=True),))

    def card_inserted(self) -> None:
        """A card is in the slot, without power."""
        self._icc = IccStatus.INACTIVE

    def card_removed(self) -> Reply | None:
        """The card is out; a command that it was working on fails."""
        self._icc = IccStatus.ABSENT
        self._forget()
        return self.fail(SlotErrorCode.ICC_MUTE) if self._pending else None

    def reset(self) -> None:
        """A bus reset: the card has no power, nothing is under way."""
        if self._icc is IccStatus.ACTIVE:
            self._icc = IccStatus.INACTIVE
        self._forget()
        self._assembler.clear()
        self._messages.clear()
        self._pending = self._aborting = self._abort_sent = None

    def receive_data(self, transfer: bytes) -> None:
        """Take what one bulk-OUT transfer brought."""
        message = self._assembler.add(transfer)
        if message is not None:
            self._messages.append(message)

    def next_event(self) -> DeviceEvent | NeedData:
        """The next thing that the host wants, or :data:`~demail_hw.ccid.host.NEED_DATA`.

        A message that does not even hold a header is dropped.
        """
        while self._messages:
            message = self._messages.popleft()
            event = self._handle(message) if len(message) >= HEADER_SIZE else None
            if event is not None:
                return event
        return NEED_DATA

    def answer(self, data: bytes = b"") -> Reply:
        """The command that waits has succeeded. ``RuntimeError`` if none waits."""
        header = self._take_pending()
        match header.message_type:
            case MessageType.XFR_BLOCK:
                return self._answer_apdu(header, data)
            case MessageType.ICC_POWER_ON:
                return self._answer_power_on(header, data)
            case MessageType.ESCAPE:
                return _reply(header, EscapeData(data, Status(self._icc)))
            case MessageType.SET_PARAMETERS:
                self._parameters = self._proposal
                return _reply(header, Parameters(self._parameters.protocol, self._parameters.data))
            case _:
                return self._answer_power_off(header)

    def fail(self, code: int) -> Reply:
        """The command that waits has failed with this bError. ``RuntimeError`` if none waits."""
        return self._refuse(self._take_pending(), code)

    def extend_time(self, multiplier: int = 1) -> Reply:
        """The command that waits needs longer. ``RuntimeError`` if none waits."""
        if self._pending is None:
            raise RuntimeError("no command waits for an answer")
        return _reply(self._pending, DataBlock(b"", Status(self._icc, CommandStatus.TIME_EXTENSION), multiplier))

    def abort(self, value: int) -> Reply | None:
        """An ABORT request with this wValue came on the control pipe (CCID 1.10, 5.3.1)."""
        seq = value >> _SEQ_SHIFT
        if value & _SLOT_MASK != _SLOT:
            return None
        if self._abort_sent == seq:
            return self._aborted(seq)
        self._aborting = seq
        return None

    # --- Commands ----------------------------------------------------------------------------------------------

    def _handle(self, message: bytes) -> DeviceEvent | None:
        try:
            header, command = decode_command(message)
        except BadField as error:
            return self._refuse(Header.decode(message), error.index)
        if len(message) > self._assembler.max_length:
            return self._refuse(header, _LENGTH_INDEX)
        if header.slot != _SLOT:
            return self._refuse(header, _SLOT_INDEX)
        if isinstance(command, Abort) and self._aborts:
            return self._abort(header)
        if self._aborting is not None or self._abort_sent is not None:
            return self._refuse(header, SlotErrorCode.CMD_ABORTED)
        handler = self._handlers.get(type(command))
        if handler is None:
            return self._refuse(header, SlotErrorCode.CMD_NOT_SUPPORTED)
        if self._pending is not None:
            return self._refuse(header, SlotErrorCode.CMD_SLOT_BUSY)
        return handler(header, command)

    def _xfr_block(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, XfrBlock)
        if self._icc is not _ACTIVE:
            return self._refuse(header, SlotErrorCode.ICC_MUTE)
        return self._transfer(header, command)

    def _transfer_tpdu(self, header: Header, command: XfrBlock) -> DeviceEvent:
        """At the TPDU level (CCID 1.10, 3.2.2) wLevelParameter is 0, and the answer has room in one message."""
        refusal = self._refuse_transfer(header, command, self._capacity)
        if refusal is not None:
            return refusal
        self._pending = header
        return TpduReceived(bytes(command.data[0]), command.waiting)

    def _transfer_short_apdu(self, header: Header, command: XfrBlock) -> DeviceEvent:
        """At the short APDU level (CCID 1.10, 3.2.3) wLevelParameter is 0."""
        refusal = self._refuse_transfer(header, command, SHORT_LIMITS.max_command)
        if refusal is not None:
            return refusal
        self._pending = header
        return ApduReceived(bytes(command.data[0]))

    def _refuse_transfer(self, header: Header, command: XfrBlock, longest: int) -> Reply | None:
        if command.level != LevelParameter.WHOLE:
            return self._refuse(header, _LEVEL_INDEX)
        if not command.data or len(command.data[0]) > longest:
            return self._refuse(header, _LENGTH_INDEX)
        return None

    def _transfer_apdu(self, header: Header, command: XfrBlock) -> DeviceEvent:
        """At the extended APDU level (CCID 1.10, 3.2.4)."""
        data = command.data[0] if command.data else b""
        match command.level:
            case LevelParameter.WHOLE:
                self._forget()
                return self._take_block(header, data, last=True)
            case LevelParameter.BEGINS:
                self._forget()
                return self._take_block(header, data, last=False)
            case LevelParameter.CONTINUES | LevelParameter.ENDS if self._chaining:
                return self._take_block(header, data, last=command.level == LevelParameter.ENDS)
            case LevelParameter.NEXT if self._response:
                return self._refuse(header, _LENGTH_INDEX) if data else self._next_block(header)
            case _:
                return self._refuse(header, _LEVEL_INDEX)

    def _take_block(self, header: Header, data: bytes | bytearray | memoryview, *, last: bool) -> DeviceEvent:
        """One block of a command APDU (CCID 1.10, 6.1.4)."""
        if not data:
            return self._refuse(header, _LENGTH_INDEX)
        if last and not self._chaining:
            self._pending = header
            return _new(ApduReceived, (bytes(data),))
        self._command += data
        self._chaining = not last
        if len(self._command) > MAX_COMMAND_APDU:
            self._forget()
            return self._refuse(header, SlotErrorCode.XFR_OVERRUN)
        if not last:
            return _reply(header, DataBlock(chain=ChainParameter.NEXT))
        apdu = bytes(self._command)
        self._command.clear()
        self._pending = header
        return ApduReceived(apdu)

    def _next_block(self, header: Header) -> Reply:
        """The next block of a response APDU."""
        piece, self._response = self._response[: self._capacity], self._response[self._capacity :]
        chain = ChainParameter.CONTINUES if self._response else ChainParameter.ENDS
        return _reply(header, DataBlock(piece, chain=chain))

    def _power_on(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, IccPowerOn)
        if command.power_select not in self._power_selects:
            return self._refuse(header, _OWN_INDEX)
        if self._icc is IccStatus.ABSENT:
            return self._refuse(header, SlotErrorCode.ICC_MUTE)
        self._pending = header
        return PowerOnRequested(command.power_select)

    def _power_off(self, header: Header, _command: Command) -> DeviceEvent:
        self._pending = header
        return PowerOffRequested()

    def _slot_status(self, header: Header, _command: Command) -> DeviceEvent:
        return _reply(header, SlotStatus(Status(self._icc), clock=self._clock))

    def _get_parameters(self, header: Header, _command: Command) -> DeviceEvent:
        if self._icc is not IccStatus.ACTIVE:
            return self._refuse(header, SlotErrorCode.ICC_MUTE)
        return _reply(header, Parameters(self._parameters.protocol, self._parameters.data))

    def _reset_parameters(self, header: Header, command: Command) -> DeviceEvent:
        self._parameters = _DEFAULT_PARAMETERS
        return self._get_parameters(header, command)

    def _set_parameters(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, SetParameters)
        decode = _PARAMETER_DECODERS.get(command.protocol)
        if decode is None:
            return self._refuse(header, _OWN_INDEX)
        try:
            decode(command.data)
        except BadField as error:
            return self._refuse(header, error.index)
        if self._proposes and self._icc is _ACTIVE:
            self._pending, self._proposal = header, command
            return ParametersProposed(command.protocol, command.data[_FI_DI_INDEX])
        self._parameters = command
        return self._get_parameters(header, command)

    @property
    def _proposes(self) -> bool:
        """At the APDU levels the card's protocol is the reader's own affair."""
        return self._level is ExchangeLevel.TPDU and Features.AUTO_PPS in self._features

    def _escape(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, Escape)
        self._pending = header
        return EscapeReceived(b"".join(command.data))

    def _icc_clock(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, IccClock)
        if command.command not in _CLOCK_COMMANDS:
            return self._refuse(header, _OWN_INDEX)
        self._clock = ClockStatus.STOPPED_LOW if command.command == ClockCommand.STOP else ClockStatus.RUNNING
        return self._slot_status(header, command)

    def _set_rates(self, header: Header, command: Command) -> DeviceEvent:
        assert isinstance(command, SetDataRateAndClockFrequency)
        rates = (command.clock_frequency, command.data_rate)
        return _reply(header, DataRateAndClockFrequency(*rates, Status(self._icc)))

    def _abort(self, header: Header) -> Reply | None:
        """Answered when the ABORT request with the same number was there too, in either order."""
        if self._aborting == header.seq:
            return self._aborted(header.seq)
        self._abort_sent = header.seq
        return None

    def _aborted(self, seq: int) -> Reply:
        self._pending = self._aborting = self._abort_sent = None
        self._forget()
        header = Header(MessageType.ABORT, 0, _SLOT, seq)
        return _reply(header, SlotStatus(Status(self._icc), clock=self._clock))

    # --- Answers -----------------------------------------------------------------------------------------------

    def _answer_apdu(self, header: Header, response: bytes) -> Reply:
        if len(response) <= self._capacity:
            return _reply(header, _new(DataBlock, (response, _OK, 0, _WHOLE)))
        if self._level is not ExchangeLevel.EXTENDED_APDU:
            return self._refuse(header, SlotErrorCode.XFR_OVERRUN)
        self._response = response[self._capacity :]
        return _reply(header, DataBlock(response[: self._capacity], chain=ChainParameter.BEGINS))

    def _answer_power_on(self, header: Header, atr: bytes) -> Reply:
        self._forget()
        self._icc = IccStatus.ACTIVE
        self._clock = ClockStatus.RUNNING
        self._parameters = _parameters_from(atr)
        return _reply(header, DataBlock(atr))

    def _answer_power_off(self, header: Header) -> Reply:
        self._forget()
        self._clock = ClockStatus.STOPPED_LOW
        if self._icc is IccStatus.ACTIVE:
            self._icc = IccStatus.INACTIVE
        return _reply(header, SlotStatus(Status(self._icc), clock=self._clock))

    def _refuse(self, header: Header, code: int) -> Reply:
        icc = self._icc if header.slot == _SLOT else IccStatus.ABSENT
        make = _FAILURES.get(header.message_type, SlotStatus)
        return _reply(header, make(Status(icc, CommandStatus.FAILED), code))

    def _take_pending(self) -> Header:
        header, self._pending = self._pending, None
        if header is None:
            raise RuntimeError("no command waits for an answer")
        return header

    def _forget(self) -> None:
        """No APDU is under way in pieces."""
        self._command.clear()
        self._chaining = False
        self._response = b""


def _reply(header: Header, response: Response) -> Reply:
    return _new(Reply, (b"".join(response.encode(header.slot, header.seq)),))


def _power_selects(descriptor: CcidDescriptor) -> frozenset[PowerSelect]:
    """What bPowerSelect may be; a reader that chooses the voltage itself is not told apart from one that is told."""
    selects = frozenset(descriptor.power_selects)
    return _POWER_SELECTS if PowerSelect.AUTOMATIC in selects else selects


def _parameters_from(atr: bytes) -> SetParameters:
    """What a reader sets by itself (AUTO_PARAMETERS_FROM_ATR); a broken ATR is for the host to see."""
    try:
        return parameters_for(Atr.decode(atr))
    except HardwareError:
        return _DEFAULT_PARAMETERS
