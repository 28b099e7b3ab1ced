"""What the commands share that run until they are told to stop."""

import contextlib
import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ["is_loopback", "netloc", "stop_signals", "wait_for_stop"]


def is_loopback(host: str) -> bool:
    """Does only this machine reach it?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def netloc(host: str, port: int) -> str:
    """Host and port as an address has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def stop_signals() -> Iterator[frozenset[signal.Signals]]:
    """SIGTERM and SIGINT, blocked here and in every thread that is started in the block: they wait for
    :func:`wait_for_stop`, and no thread takes one away."""
    numbers = frozenset({signal.SIGTERM, signal.SIGINT})
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield numbers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for_stop(numbers: frozenset[signal.Signals], *, until_eof: bool) -> None:
    """Wait for one of the signals, or for the end of standard input as well."""
    end_of_input = _EndOfInput()
    if until_eof:
        threading.Thread(target=end_of_input.watch, daemon=True).start()
    signal.sigwait(numbers)
    end_of_input.forget()
    # One more would end the program in the middle of its cleaning up, as soon as it is not blocked any more.
    while signal.sigtimedwait(numbers, 0) is not None:
        pass


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
