"""The messages between host and reader (CCID 1.10, 6.1 to 6.3).

A message is its content. What stands around it, slot and sequence number, is its :class:`Header`: the state
machines number the messages. ``encode`` gives a gather list, the 10 header bytes first; data is passed on
uncopied. No ``repr`` shows data, because it may hold a PIN.
"""

import dataclasses
import struct
from typing import ClassVar, Final, NamedTuple, Self, TypeAlias

from demail_hw.ccid.code_points import (
    ChainParameter,
    ClockStatus,
    CommandStatus,
    IccStatus,
    LevelParameter,
    MessageType,
    PowerSelect,
)
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer, Buffers

__all__ = [
    "Abort",
    "BadField",
    "Command",
    "DataBlock",
    "DataRateAndClockFrequency",
    "Escape",
    "EscapeData",
    "GetParameters",
    "GetSlotStatus",
    "HardwareFault",
    "Header",
    "IccClock",
    "IccPowerOff",
    "IccPowerOn",
    "Mechanical",
    "NotifySlotChange",
    "Parameters",
    "ResetParameters",
    "Response",
    "Secure",
    "SetDataRateAndClockFrequency",
    "SetParameters",
    "SlotChange",
    "SlotStatus",
    "Status",
    "T0Apdu",
    "XfrBlock",
    "decode_command",
    "decode_interrupt",
    "decode_response",
]

_HEADER = struct.Struct("<BIBBBBB")
_BLOCK_HEADER = struct.Struct("<BIBBBH")
_RATES = struct.Struct("<II")
_HARDWARE_ERROR = struct.Struct("<BBBB")

_TYPE_INDEX: Final = 0
_LENGTH_INDEX: Final = 1
_STATUS_INDEX: Final = 7

# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__

_BITS_PER_SLOT: Final = 2
_PRESENT: Final = 1
_CHANGED: Final = 2


class BadField(ProtocolViolation):
    """A message with an impossible field. ``index``: where in the message; a reader answers it as bError."""

    default_layer = Layer.READER

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class Header(NamedTuple):
    """The 10 bytes in front of a message's data (CCID 1.10, 6.1 and 6.2); bytes 7 to 9 are the message's own."""

    message_type: int
    length: int
    slot: int
    seq: int
    byte7: int = 0
    byte8: int = 0
    byte9: int = 0

    def encode(self) -> bytes:
        """10 bytes, little endian."""
        return _HEADER.pack(*self)

    @classmethod
    def decode(cls, message: bytes) -> "Header":
        """Read the first 10 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if there are fewer.
        """
        if len(message) < HEADER_SIZE:
            raise BadField(f"A CCID message of {len(message)} bytes does not hold its header.", len(message))
        return _new(cls, _HEADER.unpack_from(message))


class _Message:
    """What all messages share."""

    __slots__ = ()
    message_type: ClassVar[MessageType]


class _Bare(_Message):
    """A command without data and without fields of its own."""

    __slots__ = ()

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, 0, slot, seq).encode(),)

    @classmethod
    def decode(cls, _header: Header, payload: bytes) -> Self:
        """No field."""
        _expect(cls, payload, 0)
        return cls()


class _BlockFields(NamedTuple):
    data: Buffers
    level: int = LevelParameter.WHOLE
    waiting: int = 0


class _Block(_Message, _BlockFields):
    """A command with data at a level. Named tuples are made at half the price, and each card command makes two."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(level={self.level!r}, waiting={self.waiting!r})"

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        data, level, waiting = self
        length = sum(map(len, data))
        return (_BLOCK_HEADER.pack(self.message_type, length, slot, seq, waiting, level), *data)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> Self:
        """Read bBWI, wLevelParameter and the data."""
        return _new(cls, ((payload,) if payload else (), header.byte8 | header.byte9 << 8, header.byte7))


def _expect(message: type[_Message], payload: bytes, *lengths: int) -> None:
    if len(payload) not in lengths:
        raise BadField(f"{message.__name__} with {len(payload)} bytes of data.", _LENGTH_INDEX)


# --- Host to reader --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class IccPowerOn(_Message):
    """PC_to_RDR_IccPowerOn (6.1.1); the answer is a :class:`DataBlock` with the ATR."""

    message_type = MessageType.ICC_POWER_ON
    power_select: int = PowerSelect.AUTOMATIC

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, 0, slot, seq, self.power_select).encode(),)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "IccPowerOn":
        """Read bPowerSelect."""
        _expect(cls, payload, 0)
        return cls(header.byte7)


@dataclasses.dataclass(frozen=True, slots=True)
class IccPowerOff(_Bare):
    """PC_to_RDR_IccPowerOff (6.1.2); the answer is a :class:`SlotStatus`."""

    message_type = MessageType.ICC_POWER_OFF


@dataclasses.dataclass(frozen=True, slots=True)
class GetSlotStatus(_Bare):
    """PC_to_RDR_GetSlotStatus (6.1.3); the answer is a :class:`SlotStatus`."""

    message_type = MessageType.GET_SLOT_STATUS


class XfrBlock(_Block):
    """PC_to_RDR_XfrBlock (6.1.4): data for the card, as a gather list; the answer is a :class:`DataBlock`.

    ``level``: wLevelParameter, a :class:`~demail_hw.ccid.code_points.LevelParameter` at the extended-APDU level.
    ``waiting``: bBWI, the factor by which the block waiting time is extended for this block.
    """

    __slots__ = ()
    message_type = MessageType.XFR_BLOCK


@dataclasses.dataclass(frozen=True, slots=True)
class GetParameters(_Bare):
    """PC_to_RDR_GetParameters (6.1.5); the answer is :class:`Parameters`."""

    message_type = MessageType.GET_PARAMETERS


@dataclasses.dataclass(frozen=True, slots=True)
class ResetParameters(_Bare):
    """PC_to_RDR_ResetParameters (6.1.6); the answer is :class:`Parameters`."""

    message_type = MessageType.RESET_PARAMETERS


@dataclasses.dataclass(frozen=True, slots=True)
class SetParameters(_Message):
    """PC_to_RDR_SetParameters (6.1.7); the answer is :class:`Parameters`.

    ``data``: an encoded :class:`~demail_hw.ccid.parameters.T0ProtocolData` or
    :class:`~demail_hw.ccid.parameters.T1ProtocolData`, as ``protocol`` says.
    """

    message_type = MessageType.SET_PARAMETERS
    protocol: int
    data: bytes

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, len(self.data), slot, seq, self.protocol).encode(), self.data)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "SetParameters":
        """Read bProtocolNum and its structure."""
        return cls(header.byte7, payload)


@dataclasses.dataclass(frozen=True, slots=True)
class Escape(_Message):
    """PC_to_RDR_Escape (6.1.8), for what the vendor defines; the answer is :class:`EscapeData`."""

    message_type = MessageType.ESCAPE
    data: Buffers = dataclasses.field(repr=False)

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, sum(map(len, self.data)), slot, seq).encode(), *self.data)

    @classmethod
    def decode(cls, _header: Header, payload: bytes) -> "Escape":
        """Read the vendor's bytes."""
        return cls((payload,) if payload else ())


@dataclasses.dataclass(frozen=True, slots=True)
class IccClock(_Message):
    """PC_to_RDR_IccClock (6.1.9); the answer is a :class:`SlotStatus`."""

    message_type = MessageType.ICC_CLOCK
    command: int

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, 0, slot, seq, self.command).encode(),)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "IccClock":
        """Read bClockCommand."""
        _expect(cls, payload, 0)
        return cls(header.byte7)


@dataclasses.dataclass(frozen=True, slots=True)
class T0Apdu(_Message):
    """PC_to_RDR_T0APDU (6.1.10): how T=0 is made of APDUs; the answer is a :class:`SlotStatus`."""

    message_type = MessageType.T0_APDU
    changes: int
    class_get_response: int
    class_envelope: int

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        own = (self.changes, self.class_get_response, self.class_envelope)
        return (Header(self.message_type, 0, slot, seq, *own).encode(),)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "T0Apdu":
        """Read bmChanges, bClassGetResponse and bClassEnvelope."""
        _expect(cls, payload, 0)
        return cls(header.byte7, header.byte8, header.byte9)


class Secure(_Block):
    """PC_to_RDR_Secure (6.1.11): a PIN pad operation; the answer is a :class:`DataBlock`."""

    __slots__ = ()
    message_type = MessageType.SECURE


@dataclasses.dataclass(frozen=True, slots=True)
class Mechanical(_Message):
    """PC_to_RDR_Mechanical (6.1.12); the answer is a :class:`SlotStatus`."""

    message_type = MessageType.MECHANICAL
    function: int

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        return (Header(self.message_type, 0, slot, seq, self.function).encode(),)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "Mechanical":
        """Read bFunction."""
        _expect(cls, payload, 0)
        return cls(header.byte7)


@dataclasses.dataclass(frozen=True, slots=True)
class Abort(_Bare):
    """PC_to_RDR_Abort (6.1.13), with the number of the ABORT request before it; the answer is a
    :class:`SlotStatus`."""

    message_type = MessageType.ABORT


@dataclasses.dataclass(frozen=True, slots=True)
class SetDataRateAndClockFrequency(_Message):
    """PC_to_RDR_SetDataRateAndClockFrequency (6.1.14), in kHz and bit/s; the answer is
    :class:`DataRateAndClockFrequency`."""

    message_type = MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY
    clock_frequency: int
    data_rate: int

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        head = Header(self.message_type, _RATES.size, slot, seq).encode()
        return (head, _RATES.pack(self.clock_frequency, self.data_rate))

    @classmethod
    def decode(cls, _header: Header, payload: bytes) -> "SetDataRateAndClockFrequency":
        """Read dwClockFrequency and dwDataRate."""
        _expect(cls, payload, _RATES.size)
        return cls(*_RATES.unpack(payload))


# --- Reader to host --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """bStatus (CCID 1.10, 6.2.6): the card's state, and how the command ended."""

    icc: IccStatus = IccStatus.ACTIVE
    command: CommandStatus = CommandStatus.OK

    def encode(self) -> int:
        """One byte."""
        return self.icc | self.command

    @staticmethod
    def decode(byte: int) -> "Status":
        """Read one byte; bits 2 to 5 are reserved and not looked at.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` for a reserved value of the others.
        """
        try:
            return _STATUSES[byte & _STATUS_MASK]
        except KeyError:
            raise BadField(f"A CCID message with the reserved status {byte:#04x}.", _STATUS_INDEX) from None


_STATUS_MASK: Final = 0xC3
_OK: Final = Status()
_STATUSES: Final = {icc | command: Status(icc, command) for icc in IccStatus for command in CommandStatus}


class _DataBlockFields(NamedTuple):
    data: bytes = b""
    status: Status = _OK
    error: int = 0
    chain: int = ChainParameter.WHOLE


class DataBlock(_Message, _DataBlockFields):
    """RDR_to_PC_DataBlock (6.2.1): an ATR, or what the card answered. ``chain``: bChainParameter."""

    __slots__ = ()
    message_type = MessageType.DATA_BLOCK

    def __repr__(self) -> str:
        return f"DataBlock(status={self.status!r}, error={self.error!r}, chain={self.chain!r})"

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        data, status, error, chain = self
        return (_HEADER.pack(self.message_type, len(data), slot, seq, status.encode(), error, chain), data)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "DataBlock":
        """Read status, error, bChainParameter and the data."""
        return _new(cls, (payload, Status.decode(header.byte7), header.byte8, header.byte9))


@dataclasses.dataclass(frozen=True, slots=True)
class SlotStatus(_Message):
    """RDR_to_PC_SlotStatus (6.2.2). ``clock``: bClockStatus."""

    message_type = MessageType.SLOT_STATUS
    status: Status = _OK
    error: int = 0
    clock: int = ClockStatus.RUNNING

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        own = (self.status.encode(), self.error, self.clock)
        return (Header(self.message_type, 0, slot, seq, *own).encode(),)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "SlotStatus":
        """Read status, error and bClockStatus."""
        _expect(cls, payload, 0)
        return cls(Status.decode(header.byte7), header.byte8, header.byte9)


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters(_Message):
    """RDR_to_PC_Parameters (6.2.3): ``data`` is the structure that ``protocol`` says, empty on failure."""

    message_type = MessageType.PARAMETERS
    protocol: int
    data: bytes
    status: Status = _OK
    error: int = 0

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        own = (self.status.encode(), self.error, self.protocol)
        return (Header(self.message_type, len(self.data), slot, seq, *own).encode(), self.data)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "Parameters":
        """Read status, error, bProtocolNum and its structure."""
        return cls(header.byte9, payload, Status.decode(header.byte7), header.byte8)


@dataclasses.dataclass(frozen=True, slots=True)
class EscapeData(_Message):
    """RDR_to_PC_Escape (6.2.4): what the vendor's reader answered."""

    message_type = MessageType.ESCAPE_DATA
    data: bytes = dataclasses.field(default=b"", repr=False)
    status: Status = _OK
    error: int = 0

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        own = (self.status.encode(), self.error)
        return (Header(self.message_type, len(self.data), slot, seq, *own).encode(), self.data)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "EscapeData":
        """Read status, error and the vendor's bytes."""
        return cls(payload, Status.decode(header.byte7), header.byte8)


@dataclasses.dataclass(frozen=True, slots=True)
class DataRateAndClockFrequency(_Message):
    """RDR_to_PC_DataRateAndClockFrequency (6.2.5), in kHz and bit/s; zeros, without data, on failure."""

    message_type = MessageType.DATA_RATE_AND_CLOCK_FREQUENCY
    clock_frequency: int = 0
    data_rate: int = 0
    status: Status = _OK
    error: int = 0

    def encode(self, slot: int, seq: int) -> Buffers:
        """The message as a gather list."""
        failed = self.status.command is CommandStatus.FAILED
        rates = b"" if failed else _RATES.pack(self.clock_frequency, self.data_rate)
        own = (self.status.encode(), self.error)
        return (Header(self.message_type, len(rates), slot, seq, *own).encode(), rates)

    @classmethod
    def decode(cls, header: Header, payload: bytes) -> "DataRateAndClockFrequency":
        """Read status, error, dwClockFrequency and dwDataRate."""
        status = Status.decode(header.byte7)
        if status.command is not CommandStatus.OK:
            return cls(0, 0, status, header.byte8)
        _expect(cls, payload, _RATES.size)
        clock_frequency, data_rate = _RATES.unpack(payload)
        return cls(clock_frequency, data_rate, status, header.byte8)


Command: TypeAlias = (
    IccPowerOn
    | IccPowerOff
    | GetSlotStatus
    | XfrBlock
    | GetParameters
    | ResetParameters
    | SetParameters
    | Escape
    | IccClock
    | T0Apdu
    | Secure
    | Mechanical
    | Abort
    | SetDataRateAndClockFrequency
)
"""What the host sends on the bulk-OUT endpoint."""

Response: TypeAlias = DataBlock | SlotStatus | Parameters | EscapeData | DataRateAndClockFrequency
"""What the reader sends on the bulk-IN endpoint."""

_COMMANDS: Final[dict[int, type[Command]]] = {
    message.message_type: message
    for message in (
        IccPowerOn,
        IccPowerOff,
        GetSlotStatus,
        XfrBlock,
        GetParameters,
        ResetParameters,
        SetParameters,
        Escape,
        IccClock,
        T0Apdu,
        Secure,
        Mechanical,
        Abort,
        SetDataRateAndClockFrequency,
    )
}
_RESPONSES: Final[dict[int, type[Response]]] = {
    message.message_type: message
    for message in (DataBlock, SlotStatus, Parameters, EscapeData, DataRateAndClockFrequency)
}


def decode_command(message: bytes) -> tuple[Header, Command]:
    """Read a whole bulk-OUT message, as a reader does.

    Errors: :class:`BadField`, a :class:`~demail_hw.errors.ProtocolViolation`.
    """
    header = Header.decode(message)
    kind = _COMMANDS.get(header.message_type)
    if kind is None:
        raise BadField(f"No CCID command has the type {header.message_type:#04x}.", _TYPE_INDEX)
    return header, kind.decode(header, _payload(header, message))


def decode_response(message: bytes) -> tuple[Header, Response]:
    """Read a whole bulk-IN message, as a host does.

    Errors: :class:`BadField`, a :class:`~demail_hw.errors.ProtocolViolation`.
    """
    header = Header.decode(message)
    kind = _RESPONSES.get(header.message_type)
    if kind is None:
        raise BadField(f"No CCID response has the type {header.message_type:#04x}.", _TYPE_INDEX)
    return header, kind.decode(header, _payload(header, message))


def _payload(header: Header, message: bytes) -> bytes:
    if header.length != len(message) - HEADER_SIZE:
        received = len(message) - HEADER_SIZE
        raise BadField(f"A CCID message announces {header.length} bytes of data and has {received}.", _LENGTH_INDEX)
    return message[HEADER_SIZE:]


# --- Interrupt endpoint ----------------------------------------------------------------------------------------


class SlotChange(NamedTuple):
    """One slot in a :class:`NotifySlotChange`."""

    present: bool
    changed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class NotifySlotChange:
    """RDR_to_PC_NotifySlotChange (6.3.1): a card came or went."""

    slots: tuple[SlotChange, ...]

    def encode(self) -> bytes:
        """The type and two bits a slot."""
        pairs = (slot.present * _PRESENT | slot.changed * _CHANGED for slot in self.slots)
        bits = sum(pair << _BITS_PER_SLOT * index for index, pair in enumerate(pairs))
        length = -(-len(self.slots) * _BITS_PER_SLOT // 8)
        return bytes((MessageType.NOTIFY_SLOT_CHANGE,)) + bits.to_bytes(length, "little")

    @classmethod
    def decode(cls, message: Buffer) -> "NotifySlotChange":
        """Read it; padding bits look like empty slots."""
        bits = int.from_bytes(message[1:], "little")
        shifts = range(0, 8 * (len(message) - 1), _BITS_PER_SLOT)
        return cls(
            tuple(SlotChange(bool(bits >> shift & _PRESENT), bool(bits >> shift & _CHANGED)) for shift in shifts)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class HardwareFault:
    """RDR_to_PC_HardwareError (6.3.2). ``code``: 1 for overcurrent."""

    slot: int
    seq: int
    code: int

    def encode(self) -> bytes:
        """4 bytes."""
        return _HARDWARE_ERROR.pack(MessageType.HARDWARE_ERROR, self.slot, self.seq, self.code)

    @classmethod
    def decode(cls, message: Buffer) -> "HardwareFault":
        """Read 4 bytes."""
        if len(message) != _HARDWARE_ERROR.size:
            raise BadField(f"HardwareError with {len(message)} bytes.", len(message))
        _, slot, seq, code = _HARDWARE_ERROR.unpack(message)
        return cls(slot, seq, code)


def decode_interrupt(message: Buffer) -> NotifySlotChange | HardwareFault:
    """Read what came from the interrupt endpoint.

    Errors: :class:`BadField`, a :class:`~demail_hw.errors.ProtocolViolation`.
    """
    kind = message[0] if len(message) else None
    if kind == MessageType.NOTIFY_SLOT_CHANGE and len(message) > 1:
        return NotifySlotChange.decode(message)
    if kind == MessageType.HARDWARE_ERROR:
        return HardwareFault.decode(message)
    raise BadField(f"{len(message)} bytes from the interrupt endpoint are no CCID message.", _TYPE_INDEX)
