"""How far a long operation is: on standard error, on a terminal alone, and only after a second."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, TypeVar

import click

__all__ = ["READING", "counted", "progress"]

READING: Final = "Reading the card"
"""A label."""
_PATIENCE_SECONDS: Final = 1.0

Step: TypeAlias = Callable[[int], None]
_Item = TypeVar("_Item")


@contextlib.contextmanager
def progress(label: str, total: int, *, since: float | None = None) -> Iterator[Step]:
    """What the operation calls with each number of bytes, or of files or whatever it counts, that it has done of
    ``total``. ``since``: the moment at which somebody began to wait, if it was not now (``time.monotonic()``)."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _nothing
        return
    with contextlib.ExitStack() as stack:
        yield _LateBar(label, total, stack, time.monotonic() if since is None else since)


def counted(items: Iterable[_Item], step: Step) -> Iterator[_Item]:
    """The items; each counts as done when the next one is asked for."""
    for item in items:
        yield item
        step(1)


def _nothing(count: int) -> None:
    """Nobody looks."""


class _LateBar:
    def __init__(self, label: str, total: int, stack: contextlib.ExitStack, begun: float) -> None:
        self._label = label
        self._total = total
        self._stack = stack
        self._begun = begun
        self._waiting = 0
        self._update: Step | None = None

    def __call__(self, count: int) -> None:
        self._waiting += count
        if self._update is None and time.monotonic() - self._begun >= _PATIENCE_SECONDS:
            bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._update = self._stack.enter_context(bar).update
        if self._update is not None:
            self._update(self._waiting)
            self._waiting = 0
