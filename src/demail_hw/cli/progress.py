"""How far a long operation is: on standard error, on a terminal alone, and only after a second."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, TypeVar

import click

__all__ = ["READING", "Step", "asking", "counted", "progress", "waiting"]

READING: Final = "Reading the card"
"""A label."""
_A_MOMENT: Final = "This takes a moment ..."
_PATIENCE_SECONDS: Final = 1.0
_NOTICE: Final = "demail_hw.notice"

Step: TypeAlias = Callable[[int], None]
"""Is told how many more are done."""
_Item = TypeVar("_Item")


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Around what nobody can count: a line, once, when it has lasted. Blocks inside are part of the outermost."""
    context = click.get_current_context(silent=True)
    if context is None or _notice() is not None or not _is_watched():
        yield
        return
    notice = context.meta[_NOTICE] = _Notice()
    notice.start()
    try:
        yield
    finally:
        notice.stop()
        del context.meta[_NOTICE]


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around a question: who is asked is not kept waiting, and nothing is written into what he types. Blocks inside
    are part of the outermost."""
    notice = _notice()
    if notice is None:
        yield
        return
    with notice.silence():
        yield


def _notice() -> "_Notice | None":
    context = click.get_current_context(silent=True)
    notice: _Notice | None = None if context is None else context.meta.get(_NOTICE)
    return notice


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class _Notice:
    """Says its line from a thread of its own: whoever waits for a card does nothing else."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._said = False
        self._silences = 0

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        self._silences += 1
        self.stop()
        try:
            yield
        finally:
            self._silences -= 1
            self.start()

    def start(self) -> None:
        if not (self._timer or self._said or self._silences):
            self._timer = threading.Timer(_PATIENCE_SECONDS, self._say)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Afterwards it has said it, or does not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None

    def _say(self) -> None:
        self._said = True
        click.echo(_A_MOMENT, err=True)


@contextlib.contextmanager
def progress(label: str, total: int, *, since: float | None = None) -> Iterator[Step]:
    """What the operation calls with each number of bytes, or of files or whatever it counts, that it has done of
    ``total``. ``since``: the moment at which somebody began to wait (``time.monotonic()``); without it that is the
    first step, for before it a person may be asked for a PIN."""
    if not _is_watched():
        yield _nothing
        return
    with asking(), contextlib.ExitStack() as stack:
        yield _LateBar(label, total, stack, since)


def counted(items: Iterable[_Item], step: Step) -> Iterator[_Item]:
    """The items; each counts as done when the next one is asked for."""
    for item in items:
        yield item
        step(1)


def _nothing(count: int) -> None:
    """Nobody looks."""


class _LateBar:
    def __init__(self, label: str, total: int, stack: contextlib.ExitStack, begun: float | None) -> None:
        self._label = label
        self._total = total
        self._stack = stack
        self._begun = begun
        self._waiting = 0
        self._update: Step | None = None

    def __call__(self, count: int) -> None:
        self._waiting += count
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        if self._update is None and now - self._begun >= _PATIENCE_SECONDS:
            bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._update = self._stack.enter_context(bar).update
        if self._update is not None:
            self._update(self._waiting)
            self._waiting = 0
