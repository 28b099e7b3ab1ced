"""Packet captures (pcapng, draft-ietf-opsawg-pcapng) of a TCP connection that was read at a higher layer.

What a program sends and receives has no frames any more, and through TLS none that can be read. So frames are made
around it, IP and TCP as they may have been, and every dissector finds its way.
"""

import enum
import ipaddress
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["MAX_SEGMENT", "Endpoint", "TcpFlag", "TcpFrames", "packet_block", "section_header"]

LINKTYPE_RAW: Final = 101
"""Packets begin with their IP header, version 4 or 6."""

MAX_SEGMENT: Final = 0xF000
"""The most data of a frame, in bytes: IP counts all of it in 16 bits."""

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_ENHANCED_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_LENGTH_UNKNOWN: Final = -1
_OPTION_END: Final = 0
_OPTION_COMMENT: Final = 1
_OPTION_TIME_RESOLUTION: Final = 9
_OPTION_APPLICATION: Final = 4
_NANOSECONDS: Final = bytes((9,))
_MAX_COMMENT: Final = 1024

_FRAMING = struct.Struct("<II")
_OPTION = struct.Struct("<HH")
_TRAILER = struct.Struct("<I")
_SECTION_BODY = struct.Struct("<IHHq")
_INTERFACE_BODY = struct.Struct("<HHI")
_PACKET_BODY = struct.Struct("<IIIII")

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV6 = struct.Struct(">IHBB16s16s")
_PSEUDO_HEADER = struct.Struct(">II")
_TCP = struct.Struct(">HHIIBBHHH")
_TCP_PROTOCOL: Final = 6
_DO_NOT_FRAGMENT: Final = 0x4000
_HOPS: Final = 64
_WORDS_OF_HEADER: Final = 5 << 4
_WINDOW: Final = 0xFFFF
_WORD: Final = 0xFFFF
_SEQUENCE: Final = 0xFFFF_FFFF


# --- Blocks (section 3 and 4) -----------------------------------------------------------------------------------


def section_header(application: str) -> bytes:
    """A section header and its one interface, which has raw IP packets and times in nanoseconds.

    A file may hold several sections (4.1): whoever opens it anew begins one.
    """
    options = _options((_OPTION_APPLICATION, application.encode()))
    interface = _options((_OPTION_TIME_RESOLUTION, _NANOSECONDS))
    return _block(_SECTION, _SECTION_BODY.pack(_BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN) + options) + _block(
        _INTERFACE, _INTERFACE_BODY.pack(LINKTYPE_RAW, 0, 0) + interface
    )


def packet_block(frame: bytes, nanoseconds: int, comment: str = "") -> bytes:
    """An enhanced packet block (4.3). ``nanoseconds``: since 1970, UTC. ``comment``: for people."""
    options = _options((_OPTION_COMMENT, comment.encode()[:_MAX_COMMENT])) if comment else b""
    high, low = divmod(nanoseconds, 1 << 32)
    body = _PACKET_BODY.pack(0, high, low, len(frame), len(frame))
    return _block(_ENHANCED_PACKET, body + _padded(frame) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = _FRAMING.size + len(body) + _TRAILER.size
    return _FRAMING.pack(kind, length) + body + _TRAILER.pack(length)


def _options(*options: tuple[int, bytes]) -> bytes:
    rows = (_OPTION.pack(code, len(value)) + _padded(value) for code, value in options)
    return b"".join(rows) + _OPTION.pack(_OPTION_END, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


# --- Frames -----------------------------------------------------------------------------------------------------


class TcpFlag(enum.IntFlag):
    """Control bits (RFC 9293, 3.1)."""

    FIN = 0x01
    SYN = 0x02
    PSH = 0x08
    ACK = 0x10


class Endpoint(NamedTuple):
    """An end of the connection. ``host``: an IP address; ``ValueError`` from :class:`TcpFrames` if it is none."""

    host: str
    port: int


class _End:
    """What one end sends: where it comes from, and how far its sequence numbers are."""

    __slots__ = ("address", "port", "sequence")

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = ipaddress.ip_address(endpoint.host)
        self.port = endpoint.port
        self.sequence = 0


class TcpFrames:
    """The frames of one connection, as raw IP packets: each side's data in order, and acknowledged by the other's."""

    __slots__ = ("_client", "_server")

    def __init__(self, client: Endpoint, server: Endpoint) -> None:
        self._client, self._server = _End(client), _End(server)
        if self._client.address.version != self._server.address.version:
            raise ValueError(f"{client.host} and {server.host} are not of one kind")

    def opening(self) -> Iterator[bytes]:
        """The handshake (RFC 9293, 3.5)."""
        yield self._frame(self._client, self._server, TcpFlag.SYN)
        yield self._frame(self._server, self._client, TcpFlag.SYN | TcpFlag.ACK)
        yield self._frame(self._client, self._server, TcpFlag.ACK)

    def segments(self, data: bytes, *, to_server: bool) -> Iterator[bytes]:
        """Data, in as many frames as it needs."""
        source, sink = (self._client, self._server) if to_server else (self._server, self._client)
        for start in range(0, len(data), MAX_SEGMENT):
            piece = data[start : start + MAX_SEGMENT]
            yield self._frame(source, sink, TcpFlag.PSH | TcpFlag.ACK, piece)

    def ending(self, *, by_server: bool) -> bytes:
        """One side says that nothing more comes."""
        source, sink = (self._server, self._client) if by_server else (self._client, self._server)
        return self._frame(source, sink, TcpFlag.FIN | TcpFlag.ACK)

    def _frame(self, source: _End, sink: _End, flags: TcpFlag, data: bytes = b"") -> bytes:
        acknowledged = sink.sequence if TcpFlag.ACK in flags else 0
        head = (source.port, sink.port, source.sequence, acknowledged, _WORDS_OF_HEADER, int(flags), _WINDOW)
        addresses = source.address.packed + sink.address.packed
        size = _TCP.size + len(data)
        pseudo = addresses + _PSEUDO_HEADER.pack(size, _TCP_PROTOCOL)
        segment = _TCP.pack(*head, _checksum(pseudo + _TCP.pack(*head, 0, 0) + data), 0) + data
        source.sequence = source.sequence + len(data) + bool(flags & (TcpFlag.SYN | TcpFlag.FIN)) & _SEQUENCE
        return _ip_header(source, sink, size) + segment


def _ip_header(source: _End, sink: _End, size: int) -> bytes:
    ends = source.address.packed, sink.address.packed
    if source.address.version == 6:
        return _IPV6.pack(6 << 28, size, _TCP_PROTOCOL, _HOPS, *ends)
    first = (0x45, 0, _IPV4.size + size, 0, _DO_NOT_FRAGMENT, _HOPS, _TCP_PROTOCOL)
    return _IPV4.pack(*first, _checksum(_IPV4.pack(*first, 0, *ends)), *ends)


def _checksum(data: bytes) -> int:
    """The one's complement sum (RFC 1071). Of 16-bit words it is the rest of a division by FFFF."""
    rest = int.from_bytes(data + bytes(len(data) % 2), "big") % _WORD
    return _WORD - rest
