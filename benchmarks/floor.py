"""How much of a signature is our doing? Its floor has nothing else: the same bytes both ways, and the verification.

The echo runs between the same two processes, over a connection of its own, in turn with the signatures.
"""

import contextlib
import socket
from collections.abc import Iterator, Mapping

from benchmarks.counts import KEYS, Counts
from benchmarks.depth import Depth, Part
from benchmarks.peer import ECHO_SIZES, RECEIVE_SIZE, Peer
from benchmarks.report import Target, table
from benchmarks.samples import Call, Samples
from demail_hw.identity import KeyRole

__all__ = ["Times", "open_floor", "report", "targets"]

Times = Mapping[tuple[KeyRole, Depth | Part], Samples]

_IN_PROCESS_US = 40.0
_USB_IP_US = 100.0
_RATIO = 3.0


@contextlib.contextmanager
def open_floor(peer: Peer, counts: Counts, verify: Call) -> Iterator[Call]:
    """An echo of as many bytes as ``counts`` has, and one verification."""
    with socket.create_connection(peer.echo_endpoint) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(ECHO_SIZES.pack(counts.bytes_out, counts.bytes_in))
        message = bytes(counts.bytes_out)

        def floor() -> None:
            connection.sendall(message)
            missing = counts.bytes_in
            while missing:
                missing -= len(connection.recv(RECEIVE_SIZE))
            verify()

        yield floor


def report(times: Times, *, placed: str) -> str:
    """Total, verification, rest, floor, and the ratio. ``placed``: on which CPUs the two processes were."""
    heads = ("key", "total", "verification", "rest", "floor", "total / floor")
    rows = [(key, *_figures(times, role)) for role, key in KEYS.items()]
    return table(
        f"A signature over USB/IP and its floor, an echo and one verification; {placed} (p50, us)", heads, rows
    )


def _figures(times: Times, role: KeyRole) -> tuple[str, ...]:
    total, verification = times[role, Depth.USB_IP].wall_p50, times[role, Part.VERIFICATION].wall_p50
    figures = (total, verification, total - verification, times[role, Part.FLOOR].wall_p50)
    return (*(f"{figure:.1f}" for figure in figures), f"{_ratio(times, role):.2f}")


def _ratio(times: Times, role: KeyRole) -> float:
    return times[role, Depth.USB_IP].wall_p50 / times[role, Part.FLOOR].wall_p50


def targets(times: Times) -> list[Target]:
    """What the times were to be."""
    return [target for role in KEYS for target in _targets(times, role)]


def _targets(times: Times, role: KeyRole) -> list[Target]:
    key = KEYS[role]
    return [
        Target(f"{key}: in process, p50", times[role, Depth.IN_PROCESS].wall_p50, _IN_PROCESS_US, "us"),
        Target(f"{key}: USB/IP and CCID, p50", times[role, Depth.USB_IP].wall_p50, _USB_IP_US, "us"),
        Target(f"{key}: USB/IP and CCID against the floor", _ratio(times, role), _RATIO, "times"),
    ]
