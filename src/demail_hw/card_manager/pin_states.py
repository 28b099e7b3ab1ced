"""How a PIN is, in a sentence, and what to do next."""

import dataclasses
from collections.abc import Mapping
from typing import assert_never

from demail_hw.interfaces import PinOperation, PinRecord, PinRecordState
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.keys.pin_remedies import after_refusal, first_pin, spend_a_try, unblocking, way_back
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
    if record is not None and _counts(status, record):
        noted = _of_the_ledger(pin, record)
        if noted is not None:
            return PinReport(pin, status, record, f"{sentence} {noted[0]}", noted[1])
    return PinReport(pin, status, record, sentence, next_step)


def _counts(status: PinStatus, record: PinRecord) -> bool:
    """Does it matter what the ledger knows? It does not, if the card says that nothing can be sent."""
    if status.state is PinState.NULL_PIN:
        return record.operation is PinOperation.INITIALIZE
    return status.state in {PinState.READY, PinState.VERIFIED, PinState.UNREADABLE}


def _of_the_card(pin: PinSlot, status: PinStatus, statuses: Mapping[PinName, PinStatus]) -> tuple[str, str]:
    match status.state:
        case PinState.READY:
            return _ready(pin, status.retries_left or 0)
        case PinState.VERIFIED:
            return "It is verified now.", ""
        case PinState.BLOCKED:
            return "It is blocked.", _way_to_unblock(pin, statuses)
        case PinState.NULL_PIN:
            return "It was never set (NullPIN).", first_pin(pin)
        case PinState.ABSENT:
            return "This card does not have it.", ""
        case PinState.UNREADABLE:
            return "The card does not tell how many tries are left.", way_back(pin, PinOperation.VERIFY)
        case _:
            assert_never(status.state)


def _ready(pin: PinSlot, left: int) -> tuple[str, str]:
    sentence = f"{left} {'try is' if left == 1 else 'tries are'} left."
    if left > KEPT_TRIES:
        return sentence, ""
    return sentence, f"No service spends one of the last {KEPT_TRIES}. {spend_a_try(pin, left)}"


def _way_to_unblock(pin: PinSlot, statuses: Mapping[PinName, PinStatus]) -> str:
    puk = pin.unblocked_by
    if puk is None:
        return unblocking(pin)
    match statuses[puk].state:
        case PinState.BLOCKED:
            return f"The PIN {puk.value}, which unblocks it, has no tries either: ask the card's issuer."
        case PinState.NULL_PIN:
            first = "demail-hw pin initialize URI" + ("" if puk is PinName.GLOBAL else f" --which {puk.value}")
            return f"The PIN {puk.value}, which unblocks it, was never set: set that first ({first})."
        case _:
            return unblocking(pin)


def _of_the_ledger(pin: PinSlot, record: PinRecord) -> tuple[str, str] | None:
    at = record.at.isoformat(" ", "seconds")
    match record.state:
        case PinRecordState.ACCEPTED:
            return None
        case PinRecordState.REFUSED:
            return (
                f"The card refused what was sent at {at}; no service sends it again.",
                after_refusal(pin, record, kept=KEPT_TRIES),
            )
        case PinRecordState.PENDING:
            return (
                f"How the attempt to {record.operation.value} it at {at} ended is not known.",
                way_back(pin, record.operation),
            )
        case _:
            assert_never(record.state)
