"""How far a long operation is: on standard error, on a terminal alone, and only after a second."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import click

__all__ = ["progress"]

_PATIENCE_SECONDS: Final = 1.0

Step: TypeAlias = Callable[[int], None]


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Step]:
    """What the operation calls with each number of bytes that it has done of ``total``."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _nothing
        return
    with contextlib.ExitStack() as stack:
        yield _LateBar(label, total, stack)


def _nothing(count: int) -> None:
    """Nobody looks."""


class _LateBar:
    def __init__(self, label: str, total: int, stack: contextlib.ExitStack) -> None:
        self._label = label
        self._total = total
        self._stack = stack
        self._begun = time.monotonic()
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
