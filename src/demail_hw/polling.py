"""The pace at which something is asked that cannot tell of itself, or does but may not be heard."""

import time
from typing import Final

from demail_hw.interfaces import Deadline

__all__ = ["look_again", "pause"]

_PAUSE_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 2.0


def pause(deadline: Deadline) -> None:
    """Wait a quarter of a second, or until the deadline if that is sooner."""
    time.sleep(max(0.0, min(_PAUSE_SECONDS, deadline - time.monotonic())))


def look_again(deadline: Deadline) -> Deadline:
    """When to ask one that tells of itself all the same: in two seconds, or at the deadline if that is sooner."""
    return min(deadline, time.monotonic() + _LOOK_SECONDS)
