"""Times: batches of calls, each call measured by itself."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

__all__ = ["Call", "Samples", "interleaved"]

Call: TypeAlias = Callable[[], object]
_Name = TypeVar("_Name")

_WARM_UP = 10
_NANOSECONDS = 1e9
_MICROSECOND = 1e3


class Samples:
    """Wall time of each call, and CPU time of this process, in nanoseconds."""

    def __init__(self) -> None:
        self.wall: list[int] = []
        self.cpu: list[int] = []

    def add(self, call: Call, calls: int) -> None:
        """One batch: first wall time, then CPU time, because a look at the one costs some of the other."""
        for _ in range(_WARM_UP):
            call()
        self.wall += _measure(call, calls, time.perf_counter_ns)
        self.cpu += _measure(call, calls, time.process_time_ns)

    @property
    def per_second(self) -> float:
        """Calls a second, one after the other."""
        return len(self.wall) * _NANOSECONDS / sum(self.wall)

    @property
    def wall_p50(self) -> float:
        """In microseconds."""
        return statistics.median(self.wall) / _MICROSECOND

    @property
    def wall_p95(self) -> float:
        """In microseconds."""
        return statistics.quantiles(self.wall, n=20)[-1] / _MICROSECOND

    @property
    def cpu_p50(self) -> float:
        """In microseconds."""
        return statistics.median(self.cpu) / _MICROSECOND


def _measure(call: Call, calls: int, clock: Callable[[], int]) -> list[int]:
    moments = []
    for _ in range(calls):
        moments.append(clock())
        call()
    moments.append(clock())
    return [after - before for before, after in itertools.pairwise(moments)]


def interleaved(calls: Mapping[_Name, Call], *, rounds: int, batch: int) -> dict[_Name, Samples]:
    """Every call in turn, a batch at a time: what disturbs the machine disturbs them all."""
    samples = {name: Samples() for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].add(call, batch)
    return samples
