"""How much of a signature is our doing? The floor: the same bytes, both ways, and the verification, with nothing else.

The echo runs between the same two processes, over a connection of its own.
"""

import contextlib
import socket
from collections.abc import Iterator, Mapping

from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.counts import KEYS, Counts
from benchmarks.depth import Depth
from benchmarks.peer import ECHO_SIZES, RECEIVE_SIZE, Peer
from benchmarks.report import Target, table
from benchmarks.samples import Call, Samples
from demail_hw.identity import KeyRole

__all__ = ["open_floor", "report", "targets", "verification"]

_IN_PROCESS_US = 40.0
_USB_IP_US = 100.0
_RATIO = 3.0


def verification(public_key: rsa.RSAPublicKey, signature: bytes, digest: bytes) -> Call:
    """One verification, as the key does it."""
    scheme, algorithm = padding.PKCS1v15(), utils.Prehashed(SHA256())
    return lambda: public_key.verify(signature, digest, scheme, algorithm)


@contextlib.contextmanager
def open_floor(peer: Peer, counts: Counts, verify: Call) -> Iterator[Call]:
    """An echo of as many bytes as ``counts`` has, and one verification."""
    with socket.create_connection(peer.echo) as connection:
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


def report(samples: Mapping[str, Samples]) -> str:
    """Total, verification, rest, floor, and the ratio: times are p50 in microseconds."""
    rows = []
    for role, key in KEYS.items():
        total, verify, floor = (samples[name].wall_p50 for name in _names(role))
        ratio = _ratio(samples, role)
        rows.append((key, f"{total:.1f}", f"{verify:.1f}", f"{total - verify:.1f}", f"{floor:.1f}", f"{ratio:.2f}"))
    heads = ("key", "total", "verification", "rest", "floor: echo + verification", "total / floor")
    return table("A signature over USB/IP against its floor (p50, us)", heads, rows)


def _names(role: KeyRole) -> tuple[str, str, str]:
    return f"{role.value} {Depth.USB_IP.value}", f"{role.value} verification", f"{role.value} floor"


def _ratio(samples: Mapping[str, Samples], role: KeyRole) -> float:
    total, _, floor = _names(role)
    return samples[total].wall_p50 / samples[floor].wall_p50


def targets(samples: Mapping[str, Samples]) -> list[Target]:
    """What the times were to be."""
    found = []
    for role, key in KEYS.items():
        in_process = samples[f"{role.value} {Depth.IN_PROCESS.value}"].wall_p50
        total = samples[_names(role)[0]].wall_p50
        found += [
            Target(f"{key}: in process, p50", in_process, _IN_PROCESS_US, "us"),
            Target(f"{key}: USB/IP and CCID, p50", total, _USB_IP_US, "us"),
            Target(f"{key}: USB/IP and CCID against the floor", _ratio(samples, role), _RATIO, "x"),
        ]
    return found
