"""What does a signature cost, at each depth of the stack?

The card is a null card: it takes no time, and every signature is verified as always.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from benchmarks.counts import EXPECTED, KEYS, WIRE_LIMITS, Counts
from benchmarks.depth import Depth, Part
from benchmarks.floor import Times, open_floor
from benchmarks.peer import Peer
from benchmarks.provider import MeasuredProvider, open_depths
from benchmarks.report import Target, table
from benchmarks.samples import Call, interleaved
from benchmarks.workload import signer, verifier
from demail_hw.identity import KeyRole

__all__ = ["Instructions", "Measured", "count_targets", "measure", "report", "wrong_counts"]

_COUNTED = 100
_ROUNDS = 24
_BATCH = 150

_What: TypeAlias = tuple[KeyRole, Depth]
_Providers: TypeAlias = Mapping[Depth, MeasuredProvider]
Instructions: TypeAlias = Mapping[_What, int]


class Measured(NamedTuple):
    """Counts a signature, and the times of every call."""

    counts: Mapping[_What, Counts]
    times: Times


def measure(peer: Peer) -> Measured:
    """All keys at all depths, and their floors, interleaved."""
    with contextlib.ExitStack() as resources:
        providers = resources.enter_context(open_depths(peer))
        counts = {(role, depth): _count(providers[depth], role) for role in KEYS for depth in Depth}
        calls: dict[tuple[KeyRole, Depth | Part], Call] = {}
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
    peer: Peer, providers: _Providers, role: KeyRole, wire: Counts
) -> Iterator[dict[tuple[KeyRole, Depth | Part], Call]]:
    """What is timed of one key."""
    verify = verifier(providers[Depth.IN_PROCESS].provider, role)
    with open_floor(peer, wire, verify) as floor:
        calls: dict[tuple[KeyRole, Depth | Part], Call] = {
            (role, depth): signer(providers[depth].provider, role) for depth in Depth
        }
        yield {**calls, (role, Part.VERIFICATION): verify, (role, Part.FLOOR): floor}


_HEADS = (
    *("key", "depth", "sign/s", "APDU", "CCID", "URB", "trips", "sends", "bytes out + in"),
    *("instr.", "wall p50", "p95", "CPU p50"),
)


def report(measured: Measured, instructions: Instructions | None) -> str:
    """A row for each key and depth; times in microseconds."""
    rows = [_row(what, measured, instructions) for what in measured.counts]
    lines = [
        table(
            "A signature in steady state, with a card that takes no time; both processes on one CPU (us)",
            _HEADS,
            rows,
        )
    ]
    if instructions is None:
        lines.append("INSTRUCTIONS WERE NOT MEASURED: valgrind is missing (apt-get install valgrind).")
    return "\n".join(lines)


def _row(what: _What, measured: Measured, instructions: Instructions | None) -> tuple[str, ...]:
    (role, depth), counts, samples = what, measured.counts[what], measured.times[what]
    taken = "-" if instructions is None else f"{instructions[what]:,}"
    numbers = (counts.apdus, counts.messages_out, counts.urbs, counts.round_trips, counts.sends)
    return (
        *(KEYS[role], depth.value, f"{samples.per_second:,.0f}", *(str(number or "-") for number in numbers)),
        *(f"{counts.bytes_out} + {counts.bytes_in}", taken),
        *(f"{time:.1f}" for time in (samples.wall_p50, samples.wall_p95, samples.cpu_p50)),
    )


def count_targets(measured: Measured) -> list[Target]:
    """What the counts were to be."""
    return [target for role in KEYS for target in _count_targets(KEYS[role], role, measured)]


def _count_targets(key: str, role: KeyRole, measured: Measured) -> list[Target]:
    counts = measured.counts[role, Depth.USB_IP]
    return [
        Target(f"{key}: card commands", counts.apdus, 1, "APDU"),
        Target(f"{key}: round trips", counts.round_trips, 1, "trip"),
        Target(f"{key}: on the wire", counts.bytes_out + counts.bytes_in, WIRE_LIMITS[role], "bytes"),
    ]


def wrong_counts(measured: Measured) -> list[str]:
    """Every count that is not what it has to be."""
    return [
        f"{KEYS[role]}, {depth.value}: {measured.counts[role, depth]}, and not {expected}"
        for (role, depth), expected in EXPECTED.items()
        if measured.counts[role, depth] != expected
    ]
