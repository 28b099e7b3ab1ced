"""How a PIN is, in a sentence, and what to do next."""

import dataclasses
from collections.abc import Mapping
from typing import assert_never

from demail_hw.interfaces import PinRecord, PinRecordState
from demail_hw.keys.pin_guard import KEPT_TRIES, WAYS_BACK
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinName, PinSlot

__all__ = ["PinReport", "describe"]


@dataclasses.dataclass(frozen=True, slots=True)
class PinReport:
    """A PIN of a card. ``status``: what the card says. ``record``: what the ledger knows. ``sentence``: how it is.

    ``next_step``: what to do, or nothing.
    """

    pin: PinSlot
    status: PinStatus
    record: PinRecord | None
    sentence: str
    next_step: str


def describe(pin: PinSlot, statuses: Mapping[PinName, PinStatus], record: PinRecord | None) -> PinReport:
    """Put together what card and ledger say of a PIN. ``statuses``: of every PIN of the card."""
    status = statuses[pin.name]
    sentence, next_step = _of_the_card(pin, status, statuses)
    if record is not None and status.state in {PinState.READY, PinState.VERIFIED, PinState.UNREADABLE}:
        noted = _of_the_ledger(record)
        if noted is not None:
            return PinReport(pin, status, record, f"{sentence} {noted[0]}", noted[1])
    return PinReport(pin, status, record, sentence, next_step)


def _of_the_card(pin: PinSlot, status: PinStatus, statuses: Mapping[PinName, PinStatus]) -> tuple[str, str]:
    match status.state:
        case PinState.READY:
            return _ready(status.retries_left or 0)
        case PinState.VERIFIED:
            return "It is verified now.", ""
        case PinState.BLOCKED:
            return "It is blocked.", _way_to_unblock(pin, statuses)
        case PinState.NULL_PIN:
            return "It was never set (NullPIN).", "Set the first one: demail-hw pin initialize."
        case PinState.ABSENT:
            return "This card does not have it.", ""
        case PinState.UNREADABLE:
            return "The card does not tell how many tries are left.", "Verify it yourself: demail-hw pin verify."
        case _:
            assert_never(status.state)


def _ready(left: int) -> tuple[str, str]:
    sentence = f"{left} {'try is' if left == 1 else 'tries are'} left."
    if left > KEPT_TRIES:
        return sentence, ""
    return sentence, (
        f"No service spends one of the last {KEPT_TRIES}: verify it yourself, which restores them "
        f"(demail-hw pin verify --keep {left - 1})."
    )


def _way_to_unblock(pin: PinSlot, statuses: Mapping[PinName, PinStatus]) -> str:
    puk = pin.unblocked_by
    if puk is None:
        return "No PIN of this card unblocks it: ask the card's issuer."
    match statuses[puk].state:
        case PinState.BLOCKED:
            return f"The PIN {puk.value}, which unblocks it, has no tries either: ask the card's issuer."
        case PinState.NULL_PIN:
            return (
                f"The PIN {puk.value}, which unblocks it, was never set: set that first (demail-hw pin initialize)."
            )
        case _:
            return f"Unblock it with the PIN {puk.value}: demail-hw pin unblock."


def _of_the_ledger(record: PinRecord) -> tuple[str, str] | None:
    at = record.at.isoformat(" ", "seconds")
    match record.state:
        case PinRecordState.ACCEPTED:
            return None
        case PinRecordState.REFUSED:
            return (
                f"The card refused what was sent at {at}; no service sends it again.",
                "Correct the PIN at its source, then demail-hw pin clear, or demail-hw pin verify.",
            )
        case PinRecordState.PENDING:
            return (
                f"How the attempt to {record.operation.value} it at {at} ended is not known.",
                WAYS_BACK[record.operation],
            )
        case _:
            assert_never(record.state)
