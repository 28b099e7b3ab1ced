"""The binding's machine under whatever order of events: the arrows of its picture, and no attempt before its time."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from demail_hw.usbip.binding import BindingEvent, BindingMachine, BindingState, Failure, RetryLimits

ARROWS = {
    BindingState.OFF: {BindingState.LOST},
    BindingState.LOST: {BindingState.CONNECTING, BindingState.OFF},
    BindingState.CONNECTING: {BindingState.ATTACHED, BindingState.BACK_OFF, BindingState.OFF},
    BindingState.ATTACHED: {BindingState.LOST, BindingState.OFF},
    BindingState.BACK_OFF: {BindingState.CONNECTING, BindingState.OFF},
}
SECONDS = st.floats(0, 200)
LIMITS = st.builds(
    RetryLimits,
    first=st.floats(0.01, 5),
    longest=st.floats(5, 100),
    busy=st.floats(0.1, 10),
    stable=st.floats(0, 60),
    attempts=st.integers(0, 4),
)


class BindingLife(RuleBasedStateMachine):
    @initialize(limits=LIMITS, chance=st.floats(0, 1, exclude_max=True), enabled=st.booleans())
    def begin_life(self, limits: RetryLimits, chance: float, enabled: bool) -> None:
        self.now = 0.0
        self.limits = limits
        self.binding = BindingMachine(limits, random=lambda: chance, now=0.0, enabled=enabled)
        self.state = self.binding.state

    def heed(self, event: BindingEvent | None) -> None:
        """Each change of state is one event along an arrow, and no event changes nothing."""
        if event is None:
            assert self.binding.state is self.state
            return
        assert (event.before, event.at) == (self.state, self.now)
        assert event.state in ARROWS[self.state]
        assert (self.binding.state, self.binding.since) == (event.state, self.now)
        self.state = event.state

    @rule(seconds=SECONDS)
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.binding.next_attempt() is not None)
    @rule()
    def attempt(self) -> None:
        due = self.binding.next_attempt()
        assert due is not None
        self.now = max(self.now, due)
        self.heed(self.binding.begin(self.now))

    @rule(behind=st.integers(0, 1))
    def succeed(self, behind: int) -> None:
        self.heed(self.binding.attached(self.now, self.binding.counters.attempts - behind, "a reader"))

    @rule(behind=st.integers(0, 1))
    def be_cut_short(self, behind: int) -> None:
        row = self.binding.failures_in_row
        self.heed(self.binding.cut_short(self.now, self.binding.counters.attempts - behind, "no time"))
        assert self.binding.failures_in_row == row

    @rule(kind=st.sampled_from(Failure), behind=st.integers(0, 1))
    def fail(self, kind: Failure, behind: int) -> None:
        self.heed(self.binding.failed(self.now, self.binding.counters.attempts - behind, kind, "no"))

    @rule()
    def lose(self) -> None:
        self.heed(self.binding.lost(self.now, "gone"))

    @rule()
    def switch_on(self) -> None:
        self.heed(self.binding.enable(self.now))
        assert self.binding.state is not BindingState.OFF

    @rule()
    def switch_off(self) -> None:
        self.heed(self.binding.disable(self.now))
        assert self.binding.state is BindingState.OFF

    @invariant()
    def a_wait_has_an_end(self) -> None:
        due = self.binding.next_attempt()
        waiting = self.state in (BindingState.LOST, BindingState.BACK_OFF)
        assert (due is not None) is waiting
        if due is not None:
            assert due <= self.binding.since + max(self.limits.longest, self.limits.busy)

    @invariant()
    def the_sums_are_right(self) -> None:
        counters = self.binding.counters
        assert counters.attempts >= counters.attachments + counters.failures
        assert counters.attachments >= counters.losses
        assert counters.failures >= counters.busy
        if self.limits.attempts:
            assert self.binding.failures_in_row <= self.limits.attempts


TestBindingLife = BindingLife.TestCase
