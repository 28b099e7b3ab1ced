"""Manages a W&T USB-Server, as far as its wire is published: who is there, what answers, and a reset.

Nothing here connects to the control port but :func:`reset`: where no system password is set, the connection alone
resets the device.
"""

import contextlib
import dataclasses
import enum
import errno
import socket
import time
from collections.abc import Iterator
from typing import Final

from demail_hw.address import netloc
from demail_hw.errors import (
    DeadlineExceeded,
    DeviceNotFound,
    Outcome,
    ProtocolViolation,
    ServerRefused,
    TransportError,
)
from demail_hw.interfaces import Deadline
from demail_hw.secrets import Pin, PinSource
from demail_hw.wut.control import LONGEST_ANSWER, Verdict, password_message, verdict_on
from demail_hw.wut.inventory import Inventory, read_inventory
from demail_hw.wut.ports import FACTORY_PORTS, Ports
from demail_hw_drivers.tcp import Wire, open_connection

__all__ = ["BROADCAST", "FoundServer", "Reachability", "ServerStatus", "ask", "discover", "reset", "status"]

BROADCAST: Final = "255.255.255.255"
"""Every device in this network; no router lets it through."""

_QUESTION: Final = b"\0"
"""Any datagram is one."""
_PAUSE: Final = 0.5
_LARGEST: Final = 0xFFFF
_MOST: Final = 1024
"""No network has so many; whoever sends more different answers is no device."""
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


@dataclasses.dataclass(frozen=True, slots=True)
class FoundServer:
    """Who answered. ``host``: the address that the answer came from, which is not always the one in it."""

    host: str
    inventory: Inventory


class Reachability(enum.Enum):
    """What became of a connection to a TCP port."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "no answer"
    UNREACHABLE = "unreachable"


@dataclasses.dataclass(frozen=True, slots=True)
class ServerStatus:
    """What answers at a host. ``inventory``: ``None`` if nothing came."""

    host: str
    inventory: Inventory | None
    web: Reachability
    usb: Reachability

    @property
    def answers(self) -> bool:
        """Is there anything? A port that refuses is a sign of life too."""
        alive = {Reachability.OPEN, Reachability.REFUSED}
        return self.inventory is not None or bool(alive & {self.web, self.usb})


def discover(
    address: str = BROADCAST, *, deadline: Deadline, port: int = FACTORY_PORTS.inventory
) -> tuple[FoundServer, ...]:
    """Ask until the deadline, again and again, since datagrams are lost; each different answer once, by address.

    ``address``: a host, or a broadcast address. Errors: :class:`~demail_hw.errors.DeviceNotFound` for a name that is
    not known; :class:`~demail_hw.errors.TransportError` if nothing can be sent there.
    """
    found: dict[tuple[str, bytes], None] = {}
    with _datagrams(address, port) as (sock, target):
        for answer in _answers(sock, target, deadline=deadline):
            found[answer] = None
            if len(found) == _MOST:
                break
    return tuple(FoundServer(host, read_inventory(data)) for host, data in sorted(found, key=_by_number))


def ask(host: str, *, deadline: Deadline, port: int = FACTORY_PORTS.inventory) -> Inventory | None:
    """The first answer of this host; ``None`` if none comes until the deadline. Errors: as :func:`discover`."""
    with _datagrams(host, port) as (sock, target):
        for source, data in _answers(sock, target, deadline=deadline):
            if source == target[0]:  # anybody may send here
                return read_inventory(data)
    return None


def status(host: str, *, deadline: Deadline, ports: Ports = FACTORY_PORTS) -> ServerStatus:
    """Who answers at a host, without harm: the inventory port, and a connection to the web and the USB port that is
    closed at once. Never to the control port.

    Each of the three has its share of the time. Errors: as :func:`discover`.
    """
    inventory = ask(host, deadline=_share(deadline, 3), port=ports.inventory)
    web = _reach(host, ports.web, deadline=_share(deadline, 2))
    usb = _reach(host, ports.usb, deadline=_share(deadline, 1))
    return ServerStatus(host, inventory, web, usb)


def reset(
    host: str, password: PinSource | None = None, *, deadline: Deadline, port: int = FACTORY_PORTS.control
) -> None:
    """Restart the device; every client of it loses its readers. ``password``: where its system password comes from,
    which is asked before the connection, since the device waits two seconds.

    Errors: :class:`~demail_hw.errors.ServerRefused` if the device wants another password;
    :class:`~demail_hw.errors.TransportError` if nobody listens; :class:`~demail_hw.errors.ProtocolViolation` for an
    answer that is none; :class:`~demail_hw.errors.DeadlineExceeded` if it neither answers nor hangs up.
    """
    if password is None:
        _reset(host, port, None, deadline)
        return
    with password.read() as secret:
        _reset(host, port, secret, deadline)


def _reset(host: str, port: int, secret: Pin | None, deadline: Deadline) -> None:
    message = () if secret is None else password_message(secret)
    with _connecting(host, port):
        sock = open_connection(host, port, deadline=deadline)
    with contextlib.closing(Wire(sock)) as wire:
        # A device without a password has hung up already; what it said before can still be received.
        with contextlib.suppress(OSError):
            wire.send(message, deadline=deadline)
        answer = _to_the_end(wire, deadline, netloc(host, port))
    _judge(verdict_on(answer), netloc(host, port), size=len(answer), asked=secret is not None)


def _to_the_end(wire: Wire, deadline: Deadline, where: str) -> bytes:
    """All until the device hangs up, but not much more than it has to say."""
    answer = b""
    with contextlib.suppress(ConnectionError):  # a reset of the connection is a restart too
        while len(answer) <= LONGEST_ANSWER:
            data = wire.receive(deadline=deadline)
            if data is None:
                raise DeadlineExceeded(
                    f"{where} took the connection, and neither answered nor hung up.",
                    remedy="See with demail-hw usb-server status whether a W&T USB-Server is there.",
                )
            if not data:
                break
            answer += data
    return answer


def _judge(verdict: Verdict, where: str, *, size: int, asked: bool) -> None:
    match verdict:
        case Verdict.RESTARTS:
            return
        case Verdict.REFUSED:
            raise ServerRefused(
                f"{where} did not take the system password." if asked else f"{where} wants its system password.",
                transient=False,
                outcome=Outcome.REFUSED,
                remedy="Give the right one with --password-from.",
            )
        case Verdict.UNCLEAR:
            # Not what it said: that may be the password that it was sent.
            raise ProtocolViolation(
                f"{where} answered {size} bytes that are no answer of a W&T USB-Server.",
                remedy="Check the address: something else listens there.",
            )


def _by_number(answer: tuple[str, bytes]) -> tuple[bytes, bytes]:
    return socket.inet_aton(answer[0]), answer[1]


@contextlib.contextmanager
def _datagrams(host: str, port: int) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """A socket, and the IPv4 address of the host: these devices have no other."""
    with _connecting(host, port), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        found = socket.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
        address = found[0][4]
        yield sock, (str(address[0]), port)


def _answers(sock: socket.socket, target: tuple[str, int], *, deadline: Deadline) -> Iterator[tuple[str, bytes]]:
    while (now := time.monotonic()) < deadline:
        sock.sendto(_QUESTION, target)
        until = min(deadline, now + _PAUSE)
        with contextlib.suppress(TimeoutError):
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                data, source = sock.recvfrom(_LARGEST)
                yield source[0], data


def _share(deadline: Deadline, shares: int) -> Deadline:
    """The moment at which the first of so many equal parts of the time ends."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) / shares


def _reach(host: str, port: int, *, deadline: Deadline) -> Reachability:
    try:
        open_connection(host, port, deadline=deadline).close()
    except (DeadlineExceeded, TimeoutError):
        return Reachability.SILENT
    except ConnectionError:
        return Reachability.REFUSED
    except OSError:
        return Reachability.UNREACHABLE
    return Reachability.OPEN


@contextlib.contextmanager
def _connecting(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except socket.gaierror as error:
        raise DeviceNotFound(f"The name {host} is not known: {error.strerror}.", remedy="Check it.") from error
    except OSError as error:
        remedy = "Check the route to it." if error.errno in _UNREACHABLE else "Check its address, and that it runs."
        why = error.strerror or str(error)
        raise TransportError(f"{netloc(host, port)} cannot be reached: {why}.", remedy=remedy) from error
