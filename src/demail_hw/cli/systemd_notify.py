"""Tells systemd how a service is doing (sd_notify(3)): one datagram each, and nothing where nobody listens."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["READY", "STOPPING", "notify", "reloading", "watchdog"]

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG=1"
_MICROSECONDS: Final = 1_000_000


def reloading() -> str:
    """The state while what can change without a restart is read again; READY follows it (Type=notify-reload)."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send a state to the socket that ``NOTIFY_SOCKET`` names; True if it was taken.

    A name that begins with ``@`` is one of Linux' abstract names. A service does not fail because nobody listens.
    """
    name = environment.get(_SOCKET, "")
    if not name.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(f"\0{name[1:]}" if name.startswith("@") else name)
        sock.sendall(state.encode())
        return True
    return False


def watchdog(environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """What tells systemd that we live (sd_watchdog_enabled(3)): at most twice in its time, however often it is
    called; nothing where no watchdog is set for this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return lambda: None
    pause = int(environment.get("WATCHDOG_USEC", "0")) / _MICROSECONDS / 2
    return _Watchdog(pause, environment) if pause else lambda: None


class _Watchdog:
    def __init__(self, pause: float, environment: Mapping[str, str]) -> None:
        self._pause = pause
        self._environment = environment
        self._due = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._pause
            notify(_WATCHDOG, self._environment)
