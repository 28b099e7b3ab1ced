"""Calls that know no deadline, each waited for until a deadline: they are made in a thread of their own."""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from demail_hw.errors import DeadlineExceeded, DeviceLost, Layer, Outcome
from demail_hw.interfaces import Deadline

__all__ = ["CallThread", "call_each"]

_Result = TypeVar("_Result")
_SLICE_SECONDS: Final = 0.5
"""A signal that comes just before a thread waits for a lock is not noticed until that wait ends: Ctrl-C may take this
long."""


class _Call(Generic[_Result]):
    """One call on its way to the thread and back. Whoever claims it first decides: the thread, that its result is
    taken, or the waiter, that it is not."""

    __slots__ = ("_claim", "_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], _Result]) -> None:
        self._function = function
        self._result: _Result
        self._error: BaseException | None = None
        self._claim = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> bool:
        """In the thread. False if nobody waits any more."""
        if self._claim.locked():
            return False
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001  # it is raised where the call is waited for
            self._error = error
        if not self._claim.acquire(blocking=False):
            return False
        self._done.release()
        return True

    def wait(self, deadline: Deadline) -> bool:
        """Is it done?"""
        while (left := deadline - time.monotonic()) > _SLICE_SECONDS:
            if self._done.acquire(timeout=_SLICE_SECONDS):
                return True
        return self._done.acquire(timeout=max(0.0, left))

    def give_up(self) -> bool:
        """Stop waiting. False if it is done, or will be in a moment."""
        return self._claim.acquire(blocking=False)

    def result(self) -> _Result:
        """What the function gave, or raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or the error and its traceback would hold each other
        return self._result


class CallThread:
    """A thread in which calls are made one after the other.

    When a call is not back at its deadline, or the waiter is interrupted, the thread is *lost*: it makes no further
    call, and ends when that one returns at last. ``at_end`` is the last that it does in any case: it gives back what
    the calls have opened, the late one too, and must not raise. A lost thread does not keep the interpreter from
    exiting.

    After a fork the child has no such thread, and must not use the handles of its parent:
    :class:`~demail_hw.errors.DeviceLost`, nothing was sent.
    """

    def __init__(self, name: str, *, at_end: Callable[[], None] = lambda: None) -> None:
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._process = os.getpid()
        self._lost = False
        self._ending = False
        self._order = threading.Lock()
        self._thread = threading.Thread(target=_serve, args=(self._calls, at_end), name=name, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Did it not come back from a call in time?"""
        return self._lost

    def call(
        self, function: Callable[[], _Result], *, deadline: Deadline, late: Callable[[], DeadlineExceeded]
    ) -> _Result:
        """What the function gives or raises; ``late()`` is raised if it does not return until the deadline.

        Nothing is called if the deadline is over already. One thread at a time.
        """
        self.check_process()
        if deadline <= time.monotonic():
            raise DeadlineExceeded(
                "The deadline was over before anything was sent.",
                layer=Layer.READER,
                outcome=Outcome.NOT_SENT,
                transient=True,
            )
        call = _Call(function)
        try:
            self._put(call)
            if not call.wait(deadline) and call.give_up():
                raise late()
        except BaseException:
            self._lose(call)
            raise
        return call.result()

    def end(self, *, deadline: Deadline) -> None:
        """Let the thread end, and wait for that unless it is lost. May be called again."""
        if os.getpid() != self._process:
            return
        with self._order:
            self._ending = True
            self._calls.put(None)
        if not self._lost:
            self.join(deadline=deadline)

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return self._thread.is_alive()

    def join(self, *, deadline: Deadline) -> None:
        """Wait until it has ended, lost or not."""
        if os.getpid() == self._process:
            self._thread.join(_left(deadline))

    def check_process(self) -> None:
        """Is this still the process that has the thread?

        Errors: :class:`~demail_hw.errors.DeviceLost` after a fork, nothing was sent.
        """
        if os.getpid() != self._process:
            raise DeviceLost(
                "This connection to the card belongs to the process from which this one was forked.",
                outcome=Outcome.NOT_SENT,
                remedy="Open the provider anew after the fork.",
            )

    def _put(self, call: _Call[_Result]) -> None:
        """Before the end, or not at all: behind it nobody would make the call."""
        with self._order:
            if self._ending:
                raise DeviceLost("The connection to PC/SC was closed.", outcome=Outcome.NOT_SENT)
            self._calls.put(call)

    def _lose(self, call: _Call[_Result]) -> None:
        """Nobody takes the result; what the call opened is given back."""
        self._lost = True
        call.give_up()
        self._calls.put(None)


def call_each(calls: Mapping[str, Callable[[], _Result]], *, deadline: Deadline) -> Mapping[str, _Result]:
    """Make all these calls at once, each in a thread that is named like it: what those gave that were back at the
    deadline.

    The others are left to themselves, and so are all if the waiter is interrupted: each has to give back what it
    opened. What one of them raises in time is raised.
    """
    started = {name: _Call(function) for name, function in calls.items()}
    threads = [threading.Thread(target=call.run, name=name, daemon=True) for name, call in started.items()]
    for thread in threads:
        thread.start()
    done = {name: call for name, call in started.items() if call.wait(deadline) or not call.give_up()}
    for thread, name in zip(threads, started, strict=True):
        if name in done:
            thread.join(_left(deadline))
    return {name: call.result() for name, call in done.items()}


def _left(deadline: Deadline) -> float:
    return max(0.0, deadline - time.monotonic())


def _serve(calls: "queue.SimpleQueue[_Call[Any] | None]", at_end: Callable[[], None]) -> None:
    try:
        while (call := calls.get()) is not None and call.run():
            pass
    finally:
        at_end()
