"""Permits of PIN commands for the tests of the rooms under the PIN guard, which do not know it: they look at how a
command is built and sent. Their cards are simulated or scripted, and have no try to lose.

Only this and the test of the permit itself name the guard's key.
"""

from demail_hw.interfaces import PinOperation
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit

__all__ = ["permit"]


def permit(reference: int, *secrets: Pin, operation: PinOperation = PinOperation.VERIFY) -> PinPermit:
    """As the guard would issue it."""
    return PinPermit(_GUARD_KEY, operation, reference, secrets)
