"""The one USB/IP server: it exports whatever implements :class:`~demail_hw.interfaces.ExportedDevice`.

USB/IP has no authentication and no encryption: whoever reaches the port can take any device that is free.
So it listens on the loopback interface unless it is told otherwise. With a TLS context it demands a certificate of
every peer, and an allow-list says who may have what.
"""

import contextlib
import dataclasses
import errno
import functools
import logging
import os
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from demail_hw.address import netloc
from demail_hw.errors import TransportError
from demail_hw.interfaces import ExportedDevice
from demail_hw.usbip.access import AllowList
from demail_hw.usbip.messages import DEFAULT_PORT
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_server_audit import AuditSink, log_audit
from demail_hw_drivers.usbip_server_connection import Connection, Service
from demail_hw_drivers.usbip_server_counters import ServerCounters, ServerLimits
from demail_hw_drivers.usbip_server_exports import exports_of

__all__ = ["ServerCounters", "ServerLimits", "UsbIpServer"]

_LOG = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 5.0
_HANGS_SECONDS: Final = 1.0
_PAUSE_MS: Final = 100
_BACKLOG: Final = 16
_STOP_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class UsbIpServer:
    """Exports devices; each can be imported by one client at a time.

    ``devices``: by bus id, or in a row as ``1-1``, ``1-2``, ... ``port`` 0 takes a free one. ``context``: of
    :func:`~demail_hw_drivers.tls_stream.server_context`; without it USB/IP is plain. ``allowed``: rules by bus id for
    the certificates, ``ValueError`` without a context; ``None`` lets in whomever TLS lets in. ``capture``: the
    file that what is carried goes to. A context manager: it serves inside the ``with`` block.

    A device that somebody has is hidden from the device list and its import is answered with DEV_BUSY, as Linux'
    usbipd does it (an older one said NA).
    """

    def __init__(
        self,
        devices: Mapping[str, ExportedDevice] | Sequence[ExportedDevice],
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        context: ssl.SSLContext | None = None,
        allowed: AllowList | None = None,
        limits: ServerLimits | None = None,
        audit: AuditSink = log_audit,
        capture: CaptureFile | None = None,
    ) -> None:
        _require_tls(context, allowed)
        named = devices if isinstance(devices, Mapping) else {f"1-{n}": d for n, d in enumerate(devices, start=1)}
        self._service = Service(exports_of(named), limits or ServerLimits(), context, allowed, audit, capture)
        self._host = host
        self._port = port
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._finished = ServerCounters()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on: the real one once it is started."""
        return self._port

    @property
    def bus_ids(self) -> tuple[str, ...]:
        """What it exports."""
        return tuple(self._service.exports)

    @property
    def counters(self) -> ServerCounters:
        """What it did so far."""
        with self._lock:
            connections, finished = tuple(self._connections), self._finished
        return functools.reduce(ServerCounters.plus, (c.counters for c in connections), finished)

    @property
    def takes_connections(self) -> bool:
        """Does it run, and would it take one within a second? A device that hangs, or a peer, does not count; a
        connection needs a descriptor that is free."""
        if self._acceptor is None or not self._acceptor.is_alive() or not self._lock.acquire(timeout=_HANGS_SECONDS):
            return False
        self._lock.release()
        return _has_descriptor()

    def start(self) -> Self:
        """Listen, and serve in threads of its own. ``RuntimeError`` if it was started before.

        Errors: :class:`~demail_hw.errors.TransportError` if the address cannot be had.
        """
        if self._listener is not None or self._stopping:
            raise RuntimeError("a server is started once")
        self._listener = _listen(self._host, self._port)
        self._port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept_forever, args=(self._listener,), name="usbip-accept", daemon=True
        )
        with _stop_signals_blocked():
            self._acceptor.start()
        return self

    def renew(self, *, context: ssl.SSLContext | None, allowed: AllowList | None) -> None:
        """Another certificate, other authorities and other rules, from now on. Whoever has a device that the rules do
        not give him any more loses it; other sessions stay, also those whose authority is gone.

        ``ValueError`` for TLS where there was none, or the other way round.
        """
        _require_tls(context, allowed)
        if (context is None) is not (self._service.context is None):
            raise ValueError("whether a server speaks TLS does not change")
        with self._lock:
            self._service = dataclasses.replace(self._service, context=context, allowed=allowed)
            connections = tuple(self._connections)
        with contextlib.ExitStack() as stack:  # each is met, whatever befalls another
            for connection in connections:
                stack.callback(connection.renew, self._service)

    def hang_up(self) -> None:
        """End every connection, as a restart does; whoever comes next is served."""
        with self._lock:
            connections = tuple(self._connections)
        for connection in connections:
            connection.hang_up()

    def close(self) -> None:
        """Hang up on everybody and wait, for a few seconds at most, until the devices are reset."""
        self._stopping = True
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            threads = [*self._connections.values()]
        self.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        if self._acceptor is not None:
            threads.append(self._acceptor)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._listener is not None:
            self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept_forever(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    _pause(listener)
                continue
            self._admit(sock, (str(peer[0]), int(peer[1])))

    def _admit(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        name = f"usbip-{peer[0]}:{peer[1]}"
        with self._lock:
            # Made inside the lock, so that renew() meets all that have the old rules; started there, so that close()
            # never meets a thread that was not.
            connection = Connection(sock, peer, self._service)
            thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
            if self._stopping or self._is_full(connection.network) or not _started(thread):
                self._finished = self._finished.plus(ServerCounters(connections=1, refused=1))
                sock.close()
            else:
                self._connections[connection] = thread

    def _is_full(self, network: str) -> bool:
        limits = self._service.limits
        own = sum(connection.network == network for connection in self._connections)
        return len(self._connections) >= limits.connections or own >= limits.connections_per_address

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]
                self._finished = self._finished.plus(connection.counters)


def _require_tls(context: ssl.SSLContext | None, allowed: AllowList | None) -> None:
    if allowed is not None and context is None:
        raise ValueError("an allow-list needs TLS: plain USB/IP does not know who comes")


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """No thread that is started here takes a signal that stops the program, nor does any that it starts.

    Python handles signals in the main thread, which does not wake up for one that another thread has taken.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Not strerror, where Python adds the address once more; the resolver's numbers are below zero.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror
        raise TransportError(
            f"The USB/IP server cannot listen on {netloc(host, port)}: {why}.",
            remedy="Choose another address or port, or stop the server that has it.",
            transient=False,
        ) from error


def _started(thread: threading.Thread) -> bool:
    """Start it; False if the system has no room for another thread."""
    try:
        thread.start()
    except RuntimeError as error:
        _LOG.warning("a connection was refused: %s", error)
        return False
    return True


def _has_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _OUT_OF_RESOURCES
    return True


def _pause(listener: socket.socket) -> None:
    """Wait a little for resources, or until the listener is shut down."""
    poller = select.poll()
    poller.register(listener, 0)
    poller.poll(_PAUSE_MS)
