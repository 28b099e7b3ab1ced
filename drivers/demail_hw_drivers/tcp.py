"""TCP connections that notice a dead peer, for both ends of USB/IP."""

import socket
import time
from collections.abc import Sequence
from typing import Final

from demail_hw.errors import DeadlineExceeded, Outcome
from demail_hw.interfaces import Buffer, Buffers, Deadline

__all__ = ["connect", "rest_of", "tune"]

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


def tune(sock: socket.socket) -> None:
    """No delay, and a dead peer is found in 15 seconds at most, whether we send or wait."""
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)


def connect(host: str, port: int, *, deadline: Deadline) -> socket.socket:
    """A tuned connection to the first address of ``host`` that answers; its timeout is what was left.

    Errors: :class:`~demail_hw.errors.DeadlineExceeded`, or the ``OSError`` of the last address. The look-up of
    the name has no deadline of ours: that is the resolver's.
    """
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            tune(sock)
            sock.settimeout(remaining(deadline, f"connecting to {host}:{port}"))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def remaining(deadline: Deadline, doing: str) -> float:
    """The seconds that are left. Errors: :class:`~demail_hw.errors.DeadlineExceeded`, nothing was sent."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded(
            f"The time was over while {doing}.", outcome=Outcome.NOT_SENT, transient=True
        )
    return left


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
