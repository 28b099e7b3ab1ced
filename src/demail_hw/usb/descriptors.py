"""Descriptors (USB 2.0, 9.5 and 9.6): strict, and bounded by what their length fields can say.

A descriptor is read before any command is sent, so that errors in it never leave the card in doubt.
"""

import dataclasses
import enum
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer

__all__ = [
    "CONFIGURATION_HEADER_SIZE",
    "DEVICE_DESCRIPTOR_SIZE",
    "LANGUAGE_ENGLISH_US",
    "MAX_STRING_DESCRIPTOR",
    "SMART_CARD_CLASS",
    "ConfigurationDescriptor",
    "DescriptorType",
    "DeviceDescriptor",
    "EndpointDescriptor",
    "InterfaceDescriptor",
    "TransferType",
    "configuration_total_length",
    "decode_string",
    "encode_languages",
    "encode_string",
]

DEVICE_DESCRIPTOR_SIZE: Final = 18
CONFIGURATION_HEADER_SIZE: Final = 9
LANGUAGE_ENGLISH_US: Final = 0x0409
SMART_CARD_CLASS: Final = 0x0B
"""bInterfaceClass of a CCID reader (CCID 1.10, 5.1)."""
MAX_STRING_DESCRIPTOR: Final = 255
"""The most bytes that a string descriptor has: its bLength is one byte."""

_HEADER_SIZE: Final = 2
_INTERFACE_SIZE: Final = 9
_ENDPOINT_SIZE: Final = 7
_DIRECTION_IN: Final = 0x80
_TRANSFER_TYPE_MASK: Final = 0x03
_SELF_POWERED: Final = 0x40

_DEVICE = struct.Struct("<BBHBBBBHHHBBBB")
_CONFIGURATION = struct.Struct("<BBHBBBBB")
_INTERFACE = struct.Struct("<BBBBBBBBB")
_ENDPOINT = struct.Struct("<BBBBHB")
_LANGUAGE = struct.Struct("<H")


class DescriptorType(enum.IntEnum):
    """bDescriptorType (USB 2.0, table 9-5)."""

    DEVICE = 1
    CONFIGURATION = 2
    STRING = 3
    INTERFACE = 4
    ENDPOINT = 5
    DEVICE_QUALIFIER = 6
    OTHER_SPEED_CONFIGURATION = 7
    INTERFACE_POWER = 8


class TransferType(enum.IntEnum):
    """What an endpoint is for: bits 1 and 0 of bmAttributes (USB 2.0, table 9-13)."""

    CONTROL = 0
    ISOCHRONOUS = 1
    BULK = 2
    INTERRUPT = 3


def _malformed(what: str, why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The {what} descriptor is malformed: {why}.", outcome=Outcome.NOT_SENT)


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceDescriptor:
    """The device descriptor, 18 bytes (USB 2.0, 9.6.1). Versions are BCD: 0x0110 is 1.10."""

    usb_version: int
    device_class: int
    device_subclass: int
    device_protocol: int
    max_packet_size: int
    vendor_id: int
    product_id: int
    device_version: int
    manufacturer_index: int
    product_index: int
    serial_index: int
    configurations: int

    def encode(self) -> bytes:
        """18 bytes."""
        return _DEVICE.pack(
            DEVICE_DESCRIPTOR_SIZE,
            DescriptorType.DEVICE,
            self.usb_version,
            self.device_class,
            self.device_subclass,
            self.device_protocol,
            self.max_packet_size,
            self.vendor_id,
            self.product_id,
            self.device_version,
            self.manufacturer_index,
            self.product_index,
            self.serial_index,
            self.configurations,
        )

    @classmethod
    def decode(cls, encoded: Buffer) -> "DeviceDescriptor":
        """Read 18 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`.
        """
        if len(encoded) != DEVICE_DESCRIPTOR_SIZE:
            raise _malformed("device", f"it has {len(encoded)} bytes, not {DEVICE_DESCRIPTOR_SIZE}")
        length, kind, *fields = _DEVICE.unpack(encoded)
        if (length, kind) != (DEVICE_DESCRIPTOR_SIZE, DescriptorType.DEVICE):
            raise _malformed("device", f"its header says length {length}, type {kind}")
        return cls(*fields)


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointDescriptor:
    """An endpoint (USB 2.0, 9.6.6). ``address`` has the direction bit (0x80 = IN); ``interval`` is bInterval.

    ``extra``: the class descriptors that follow it.
    """

    address: int
    attributes: int
    max_packet_size: int
    interval: int
    extra: bytes = b""

    @property
    def direction_in(self) -> bool:
        """True if it sends to the host."""
        return bool(self.address & _DIRECTION_IN)

    @property
    def transfer_type(self) -> TransferType:
        """What it is for."""
        return TransferType(self.attributes & _TRANSFER_TYPE_MASK)

    def encode(self) -> bytes:
        """7 bytes and ``extra``."""
        return (
            _ENDPOINT.pack(
                _ENDPOINT_SIZE,
                DescriptorType.ENDPOINT,
                self.address,
                self.attributes,
                self.max_packet_size,
                self.interval,
            )
            + self.extra
        )

    @classmethod
    def decode(cls, encoded: Buffer, extra: bytes = b"") -> "EndpointDescriptor":
        """Read one endpoint descriptor of 7 bytes."""
        if len(encoded) != _ENDPOINT_SIZE:
            raise _malformed("endpoint", f"it has {len(encoded)} bytes, not {_ENDPOINT_SIZE}")
        _, _, address, attributes, max_packet_size, interval = _ENDPOINT.unpack(encoded)
        return cls(address, attributes, max_packet_size, interval, extra)


@dataclasses.dataclass(frozen=True, slots=True)
class InterfaceDescriptor:
    """One alternate setting of an interface (USB 2.0, 9.6.5), with its endpoints.

    ``extra``: the class descriptors between it and its first endpoint.
    """

    number: int
    alternate_setting: int
    interface_class: int
    interface_subclass: int
    interface_protocol: int
    string_index: int
    endpoints: tuple[EndpointDescriptor, ...] = ()
    extra: bytes = b""

    def endpoint(self, transfer_type: TransferType, *, direction_in: bool) -> EndpointDescriptor | None:
        """Its first endpoint of this kind."""
        for endpoint in self.endpoints:
            if endpoint.transfer_type is transfer_type and endpoint.direction_in is direction_in:
                return endpoint
        return None

    def encode(self) -> bytes:
        """The interface descriptor, ``extra``, and the endpoints."""
        head = _INTERFACE.pack(
            _INTERFACE_SIZE,
            DescriptorType.INTERFACE,
            self.number,
            self.alternate_setting,
            len(self.endpoints),
            self.interface_class,
            self.interface_subclass,
            self.interface_protocol,
            self.string_index,
        )
        return head + self.extra + b"".join(endpoint.encode() for endpoint in self.endpoints)

    @classmethod
    def decode(
        cls, encoded: Buffer, endpoints: Sequence[EndpointDescriptor] = (), extra: bytes = b""
    ) -> "InterfaceDescriptor":
        """Read one interface descriptor of 9 bytes, to which these endpoints belong."""
        if len(encoded) != _INTERFACE_SIZE:
            raise _malformed("interface", f"it has {len(encoded)} bytes, not {_INTERFACE_SIZE}")
        _, _, number, setting, count, kind, subclass, protocol, string_index = _INTERFACE.unpack(encoded)
        if count != len(endpoints):
            raise _malformed("interface", f"it announces {count} endpoints and has {len(endpoints)}")
        return cls(number, setting, kind, subclass, protocol, string_index, tuple(endpoints), extra)


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigurationDescriptor:
    """A whole configuration (USB 2.0, 9.6.3). ``max_power`` in units of 2 mA.

    ``extra``: what stands before the first interface.
    """

    value: int
    string_index: int
    attributes: int
    max_power: int
    interfaces: tuple[InterfaceDescriptor, ...] = ()
    extra: bytes = b""

    @property
    def self_powered(self) -> bool:
        """Bit 6 of bmAttributes."""
        return bool(self.attributes & _SELF_POWERED)

    def encode(self) -> bytes:
        """All descriptors in a row; wTotalLength and bNumInterfaces are counted."""
        body = self.extra + b"".join(interface.encode() for interface in self.interfaces)
        head = _CONFIGURATION.pack(
            CONFIGURATION_HEADER_SIZE,
            DescriptorType.CONFIGURATION,
            CONFIGURATION_HEADER_SIZE + len(body),
            len({interface.number for interface in self.interfaces}),
            self.value,
            self.string_index,
            self.attributes,
            self.max_power,
        )
        return head + body

    @classmethod
    def decode(cls, encoded: Buffer) -> "ConfigurationDescriptor":
        """Read exactly wTotalLength bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if a length or a count contradicts what is there.
        """
        total = configuration_total_length(encoded)
        if total != len(encoded):
            raise _malformed("configuration", f"it announces {total} bytes and has {len(encoded)}")
        _, _, _, count, value, string_index, attributes, max_power = _CONFIGURATION.unpack_from(encoded)
        blocks = _Blocks(_split(memoryview(encoded)[CONFIGURATION_HEADER_SIZE:]))
        extra = blocks.extra()
        interfaces = tuple(blocks.interfaces())
        if count != len({interface.number for interface in interfaces}):
            raise _malformed("configuration", f"it announces {count} interfaces and has others")
        return cls(value, string_index, attributes, max_power, interfaces, extra)


def configuration_total_length(encoded: Buffer) -> int:
    """wTotalLength of a configuration of which at least the first 9 bytes are there."""
    if len(encoded) < CONFIGURATION_HEADER_SIZE:
        raise _malformed("configuration", f"{len(encoded)} bytes do not hold its header")
    length, kind, total, *_ = _CONFIGURATION.unpack_from(encoded)
    if (length, kind) != (CONFIGURATION_HEADER_SIZE, DescriptorType.CONFIGURATION):
        raise _malformed("configuration", f"its header says length {length}, type {kind}")
    if total < CONFIGURATION_HEADER_SIZE:
        raise _malformed("configuration", f"its total length of {total} does not hold its header")
    return int(total)


def _split(raw: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of each descriptor in a row (USB 2.0, 9.5)."""
    while raw:
        length = raw[0]
        if not _HEADER_SIZE <= length <= len(raw):
            raise _malformed("configuration", f"a length of {length} does not fit into the {len(raw)} bytes left")
        yield raw[1], raw[:length]
        raw = raw[length:]


class _Blocks:
    """Descriptors in a row, read one level at a time."""

    def __init__(self, blocks: Iterator[tuple[int, memoryview]]) -> None:
        self._blocks = blocks
        self._next = next(blocks, None)

    def take(self, kind: DescriptorType) -> memoryview | None:
        """The next descriptor if it is of this type."""
        if self._next is None or self._next[0] != kind:
            return None
        block = self._next[1]
        self._next = next(self._blocks, None)
        return block

    def extra(self) -> bytes:
        """What stands before the next interface or endpoint."""
        extra: list[memoryview] = []
        while self._next and self._next[0] not in (DescriptorType.INTERFACE, DescriptorType.ENDPOINT):
            extra.append(self._next[1])
            self._next = next(self._blocks, None)
        return b"".join(extra)

    def interfaces(self) -> Iterator[InterfaceDescriptor]:
        while (block := self.take(DescriptorType.INTERFACE)) is not None:
            extra = self.extra()
            yield InterfaceDescriptor.decode(block, tuple(self.endpoints()), extra)
        if self._next:
            raise _malformed("configuration", "an endpoint stands outside any interface")

    def endpoints(self) -> Iterator[EndpointDescriptor]:
        while (block := self.take(DescriptorType.ENDPOINT)) is not None:
            yield EndpointDescriptor.decode(block, self.extra())


def encode_string(text: str) -> bytes:
    """A UNICODE string descriptor (USB 2.0, 9.6.7). ``ValueError`` if the text is too long for one."""
    return _string_descriptor(text.encode("utf-16-le"))


def encode_languages(languages: Sequence[int] = (LANGUAGE_ENGLISH_US,)) -> bytes:
    """String descriptor zero: the LANGIDs that the device supports (USB 2.0, 9.6.7)."""
    return _string_descriptor(b"".join(map(_LANGUAGE.pack, languages)))


def _string_descriptor(body: bytes) -> bytes:
    length = _HEADER_SIZE + len(body)
    if length > MAX_STRING_DESCRIPTOR:
        raise ValueError(f"{len(body)} bytes do not fit into a string descriptor")
    return bytes((length, DescriptorType.STRING)) + body


def decode_string(encoded: Buffer) -> str:
    """Read a string descriptor other than zero.

    Errors: :class:`~demail_hw.errors.ProtocolViolation`.
    """
    raw = bytes(encoded)
    if len(raw) < _HEADER_SIZE or raw[0] != len(raw) or raw[1] != DescriptorType.STRING:
        raise _malformed("string", f"its {len(raw)} bytes do not match its header")
    try:
        return raw[_HEADER_SIZE:].decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise _malformed("string", "it is no UTF-16") from error
