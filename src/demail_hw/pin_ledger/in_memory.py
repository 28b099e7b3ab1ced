"""The ledger that ends with the process."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final

from demail_hw.interfaces import Deadline, PinRecord
from demail_hw.pin_ledger.pages import busy, changed

__all__ = ["MemoryPinLedger"]

_WAIT: Final = "Try again when that thread of this process is done with the card."


class MemoryPinLedger:
    """A ledger that ends with the process: for cards that do so too. Safe for several threads."""

    state_dir: Final = None

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._pages: dict[str, _MemoryPage] = {}

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names."""
        return self._page(card).records

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_MemoryPage"]:
        """A card's page, for no other thread to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another thread has it.
        """
        lock = self._locks.setdefault(card, threading.Lock())
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise busy("thread", remedy=_WAIT)
        try:
            yield self._page(card)
        finally:
            lock.release()

    def _page(self, card: str) -> "_MemoryPage":
        return self._pages.setdefault(card, _MemoryPage())


class _MemoryPage:
    """A :class:`~demail_hw.interfaces.PinPage` in memory."""

    def __init__(self) -> None:
        self._records: Mapping[str, PinRecord] = {}

    @property
    def records(self) -> Mapping[str, PinRecord]:
        """By the PINs' names."""
        return self._records

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        """Note these, and forget those that are None."""
        self._records = changed(self._records, records)
