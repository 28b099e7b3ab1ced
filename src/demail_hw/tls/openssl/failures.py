"""Exceptions on their way round OpenSSL: a callback cannot raise through C."""

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

    def take(self) -> BaseException | None:
        """The exception, once."""
        error, self.error = self.error, None
        return error

    def guard(self, function: Callable[[*_Arguments], int]) -> Callable[[*_Arguments], int]:
        """``function``, made fit to be called from C: it answers 0, OpenSSL's failure and NULL, for any exception.

        All of it happens inside the ``try``, so that Ctrl-C while the card computes ends up here as well. Only an
        interrupt that is pending at the very entry escapes: ctypes reports it and hands C an undefined number.
        That is harmless where the number means success or failure, and OpenSSL's own functions make the handles.
        """

        def callback(*arguments: *_Arguments) -> int:
            try:
                return function(*arguments)
            except BaseException as error:  # noqa: BLE001 - it is raised again on the other side of OpenSSL
                self.keep(error)
                return 0

        return callback
