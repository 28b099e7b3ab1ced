"""The setup packet of a control transfer and the standard requests (USB 2.0, 9.3 and 9.4)."""

import dataclasses
import enum
import struct
from typing import Final

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffer, Buffers

__all__ = [
    "SETUP_SIZE",
    "Feature",
    "Recipient",
    "RequestKind",
    "SetupPacket",
    "StandardRequest",
    "checked_request",
    "clear_endpoint_halt",
    "get_descriptor",
    "set_configuration",
]

SETUP_SIZE: Final = 8
"""The length of a setup packet in bytes (USB 2.0, 9.3)."""

_LAYOUT = struct.Struct("<BBHHH")
_DIRECTION_IN: Final = 0x80
_KIND_SHIFT: Final = 5
_KIND_MASK: Final = 0x03
_RECIPIENT_MASK: Final = 0x1F
_BYTE: Final = 0xFF
_WORD: Final = 0xFFFF


class RequestKind(enum.IntEnum):
    """Who defines a request: bits 6 and 5 of bmRequestType (USB 2.0, table 9-2)."""

    STANDARD = 0
    CLASS = 1
    VENDOR = 2
    RESERVED = 3


class Recipient(enum.IntEnum):
    """What a request is addressed to: bits 4 to 0 of bmRequestType (USB 2.0, table 9-2)."""

    DEVICE = 0
    INTERFACE = 1
    ENDPOINT = 2
    OTHER = 3


class StandardRequest(enum.IntEnum):
    """bRequest of the standard requests (USB 2.0, table 9-4)."""

    GET_STATUS = 0
    CLEAR_FEATURE = 1
    SET_FEATURE = 3
    SET_ADDRESS = 5
    GET_DESCRIPTOR = 6
    SET_DESCRIPTOR = 7
    GET_CONFIGURATION = 8
    SET_CONFIGURATION = 9
    GET_INTERFACE = 10
    SET_INTERFACE = 11
    SYNCH_FRAME = 12


class Feature(enum.IntEnum):
    """Feature selectors (USB 2.0, table 9-6)."""

    ENDPOINT_HALT = 0
    DEVICE_REMOTE_WAKEUP = 1
    TEST_MODE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class SetupPacket:
    """A setup packet: bmRequestType, bRequest, wValue, wIndex, wLength (USB 2.0, table 9-2).

    ``ValueError`` if a field is out of range.
    """

    request_type: int
    request: int
    value: int = 0
    index: int = 0
    length: int = 0

    def __post_init__(self) -> None:
        if (self.request_type | self.request) & ~_BYTE or (self.value | self.index | self.length) & ~_WORD:
            raise ValueError("bmRequestType and bRequest are one byte each, wValue, wIndex and wLength two")

    @property
    def direction_in(self) -> bool:
        """True if the data stage goes from the device to the host."""
        return bool(self.request_type & _DIRECTION_IN)

    @property
    def kind(self) -> RequestKind:
        """Who defines this request."""
        return RequestKind(self.request_type >> _KIND_SHIFT & _KIND_MASK)

    @property
    def recipient(self) -> int:
        """What it is addressed to; a :class:`Recipient` unless the host uses a reserved number."""
        return self.request_type & _RECIPIENT_MASK

    def encode(self) -> bytes:
        """8 bytes, little endian."""
        return _LAYOUT.pack(self.request_type, self.request, self.value, self.index, self.length)

    @classmethod
    def decode(cls, encoded: Buffer) -> "SetupPacket":
        """Read 8 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if there are more or fewer.
        """
        if len(encoded) != SETUP_SIZE:
            raise ProtocolViolation(f"A setup packet has {SETUP_SIZE} bytes, not {len(encoded)}.")
        return cls(*_LAYOUT.unpack(encoded))


def checked_request(setup: bytes, data: Buffers) -> SetupPacket:
    """The setup packet of a control transfer; ``data``: what is sent with it, nothing where it is an IN transfer.

    ``ValueError`` for a packet of another length, and for data that are not what it announces.
    """
    if len(setup) != SETUP_SIZE:
        raise ValueError(f"a setup packet has {SETUP_SIZE} bytes, not {len(setup)}")
    packet = SetupPacket.decode(setup)
    if sum(map(len, data)) != (0 if packet.direction_in else packet.length):
        raise ValueError(f"a control transfer of {packet.length} bytes with other data")
    return packet


def get_descriptor(descriptor_type: int, index: int, length: int, *, language: int = 0) -> SetupPacket:
    """GET_DESCRIPTOR (USB 2.0, 9.4.3) of the device: at most ``length`` bytes."""
    return SetupPacket(_DIRECTION_IN, StandardRequest.GET_DESCRIPTOR, descriptor_type << 8 | index, language, length)


def set_configuration(value: int) -> SetupPacket:
    """SET_CONFIGURATION (USB 2.0, 9.4.7)."""
    return SetupPacket(Recipient.DEVICE, StandardRequest.SET_CONFIGURATION, value)


def clear_endpoint_halt(endpoint: int) -> SetupPacket:
    """CLEAR_FEATURE(ENDPOINT_HALT) of the endpoint with this address (USB 2.0, 9.4.1)."""
    return SetupPacket(Recipient.ENDPOINT, StandardRequest.CLEAR_FEATURE, Feature.ENDPOINT_HALT, endpoint)
