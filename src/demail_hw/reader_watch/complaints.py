"""What is in the way of an address, told once and not at every look."""

from collections.abc import Callable
from typing import TypeAlias

from demail_hw.errors import HardwareError

__all__ = ["Complain", "Complaints"]

Complain: TypeAlias = Callable[[str, HardwareError], None]
"""Gets an address and what is in its way, once until it changes."""


class Complaints:
    """Those of one kind, by address."""

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self._told: dict[str, str] = {}

    def tell(self, address: str, error: HardwareError) -> None:
        """Complain, unless this was the last thing that was said of the address."""
        reason = _first(error).message
        if self._told.get(address) != reason:
            self._told[address] = reason
            self._complain(address, error)

    def over(self, address: str) -> None:
        """Nothing is in its way any more: should it come again, it is news."""
        self._told.pop(address, None)


def _first(error: HardwareError) -> HardwareError:
    """What was in the way at first: how long and how often it was tried, as a binding tells it, is no news."""
    while isinstance(error.__cause__, HardwareError):
        error = error.__cause__
    return error
