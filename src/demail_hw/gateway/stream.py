"""TCP and TLS to one gateway, every wait under one deadline, the handshake watched.

The TLS is an ordinary ``ssl.SSLContext`` over memory buffers, so that the bytes pass through our hands: that is how
a deadline covers the whole exchange (a socket's timeout starts anew with every byte), and how the handshake can be
read. Errors come as Python raises them; ``findings`` gives them their meaning.
"""

import contextlib
import io
import ipaddress
import queue
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias, TypeVar

from demail_hw.address import netloc
from demail_hw.gateway.handshake import HandshakeObserver, Sender
from demail_hw.interfaces import Buffer, Deadline

__all__ = ["Endpoint", "HttpSocket", "TlsStream", "open_connection", "remaining", "resolve"]

_CHUNK: Final = 1 << 16

_SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Resolved: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, _SocketAddress]]
_Result = TypeVar("_Result")


class Endpoint(NamedTuple):
    """Where a gateway is."""

    host: str
    port: int

    def __str__(self) -> str:
        return netloc(self.host, self.port)


def remaining(deadline: Deadline) -> float:
    """Seconds until the deadline. ``TimeoutError`` if it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return left


def resolve(endpoint: Endpoint, *, deadline: Deadline) -> _Resolved:
    """The addresses of a host. ``socket.gaierror`` or ``TimeoutError``."""
    if _is_address(endpoint.host):
        return socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    # The resolver knows no deadline: it is left behind in a thread that ends when it gives up.
    answers: queue.SimpleQueue[_Resolved | OSError] = queue.SimpleQueue()
    threading.Thread(target=_resolve_into, args=(answers, endpoint), name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=remaining(deadline))
    except queue.Empty:
        raise TimeoutError("the name server did not answer") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve_into(answers: queue.SimpleQueue[_Resolved | OSError], endpoint: Endpoint) -> None:
    try:
        answers.put(socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM))
    except OSError as error:
        answers.put(error)
    except UnicodeError as error:  # a label that is empty or too long
        answers.put(socket.gaierror(socket.EAI_NONAME, str(error)))


def open_connection(addresses: _Resolved, *, deadline: Deadline) -> socket.socket:
    """TCP to the first address that answers. ``OSError``: that of the last one."""
    failure: OSError = TimeoutError("the deadline is over")
    for family, kind, protocol, _, address in addresses:
        try:
            # A machine without IPv6 may be told IPv6 addresses, and has no such socket.
            return _connect(socket.socket(family, kind, protocol), address, deadline)
        except OSError as error:
            failure = error
    raise failure


def _connect(connection: socket.socket, address: _SocketAddress, deadline: Deadline) -> socket.socket:
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(remaining(deadline))
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


class TlsStream:
    """TLS over a connected socket, which it owns; closed at the end of ``with``."""

    __slots__ = ("_connection", "_deadline", "_incoming", "_outgoing", "_tls", "observer")

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        *,
        server_hostname: str,
        deadline: Deadline,
    ) -> None:
        self.observer = HandshakeObserver()
        self._connection = connection
        self._deadline = deadline
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS connection, to be asked for its parameters."""
        return self._tls

    def handshake(self, *, enough: Callable[[HandshakeObserver], bool] = lambda _: False) -> None:
        """To its end, or until ``enough`` was seen. ``ssl.SSLError`` or ``OSError``."""
        while not enough(self.observer):
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError as error:
                self._send_last_words()
                self._note_rejected_chain(error)
                raise
            else:
                self._flush()
                return

    def sendall(self, data: Buffer) -> None:
        """Send all of it. ``ssl.SSLError`` or ``OSError``."""
        self._pump(lambda: self._tls.write(data))
        # A peer that refused us and hung up said why before: the next read finds it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._flush()

    def readinto(self, buffer: Buffer) -> int:
        """Some bytes, 0 at the end (close_notify). ``ssl.SSLError`` or ``OSError``."""
        view = memoryview(buffer)
        try:
            data = self._pump(lambda: self._tls.read(len(view)))
        except ssl.SSLZeroReturnError:
            return 0
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the connection. Never raises; closing twice is allowed."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pump(self, step: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.observer.note(Sender.US, data)
            self._connection.settimeout(remaining(self._deadline))
            self._connection.sendall(data)

    def _feed(self) -> None:
        self._connection.settimeout(remaining(self._deadline))
        data = self._connection.recv(_CHUNK)
        self.observer.note(Sender.GATEWAY, data)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _note_rejected_chain(self, error: ssl.SSLError) -> None:
        """What TLS 1.3 hides from the observer, OpenSSL can tell, and Python since 3.13."""
        if (
            sys.version_info >= (3, 13)
            and isinstance(error, ssl.SSLCertVerificationError)
            and self.observer.server_certificates is None
        ):
            self.observer.server_certificates = tuple(self._tls.get_unverified_chain())

    def _send_last_words(self) -> None:
        """The alert that OpenSSL has for the peer."""
        with contextlib.suppress(OSError):
            self._flush()


class HttpSocket(io.RawIOBase):
    """As much of a socket as ``http.client`` wants. It closes nothing: the stream has its owner."""

    def __init__(self, stream: TlsStream) -> None:
        super().__init__()
        self._stream = stream

    def sendall(self, data: Buffer) -> None:
        """See ``socket.sendall``."""
        self._stream.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """See ``socket.makefile``; for reading only."""
        return io.BufferedReader(HttpSocket(self._stream))

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        """See ``io.RawIOBase.readinto``."""
        return self._stream.readinto(buffer)
