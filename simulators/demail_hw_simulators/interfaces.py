"""The seam between a simulated card and what it sits in: a reader's slot, vpcd, or nothing at all."""

from typing import Protocol

__all__ = ["SimulatedCard"]


class SimulatedCard(Protocol):
    """A card without a reader. Calls come from one thread at a time."""

    def power_on(self) -> bytes:
        """Cold reset; the ATR comes back. Everything volatile is forgotten."""
        ...

    def power_off(self) -> None:
        """Everything volatile is forgotten."""
        ...

    def transmit(self, command: bytes) -> bytes:
        """One command APDU, one response APDU (data, SW1, SW2). A command it cannot parse is answered 6700."""
        ...
