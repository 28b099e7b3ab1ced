"""The lock behind a card transaction of this process: one thread at a time, with a deadline."""

import threading
import time
from typing import Self

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.interfaces import Deadline

__all__ = ["TransactionLock"]


class TransactionLock:
    """A :class:`~demail_hw.interfaces.CardLock` between threads."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    @property
    def held(self) -> bool:
        """True in the thread that holds it."""
        return self._owner == threading.get_ident()

    def hold(self, *, deadline: Deadline) -> Self:
        """Wait for the turn until the deadline; the ``with`` block ends it.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded`, nothing was sent; ``RuntimeError`` if this thread
        holds it already.
        """
        if self._lock.acquire(blocking=False):
            self._owner = threading.get_ident()
            return self
        if self.held:
            raise RuntimeError("this thread holds the card's transaction already")
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded(
                "The card was busy with another transaction until the deadline.",
                layer=Layer.CARD,
                outcome=Outcome.NOT_SENT,
                transient=True,
            )
        self._owner = threading.get_ident()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._owner = 0
        self._lock.release()
