"""What the ledgers have in common."""

from collections.abc import Mapping

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.interfaces import PinRecord

__all__ = ["busy", "changed"]


def changed(before: Mapping[str, PinRecord], changes: Mapping[str, PinRecord | None]) -> Mapping[str, PinRecord]:
    """The records with these changes; None takes one away."""
    merged = {**before, **changes}
    return {name: record for name, record in merged.items() if record is not None}


def busy(who: str, *, remedy: str) -> DeadlineExceeded:
    """The error for a page that somebody else had until the deadline."""
    return DeadlineExceeded(
        f"Another {who} was busy with the PINs of this card until the deadline.",
        remedy=remedy,
        layer=Layer.KEYS,
        outcome=Outcome.NOT_SENT,
        transient=True,
    )
