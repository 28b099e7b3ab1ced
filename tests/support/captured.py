"""Captures in memory, and what a pcapng file carries."""

import struct
from collections.abc import Iterator
from typing import Final

from demail_hw.usbip.capture import Capture, Mask
from demail_hw.usbip.pcapng import Endpoint, TcpFrames

__all__ = ["SERVER_PORT", "capture_to", "flows", "no_mask"]

SERVER_PORT: Final = 3240
_PACKET: Final = 6
_IP_AND_TCP: Final = 40


def no_mask(_command: object, data: bytes) -> bytes:
    return data


def capture_to(blocks: list[bytes], mask: Mask) -> Capture:
    """A capture whose blocks are appended to a list; it is always the same moment."""
    frames = TcpFrames(Endpoint("192.0.2.1", 50000), Endpoint("192.0.2.2", SERVER_PORT))
    return Capture(frames, mask, write=blocks.append, now=lambda: 0, comment="a test")


def flows(capture: bytes) -> dict[bool, bytes]:
    """What went to the server (True) and to the client (False), of IPv4 frames."""
    carried = {True: b"", False: b""}
    for frame in _frames(capture):
        (port,) = struct.unpack_from(">H", frame, 22)
        carried[port == SERVER_PORT] += frame[_IP_AND_TCP:]
    return carried


def _frames(capture: bytes) -> Iterator[bytes]:
    while capture:
        kind, length = struct.unpack_from("<II", capture)
        if kind == _PACKET:
            (size,) = struct.unpack_from("<I", capture, 20)
            yield capture[28 : 28 + size]
        assert capture[length - 4 : length] == capture[4:8]
        capture = capture[length:]
