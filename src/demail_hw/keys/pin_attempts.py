"""Attempts with a PIN as the ledger notes them: written down before they leave; and what a counter proves later where
there is no end."""

import dataclasses
import datetime
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from demail_hw.errors import CardError, HardwareError, Outcome, PinBlocked, PinIncorrect, PinRefused
from demail_hw.interfaces import PinOperation, PinPage, PinRecord, PinRecordState
from demail_hw.secrets import PinPermit
from demail_hw.tcos.card import PinStatus
from demail_hw.tcos.layout import PinSlot

__all__ = ["PinAttempt", "as_known", "cleared", "end_unknown", "moment", "nothing_was_lost", "unsettled"]

_LOG = logging.getLogger(__name__)
_COMPARING: Final = frozenset({PinOperation.VERIFY, PinOperation.UNBLOCK_ANOTHER})
"""What changes nothing of the PIN but its counter."""
_SETTING: Final = frozenset({PinOperation.CHANGE, PinOperation.UNBLOCK})
"""What leaves either of two PINs where its end is not known."""
_WITHOUT_DOUBT: Final = frozenset({PinRecordState.ACCEPTED, PinRecordState.DECLINED, PinRecordState.CLEARED})


class PinAttempt:
    """One command with PINs, and its notes in the ledger. Where nobody can say how it ended, the first one stays.

    ``pins``: how each is of which something is noted, that which is meant first. ``asked``: the one that the card
    compares. ``unnoted``: those of which it is known how it ended, and the ledger could not take it.
    """

    __slots__ = ("_before", "_page", "_pins", "asked", "meant", "permit", "unnoted")

    def __init__(
        self, page: PinPage, permit: PinPermit, pins: Mapping[PinSlot, PinStatus], *, asked: PinSlot
    ) -> None:
        self._page = page
        self._pins = pins
        self.permit = permit
        self.asked = asked
        self.meant = next(iter(pins))
        self.unnoted: Sequence[PinSlot] = ()
        self._before = {pin: page.records.get(pin.name.value) for pin in pins}

    def begin(self) -> PinRecord:
        """Note that it is about to be sent, and give the note of the PIN that is meant.
        :class:`~demail_hw.errors.PinRefused` if that cannot be: then it must not be sent."""
        notes = {pin: self._pending(pin, status) for pin, status in self._pins.items()}
        self._page.write(_by_name(notes))
        return notes[self.meant]

    def refused(self, error: HardwareError) -> PinRecord | None:
        """Note that the card said no, and give what is known now of the PIN that it compared; nothing where the error
        does not prove that it said no.

        The PIN of a change or an unblocking was accepted just before. If the card refuses anything else about them,
        such as the new PIN, it stays accepted.
        """
        if not self._is_a_no(error):
            return None
        before = self._before[self.asked]
        if self.permit.operation in _SETTING and not isinstance(error, PinIncorrect | PinBlocked):
            note = self._record(self.asked, PinRecordState.DECLINED, None)
        else:
            left = _left_after(error, as_known(self._pins[self.asked], before))
            note = self._record(self.asked, PinRecordState.REFUSED, left, unsettled=unsettled(before))
        self._note({**self._before, self.asked: note})
        return note

    def accepted(self) -> None:
        """Note that the card said yes."""
        self._note(
            {
                pin: self._record(pin, PinRecordState.ACCEPTED, status.retries_left)
                for pin, status in self._pins.items()
            }
        )

    def was_none(self) -> None:
        """Nothing was sent: what was known before holds."""
        self._note(self._before)

    def _is_a_no(self, error: HardwareError) -> bool:
        """Did the card refuse the PIN, or anything that it was sent with? VERIFY changes nothing but the counter."""
        return isinstance(error, CardError) and (
            error.outcome is Outcome.REFUSED or self.permit.operation is PinOperation.VERIFY
        )

    def _pending(self, pin: PinSlot, status: PinStatus) -> PinRecord:
        before = self._before[pin]
        left = status.retries_left if _can_prove(self._operation(pin), before) else None
        return self._record(
            pin,
            PinRecordState.PENDING,
            left,
            unsettled=unsettled(before),
            at_most=as_known(status, before).retries_left if left is None else None,
        )

    def _record(
        self,
        pin: PinSlot,
        state: PinRecordState,
        left: int | None,
        *,
        unsettled: PinRecord | None = None,
        at_most: int | None = None,
    ) -> PinRecord:
        return PinRecord(state, self._operation(pin), _now(), left, unsettled, at_most)

    def _operation(self, pin: PinSlot) -> PinOperation:
        operation = self.permit.operation
        another = operation is PinOperation.UNBLOCK and pin == self.asked
        return PinOperation.UNBLOCK_ANOTHER if another else operation

    def _note(self, records: Mapping[PinSlot, PinRecord | None]) -> None:
        """What happened has happened: if it cannot be noted, the note before stays, which lets less pass."""
        try:
            self._page.write(_by_name(records))
        except PinRefused as error:
            self.unnoted = tuple(self._pins)
            _LOG.warning("How a PIN command ended could not be noted: %s", error.message)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _by_name(records: Mapping[PinSlot, PinRecord | None]) -> dict[str, PinRecord | None]:
    return {pin.name.value: record for pin, record in records.items()}


def _can_prove(operation: PinOperation, before: PinRecord | None) -> bool:
    """Can the counter prove later what became of an attempt without an end? Where a PIN is compared: not if it would
    cover up a refusal or another attempt without an end. That a PIN had none before it was unblocked always tells."""
    return operation not in _COMPARING or before is None or before.state in _WITHOUT_DOUBT


def _left_after(error: HardwareError, before: PinStatus) -> int | None:
    """The tries after a refusal: as the card said them with it, else those before, of which one may be lost where it
    does not say that nothing was changed."""
    if isinstance(error, PinIncorrect):
        return error.retries_left
    if isinstance(error, PinBlocked):
        return 0
    return _less_one(before.retries_left) if error.outcome is Outcome.UNKNOWN else before.retries_left


def as_known(status: PinStatus, record: PinRecord | None) -> PinStatus:
    """How a PIN is; where the card hides its counter, with the tries that the ledger knows of."""
    if status.retries_left is not None or record is None:
        return status
    return PinStatus(status.state, _known_tries(record))


def _known_tries(record: PinRecord) -> int | None:
    """What the card said when it refused a PIN the last time, less the one that an attempt without an end may have
    cost since: but the last one may be left."""
    if record.state is not PinRecordState.PENDING:
        return record.retries_left if record.state in {PinRecordState.REFUSED, PinRecordState.CLEARED} else None
    before = record.at_most if record.retries_left is None else record.retries_left
    if record.operation in _COMPARING:
        return _less_one(before)
    return before or None  # what was blocked may be unblocked by now


def _less_one(left: int | None) -> int | None:
    return None if left is None else max(1, left - 1)


def cleared(record: PinRecord) -> PinRecord | None:
    """What stays when a person forgets what was noted: the tries, which a card may hide, as far as they are known."""
    left = _known_tries(record)
    return None if left is None else PinRecord(PinRecordState.CLEARED, record.operation, _now(), left)


def unsettled(before: PinRecord | None) -> PinRecord | None:
    """The change or unblocking without an end that a note tells of, or that it came after. The next note keeps it,
    and of several the last and the first: as long as one is kept, nothing goes unattended."""
    if before is None:
        return None
    if before.state is PinRecordState.PENDING and before.operation in _SETTING:
        return dataclasses.replace(before, unsettled=_first(before.unsettled))
    return before.unsettled


def _first(record: PinRecord | None) -> PinRecord | None:
    while record is not None and record.unsettled is not None:
        record = record.unsettled
    return record


def nothing_was_lost(record: PinRecord, left: int | None) -> bool:
    """Does the counter, ``left``, prove of an attempt without an end that the card refused nothing?"""
    before = record.retries_left
    return record.operation in _COMPARING and left is not None and before is not None and left >= before


def moment(record: PinRecord) -> str:
    """When it was noted."""
    return record.at.isoformat(" ", "seconds")


def end_unknown(record: PinRecord, pin: str) -> str:
    """That nobody knows how this attempt ended. ``pin``: what to call the PIN."""
    is_another = record.operation is PinOperation.UNBLOCK_ANOTHER
    deed = f"unblock a PIN with {pin}" if is_another else f"{record.operation.value} {pin}"
    return f"How the attempt to {deed} at {moment(record)} ended is not known"
