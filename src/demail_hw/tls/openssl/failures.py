"""Exceptions on their way round OpenSSL: a callback cannot raise through C."""

import threading
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["Failures"]

_P = ParamSpec("_P")


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

    def guard(self, function: Callable[_P, int | None]) -> Callable[_P, int | None]:
        """``function``, made fit to be called from C: it answers 0, OpenSSL's failure and NULL, for any exception.

        All of it happens inside the ``try``, so that Ctrl-C while the card computes ends up here as well. Only an
        interrupt that is pending at the very entry escapes: ctypes reports it and hands C an undefined value,
        which does no harm because handles are looked up and never followed.
        """
        keep = self.keep

        def callback(*args: _P.args, **kwargs: _P.kwargs) -> int | None:
            try:
                return function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised again on the other side of OpenSSL
                keep(error)
                return 0

        return callback
