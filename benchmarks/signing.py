"""What does a signature cost, at each depth of the stack?

The card is a null card: it takes no time, and every signature is verified as always.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from benchmarks.counts import EXPECTED, KEYS, WIRE_LIMITS, Counts
from benchmarks.depth import Depth
from benchmarks.floor import open_floor, verification
from benchmarks.peer import Peer
from benchmarks.provider import MeasuredProvider, open_depths
from benchmarks.report import Target, table
from benchmarks.samples import Call, Samples, interleaved
from benchmarks.workload import DIGEST, private_key, signer
from demail_hw.identity import KeyRole

__all__ = ["Instructions", "Measured", "count_targets", "measure", "report", "wrong_counts"]

_COUNTED = 100
_ROUNDS = 60
_BATCH = 40

_What: TypeAlias = tuple[KeyRole, Depth]
Instructions: TypeAlias = Mapping[_What, int]


class Measured(NamedTuple):
    """Counts a signature, and the times of every call by its name."""

    counts: Mapping[_What, Counts]
    samples: Mapping[str, Samples]


def measure(peer: Peer) -> Measured:
    """All keys at all depths, and their floors, interleaved."""
    with contextlib.ExitStack() as resources:
        providers = resources.enter_context(open_depths(peer))
        counts = {(role, depth): _count(providers[depth], role) for role in KEYS for depth in Depth}
        calls: dict[str, Call] = {}
        for role in KEYS:
            calls |= resources.enter_context(_calls(peer, providers, role, counts[role, Depth.USB_IP]))
        return Measured(counts, interleaved(calls, rounds=_ROUNDS, batch=_BATCH))


def _count(measured: MeasuredProvider, role: KeyRole) -> Counts:
    sign = signer(measured.provider, role)
    sign()  # From here on nothing but signatures: PIN, application and security environment are set.
    before = measured.counts()
    for _ in range(_COUNTED):
        sign()
    return measured.counts().since(before).per(_COUNTED)


@contextlib.contextmanager
def _calls(
    peer: Peer, providers: Mapping[Depth, MeasuredProvider], role: KeyRole, wire: Counts
) -> Iterator[dict[str, Call]]:
    """What is timed for one key, by name."""
    key = private_key(providers[Depth.IN_PROCESS].provider, role)
    verify = verification(key.public_key(), bytes(signer(providers[Depth.IN_PROCESS].provider, role)()), DIGEST)
    with open_floor(peer, wire, verify) as floor:
        yield {
            **{f"{role.value} {depth.value}": signer(providers[depth].provider, role) for depth in Depth},
            f"{role.value} verification": verify,
            f"{role.value} floor": floor,
        }
