"""Exceptions on their way round OpenSSL: a callback cannot raise through C."""

import sys
import threading
from collections.abc import Callable
from typing import TypeVarTuple

__all__ = ["Failures"]

_Arguments = TypeVarTuple("_Arguments")


class Failures(threading.local):
    """The first exception of a callback in this thread, kept until the caller of OpenSSL takes it.

    A callback runs in the thread that called into OpenSSL, so a thread finds its own failures here and no others.
    """

    error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        """Remember it, if it is the first."""
        if self.error is None:
            self.error = error

    def clear(self) -> None:
        """Forget what is left of an earlier call."""
        self.error = None

    def take(self) -> Exception | None:
        """The exception, once. Ctrl-C and its like are not returned: they are raised."""
        error, self.error = self.error, None
        if error is None or isinstance(error, Exception):
            return error
        raise error

    def guard(self, function: Callable[[*_Arguments], int]) -> Callable[[*_Arguments], int]:
        """``function``, made fit to be called from C: it answers 0, OpenSSL's failure, for any exception.

        All of it happens inside the ``try``, so that Ctrl-C while the card computes ends up here as well. What
        strikes at the very entry is recovered by :meth:`catching`.
        """

        def callback(*arguments: *_Arguments) -> int:
            try:
                return function(*arguments)
            except BaseException as error:  # noqa: BLE001 - it is raised again on the other side of OpenSSL
                self.keep(error)
                return 0

        return callback

    def catching(self) -> "_Catching":
        """Keep, to the end of the ``with`` block, the interrupts that strike at the entry of a callback.

        A signal that comes while OpenSSL computes is handled by the next Python function that is entered, and that
        is a callback: before its first line, outside any ``try``. ctypes gives such an exception to
        ``sys.unraisablehook``, and it would be lost.
        """
        return _Catching(self)


class _Catching:
    """See :meth:`Failures.catching`. Signals are handled in the main thread, so only there is anything done."""

    __slots__ = ("_before", "_failures")

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._before: Callable[[sys.UnraisableHookArgs], object] | None = None

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            self._before = sys.unraisablehook
            sys.unraisablehook = self._hook

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            sys.unraisablehook = self._before

    def _hook(self, unraisable: "sys.UnraisableHookArgs") -> None:
        error, trace = unraisable.exc_value, unraisable.exc_traceback
        if error is not None and trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            self._failures.keep(error)
        elif self._before is not None:
            self._before(unraisable)
