"""A USB/IP server that is right until it is asked for a transfer that it lies about: a relay to a real one."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, TypeAlias

from demail_hw.usb.descriptors import DeviceDescriptor
from demail_hw.usb.setup import SetupPacket, StandardRequest
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    OP_HEADER_SIZE,
    CmdSubmit,
    Direction,
    OpCode,
    OpHeader,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    decode_request,
)
from demail_hw.usbip.receive_buffer import ReceiveBuffer

__all__ = ["LIES", "Lie", "LyingServer", "as_keyboard"]

_IMPORT_SIZE: Final = len(OpReqImport("1-1").encode())
_CHUNK: Final = 1 << 16

Lie: TypeAlias = Callable[[CmdSubmit], bytes]


def _oversize(command: CmdSubmit) -> bytes:
    length = command.transfer_buffer_length + 56
    return RetSubmit(command.seqnum, 0, length).encode() + bytes(length)


def _twice(command: CmdSubmit) -> bytes:
    return 2 * (RetSubmit(command.seqnum, 0, 1).encode() + bytes(1))


LIES: Final[Mapping[str, Lie]] = {
    "more bytes than were asked for": _oversize,
    "a length below zero": lambda command: RetSubmit(command.seqnum, 0, -1).encode(),
    "the answer to nothing": lambda command: RetSubmit(command.seqnum ^ 0x40000000, 0, 0).encode(),
    "isochronous packets": lambda command: RetSubmit(command.seqnum, 0, 0, number_of_packets=0x7FFFFFFF).encode(),
    "an answer twice": _twice,
    "an unlink that nobody sent": lambda command: RetUnlink(command.seqnum, -104).encode(),
    "no message": lambda _: bytes(range(HEADER_SIZE)),
}


_KEYBOARD: Final = DeviceDescriptor(0x0200, 0, 0, 0, 8, 0x1D6B, 0xBAD0, 0x0001, 0, 0, 0, 1)


def as_keyboard(command: CmdSubmit) -> bytes:
    """Of endpoint 0, where the host asks for the device descriptor first: the device is suddenly another one."""
    answer = _KEYBOARD.encode()[: command.transfer_buffer_length]
    return RetSubmit(command.seqnum, 0, len(answer)).encode() + answer


class LyingServer:
    """Listens from the ``with`` statement to its end. ``endpoint``: whose first IN transfer is lied about, once the
    device was configured.

    ``lies`` counts; who is lied to has hung up when ``hung_up`` is released once more.
    """

    def __init__(self, port: int, lie: Lie, *, endpoint: int) -> None:
        self._upstream = port
        self._lie = lie
        self._endpoint = endpoint
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.hung_up = threading.Semaphore(0)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._listener.close()

    def _serve(self) -> None:
        """One client after the other."""
        while self._listener in _ready(self._listener, self._stopped):
            client, _ = self._listener.accept()
            upstream = socket.create_connection(("127.0.0.1", self._upstream))
            with client, upstream, contextlib.suppress(OSError):
                if self._relay(client, upstream):
                    self.hung_up.release()

    def _relay(self, client: socket.socket, server: socket.socket) -> bool:
        """True if the client hung up after a lie."""
        requests = _Requests()
        lied = False
        while self._stopped not in (ready := _ready(client, server, self._stopped)):
            if server in ready:
                answer = server.recv(_CHUNK)
                if not answer:
                    return False
                if not lied:
                    client.sendall(answer)
            if client in ready:
                data = client.recv(_CHUNK)
                if not data:
                    return lied
                target = requests.find(data, self._endpoint)
                if target is not None and not lied:
                    lied = True
                    client.sendall(self._lie(target))
                if not lied:
                    server.sendall(data)
        return False


class _Requests:
    """What a client sent, as far as it has to be understood here."""

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._imported = False
        self._configured = False

    def find(self, data: bytes, endpoint: int) -> CmdSubmit | None:
        """The first IN transfer of this endpoint, once the device was configured."""
        self._buffer.feed(data)
        if not self._imported and not self._begin():
            return None
        while len(self._buffer) >= HEADER_SIZE:
            command = decode_request(self._buffer.raw, self._buffer.offset)
            if not isinstance(command, CmdSubmit) or command.direction == Direction.IN:
                self._buffer.skip(HEADER_SIZE)
            elif len(self._buffer) >= (size := HEADER_SIZE + command.transfer_buffer_length):
                self._buffer.skip(size)
            else:
                break
            if isinstance(command, CmdSubmit) and self._is_meant(command, endpoint):
                return command
        return None

    def _is_meant(self, command: CmdSubmit, endpoint: int) -> bool:
        request = SetupPacket.decode(command.setup).request
        self._configured |= command.endpoint == 0 and request == StandardRequest.SET_CONFIGURATION
        return self._configured and (command.direction, command.endpoint) == (Direction.IN, endpoint)

    def _begin(self) -> bool:
        if len(self._buffer) < OP_HEADER_SIZE:
            return False
        code = OpHeader.decode(self._buffer.raw[self._buffer.offset :]).code
        self._imported = code == OpCode.OP_REQ_IMPORT and len(self._buffer) >= _IMPORT_SIZE
        if self._imported:
            self._buffer.skip(_IMPORT_SIZE)
        return self._imported


def _ready(*socks: socket.socket) -> list[socket.socket]:
    ready, _, _ = select.select(socks, (), ())
    return ready
