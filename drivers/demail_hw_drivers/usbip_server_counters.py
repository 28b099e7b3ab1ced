"""What a USB/IP server counts, and the limits of what a peer may ask of it."""

import dataclasses
import ipaddress
from typing import Final, NamedTuple

__all__ = ["NOTHING", "ServerCounters", "ServerLimits", "network_of"]

_HOST_BITS: Final = 64
_UNIQUE_LOCAL: Final = ipaddress.IPv6Network("fc00::/7")


class ServerCounters(NamedTuple):
    """What a server did so far; each only grows. ``refused``: imports and connections that were not granted.

    ``urbs`` to ``bytes_out`` count the URB phase only, without TLS; ``sends`` are system calls. ``taken_over``:
    sessions whose peer was dead and that its own successor ended. ``violations``: connections that ended because the
    peer broke USB/IP; ``tls_failures``: those that never got through TLS.
    """

    imports: int = 0
    refused: int = 0
    urbs: int = 0
    unlinks: int = 0
    sends: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0
    device_lists: int = 0
    taken_over: int = 0
    violations: int = 0
    tls_failures: int = 0

    def plus(self, other: "ServerCounters") -> "ServerCounters":
        """The sum of two."""
        return ServerCounters(*map(sum, zip(self, other, strict=True)))


NOTHING: Final = ServerCounters()


@dataclasses.dataclass(frozen=True, slots=True)
class ServerLimits:
    """What peers may use up. The codec bounds the rest: one transfer's length, and how many are pending.

    ``connections_per_address``: of all ``connections``, those from one :func:`network <network_of>`.
    ``operation_seconds``: from accept to the whole request, TLS included. ``send_seconds``: how long a peer may take
    nothing. ``bytes_in_hand``: what the transfers of a session ask for that are pending, or whose answers wait to be
    sent.
    """

    connections: int = 64
    connections_per_address: int = 32
    operation_seconds: float = 5.0
    send_seconds: float = 10.0
    bytes_in_hand: int = 8 << 20


def network_of(host: str) -> str:
    """What counts as one address: that of IPv4, and of IPv6 the first half, because one host chooses the other as it
    likes (RFC 4291, 2.5.4; RFC 8981). Not of neighbours, who would lock each other out: a link-local address (RFC
    4291, 2.5.6) or a unique local one (RFC 4193) is one."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local or address in _UNIQUE_LOCAL:
        return str(address)
    return str(ipaddress.IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS))
