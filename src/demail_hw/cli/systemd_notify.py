"""Tells systemd how a service is doing (sd_notify(3)): one datagram each, and nothing where nobody listens."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

__all__ = ["READY", "STOPPING", "notify", "reloading"]

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
_SOCKET: Final = "NOTIFY_SOCKET"


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
