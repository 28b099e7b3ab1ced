import dis
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeAlias

import pytest

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.transaction_lock import TransactionLock

TraceFunction: TypeAlias = Callable[[FrameType, str, object], object]


def soon() -> float:
    return time.monotonic() + 10


def test_held_by_one_thread_only() -> None:
    lock = TransactionLock()
    seen: list[bool] = []
    with lock.hold(deadline=soon()):
        assert lock.held
        other = threading.Thread(target=lambda: seen.append(lock.held))
        other.start()
        other.join()
    assert seen == [False]
    assert not lock.held


def test_the_deadline_holds_and_nothing_was_sent() -> None:
    lock = TransactionLock()
    errors: list[DeadlineExceeded] = []

    def wait() -> None:
        try:
            lock.hold(deadline=time.monotonic())
        except DeadlineExceeded as error:
            errors.append(error)

    with lock.hold(deadline=soon()):
        other = threading.Thread(target=wait)
        other.start()
        other.join()
    assert [(e.layer, e.outcome, e.transient) for e in errors] == [(Layer.CARD, Outcome.NOT_SENT, True)]


def test_not_reentrant_but_free_after_an_error() -> None:
    lock = TransactionLock()

    def hold_and_fail() -> None:
        with lock.hold(deadline=soon()):
            with pytest.raises(RuntimeError, match="already"):
                lock.hold(deadline=soon())
            raise KeyError

    with pytest.raises(KeyError):
        hold_and_fail()
    with lock.hold(deadline=soon()):
        assert lock.held


class Interrupt:
    """Ctrl-C at the n-th place of the lock's code where Python looks for signals: at an entry, or after a call."""

    def __init__(self, place: int) -> None:
        self.places_left = place
        self._last = ""

    def trace(self, frame: FrameType, event: str, _: object) -> "TraceFunction | None":
        if not frame.f_code.co_filename.endswith("transaction_lock.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if operation == "RESUME" or self._last.startswith("CALL"):
                self._strike()
            self._last = operation
        return self.trace

    def _strike(self) -> None:
        self.places_left -= 1
        if self.places_left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt


def was_interrupted(lock: TransactionLock, place: int) -> bool:
    before = sys.gettrace()
    sys.settrace(Interrupt(place).trace)
    try:
        with lock.hold(deadline=soon()):
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_never_leaves_it_behind() -> None:
    lock = TransactionLock()
    place = 0
    while was_interrupted(lock, place):
        assert not lock.held
        with lock.hold(deadline=time.monotonic()):
            assert lock.held
        place += 1
    assert place > 2  # the entry, and after both calls
