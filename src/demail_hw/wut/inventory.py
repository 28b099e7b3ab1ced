"""The inventory packet: what a W&T device answers to any datagram on UDP port 8513.

The layout is that of the Com-Server and Web-IO manuals (chapter on the info packet): little endian, packed, 32 bytes
and ten for each port. Even IP addresses travel with their last byte first. The strict halves are :class:`InfoHeader`
and :class:`PortEntry`. :func:`read_inventory` is the tolerant one, for whatever a device or a stranger sends: it
never raises, believes no count, and says what it could not make out. The bytes are always kept.
"""

import dataclasses
import enum
import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer

__all__ = [
    "HEADER_SIZE",
    "PORT_SIZE",
    "STRUCT_VERSION",
    "InfoHeader",
    "InfoPacket",
    "Inventory",
    "PortEntry",
    "PortState",
    "PortType",
    "read_inventory",
]

STRUCT_VERSION: Final = 0x10
"""The only version that is published, 1.0."""
HEADER_SIZE: Final = 32
PORT_SIZE: Final = 10

_HEADER: Final = struct.Struct("<HHH4s6s4s4s4sHH")
_PORT: Final = struct.Struct("<BBH4sH")
_VERSION: Final = struct.Struct("<H")
_MAC_SIZE: Final = 6
_RESERVED_SIZE: Final = 4
_LOW_BYTE: Final = 0xFF
_OUI: Final = bytes.fromhex("00c03d")
"""W&T's range of MAC addresses."""
_NO_ADDRESS: Final = ipaddress.IPv4Address(0)

_HARDWARE: Final = {
    0x0002: "2.0 Euro",
    0x0003: "3.0 PC104",
    0x0004: "4.0 Mini",
    0x0005: "5.0 100BT",
    0x0006: "6.0 Industry",
    0x0008: "8.0 Low Voltage",
    0x0009: "9.0 Com-Server++",
    0x0108: "8.1 Web-IO",
}


class PortType(enum.IntEnum):
    """``port_type``: what a port is."""

    SERIAL_CPU = 1
    UART = 2
    DIGITAL_IO = 4
    DUAL_PORT_RAM = 6


class PortState(enum.IntEnum):
    """``state`` of a port."""

    FREE = 0
    CONNECTED = 1
    WAITING = 2


def _malformed(what: str, size: int, actual: int) -> ProtocolViolation:
    return ProtocolViolation(f"The {what} has {actual} bytes and not {size}.", outcome=Outcome.NOT_SENT)


def _address(data: bytes) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(data[::-1])


def _bytes_of(address: ipaddress.IPv4Address) -> bytes:
    return address.packed[::-1]


@dataclasses.dataclass(frozen=True, slots=True)
class InfoHeader:
    """The first 32 bytes. ``software`` and ``hardware`` are the two revision words as they came: the manual's own
    example of the first does not decode by its rule, so nothing is made of it. ``reserved`` has 4 bytes, ``mac``
    has 6."""

    software: int
    hardware: int
    mac: bytes
    ip: ipaddress.IPv4Address
    gateway: ipaddress.IPv4Address
    mask: ipaddress.IPv4Address
    mtu: int
    port_count: int
    struct_version: int = STRUCT_VERSION
    reserved: bytes = bytes(_RESERVED_SIZE)

    def __post_init__(self) -> None:
        if (len(self.mac), len(self.reserved)) != (_MAC_SIZE, _RESERVED_SIZE):
            raise ValueError("a MAC address has 6 bytes, the reserved field 4")

    def encode(self) -> bytes:
        """32 bytes."""
        return _HEADER.pack(
            self.struct_version,
            self.software,
            self.hardware,
            self.reserved,
            self.mac,
            _bytes_of(self.ip),
            _bytes_of(self.gateway),
            _bytes_of(self.mask),
            self.mtu,
            self.port_count,
        )

    @classmethod
    def decode(cls, data: Buffer) -> "InfoHeader":
        """Read 32 bytes. :class:`~demail_hw.errors.ProtocolViolation` for another number."""
        if len(data) != HEADER_SIZE:
            raise _malformed("info header", HEADER_SIZE, len(data))
        version, software, hardware, reserved, mac, ip, gateway, mask, mtu, count = _HEADER.unpack(data)
        return cls(
            software=software,
            hardware=hardware,
            mac=mac,
            ip=_address(ip),
            gateway=_address(gateway),
            mask=_address(mask),
            mtu=mtu,
            port_count=count,
            struct_version=version,
            reserved=reserved,
        )

    @property
    def mac_text(self) -> str:
        """As on the device's sticker: ``00:C0:3D:...``."""
        return self.mac.hex(":").upper()

    @property
    def hardware_text(self) -> str:
        """The revision, low byte first, and the device that the manuals name by it."""
        known = _HARDWARE.get(self.hardware)
        return known or f"{self.hardware & _LOW_BYTE}.{self.hardware >> 8} (not known)"


@dataclasses.dataclass(frozen=True, slots=True)
class PortEntry:
    """Ten bytes for each port. ``port_type``, ``state`` and ``mode`` are the codes as they came; ``remote_ip`` and
    ``remote_port`` say who is connected, and are zero where nobody is."""

    port_type: int
    state: int
    mode: int = 0
    remote_ip: ipaddress.IPv4Address = _NO_ADDRESS
    remote_port: int = 0

    def encode(self) -> bytes:
        """10 bytes."""
        return _PORT.pack(self.port_type, self.state, self.mode, _bytes_of(self.remote_ip), self.remote_port)

    @classmethod
    def decode(cls, data: Buffer) -> "PortEntry":
        """Read 10 bytes. :class:`~demail_hw.errors.ProtocolViolation` for another number."""
        if len(data) != PORT_SIZE:
            raise _malformed("port entry", PORT_SIZE, len(data))
        port_type, state, mode, remote_ip, remote_port = _PORT.unpack(data)
        return cls(port_type, state, mode, _address(remote_ip), remote_port)

    @property
    def type_text(self) -> str:
        """The type in words, or its number."""
        return _word(PortType, self.port_type)

    @property
    def state_text(self) -> str:
        """The state in words, or its number."""
        return _word(PortState, self.state)


def _word(kind: type[enum.IntEnum], code: int) -> str:
    known = {member.value: member.name.lower().replace("_", " ") for member in kind}
    return known.get(code, f"{code:#04x} (not known)")


@dataclasses.dataclass(frozen=True, slots=True)
class InfoPacket:
    """A whole packet, to be sent: its port count is that of the ports."""

    header: InfoHeader
    ports: tuple[PortEntry, ...] = ()

    def encode(self) -> bytes:
        """32 bytes, and ten for each port. ``struct.error`` for more than 65535."""
        header = dataclasses.replace(self.header, port_count=len(self.ports))
        return b"".join((header.encode(), *(port.encode() for port in self.ports)))


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """What a device said of itself. ``raw``: every byte of it. ``header``: ``None`` where the layout is not the
    published one. ``ports``: those whose entries are whole. ``remarks``: sentences on what does not fit."""

    raw: bytes
    header: InfoHeader | None = None
    ports: tuple[PortEntry, ...] = ()
    remarks: tuple[str, ...] = ()


def read_inventory(data: bytes) -> Inventory:
    """Make of an answer what can be made of it."""
    if len(data) < HEADER_SIZE:
        return Inventory(
            data, remarks=(f"It has {len(data)} bytes, and the published layout at least {HEADER_SIZE}.",)
        )
    (version,) = _VERSION.unpack_from(data)
    if version != STRUCT_VERSION:
        return Inventory(data, remarks=(f"Its layout has version {version:#06x}, which is not published.",))
    header = InfoHeader.decode(data[:HEADER_SIZE])
    body = data[HEADER_SIZE:]
    count = min(header.port_count, len(body) // PORT_SIZE)
    ports = tuple(
        PortEntry.decode(body[start : start + PORT_SIZE]) for start in range(0, count * PORT_SIZE, PORT_SIZE)
    )
    return Inventory(data, header, ports, tuple(_remarks(header, len(body))))


def _remarks(header: InfoHeader, size: int) -> Iterator[str]:
    told = header.port_count * PORT_SIZE
    if told > size:
        yield f"It tells of {header.port_count} ports, and has bytes for {size // PORT_SIZE}."
    if told < size:
        yield f"After its {header.port_count} ports come {size - told} bytes that nobody explains."
    if not header.mac.startswith(_OUI):
        yield "Its MAC address is none of W&T's."
