"""How a PIN is, in a sentence, and what to do next."""

import dataclasses
from collections.abc import Mapping
from typing import Final, assert_never

from demail_hw.interfaces import PinOperation, PinRecord, PinRecordState
from demail_hw.keys.pin_attempts import as_known, end_unknown, moment, nothing_was_lost, unsettled
from demail_hw.keys.pin_remedies import KEPT_TRIES, PinRemedies
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinSlot

__all__ = ["PinReport", "describe", "leaves_two_pins", "remembered"]


_SILENT: Final = frozenset({PinRecordState.ACCEPTED, PinRecordState.DECLINED})
"""What stops no service."""


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


def describe(
    pin: PinSlot, statuses: Mapping[PinSlot, PinStatus], record: PinRecord | None, remedies: PinRemedies
) -> PinReport:
    """Put together what card and ledger say of a PIN. ``statuses``: of every PIN of the card."""
    status = statuses[pin]
    sentence, next_step = _of_the_card(pin, statuses, remedies)
    if record is not None and _counts(status, record):
        noted, next_step = _of_the_ledger(pin, as_known(status, record), record, remedies)
        sentence = f"{sentence} {noted}"
    return PinReport(pin, status, record, sentence, next_step)


def remembered(record: PinRecord) -> str:
    """What the ledger knows of a PIN, in sentences."""
    match record.state:
        case PinRecordState.ACCEPTED:
            said = f"The card accepted it at {moment(record)}."
        case PinRecordState.REFUSED:
            said = f"The card refused what was sent at {moment(record)}."
        case PinRecordState.PENDING:
            said = f"{end_unknown(record, 'it')}."
        case PinRecordState.DECLINED:
            said = f"The card accepted it at {moment(record)}, and then refused what was to be done with it."
        case PinRecordState.CLEARED:
            said = f"What was noted of it was forgotten at {moment(record)}."
        case _:
            assert_never(record.state)
    unknown = " Whether the old or the new PIN counts is unknown." if leaves_two_pins(record) else ""
    return f"{said}{_before(record)}{unknown}"


def leaves_two_pins(record: PinRecord) -> bool:
    """Does it tell of a change or an unblocking without an end, after which the old PIN may count or the new one?"""
    return unsettled(record) is not None


def _counts(status: PinStatus, record: PinRecord) -> bool:
    """Does it matter what the ledger knows? It does not, if the card says that nothing can be sent, or if its counter
    proves that nothing was lost."""
    if record.state in _SILENT or _is_over(status, record):
        return False
    if record.state is PinRecordState.CLEARED and as_known(status, record) == status:
        return False
    if status.state is PinState.NULL_PIN:
        return record.operation is PinOperation.INITIALIZE
    return status.state in {PinState.READY, PinState.VERIFIED, PinState.UNREADABLE}


def _is_over(status: PinStatus, record: PinRecord) -> bool:
    return record.state is PinRecordState.PENDING and nothing_was_lost(record, status.retries_left)


def _of_the_card(pin: PinSlot, statuses: Mapping[PinSlot, PinStatus], remedies: PinRemedies) -> tuple[str, str]:
    status = statuses[pin]
    match status.state:
        case PinState.READY:
            return _ready(pin, status.retries_left or 0, remedies)
        case PinState.VERIFIED:
            return "It is verified now.", ""
        case PinState.BLOCKED:
            return "It is blocked.", remedies.unblocking(pin, statuses)
        case PinState.NULL_PIN:
            return "It was never set (NullPIN).", remedies.first_pin(pin)
        case PinState.ABSENT:
            return "This card does not have it.", ""
        case PinState.UNREADABLE:
            return "The card does not tell how many tries are left.", remedies.verify_by_hand(pin, None)
        case _:
            assert_never(status.state)


def _ready(pin: PinSlot, left: int, remedies: PinRemedies) -> tuple[str, str]:
    sentence = f"{left} {'try is' if left == 1 else 'tries are'} left."
    if left > KEPT_TRIES:
        return sentence, ""
    return sentence, f"No service spends one of the last {KEPT_TRIES}. {remedies.spend_a_try(pin, left)}"


def _of_the_ledger(pin: PinSlot, status: PinStatus, record: PinRecord, remedies: PinRemedies) -> tuple[str, str]:
    if record.state is PinRecordState.CLEARED:
        sentence, next_step = _ready(pin, status.retries_left or 0, remedies)
        return f"As far as is known {sentence}", next_step
    if record.state is PinRecordState.REFUSED:
        return (
            f"The card refused what was sent at {moment(record)}; no service sends it again.{_before(record)}",
            remedies.after_refusal(pin, record, status.retries_left),
        )
    if _was_unblocked(status, record):
        return (
            f"Before the attempt to unblock it at {moment(record)} it was blocked.",
            remedies.new_one_counts(pin, status.retries_left),
        )
    return f"{end_unknown(record, 'it')}.{_before(record)}", remedies.way_back(pin, record, status)


def _before(record: PinRecord) -> str:
    """What is not known either."""
    before = record.unsettled
    return "" if before is None else f" {end_unknown(before, 'it')} either.{_before(before)}"


def _was_unblocked(status: PinStatus, record: PinRecord) -> bool:
    """All that a counter proves of an unblocking: it has tries where it had none."""
    return record.operation is PinOperation.UNBLOCK and record.retries_left == 0 and bool(status.retries_left)
