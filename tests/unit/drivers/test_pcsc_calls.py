"""Calls in a thread: what comes back, what is given up, and what is cleaned up after it."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from demail_hw.errors import DeadlineExceeded, DeviceLost, Outcome
from demail_hw_drivers.pcsc_calls import CallThread, call_each


def soon() -> float:
    return time.monotonic() + 20


def late() -> DeadlineExceeded:
    return DeadlineExceeded("too late")


class Worker:
    """A thread, what it did at its end, and a call in it that hangs until it is let go."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.let_go = threading.Event()
        self.hanging = threading.Event()
        self.called: list[str] = []
        self.thread = CallThread("test", at_end=self.at_end)

    def at_end(self) -> None:
        self.called.append("at_end")
        self.ended.set()

    def hang(self) -> None:
        self.hanging.set()
        assert self.let_go.wait(20)
        self.called.append("hang")


@pytest.fixture
def worker() -> Iterator[Worker]:
    before = set(threading.enumerate())
    worker = Worker()
    yield worker
    worker.let_go.set()
    worker.thread.end(deadline=soon())
    worker.thread.join(deadline=soon())
    assert set(threading.enumerate()) <= before


def test_result_comes_back_from_the_thread(worker: Worker) -> None:
    idents = [worker.thread.call(threading.get_ident, deadline=soon(), late=late) for _ in range(2)]
    assert idents[0] == idents[1] != threading.get_ident()


def test_exception_comes_back(worker: Worker) -> None:
    with pytest.raises(ZeroDivisionError):
        worker.thread.call(lambda: 1 // 0, deadline=soon(), late=late)
    assert worker.thread.call(lambda: 7, deadline=soon(), late=late) == 7


def test_nothing_is_called_after_the_deadline(worker: Worker) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        worker.thread.call(worker.hang, deadline=time.monotonic(), late=late)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert not worker.thread.lost
    worker.thread.end(deadline=soon())
    assert worker.called == ["at_end"]


def test_deadline_may_be_far(worker: Worker) -> None:
    assert worker.thread.call(lambda: 7, deadline=float("inf"), late=late) == 7


def test_call_that_does_not_return_is_given_up_and_cleaned_up_after(worker: Worker) -> None:
    with pytest.raises(DeadlineExceeded, match="too late"):
        worker.thread.call(worker.hang, deadline=time.monotonic() + 0.05, late=late)
    assert worker.thread.lost
    worker.thread.end(deadline=soon())  # it does not wait for what hangs
    assert worker.called == []
    worker.let_go.set()
    assert worker.ended.wait(20)
    assert worker.called == ["hang", "at_end"]


def test_end_waits_for_the_last_act(worker: Worker) -> None:
    worker.thread.end(deadline=soon())
    assert worker.called == ["at_end"]
    assert not worker.thread.alive


def test_interrupt_gives_the_call_up(worker: Worker) -> None:
    main = threading.get_ident()

    def interrupt_and_hang() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        worker.hang()

    with pytest.raises(KeyboardInterrupt):
        worker.thread.call(interrupt_and_hang, deadline=soon(), late=late)
    assert worker.thread.lost
    worker.let_go.set()
    assert worker.ended.wait(20)
    assert worker.called == ["hang", "at_end"]


def test_thread_of_another_process_is_not_asked(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(DeviceLost, match="forked") as caught:
            worker.thread.call(worker.hang, deadline=soon(), late=late)
        worker.thread.end(deadline=soon())  # nor waited for
    assert caught.value.outcome is Outcome.NOT_SENT
    assert "fork" in caught.value.remedy


def test_nothing_is_called_after_the_end(worker: Worker) -> None:
    worker.thread.end(deadline=soon())
    with pytest.raises(DeviceLost, match="closed") as caught:
        worker.thread.call(worker.hang, deadline=soon(), late=late)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert worker.called == ["at_end"]


# --- Several calls at once ----------------------------------------------------------------------------------------


def test_calls_are_made_at_once_and_each_in_its_thread() -> None:
    both = threading.Barrier(2, timeout=20)

    def name() -> str:
        both.wait()
        return threading.current_thread().name

    assert call_each({"one": name, "two": name}, deadline=soon()) == {"one": "one", "two": "two"}
    assert not {"one", "two"} & {thread.name for thread in threading.enumerate()}


def test_call_that_does_not_return_takes_nothing_from_the_others(worker: Worker) -> None:
    calls = {"hangs": worker.hang, "returns": lambda: None}
    assert call_each(calls, deadline=time.monotonic() + 0.05) == {"returns": None}
    [hanging] = [thread for thread in threading.enumerate() if thread.name == "hangs"]
    worker.let_go.set()
    hanging.join(20)
    assert worker.called == ["hang"]


def test_exception_of_one_of_several_calls_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        call_each({"fails": lambda: 1 // 0, "returns": lambda: 7}, deadline=soon())
