"""When a binding attaches, waits, and lets be: with a clock and chances of the test's own."""

import pytest

from demail_hw.usbip.binding import (
    BindingCounters,
    BindingEvent,
    BindingMachine,
    BindingState,
    Failure,
    RetryLimits,
)

LIMITS = RetryLimits(first=1.0, longest=10.0, busy=3.0, stable=20.0)
CONNECTING, ATTACHED, LOST = BindingState.CONNECTING, BindingState.ATTACHED, BindingState.LOST
BACK_OFF, OFF = BindingState.BACK_OFF, BindingState.OFF


def machine(limits: RetryLimits = LIMITS, *, chance: float = 1.0, enabled: bool = True) -> BindingMachine:
    return BindingMachine(limits, random=lambda: chance, now=0.0, enabled=enabled)


def fail(binding: BindingMachine, now: float, kind: Failure = Failure.TRANSIENT) -> float | None:
    """One attempt that fails at once; when the next is due."""
    binding.begin(now)
    binding.failed(now, binding.counters.attempts, kind, "no")
    return binding.next_attempt()


def attach(binding: BindingMachine, now: float) -> None:
    binding.begin(now)
    assert binding.attached(now, binding.counters.attempts, "a reader") is not None


def waits(binding: BindingMachine, count: int, kind: Failure = Failure.TRANSIENT) -> list[float]:
    now, found = 0.0, []
    for _ in range(count):
        due = fail(binding, now, kind)
        assert due is not None
        found.append(due - now)
        now = due
    return found


def test_the_first_attempt_is_due_at_once() -> None:
    assert machine().next_attempt() == 0.0


def test_waits_double_to_the_longest() -> None:
    assert waits(machine(), 6) == [1, 2, 4, 8, 10, 10]


def test_of_each_wait_a_random_half_is_left_out() -> None:
    assert waits(machine(chance=0.0), 6) == [0.5, 1, 2, 4, 5, 5]


def test_ten_thousand_failures_do_not_overflow() -> None:
    assert waits(machine(), 10_000)[-1] == 10


def test_a_device_that_somebody_has_is_asked_for_in_a_fixed_cycle() -> None:
    binding = machine()
    assert waits(binding, 4, Failure.BUSY) == [3, 3, 3, 3]
    assert binding.counters == BindingCounters(attempts=4, failures=4, busy=4)


def test_what_no_time_mends_waits_longest_at_once() -> None:
    assert waits(machine(), 1, Failure.PERMANENT) == [10]


def test_an_attachment_begins_the_row_anew() -> None:
    binding = machine()
    waits(binding, 3)
    attach(binding, 100.0)
    assert binding.lost(150.0, "gone") == BindingEvent(150.0, ATTACHED, LOST, "gone")
    assert (binding.next_attempt(), binding.failures_in_row) == (150.0, 0)
    assert fail(binding, 150.0) == 151.0


def test_a_device_that_comes_and_goes_is_no_busy_loop() -> None:
    binding, now, found = machine(), 0.0, []
    for _ in range(4):
        attach(binding, now)
        binding.lost(now, "gone")
        due = binding.next_attempt()
        assert due is not None
        found.append(due - now)
        now = due
    assert found == [1, 2, 4, 8]


def test_it_is_given_up_after_so_many_failures_in_a_row() -> None:
    binding = machine(RetryLimits(first=1.0, attempts=2))
    assert fail(binding, 0.0) is not None
    assert fail(binding, 10.0) is None
    assert (binding.state, binding.reason) == (OFF, "It was given up after 2 failures. no")
    binding.enable(20.0)
    assert (binding.state, binding.next_attempt(), binding.failures_in_row) == (LOST, 20.0, 0)


def test_nothing_is_due_while_it_is_off() -> None:
    binding = machine(enabled=False)
    assert (binding.state, binding.next_attempt()) == (OFF, None)
    assert binding.disable(1.0) is None
    assert binding.lost(1.0, "gone") is None
    with pytest.raises(RuntimeError):
        binding.begin(1.0)


def test_nothing_is_begun_before_it_is_due() -> None:
    binding = machine()
    fail(binding, 0.0)
    with pytest.raises(RuntimeError):
        binding.begin(0.999)
    binding.begin(1.0)
    with pytest.raises(RuntimeError):
        binding.begin(1.0)


def test_what_ends_after_the_switch_does_not_count() -> None:
    binding = machine()
    binding.begin(0.0)
    binding.disable(1.0)
    assert binding.attached(2.0, 1, "late") is None
    assert (binding.state, binding.counters.attachments) == (OFF, 0)


def test_an_attempt_that_was_cut_short_is_no_failure() -> None:
    binding = machine(RetryLimits(first=1.0, longest=10.0, attempts=2))
    assert fail(binding, 0.0) == 1.0
    for _ in range(3):
        binding.begin(5.0)
        attempt = binding.attempt
        assert binding.cut_short(6.0, attempt, "no time") == BindingEvent(6.0, CONNECTING, BACK_OFF, "no time")
        assert (binding.next_attempt(), binding.failures_in_row, binding.counters.failures) == (6.0, 1, 1)
        assert binding.cut_short(7.0, attempt, "late") is None
        binding.begin(6.0)
        assert binding.cut_short(7.0, attempt, "late") is None
        assert binding.cut_short(5.0, attempt + 1, "no time") is not None
    assert fail(binding, 7.0) is None
    assert binding.given_up


def test_an_attempt_from_before_the_switch_does_not_end_the_next_one() -> None:
    binding = machine()
    binding.begin(0.0)
    binding.disable(1.0)
    binding.enable(2.0)
    binding.begin(3.0)
    assert binding.failed(4.0, 1, Failure.TRANSIENT, "late") is None
    assert binding.attached(5.0, 2, "a reader") == BindingEvent(5.0, CONNECTING, ATTACHED, "a reader")


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0.0},
        {"first": 2.0, "longest": 1.0},
        {"busy": 0.0},
        {"stable": -1.0},
        {"attempts": -1},
        {"longest": float("inf")},
        {"first": float("nan")},
        {"busy": 1e9},
        {"busy": float("nan")},
        {"longest": float("nan")},
        {"stable": float("nan")},
        {"stable": float("inf")},
    ],
)
def test_limits_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        RetryLimits(**wrong)  # type: ignore[arg-type]
