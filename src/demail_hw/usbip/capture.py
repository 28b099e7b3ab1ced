"""What a USB/IP connection carries, captured for a packet analyser, with what may be a PIN masked; without I/O.

The bytes are followed message by message, whatever becomes of them in the state machines. Where they cannot be
followed any more, because a peer broke the protocol, only their lengths are captured from then on.
"""

import contextlib
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeAlias

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffer, Buffers
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.client import ClientRequest, UsbIpClient
from demail_hw.usbip.messages import (
    BUS_ID_SIZE,
    DEVICE_SIZE,
    HEADER_SIZE,
    OP_HEADER_SIZE,
    CmdSubmit,
    Direction,
    OpCode,
    RetSubmit,
    UsbipStatus,
    decode_reply,
    decode_request,
)
from demail_hw.usbip.pcapng import TcpFrames, packet_block
from demail_hw.usbip.pump import UrbPump
from demail_hw.usbip.receive_buffer import ReceiveBuffer
from demail_hw.usbip.server import ServerReply, UsbIpServerConnection

__all__ = ["MASK", "Capture", "CapturedClient", "CapturedPump", "CapturedServer", "Mask"]

MASK: Final = b"*"
"""What stands for a byte that is not shown."""

Mask: TypeAlias = Callable[[CmdSubmit, bytes], bytes]
"""The data of a transfer, as long as it was and fit to be shown. It sees every transfer of a connection that has
data, in the order of the wire; the command's direction says which way the data goes."""

_NO_LOCK: Final = contextlib.nullcontext()
_OP_HEADER = struct.Struct(">HHI")
_IN: Final = int(Direction.IN)
_Follower: TypeAlias = Generator[int, bytes, None]
"""Yields how many bytes it wants next, more than none, and is sent exactly those."""


class Capture:
    """One connection. ``write``: takes whole pcapng blocks; ``now``: nanoseconds since 1970, UTC; ``comment``: for
    people, with the first frame. ``lock``: held while bytes are followed and written; without one it is not safe for
    several threads."""

    __slots__ = (
        "_comment",
        "_frames",
        "_lock",
        "_mask",
        "_now",
        "_opened",
        "_pending",
        "_to_client",
        "_to_server",
        "_write",
    )

    def __init__(
        self,
        frames: TcpFrames,
        mask: Mask,
        *,
        write: Callable[[bytes], None],
        now: Callable[[], int],
        comment: str = "",
        lock: contextlib.AbstractContextManager[object] = _NO_LOCK,
    ) -> None:
        self._lock = lock
        self._opened = False
        self._frames = frames
        self._mask = mask
        self._write = write
        self._now = now
        self._comment = comment
        self._pending: dict[int, CmdSubmit] = {}
        self._to_server = _Way(self._requests(), lambda data: self._put(data, to_server=True))
        self._to_client = _Way(self._replies(), lambda data: self._put(data, to_server=False))

    def to_server(self, data: Buffer) -> None:
        """The client sent this, or the server received it; empty if the client said that nothing more comes."""
        with self._lock:
            self._to_server.feed(data) if data else self._end(by_server=False)

    def to_client(self, data: Buffer) -> None:
        """The server sent this, or the client received it; empty if the server said that nothing more comes."""
        with self._lock:
            self._to_client.feed(data) if data else self._end(by_server=True)

    def _put(self, data: bytes, *, to_server: bool) -> None:
        self._open()
        for frame in self._frames.segments(data, to_server=to_server):
            self._write(packet_block(frame, self._now()))

    def _open(self) -> None:
        """The handshake, before the first byte."""
        if self._opened:
            return
        self._opened = True
        comments = iter((self._comment,))
        for frame in self._frames.opening():
            self._write(packet_block(frame, self._now(), next(comments, "")))

    def _end(self, *, by_server: bool) -> None:
        self._open()
        (self._to_client if by_server else self._to_server).flush()
        self._write(packet_block(self._frames.ending(by_server=by_server), self._now()))

    # --- What is followed: each yields the bytes that it wants next -------------------------------------------------

    def _requests(self) -> _Follower:
        way = self._to_server
        head = yield OP_HEADER_SIZE
        code = _OP_HEADER.unpack(head)[1]
        way.emit(head + ((yield BUS_ID_SIZE) if code == OpCode.OP_REQ_IMPORT else b""))
        if code != OpCode.OP_REQ_IMPORT:
            return
        while True:
            head = yield HEADER_SIZE
            command = decode_request(head)
            data = b""
            if isinstance(command, CmdSubmit):
                self._pending[command.seqnum] = command
                if command.direction != _IN and command.transfer_buffer_length:
                    data = self._mask(command, (yield command.transfer_buffer_length))
            way.emit(head + data)

    def _replies(self) -> _Follower:
        way = self._to_client
        head = yield OP_HEADER_SIZE
        _, code, status = _OP_HEADER.unpack(head)
        if code != OpCode.OP_REP_IMPORT or status != UsbipStatus.OK:
            way.emit(head)
            way.open = code == OpCode.OP_REP_DEVLIST  # nothing in a device list is a secret
            return
        way.emit(head + (yield DEVICE_SIZE))
        while True:
            head = yield HEADER_SIZE
            reply = decode_reply(head)
            command = self._pending.pop(reply.seqnum, None) if isinstance(reply, RetSubmit) else None
            data = b""
            if isinstance(reply, RetSubmit) and reply.actual_length:
                if command is None or reply.actual_length > command.transfer_buffer_length:
                    return
                if command.direction == _IN:
                    data = self._mask(command, (yield reply.actual_length))
            way.emit(head + data)


class _Way:
    """One direction. ``open``: what follows the messages may be shown."""

    __slots__ = ("_buffer", "_follower", "_need", "emit", "open")

    def __init__(self, follower: _Follower, emit: Callable[[bytes], None]) -> None:
        self._buffer = ReceiveBuffer()
        self._follower: _Follower | None = follower
        self._need = 0
        self.emit = emit
        self.open = False

    def feed(self, data: Buffer) -> None:
        """Follow it."""
        self._buffer.feed(bytes(data))
        while self._follower is not None and len(self._buffer) >= self._need:
            self._step(self._follower)
        if self._follower is None:
            self.flush()

    def flush(self) -> None:
        """What is not a whole message."""
        rest = self._buffer.take(len(self._buffer))
        if rest:
            self.emit(rest if self.open else MASK * len(rest))

    def _step(self, follower: _Follower) -> None:
        try:
            if self._need:
                self._need = follower.send(self._buffer.take(self._need))
            else:
                self._need = next(follower)
        except (StopIteration, ProtocolViolation):
            self._follower = None


class CapturedClient(UsbIpClient):
    """The client's machine, with a capture beside it."""

    __slots__ = ("_capture",)

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def send(self, request: ClientRequest, data: Buffers = ()) -> Sequence[Buffer]:
        """As without; what is to be sent is captured now."""
        buffers = super().send(request, data)
        for buffer in buffers:
            self._capture.to_server(buffer)
        return buffers

    def receive_data(self, data: bytes) -> None:
        """As without."""
        self._capture.to_client(data)
        super().receive_data(data)

    def pump(self, shown: ShownDescriptors) -> UrbPump:
        """As without, with the same capture."""
        return CapturedPump(self._capture, shown)


class CapturedPump(UrbPump):
    """What carries for a kernel, with a capture beside it."""

    __slots__ = ("_capture",)

    def __init__(self, capture: Capture, shown: ShownDescriptors) -> None:
        super().__init__(shown)
        self._capture = capture

    def from_kernel(self, data: bytes) -> Sequence[Buffer]:
        """As without; what goes on to the server is captured."""
        passed = super().from_kernel(data)
        for buffer in passed:
            self._capture.to_server(buffer)
        return passed

    def from_server(self, data: bytes) -> Sequence[Buffer]:
        """As without; what the server sent is captured, whatever becomes of it."""
        self._capture.to_client(data)
        return super().from_server(data)


class CapturedServer(UsbIpServerConnection):
    """The server's machine, with a capture beside it."""

    __slots__ = ("_capture",)

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def send(self, reply: ServerReply, data: Buffer = b"") -> Sequence[Buffer]:
        """As without; what is to be sent is captured now."""
        buffers = super().send(reply, data)
        for buffer in buffers:
            self._capture.to_client(buffer)
        return buffers

    def receive_data(self, data: bytes) -> None:
        """As without."""
        self._capture.to_server(data)
        super().receive_data(data)
