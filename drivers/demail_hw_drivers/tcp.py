"""TCP connections that notice a dead peer, for both ends of USB/IP, and waits that end at a deadline."""

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, Self, TypeAlias

from demail_hw.address import netloc
from demail_hw.errors import DeadlineExceeded, Outcome
from demail_hw.interfaces import Buffer, Buffers, Deadline

__all__ = ["StopFlag", "Wire", "open_connection", "peer_answers", "rest_of", "send_some", "timeval", "tune"]

KEEPALIVE_IDLE: Final = 10
KEEPALIVE_INTERVAL: Final = 1
KEEPALIVE_PROBES: Final = 5
USER_TIMEOUT_MS: Final = 10_000

_OPTIONS: Final = (
    # Without NODELAY, two small messages in one direction cost 40 to 90 ms (Nagle against delayed ACK).
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # The defaults would keep a device busy for two hours after its client lost power.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
)

_SocketAddress: TypeAlias = tuple[str | int, ...] | tuple[int, bytes]
_CONNECTING: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})
_RECEIVE_SIZE: Final = 1 << 12
_IOV_MAX: Final = 1024
"""More buffers than these no kernel of ours takes in one call (Linux, UIO_MAXIOV)."""
_LONGEST_POLL: Final = 3600.0
"""Well below what fits into the 31 bits of milliseconds that poll takes."""
_TIMEVAL = struct.Struct("@ll")
_MICROSECONDS: Final = 1_000_000
_MILLISECONDS: Final = 1000
_CLOSED: Final = -1
_LAST_ACK = struct.Struct("=56xI")
"""tcpi_last_ack_recv of Linux' struct tcp_info: milliseconds since the last ACK."""
_EAGER_IDLE: Final = 1
_PROBE_SECONDS: Final = 2.5
_LOOK_MS: Final = 20
_CLOCK_TICK: Final = 0.01
"""The kernel counts ACKs in its own ticks: one of this age may have come before."""


class StopFlag:
    """Says stop to one that waits for descriptors; may be set in a signal handler or any thread."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable once it was set."""
        return self._descriptor

    def set(self) -> None:
        """Stop."""
        os.eventfd_write(self._descriptor, 1)

    def wait(self, seconds: float) -> bool:
        """True as soon as it is set, False after the time."""
        poller = select.poll()
        poller.register(self, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * _MILLISECONDS))

    def check(self) -> None:
        """Raise the ``OSError`` of what was called off, if it is set."""
        if self.wait(0.0):
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def close(self) -> None:
        """Let the descriptor go."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def tune(sock: socket.socket) -> None:
    """No delay, and a dead peer is found in 15 seconds at most, whether we send or wait."""
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)


def peer_answers(sock: socket.socket) -> bool:
    """Does the host at the other end still acknowledge? It is asked now, by a keepalive probe that the program there
    does not see; a dead one is known after 2.5 seconds. ``OSError`` for a socket that is closed.

    A host that acknowledges may have a program that hangs: that is not seen here.
    """
    asked = time.monotonic()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _EAGER_IDLE)
    try:
        poller = select.poll()
        poller.register(sock, 0)
        while time.monotonic() < asked + _PROBE_SECONDS:
            if poller.poll(_LOOK_MS):
                return False  # hung up, or reset
            (age,) = _LAST_ACK.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.size))
            if time.monotonic() - age / _MILLISECONDS > asked + _CLOCK_TICK:
                return True
        return False
    finally:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)


def open_connection(host: str, port: int, *, deadline: Deadline, stop: StopFlag | None = None) -> socket.socket:
    """A tuned connection to the first address of ``host`` that answers.

    One that says nothing has its share of the time, so that the next has its turn.

    Errors: :class:`~demail_hw.errors.DeadlineExceeded`, or the ``OSError`` of the last address; of ``stop`` if that
    is set. The look-up of the name has no deadline of ours: that is the resolver's.
    """
    failure: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for shares, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            tune(sock)
            _connect(sock, address, deadline - left + left / shares, stop)
        except OSError as error:
            sock.close()
            if error.errno == errno.ECANCELED:
                raise
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if time.monotonic() < deadline:
        raise failure or OSError(f"{host} has no address")
    raise DeadlineExceeded(
        f"{netloc(host, port)} did not answer in time.", outcome=Outcome.NOT_SENT, transient=True
    ) from failure


def _connect(sock: socket.socket, address: _SocketAddress, deadline: Deadline, stop: StopFlag | None) -> None:
    """Errors: ``OSError``; ``TimeoutError`` at the deadline."""
    sock.setblocking(False)
    watched = [(sock.fileno(), select.POLLOUT), *([] if stop is None else [(stop.fileno(), select.POLLIN)])]
    while (status := sock.connect_ex(address)) in _CONNECTING:
        if not _wait(deadline, *watched):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if stop is not None:
            stop.check()
    if status:
        raise OSError(status, os.strerror(status))


def timeval(seconds: float) -> bytes:
    """A struct timeval, as SO_RCVTIMEO and SO_SNDTIMEO take it; never zero, which would mean for ever."""
    return _TIMEVAL.pack(*divmod(max(1, int(seconds * _MICROSECONDS)), _MICROSECONDS))


def rest_of(buffers: Buffers, sent: int) -> Sequence[Buffer]:
    """What is left of a gather list after its first ``sent`` bytes, uncopied."""
    rest: list[Buffer] = []
    for buffer in buffers:
        if sent >= len(buffer):
            sent -= len(buffer)
        else:
            rest.append(memoryview(buffer)[sent:] if sent else buffer)
            sent = 0
    return rest


def send_some(sock: socket.socket, buffers: Buffers, flags: int = 0) -> int:
    """Send a gather list in one call: the bytes that left. A list of very many buffers is begun."""
    return sock.sendmsg(buffers if len(buffers) <= _IOV_MAX else buffers[:_IOV_MAX], (), flags)


def _wait(deadline: Deadline, *waited_for: tuple[socket.socket | int, int]) -> bool:
    """Wait until a socket or descriptor is ready for its events. False if the time was over before; True does not
    say that one is."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    poller = select.poll()
    for descriptor, events in waited_for:
        poller.register(descriptor, events)
    poller.poll(min(left, _LONGEST_POLL) * _MILLISECONDS)
    return True


class Wire:
    """A connected socket whose waits end at deadlines, at the price of one system call for each send and of two for
    each receive. One thread at a time receives. Methods raise ``OSError``.

    Python's own socket timeouts would poll before every send too. And no wait is left to the socket (SO_RCVTIMEO):
    Python begins a receive that a signal interrupts anew with all of its time (PEP 475), so that a program with a
    quick timer would never see its deadline. Of a poll it takes the rest.
    """

    __slots__ = ("_poller", "_sock", "_stop", "_wake", "bytes_in", "bytes_out", "last_wait", "sends")

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._stop: StopFlag | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.last_wait = 0.0
        self.sends = 0
        self.bytes_out = 0
        self.bytes_in = 0

    def send(self, buffers: Buffers, *, deadline: Deadline) -> bool:
        """Send a gather list in one call if it fits. False if the time was over before all of it had left;
        ``bytes_out`` says what did."""
        sent = self.send_now(buffers)
        return sent == sum(map(len, buffers)) or self._send_rest(rest_of(buffers, sent), deadline)

    def send_now(self, buffers: Buffers) -> int:
        """Send without waiting: the bytes that left."""
        self.sends += 1
        try:
            sent = send_some(self._sock, buffers, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        self.bytes_out += sent
        return sent

    def _send_rest(self, buffers: Buffers, deadline: Deadline) -> bool:
        while buffers:
            if not _wait(deadline, (self._sock, select.POLLOUT)):
                return False
            buffers = rest_of(buffers, self.send_now(buffers))
        return True

    def heed(self, stop: StopFlag | None) -> None:
        """From now on :meth:`receive` ends as soon as this is set, with an ``OSError`` (ECANCELED); ``None``: nothing
        ends it any more."""
        if self._stop is not None:
            self._poller.unregister(self._stop)
        if stop is not None:
            self._poller.register(stop, select.POLLIN)
        self._stop = stop

    def receive(self, *, deadline: Deadline) -> bytes | None:
        """What comes next: empty if the peer closed, ``None`` if the time is over."""
        self.last_wait = now = time.monotonic()
        while (left := deadline - now) > 0:
            self._poller.poll(min(left, _LONGEST_POLL) * _MILLISECONDS)
            if self._stop is not None:
                self._stop.check()
            data = Wire.receive_now(self)  # the socket's own bytes, whatever a subclass makes of them
            if data is not None:
                return data
            now = time.monotonic()
        return None

    def receive_now(self) -> bytes | None:
        """What is there already: empty if the peer closed, ``None`` if nothing came."""
        try:
            data = self._sock.recv(_RECEIVE_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self.bytes_in += len(data)
        return data

    def watch(self, *, deadline: Deadline) -> None:
        """Wait, without receiving, until something can be received or :meth:`wake` was called; it may end early."""
        _wait(deadline, (self._sock, select.POLLIN), (self._wake, select.POLLIN))

    def hung_up(self, *, deadline: Deadline) -> bool:
        """Wait, whatever can be received, until the peer hung up or the time is over; it may end early."""
        _wait(deadline, (self._sock, select.POLLRDHUP))
        poller = select.poll()
        poller.register(self._sock, select.POLLRDHUP)
        return bool(poller.poll(0))

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Our address and the peer's, with their ports. ``OSError`` if the connection is gone."""
        ours, theirs = self._sock.getsockname(), self._sock.getpeername()
        return (str(ours[0]), int(ours[1])), (str(theirs[0]), int(theirs[1]))

    def fileno(self) -> int:
        """The socket's descriptor, to wait for it beside others."""
        return self._sock.fileno()

    def wake(self) -> None:
        """End the present :meth:`watch` of any other thread."""
        os.eventfd_write(self._wake, 1)

    def forget_wake(self) -> None:
        """Whoever was woken has looked."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def hang_up(self) -> None:
        """End the connection both ways; whoever waits for it wakes up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def finish(self, seconds: float) -> None:
        """Say that nothing more comes, and wait until the peer has hung up too, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while self.receive(deadline=deadline):
                pass

    def close(self) -> None:
        """Close the socket, in this process only."""
        self._sock.close()
        if self._wake != _CLOSED:
            os.close(self._wake)
            self._wake = _CLOSED
