import threading
import time

import pytest

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.transaction_lock import TransactionLock


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
