"""What the way to the card costs: a signature over links of several lengths, and what is left of many reconnects."""

import contextlib
import gc
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.null_card import NullCard
from benchmarks.peer import Peer
from benchmarks.provider import open_keys
from benchmarks.report import Target, table
from benchmarks.workload import Signer, signer
from demail_hw.address import Address
from demail_hw.identity import KeyRole
from demail_hw_drivers.ccid_reader import reader_over
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card.personality import OperationTime, TimingSpec
from demail_hw_simulators.card.timing import TimedCard, TimingModel
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.proxy import Link, Proxy

__all__ = [
    "ROUND_TRIPS",
    "Delayed",
    "Reconnected",
    "measure",
    "reconnect",
    "report",
    "slope",
    "targets",
    "wrong_counts",
]

ROUND_TRIPS = (0.0, 0.001, 0.02, 0.2)
"""Seconds: a proxy alone, a house, a country, the other side of the world."""
_SIGNATURES: Mapping[float, int] = {0.0: 200, 0.001: 200, 0.02: 50, 0.2: 10}
_SLOW_SIGNATURES = 5
_CARD_SECONDS = 0.3
"""What a signature by a card takes, more or less."""
_RECONNECTS = 10_000
_WARM_UP = 200
_SECONDS = 60.0
_MILLISECONDS = 1000.0
_KERNEL = Path(__file__).parent / "kernel_round_trips.json"
_PAGE_FIELD = "VmRSS:"
_SIGNATURE = 256
_COMMAND = bytes.fromhex("002A9E9A") + bytes(53)
_DONE = b"\x90\x00"
"""What a signature is to the card: so long are command and response on the card's own line."""


class Delayed(NamedTuple):
    """A signature over a link: seconds of its round trip and of the median signature, round trips of one, and
    seconds that the card works on it."""

    link: float
    seconds: float
    round_trips: float
    card: float = 0.0


class Reconnected(NamedTuple):
    """What a process has after so many connections, and had before: descriptors, and bytes of memory (RSS)."""

    connections: int
    descriptors: tuple[int, int]
    memory: tuple[int, int]


def _soon() -> float:
    return time.monotonic() + _SECONDS


def measure(peer: Peer) -> Sequence[Delayed]:
    """A signature over each link, by a card that takes no time: so the first row is what is not the link's. Then by
    one that takes as long as a card does."""
    at_once = [_measure(peer.usb_ip, link, _SIGNATURES[link]) for link in ROUND_TRIPS]
    return [*at_once, *_measure_slow()]


def _measure_slow() -> Sequence[Delayed]:
    card = netkey3()
    spec = TimingSpec(commands={}, other=0.0, operations=(OperationTime(_SIGNATURE, _CARD_SECONDS),), spread=0.0)
    model = TimingModel(spec, atr=card.atr, seed=0)
    device = SimulatedUsbReader(TimedCard(NullCard(card), model))
    own = model.seconds(_COMMAND, bytes(_SIGNATURE) + _DONE)
    with UsbIpServer([device], port=0) as server:
        return [_measure(server.port, link, _SLOW_SIGNATURES)._replace(card=own) for link in ROUND_TRIPS]


def _measure(port: int, link: float, count: int) -> Delayed:
    with _signing_over(port, link) as (sign, proxy):
        sign()
        before = proxy.turns
        seconds = [_timed(sign) for _ in range(count)]
        return Delayed(link, statistics.median(seconds), (proxy.turns - before) / count)


def _timed(sign: Signer) -> float:
    begun = time.perf_counter()
    sign()
    return time.perf_counter() - begun


@contextlib.contextmanager
def _signing_over(port: int, link: float) -> Iterator[tuple[Signer, Proxy]]:
    half = Link(delay=link / 2)
    with Proxy(("127.0.0.1", port), to_client=half, to_server=half) as proxy:
        transport = connect(Address.parse(f"usbip://127.0.0.1:{proxy.address[1]}/"), deadline=_soon())
        with open_keys(reader_over(transport)) as provider:
            yield signer(provider, KeyRole.SIGNATURE), proxy


def slope(measured: Sequence[Delayed]) -> float:
    """Seconds a signature, without the card's, for each second of a round trip (least squares): the round trips that
    it waits for."""
    own = [row.seconds - row.card for row in measured]
    return statistics.linear_regression([row.link for row in measured], own).slope


def reconnect(peer: Peer, connections: int = _RECONNECTS) -> Reconnected:
    """Import, ask who it is, let go; again and again."""
    address = Address.parse(peer.address)
    for _ in range(_WARM_UP):
        connect(address, deadline=_soon()).close()
    before = _descriptors(), _memory()
    for _ in range(connections):
        connect(address, deadline=_soon()).close()
    after = _descriptors(), _memory()
    return Reconnected(connections, (before[0], after[0]), (before[1], after[1]))


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _memory() -> int:
    gc.collect()
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(_PAGE_FIELD))
    return int(line.split()[1]) * 1024


# --- Report -----------------------------------------------------------------------------------------------------


def report(measured: Sequence[Delayed], reconnected: Reconnected) -> str:
    """Times in milliseconds. ``bound``: the first row, the card's time, and the round trips."""
    floor = measured[0].seconds
    rows = [
        (
            f"{row.link * _MILLISECONDS:g}",
            f"{row.card * _MILLISECONDS:.0f}",
            *(f"{seconds * _MILLISECONDS:.2f}" for seconds in (row.seconds, floor + row.card + row.link)),
            f"{row.round_trips:g}",
        )
        for row in measured
    ]
    lines = [
        table("A signature over a link (ms)", ("round trip", "card", "p50", "bound", "trips"), rows),
        f"slope: {slope(measured):.3f} round trips a signature{_kernel()}",
        _left_over(reconnected),
    ]
    return "\n".join(lines)


def _left_over(reconnected: Reconnected) -> str:
    connections, descriptors, memory = reconnected
    return (
        f"{connections:,} reconnects: {descriptors[0]} descriptors, then {descriptors[1]};"
        f" {memory[0] >> 10:,} KiB, then {memory[1] >> 10:,} KiB"
    )


def _kernel() -> str:
    """The same card through the kernel, pcscd and OpenSC, as the tests with a real kernel have counted it."""
    counted = json.loads(_KERNEL.read_text()) if _KERNEL.exists() else {}
    parts = [f"{what}: {counts['round_trips']}" for what, counts in counted.items()]
    return f"; through the kernel, by OpenSC, {', '.join(parts)}" if parts else ""


def targets(measured: Sequence[Delayed], reconnected: Reconnected) -> list[Target]:
    """What was to be reached."""
    grown = reconnected.memory[1] - reconnected.memory[0]
    return [
        Target("a signature over a link: slope", slope(measured), 1.05, "trips"),
        Target("reconnects: memory grown", grown / 1024, 1024, "KiB"),
    ]


def wrong_counts(measured: Sequence[Delayed], reconnected: Reconnected) -> list[str]:
    """Every count that is not what it has to be."""
    wrong = [
        f"{row.round_trips} round trips a signature over {row.link} s" for row in measured if row.round_trips != 1
    ]
    before, after = reconnected.descriptors
    return wrong + ([f"{after - before} descriptors are left of reconnects"] if after > before else [])
