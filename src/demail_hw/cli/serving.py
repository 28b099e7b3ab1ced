"""What the commands share that run until they are told to stop."""

import contextlib
import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["has_terminal", "is_loopback", "stop_signals", "wait_for_stop"]

_TICK_SECONDS: Final = 1.0


def is_loopback(host: str) -> bool:
    """Does only this machine reach it?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def stop_signals(*more: signal.Signals) -> Iterator[frozenset[signal.Signals]]:
    """SIGTERM, SIGINT and ``more``, blocked here and in every thread that is started in the block: they wait for
    :func:`wait_for_stop`, and no thread takes one away. One that is ignored is not waited for: nohup does that with
    SIGHUP."""
    wanted = (signal.SIGTERM, signal.SIGINT, *(each for each in more if signal.getsignal(each) is not signal.SIG_IGN))
    numbers = frozenset(wanted)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield numbers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def has_terminal() -> bool:
    """Does a terminal control this process? SIGHUP means then that it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def wait_for_stop(
    numbers: frozenset[signal.Signals],
    *,
    until_eof: bool,
    on_hangup: Callable[[], object] | None = None,
    beat: Callable[[], object] | None = None,
) -> None:
    """Wait for one of the signals, or for the end of standard input as well. ``on_hangup``: what SIGHUP does in the
    place of stopping. ``beat``: is called about once a second."""
    end_of_input = _EndOfInput()
    if until_eof:
        threading.Thread(target=end_of_input.watch, daemon=True).start()
    while _next(numbers, beat) == signal.SIGHUP and on_hangup is not None:
        on_hangup()
    end_of_input.forget()
    # One more would end the program in the middle of its cleaning up, as soon as it is not blocked any more.
    while signal.sigtimedwait(numbers, 0) is not None:
        pass


def _next(numbers: frozenset[signal.Signals], beat: Callable[[], object] | None) -> int:
    """The next signal."""
    if beat is None:
        return signal.sigwait(numbers)
    beat()
    while (taken := signal.sigtimedwait(numbers, _TICK_SECONDS)) is None:
        beat()
    return taken.si_signo


class _EndOfInput:
    """Sends SIGTERM to this process at the end of standard input, unless it is stopping already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = True

    def watch(self) -> None:
        """Wait for it."""
        # Not sys.stdin: an interpreter that ends while a thread waits in its buffered read aborts.
        while os.read(sys.stdin.fileno(), 1):
            pass
        with self._lock:
            if self._wanted:
                os.kill(os.getpid(), signal.SIGTERM)

    def forget(self) -> None:
        """Send nothing from now on."""
        with self._lock:
            self._wanted = False
