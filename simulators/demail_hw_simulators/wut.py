"""A simulated W&T USB-Server: inventory, web page, USB port and control socket, in the published layouts.

What its USB port speaks is not published: it takes a connection there and hangs up. It restarts as the device does:
every port is closed for a while, and then open again.
"""

import contextlib
import dataclasses
import hmac
import ipaddress
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from demail_hw.errors import DeadlineExceeded, Outcome
from demail_hw.interfaces import Deadline
from demail_hw.wut.control import PASSWORD_SECONDS, REFUSAL, TERMINATOR
from demail_hw.wut.inventory import InfoHeader, InfoPacket, PortEntry, PortState, PortType
from demail_hw.wut.ports import FACTORY_PORTS, Ports

__all__ = ["DEFAULT_PACKET", "SimulatedWutServer"]

DEFAULT_PACKET: Final = InfoPacket(
    InfoHeader(
        software=0x1501,
        hardware=0x0006,
        mac=bytes.fromhex("00c03d000815"),
        ip=ipaddress.IPv4Address("172.17.2.3"),
        gateway=ipaddress.IPv4Address("172.17.2.1"),
        mask=ipaddress.IPv4Address("255.255.255.0"),
        mtu=1500,
        port_count=2,
    ),
    (PortEntry(PortType.UART, PortState.FREE), PortEntry(PortType.UART, PortState.FREE)),
)
"""What it says of itself: an invented device in the published layout. ``port_type`` has no code for USB there."""

_PAGE: Final = b"<!DOCTYPE html><title>USB-Server</title><h1>Simulated USB-Server</h1>\n"
_ANSWER: Final = (
    b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_PAGE), _PAGE)
)
_BACKLOG: Final = 16
_LONGEST: Final = 256
"""What is read of a password or a request."""
_CLOSE_SECONDS: Final = 5.0
_WEB_SECONDS: Final = 5.0


@dataclasses.dataclass(slots=True)
class _Guest:
    """A connection that has something to say until ``deadline``. ``done``: what is made of all that it said, as soon
    as that is whole, and at the deadline."""

    sock: socket.socket
    deadline: Deadline
    ends: bytes
    done: Callable[[bytes], bytes]
    said: bytearray = dataclasses.field(default_factory=bytearray)

    def hear(self) -> bool:
        """Take what came. True if nothing more is to be waited for."""
        try:
            data = self.sock.recv(_LONGEST)
        except OSError:
            return True
        self.said += data
        return not data or self.ends in self.said or len(self.said) >= _LONGEST

    def dismiss(self) -> None:
        """Answer and hang up."""
        with contextlib.closing(self.sock), contextlib.suppress(OSError):
            self.sock.sendall(self.done(bytes(self.said)))
            self.sock.shutdown(socket.SHUT_WR)


class SimulatedWutServer:
    """The device. A context manager; one thread runs in it.

    ``ports``: where it listens; 0 takes a free one, which it keeps over restarts (:attr:`ports` tells). ``password``:
    its system password, a test one. ``packet``: what it answers to a scan, which may be any bytes.
    ``restart_seconds``: how long it is away after a reset. ``password_seconds``: how long it waits for its password.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        ports: Ports = FACTORY_PORTS,
        password: bytes = b"",
        packet: bytes | None = None,
        restart_seconds: float = 1.0,
        password_seconds: float = PASSWORD_SECONDS,
    ) -> None:
        self._host = host
        self._password = password
        self._packet = DEFAULT_PACKET.encode() if packet is None else packet
        self._restart_seconds = restart_seconds
        self._password_seconds = password_seconds
        self._changed = threading.Condition()
        self._stopped = False
        self._restarts = 0
        self._restart_due = False
        self._guests: dict[socket.socket, _Guest] = {}
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="simulated USB-Server")
        try:
            self._open(ports)
        except BaseException:
            self._shut()
            self._waker.close()
            self._woken.close()
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)
        self._shut()
        self._waker.close()
        self._woken.close()

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        return self._ports

    @property
    def restarts(self) -> int:
        """How often it was reset and is back again."""
        with self._changed:
            return self._restarts

    def wait_until_back(self, restarts: int, *, deadline: Deadline) -> None:
        """Wait until it has restarted so often. Errors: :class:`~demail_hw.errors.DeadlineExceeded`."""
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: self._restarts >= restarts, left):
                raise DeadlineExceeded("The simulated USB-Server did not restart.", outcome=Outcome.NOT_SENT)

    # --- the ports

    def _open(self, ports: Ports) -> None:
        self._selector = selectors.DefaultSelector()  # of these ports: a restart begins with a new one
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        inventory = self._bind(socket.SOCK_DGRAM, ports.inventory, self._answer_scan)
        web = self._bind(socket.SOCK_STREAM, ports.web, self._greet_web)
        usb = self._bind(socket.SOCK_STREAM, ports.usb, self._greet_usb)
        control = self._bind(socket.SOCK_STREAM, ports.control, self._greet_control)
        self._ports = Ports(inventory, web, usb, control)

    def _bind(self, kind: socket.SocketKind, port: int, ready: Callable[[socket.socket], None]) -> int:
        sock = socket.socket(socket.AF_INET, kind)
        self._selector.register(sock, selectors.EVENT_READ, ready)  # _shut() closes what is registered
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self._host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
        sock.setblocking(False)
        return int(sock.getsockname()[1])

    def _shut(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            if key.fileobj is not self._woken and isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._guests.clear()
        self._selector.close()

    # --- what runs

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(self._patience()):
                if key.data is not None and isinstance(key.fileobj, socket.socket):
                    with contextlib.suppress(OSError):
                        key.data(key.fileobj)
            self._dismiss_late()
            if self._restart_due and not self._stopped:
                self._restart()

    def _patience(self) -> float | None:
        deadlines = [guest.deadline for guest in self._guests.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _dismiss_late(self) -> None:
        now = time.monotonic()
        for guest in [guest for guest in self._guests.values() if guest.deadline <= now]:
            self._dismiss(guest)

    def _dismiss(self, guest: _Guest) -> None:
        del self._guests[guest.sock]
        self._selector.unregister(guest.sock)
        guest.dismiss()

    def _restart(self) -> None:
        self._shut()
        with self._changed:
            self._restart_due = False
            if self._changed.wait_for(lambda: self._stopped, self._restart_seconds):
                return
        self._open(self._ports)
        with self._changed:
            self._restarts += 1
            self._changed.notify_all()

    # --- the services

    def _answer_scan(self, sock: socket.socket) -> None:
        _, source = sock.recvfrom(_LONGEST)
        sock.sendto(self._packet, source)

    def _greet_usb(self, listener: socket.socket) -> None:
        listener.accept()[0].close()

    def _greet_web(self, listener: socket.socket) -> None:
        self._receive(listener, _WEB_SECONDS, b"\r\n\r\n", lambda said: _ANSWER if said else b"")

    def _greet_control(self, listener: socket.socket) -> None:
        if self._password:
            self._receive(listener, self._password_seconds, TERMINATOR, self._judge)
        else:
            listener.accept()[0].close()
            self._restart_due = True

    def _receive(self, listener: socket.socket, seconds: float, ends: bytes, done: Callable[[bytes], bytes]) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        guest = _Guest(sock, time.monotonic() + seconds, ends, done)
        self._guests[sock] = guest
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._hear(guest))

    def _hear(self, guest: _Guest) -> None:
        if guest.hear():
            self._dismiss(guest)

    def _judge(self, said: bytes) -> bytes:
        password, terminator, _ = said.partition(TERMINATOR)
        if terminator and hmac.compare_digest(password, self._password):
            self._restart_due = True
            return b""
        return REFUSAL
