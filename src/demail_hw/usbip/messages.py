"""The messages of USB/IP 1.1.1 (Linux, Documentation/usb/usbip_protocol.rst); all integers are big endian.

A connection has two phases. In the *operation phase* the client asks for the device list or imports one device;
after an import, the *URB phase* carries 48-byte headers, each followed by the data of its transfer.
Isochronous transfers are not spoken: no smartcard reader has any.
"""

import dataclasses
import enum
import struct
from typing import Final, NamedTuple, NoReturn

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer

__all__ = [
    "BUS_ID_SIZE",
    "COUNT_SIZE",
    "DEFAULT_PORT",
    "DEVICE_SIZE",
    "HEADER_SIZE",
    "INTERFACE_SIZE",
    "MAX_BUS_ID",
    "MAX_DEVICES",
    "MAX_ENDPOINT",
    "MAX_INTERFACES",
    "MAX_PENDING",
    "MAX_SEQNUM",
    "MAX_TRANSFER_LENGTH",
    "NO_SETUP",
    "OP_HEADER_SIZE",
    "VERSION",
    "CmdSubmit",
    "CmdUnlink",
    "Command",
    "DevlistEntry",
    "Direction",
    "OpCode",
    "OpHeader",
    "OpRepDevlist",
    "OpRepImport",
    "OpReqDevlist",
    "OpReqImport",
    "RetSubmit",
    "RetUnlink",
    "TransferFlag",
    "UrbStatus",
    "UsbDevice",
    "UsbInterface",
    "UsbSpeed",
    "UsbipStatus",
    "decode_bus_id",
    "decode_count",
    "decode_reply",
    "decode_request",
]

DEFAULT_PORT: Final = 3240
VERSION: Final = 0x0111

OP_HEADER_SIZE: Final = 8
COUNT_SIZE: Final = 4
DEVICE_SIZE: Final = 312
INTERFACE_SIZE: Final = 4
BUS_ID_SIZE: Final = 32
HEADER_SIZE: Final = 48

NO_SETUP: Final = bytes(8)
"""The setup field of a transfer that is not a control transfer."""

# Limits on what a peer may send; each is far above what a smartcard reader needs.
MAX_TRANSFER_LENGTH: Final = 1 << 20
MAX_DEVICES: Final = 256
MAX_INTERFACES: Final = 32
MAX_ENDPOINT: Final = 15
MAX_PENDING: Final = 64
MAX_BUS_ID: Final = BUS_ID_SIZE - 1
MAX_SEQNUM: Final = 0xFFFFFFFF

_NO_PACKETS: Final = (0, -1)
"""number_of_packets of a transfer that is not isochronous: the document says 0xffffffff, Linux sends 0."""

_WORD: Final = 0xFFFF

_OP_HEADER = struct.Struct(">HHI")
_COUNT = struct.Struct(">I")
_DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
_INTERFACE = struct.Struct(">BBBx")
_BUS_ID = struct.Struct(">32s")
_CMD_SUBMIT = struct.Struct(">IIIIIIiiii8s")
_CMD_UNLINK = struct.Struct(">III8xI24x")
# devid, direction and ep are 0 in replies and are not looked at, as in Linux.
_RET_SUBMIT = struct.Struct(">II12xiiiii8x")
_RET_UNLINK = struct.Struct(">II12xi24x")


class OpCode(enum.IntEnum):
    """Codes of the operation phase. Those without a use on the wire are left out."""

    OP_REQ_IMPORT = 0x8003
    OP_REP_IMPORT = 0x0003
    OP_REQ_DEVLIST = 0x8005
    OP_REP_DEVLIST = 0x0005


class UsbipStatus(enum.IntEnum):
    """The status of an operation (Linux, tools/usb/usbip/src/usbip_network.h, ST_*)."""

    OK = 0
    NA = 1
    DEV_BUSY = 2
    DEV_ERR = 3
    NODEV = 4
    ERROR = 5


class Command(enum.IntEnum):
    """What a header of the URB phase is."""

    CMD_SUBMIT = 1
    CMD_UNLINK = 2
    RET_SUBMIT = 3
    RET_UNLINK = 4


# Looked up once: reaching for a member of an enum costs more than unpacking a header.
_CMD_SUBMIT_CODE: Final = int(Command.CMD_SUBMIT)
_CMD_UNLINK_CODE: Final = int(Command.CMD_UNLINK)
_RET_SUBMIT_CODE: Final = int(Command.RET_SUBMIT)
_RET_UNLINK_CODE: Final = int(Command.RET_UNLINK)


class Direction(enum.IntEnum):
    """Of a transfer, seen from the host."""

    OUT = 0
    IN = 1


_IN: Final = int(Direction.IN)


class UrbStatus(enum.IntEnum):
    """How a transfer ended: negative error numbers of Linux, whatever the platform."""

    OK = 0
    ENOENT = -2
    EIO = -5
    EXDEV = -18
    ENODEV = -19
    EINVAL = -22
    EPIPE = -32
    ETIME = -62
    EPROTO = -71
    EOVERFLOW = -75
    EILSEQ = -84
    ECONNRESET = -104
    ESHUTDOWN = -108
    ETIMEDOUT = -110
    EREMOTEIO = -121


class TransferFlag(enum.IntFlag):
    """transfer_flags as they are on the wire (USBIP_URB_*)."""

    SHORT_NOT_OK = 0x0001
    ISO_ASAP = 0x0002
    NO_TRANSFER_DMA_MAP = 0x0004
    ZERO_PACKET = 0x0040
    NO_INTERRUPT = 0x0080
    FREE_BUFFER = 0x0100
    DIR_IN = 0x0200


class UsbSpeed(enum.IntEnum):
    """Linux' usb_device_speed."""

    UNKNOWN = 0
    LOW = 1
    FULL = 2
    HIGH = 3
    WIRELESS = 4
    SUPER = 5
    SUPER_PLUS = 6


def _malformed(why: str) -> NoReturn:
    raise ProtocolViolation(f"The USB/IP peer broke the protocol: {why}.")


def _malformed_operation(why: str) -> NoReturn:
    raise ProtocolViolation(f"The USB/IP peer broke the protocol: {why}.", outcome=Outcome.NOT_SENT)


# --- Operation phase -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class OpHeader:
    """op_common: what every message of the operation phase begins with. ``status``: a :class:`UsbipStatus`."""

    code: int
    status: int = UsbipStatus.OK

    def encode(self) -> bytes:
        """8 bytes."""
        return _OP_HEADER.pack(VERSION, self.code, self.status)

    @classmethod
    def decode(cls, encoded: Buffer) -> "OpHeader":
        """Read 8 bytes. Errors: :class:`~demail_hw.errors.ProtocolViolation` if the version is not 1.1.1."""
        _need(encoded, OP_HEADER_SIZE)
        version, code, status = _OP_HEADER.unpack_from(encoded)
        if version != VERSION:
            _malformed_operation(f"its version is 0x{version:04x}, not 0x{VERSION:04x}")
        return cls(code, status)


@dataclasses.dataclass(frozen=True, slots=True)
class OpReqDevlist:
    """OP_REQ_DEVLIST: which devices are there to import?"""

    def encode(self) -> bytes:
        """8 bytes."""
        return OpHeader(OpCode.OP_REQ_DEVLIST).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class OpReqImport:
    """OP_REQ_IMPORT: let me have this device."""

    bus_id: str

    def encode(self) -> bytes:
        """40 bytes. ``ValueError`` if the bus id does not fit."""
        return OpHeader(OpCode.OP_REQ_IMPORT).encode() + _BUS_ID.pack(_encode_text(self.bus_id, BUS_ID_SIZE))


def decode_bus_id(encoded: Buffer) -> str:
    """The 32 bytes that follow the header of OP_REQ_IMPORT.

    Errors: :class:`~demail_hw.errors.ProtocolViolation`.
    """
    _need(encoded, BUS_ID_SIZE)
    (text,) = _BUS_ID.unpack_from(encoded)
    return _decode_text(text)


@dataclasses.dataclass(frozen=True, slots=True)
class UsbInterface:
    """An interface in a device list."""

    interface_class: int
    interface_subclass: int
    interface_protocol: int

    def encode(self) -> bytes:
        """4 bytes."""
        return _INTERFACE.pack(self.interface_class, self.interface_subclass, self.interface_protocol)

    @classmethod
    def decode(cls, encoded: Buffer) -> "UsbInterface":
        """Read 4 bytes."""
        _need(encoded, INTERFACE_SIZE)
        return cls(*_INTERFACE.unpack_from(encoded))


@dataclasses.dataclass(frozen=True, slots=True)
class UsbDevice:
    """usb_device: a device as the server names it. ``speed``: a :class:`UsbSpeed`."""

    path: str
    bus_id: str
    bus_number: int
    device_number: int
    speed: int
    vendor_id: int
    product_id: int
    device_version: int
    device_class: int
    device_subclass: int
    device_protocol: int
    configuration_value: int
    configurations: int
    interface_count: int

    @property
    def devid(self) -> int:
        """How the URB phase names it."""
        return self.bus_number << 16 | self.device_number

    def encode(self) -> bytes:
        """312 bytes. ``ValueError`` if a text does not fit."""
        return _DEVICE.pack(
            _encode_text(self.path, 256),
            _encode_text(self.bus_id, BUS_ID_SIZE),
            self.bus_number,
            self.device_number,
            self.speed,
            self.vendor_id,
            self.product_id,
            self.device_version,
            self.device_class,
            self.device_subclass,
            self.device_protocol,
            self.configuration_value,
            self.configurations,
            self.interface_count,
        )

    @classmethod
    def decode(cls, encoded: Buffer) -> "UsbDevice":
        """Read 312 bytes. Errors: :class:`~demail_hw.errors.ProtocolViolation`."""
        _need(encoded, DEVICE_SIZE)
        path, bus_id, *numbers = _DEVICE.unpack_from(encoded)
        device = cls(_decode_text(path), _decode_text(bus_id), *numbers)
        if (device.bus_number | device.device_number) & ~_WORD:
            _malformed_operation(f"device {device.bus_number}.{device.device_number} has no 16-bit numbers")
        if device.interface_count > MAX_INTERFACES:
            _malformed_operation(f"a device with {device.interface_count} interfaces")
        return device


@dataclasses.dataclass(frozen=True, slots=True)
class DevlistEntry:
    """A device of a device list, with its interfaces (``device.interface_count`` of them)."""

    device: UsbDevice
    interfaces: tuple[UsbInterface, ...] = ()

    def encode(self) -> bytes:
        """312 bytes and 4 for each interface."""
        return self.device.encode() + b"".join(interface.encode() for interface in self.interfaces)


@dataclasses.dataclass(frozen=True, slots=True)
class OpRepDevlist:
    """OP_REP_DEVLIST. ``devices`` is empty unless ``status`` is OK."""

    devices: tuple[DevlistEntry, ...] = ()
    status: int = UsbipStatus.OK

    def encode(self) -> bytes:
        """The whole reply."""
        head = OpHeader(OpCode.OP_REP_DEVLIST, self.status).encode()
        if self.status != UsbipStatus.OK:
            return head
        return head + _COUNT.pack(len(self.devices)) + b"".join(entry.encode() for entry in self.devices)


def decode_count(encoded: Buffer) -> int:
    """The number of devices in a device list.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` above :data:`MAX_DEVICES`.
    """
    _need(encoded, COUNT_SIZE)
    (count,) = _COUNT.unpack_from(encoded)
    if count > MAX_DEVICES:
        _malformed_operation(f"a list of {count} devices")
    return int(count)


@dataclasses.dataclass(frozen=True, slots=True)
class OpRepImport:
    """OP_REP_IMPORT. ``device`` is there exactly if ``status`` is OK."""

    device: UsbDevice | None
    status: int = UsbipStatus.OK

    def encode(self) -> bytes:
        """The whole reply."""
        head = OpHeader(OpCode.OP_REP_IMPORT, self.status).encode()
        return head if self.device is None else head + self.device.encode()


def _need(encoded: Buffer, size: int) -> None:
    if len(encoded) < size:
        _malformed_operation(f"{len(encoded)} bytes where {size} belong")


def _encode_text(text: str, size: int) -> bytes:
    raw = text.encode("ascii")
    if len(raw) >= size or "\0" in text:
        raise ValueError(f"{text!r} does not fit into {size} bytes with its NUL")
    return raw


def _decode_text(raw: bytes) -> str:
    text, nul, _ = raw.partition(b"\0")
    decoded = text.decode("latin-1")
    # What a server says is shown to people: no control characters.
    if not nul or not decoded.isascii() or not decoded.isprintable():
        _malformed_operation("a text is not printable ASCII or has no end")
    return decoded


# --- URB phase -------------------------------------------------------------------------------------------------
# Named tuples, and not dataclasses, with the fields in the order of the wire: two to four are made for each card
# command, at half the price; and ``_new`` makes one from its fields at half the price of calling its class.
_new: Final = tuple.__new__


class CmdSubmit(NamedTuple):
    """CMD_SUBMIT, without the data of an OUT transfer that follows it.

    ``endpoint``: 0 to 15, without direction. ``setup``: 8 bytes for endpoint 0, else :data:`NO_SETUP`.
    """

    seqnum: int
    devid: int
    direction: int
    endpoint: int
    transfer_flags: int
    transfer_buffer_length: int
    start_frame: int = 0
    number_of_packets: int = 0
    interval: int = 0
    setup: bytes = NO_SETUP

    def encode(self) -> bytes:
        """48 bytes."""
        return _CMD_SUBMIT.pack(_CMD_SUBMIT_CODE, *self)


class CmdUnlink(NamedTuple):
    """CMD_UNLINK: take back the transfer ``unlink_seqnum``."""

    seqnum: int
    devid: int
    unlink_seqnum: int

    def encode(self) -> bytes:
        """48 bytes."""
        return _CMD_UNLINK.pack(_CMD_UNLINK_CODE, *self)


class RetSubmit(NamedTuple):
    """RET_SUBMIT, without the data of an IN transfer that follows it. ``status``: an :class:`UrbStatus`."""

    seqnum: int
    status: int
    actual_length: int
    start_frame: int = 0
    number_of_packets: int = 0
    error_count: int = 0

    def encode(self) -> bytes:
        """48 bytes."""
        return _RET_SUBMIT.pack(_RET_SUBMIT_CODE, *self)


class RetUnlink(NamedTuple):
    """RET_UNLINK. ``seqnum`` is that of the CMD_UNLINK; ``status``: ECONNRESET if it was taken back."""

    seqnum: int
    status: int

    def encode(self) -> bytes:
        """48 bytes."""
        return _RET_UNLINK.pack(_RET_UNLINK_CODE, *self)


def decode_request(encoded: Buffer, offset: int = 0) -> CmdSubmit | CmdUnlink:
    """Read the header that a client sends, 48 bytes.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` if the command is unknown, a field is out of the limits, or
    the transfer is isochronous.
    """
    if len(encoded) - offset < HEADER_SIZE:
        _too_short(encoded, offset)
    command, seqnum, devid, direction, endpoint, flags, length, frame, packets, interval, setup = (
        _CMD_SUBMIT.unpack_from(encoded, offset)
    )
    if command == _CMD_UNLINK_CODE:
        # unlink_seqnum is where CMD_SUBMIT has its flags.
        return CmdUnlink(seqnum, devid, flags)
    if command != _CMD_SUBMIT_CODE:
        _malformed(f"the unknown command {command}")
    if direction > _IN or endpoint > MAX_ENDPOINT:
        _malformed(f"endpoint {endpoint} in direction {direction}")
    if not 0 <= length <= MAX_TRANSFER_LENGTH:
        _malformed(f"a transfer of {length} bytes")
    if packets not in _NO_PACKETS:
        _malformed(f"{packets} isochronous packets")
    return _new(CmdSubmit, (seqnum, devid, direction, endpoint, flags, length, frame, packets, interval, setup))


def decode_reply(encoded: Buffer, offset: int = 0) -> RetSubmit | RetUnlink:
    """Read the header that a server sends, 48 bytes.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` if the command is unknown or a field is out of the limits.
    """
    if len(encoded) - offset < HEADER_SIZE:
        _too_short(encoded, offset)
    command, seqnum, status, actual, frame, packets, errors = _RET_SUBMIT.unpack_from(encoded, offset)
    if status > 0:
        _malformed(f"the positive status {status}")
    if command == _RET_UNLINK_CODE:
        return RetUnlink(seqnum, status)
    if command != _RET_SUBMIT_CODE:
        _malformed(f"the unknown command {command}")
    if not 0 <= actual <= MAX_TRANSFER_LENGTH:
        _malformed(f"an answer of {actual} bytes")
    if packets not in _NO_PACKETS:
        _malformed(f"{packets} isochronous packets")
    return _new(RetSubmit, (seqnum, status, actual, frame, packets, errors))


def _too_short(encoded: Buffer, offset: int) -> NoReturn:
    _malformed(f"{len(encoded) - offset} bytes where a header of {HEADER_SIZE} belongs")
