"""The lock behind a card transaction of this process: one thread at a time, with a deadline."""

import contextlib
import time
from _thread import RLock
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.interfaces import Deadline

__all__ = ["TransactionLock"]

_is_owned: Final[Callable[[RLock], bool]] = RLock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001


class _Turn(RLock):  # type: ignore[misc]  # mypy takes it for final; it is not
    """A turn that was taken, for ``with`` to give back.

    Ctrl-C strikes where a Python function begins, so a lock with an ``__exit__`` in Python can be left behind. The
    methods of this one are the interpreter's own, and so is the memory of who has it.
    """

    __slots__ = ()

    __enter__ = _is_owned  # type: ignore[assignment]  # it was acquired before: it is only looked at


class TransactionLock:
    """A :class:`~demail_hw.interfaces.CardLock` between threads."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = _Turn()

    @property
    def held(self) -> bool:
        """True in the thread that holds it."""
        return _is_owned(self._turn)

    def hold(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Wait for the turn until the deadline; the ``with`` block ends it.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded`, nothing was sent; ``RuntimeError`` if this thread
        holds it already.
        """
        turn = self._turn
        if _is_owned(turn):
            raise RuntimeError("this thread holds the card's transaction already")
        try:
            if turn.acquire(blocking=False) or turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return turn
        except BaseException:
            if _is_owned(turn):  # Ctrl-C after it was acquired, before any ``with`` knows of it
                turn.release()
            raise
        raise DeadlineExceeded(
            "The card was busy with another transaction until the deadline.",
            layer=Layer.CARD,
            outcome=Outcome.NOT_SENT,
            transient=True,
        )

    def alone(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """:meth:`hold`, unless this thread holds it already."""
        return contextlib.nullcontext() if self.held else self.hold(deadline=deadline)
