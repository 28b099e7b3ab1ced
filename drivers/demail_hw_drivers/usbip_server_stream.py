"""The server's end of a connection, plain or through TLS: what was received, and gather lists in one send."""

import contextlib
import functools
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from demail_hw.interfaces import Buffer, Deadline
from demail_hw_drivers.tcp import rest_of, send_some
from demail_hw_drivers.tls_stream import TlsEngine

__all__ = ["PlainStream", "ServerStream", "TlsServerStream", "accept_tls"]

_RECEIVE_SIZE: Final = 1 << 12
_LINGER_SECONDS: Final = 1.0


class ServerStream(Protocol):
    """One thread receives, any thread sends; whoever sends holds a lock of his own. Methods raise ``OSError``."""

    def receive(self) -> bytes | None:
        """What came: empty if the peer closed, ``None`` if it is not whole yet."""
        ...

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Send all of it: in how many system calls. ``OSError`` also if the peer takes nothing for long."""
        ...


class PlainStream:
    """A :class:`ServerStream` without TLS."""

    __slots__ = ("receive", "send")

    def __init__(self, sock: socket.socket) -> None:
        # Not methods: both are called for every command of a card, and most of what that costs here are calls.
        self.receive = functools.partial(sock.recv, _RECEIVE_SIZE)
        self.send = functools.partial(_send_all, sock)


class TlsServerStream:
    """A :class:`ServerStream` through TLS, after the handshake."""

    __slots__ = ("_engine", "_lock", "_sock")

    def __init__(self, sock: socket.socket, engine: TlsEngine) -> None:
        self._sock = sock
        self._engine = engine
        # OpenSSL's state is one for both directions, and records must leave in the order of their making.
        self._lock = threading.Lock()

    def receive(self) -> bytes | None:
        """What came."""
        if self._engine.unread:
            with self._lock:
                return self._engine.read()
        data = self._sock.recv(_RECEIVE_SIZE)
        with self._lock:
            return self._engine.decrypt(data)

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Send all of it."""
        with self._lock:
            return _send_all(self._sock, (self._engine.encrypt(buffers),))


def accept_tls(sock: socket.socket, context: ssl.SSLContext, *, deadline: Deadline) -> TlsEngine:
    """The server's side of the handshake.

    Errors: ``OSError``, as ``ssl.SSLError`` if the peer was refused; it was told why.
    """
    engine = TlsEngine(context, server_side=True)
    data = b""
    try:
        while not engine.shake(data):
            _send_some(sock, engine.to_send())
            data = _receive_until(sock, deadline)
        _send_some(sock, engine.to_send())
    except ssl.SSLError:
        _tell(sock, engine.to_send())
        raise
    return engine


def _receive_until(sock: socket.socket, deadline: Deadline) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the handshake took too long")
    sock.settimeout(left)
    data = sock.recv(_RECEIVE_SIZE)
    if not data:
        raise ConnectionResetError("the peer went away during the handshake")
    return data


def _send_some(sock: socket.socket, data: bytes) -> None:
    if data:
        sock.sendall(data)


def _tell(sock: socket.socket, alert: bytes) -> None:
    """Send the alert so that it arrives: a close with unread data would overtake it with a reset."""
    deadline = time.monotonic() + _LINGER_SECONDS
    with contextlib.suppress(OSError):
        _send_some(sock, alert)
        sock.shutdown(socket.SHUT_WR)
        while True:
            _receive_until(sock, deadline)


def _send_all(sock: socket.socket, buffers: Sequence[Buffer]) -> int:
    total = sum(map(len, buffers))
    sent = send_some(sock, buffers)
    calls = 1
    while sent < total:
        sent += send_some(sock, rest_of(buffers, sent))
        calls += 1
    return calls
