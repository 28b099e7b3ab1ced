"""The life of a binding, without I/O: when to attach to a device, when to wait, when to let it be.

::

    OFF --- enable ---> LOST --- due, begin ---> CONNECTING --- attached ---> ATTACHED
                         ^                           |  ^                         |
                         |         failed, cut short |  | due, begin              |
                         |                           v  |                         |
                         |                         BACK_OFF                       |
                         +-------------------------- lost ------------------------+

``disable`` leads to OFF from everywhere, and so does the last attempt that the limits grant. Time is handed in, in
seconds of any clock that never goes back; so is what is random.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["BindingCounters", "BindingEvent", "BindingMachine", "BindingState", "Failure", "RetryLimits"]

_LONGEST_WAIT: Final = 86_400.0
_DOUBLINGS: Final = 32
"""More are not needed to reach any longest wait, and a float would end."""


class BindingState(enum.Enum):
    """Where a binding is. ``LOST``: it was attached, or was just switched on, and is tried again at once."""

    CONNECTING = "connecting"
    ATTACHED = "attached"
    LOST = "lost"
    BACK_OFF = "back-off"
    OFF = "off"


_WAITING: Final = frozenset({BindingState.LOST, BindingState.BACK_OFF})


class Failure(enum.Enum):
    """What an attempt failed by, as far as it decides when to try again.

    ``BUSY``: somebody else holds the device, or the server does not list it now. ``PERMANENT``: nothing that time
    mends, such as a file that is missing.
    """

    BUSY = "busy"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


@dataclasses.dataclass(frozen=True, slots=True)
class RetryLimits:
    """How a binding tries again; seconds.

    ``first``: the wait after the first failure; it doubles to ``longest``, and of each wait a random half is left
    out, so that many clients do not come back to a server together. ``busy``: between two looks while somebody else
    holds the device. ``stable``: an attachment that ended sooner counts as a failure. ``attempts``: after so many
    failures one after the other it goes off; 0 for never.
    """

    first: float = 0.5
    longest: float = 60.0
    busy: float = 3.0
    stable: float = 10.0
    attempts: int = 0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.first, self.longest, self.busy, self.stable))):
            raise ValueError("every wait must be a finite number of seconds")
        if not 0 < self.first <= self.longest:
            raise ValueError("first must be more than 0, and longest no less than first")
        if self.busy <= 0:
            raise ValueError("busy must be more than 0")
        if max(self.longest, self.busy) > _LONGEST_WAIT:
            raise ValueError(f"no wait may be longer than {_LONGEST_WAIT:.0f} seconds")
        if min(self.stable, self.attempts) < 0:
            raise ValueError("stable and attempts must be no less than 0")


class BindingEvent(NamedTuple):
    """``at``: of the clock that was handed in. ``reason``: one sentence, or which device it is; may be empty."""

    at: float
    before: BindingState
    state: BindingState
    reason: str


class BindingCounters(NamedTuple):
    """What happened since the binding was made. ``attempts`` ended in ``attachments`` or ``failures``, were cut
    short, or have not ended yet; of the failures ``busy`` met somebody else."""

    attempts: int = 0
    attachments: int = 0
    losses: int = 0
    failures: int = 0
    busy: int = 0


class BindingMachine:
    """One binding. Every method returns the event that it led to; None if it changed nothing.

    An attempt is known by its number: one that was begun before the binding was switched off and on again ends
    nothing. ``RuntimeError`` if the caller begins what is not due.
    """

    __slots__ = (
        "_attached_at",
        "_counters",
        "_limits",
        "_random",
        "_reason",
        "_retry_at",
        "_row",
        "_since",
        "_state",
    )

    def __init__(self, limits: RetryLimits, *, random: Callable[[], float], now: float, enabled: bool = True) -> None:
        self._limits = limits
        self._random = random
        self._state = BindingState.LOST if enabled else BindingState.OFF
        self._reason = "" if enabled else "It is switched off."
        self._since = self._retry_at = self._attached_at = now
        self._row = 0
        self._counters = BindingCounters()

    @property
    def state(self) -> BindingState:
        """Where it is."""
        return self._state

    @property
    def since(self) -> float:
        """When it came there."""
        return self._since

    @property
    def reason(self) -> str:
        """Why it is there."""
        return self._reason

    @property
    def failures_in_row(self) -> int:
        """How many attempts failed one after the other until now."""
        return self._row

    @property
    def attempt(self) -> int:
        """The number of the attempt that was begun last; 0 before the first."""
        return self._counters.attempts

    @property
    def counters(self) -> BindingCounters:
        """What happened so far."""
        return self._counters

    @property
    def given_up(self) -> bool:
        """It is off because the attempts of its limits failed."""
        return self._state is BindingState.OFF and 0 < self._limits.attempts == self._row

    def next_attempt(self) -> float | None:
        """When an attempt is due; None while there is none to make."""
        return self._retry_at if self._state in _WAITING else None

    def begin(self, now: float) -> BindingEvent:
        """Begin the attempt that is due."""
        due = self.next_attempt()
        if due is None or now < due:
            raise RuntimeError("no attempt is due")
        self._count(attempts=1)
        return self._to(BindingState.CONNECTING, now, "")

    def attached(self, now: float, attempt: int, device: str) -> BindingEvent | None:
        """The attempt succeeded. None if it does not count any more: the device is to be let go."""
        if not self._ends(attempt):
            return None
        self._count(attachments=1)
        self._attached_at = now
        return self._to(BindingState.ATTACHED, now, device)

    def failed(self, now: float, attempt: int, kind: Failure, reason: str) -> BindingEvent | None:
        """The attempt failed. None if it does not count any more."""
        if not self._ends(attempt):
            return None
        self._count(failures=1, busy=int(kind is Failure.BUSY))
        return self._again(BindingState.BACK_OFF, now, kind, reason)

    def cut_short(self, now: float, attempt: int, reason: str) -> BindingEvent | None:
        """Who made the attempt had no more time: that says nothing of the device, and the next is due at once."""
        if not self._ends(attempt):
            return None
        self._retry_at = now
        return self._to(BindingState.BACK_OFF, now, reason)

    def lost(self, now: float, reason: str) -> BindingEvent | None:
        """The device went away. None if it was not attached any more."""
        if self._state is not BindingState.ATTACHED:
            return None
        self._count(losses=1)
        if now - self._attached_at < self._limits.stable:
            return self._again(BindingState.LOST, now, Failure.TRANSIENT, reason)
        self._row = 0
        self._retry_at = now
        return self._to(BindingState.LOST, now, reason)

    def enable(self, now: float) -> BindingEvent | None:
        """Switch on: the first attempt is due now."""
        if self._state is not BindingState.OFF:
            return None
        self._row = 0
        self._retry_at = now
        return self._to(BindingState.LOST, now, "It was switched on.")

    def disable(self, now: float, reason: str = "It is switched off.") -> BindingEvent | None:
        """Switch off: nothing more is tried, and whoever holds the device lets it go."""
        if self._state is BindingState.OFF:
            return None
        return self._to(BindingState.OFF, now, reason)

    def _ends(self, attempt: int) -> bool:
        return self._state is BindingState.CONNECTING and attempt == self._counters.attempts

    def _again(self, state: BindingState, now: float, kind: Failure, reason: str) -> BindingEvent:
        wait = self._wait(kind)
        self._row += 1
        if self._row == self._limits.attempts:
            return self._to(BindingState.OFF, now, f"It was given up after {self._row} failures. {reason}".rstrip())
        self._retry_at = now + wait
        return self._to(state, now, reason)

    def _wait(self, kind: Failure) -> float:
        limits = self._limits
        if kind is Failure.BUSY:
            return limits.busy
        steps = _DOUBLINGS if kind is Failure.PERMANENT else min(self._row, _DOUBLINGS)
        wait = min(limits.longest, limits.first * 2.0**steps)
        return wait * (1 + self._random()) / 2

    def _to(self, state: BindingState, now: float, reason: str) -> BindingEvent:
        event = BindingEvent(now, self._state, state, reason)
        self._state, self._since, self._reason = state, now, reason
        return event

    def _count(self, **more: int) -> None:
        now = self._counters
        self._counters = now._replace(**{name: getattr(now, name) + count for name, count in more.items()})
