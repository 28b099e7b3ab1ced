"""Attempts with a PIN as the ledger notes them: written down before they leave; and what a counter proves later where
there is no end."""

import datetime
import logging
from collections.abc import Mapping
from typing import Final

from demail_hw.errors import CardError, HardwareError, Outcome, PinBlocked, PinIncorrect, PinRefused
from demail_hw.interfaces import PinOperation, PinPage, PinRecord, PinRecordState
from demail_hw.secrets import PinPermit
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinSlot

__all__ = ["PinAttempt", "end_unknown", "moment", "nothing_was_lost", "unsettled"]

_LOG = logging.getLogger(__name__)
_COMPARING: Final = frozenset({PinOperation.VERIFY, PinOperation.UNBLOCK_ANOTHER})
"""What changes nothing of the PIN but its counter."""
_SETTING: Final = frozenset({PinOperation.CHANGE, PinOperation.UNBLOCK})
"""What leaves either of two PINs where its end is not known."""


class PinAttempt:
    """One command with PINs, and its notes in the ledger. Where nobody can say how it ended, the first one stays.

    ``pins``: how each is of which something is noted. ``asked``: the one that the card compares.
    """

    __slots__ = ("_asked", "_before", "_page", "_permit", "_pins")

    def __init__(
        self, page: PinPage, permit: PinPermit, pins: Mapping[PinSlot, PinStatus], *, asked: PinSlot
    ) -> None:
        self._page = page
        self._permit = permit
        self._pins = pins
        self._asked = asked
        self._before = {pin: page.records.get(pin.name.value) for pin in pins}

    def begin(self) -> Mapping[PinSlot, PinRecord]:
        """Note that it is about to be sent, and give the notes. :class:`~demail_hw.errors.PinRefused` if that cannot
        be: then it must not be sent."""
        provable = {pin: _provable(status, self._before[pin]) for pin, status in self._pins.items()}
        notes = self._notes(PinRecordState.PENDING, provable)
        self._page.write(_by_name(notes))
        return notes

    def refused(self, error: HardwareError) -> PinRecord | None:
        """Note that the card said no, and give the note. Nothing where the error does not prove that."""
        if not self._is_a_no(error):
            return None
        after = {self._asked: _left_after(error, self._pins[self._asked])}
        note = self._notes(PinRecordState.REFUSED, after)[self._asked]
        self._note({**self._before, self._asked: note})
        return note

    def accepted(self) -> None:
        """Note that the card said yes."""
        self._note(self._notes(PinRecordState.ACCEPTED, self._pins))

    def was_none(self) -> None:
        """Nothing was sent: what was known before holds."""
        self._note(self._before)

    def _is_a_no(self, error: HardwareError) -> bool:
        """Did the card refuse the PIN, or anything that it was sent with? VERIFY changes nothing but the counter."""
        return isinstance(error, CardError) and (
            error.outcome is Outcome.REFUSED or self._permit.operation is PinOperation.VERIFY
        )

    def _notes(self, state: PinRecordState, pins: Mapping[PinSlot, PinStatus]) -> dict[PinSlot, PinRecord]:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        settled = state is PinRecordState.ACCEPTED
        return {
            pin: PinRecord(
                state,
                self._operation(pin),
                now,
                status.retries_left,
                None if settled else unsettled(self._before[pin]),
            )
            for pin, status in pins.items()
        }

    def _operation(self, pin: PinSlot) -> PinOperation:
        operation = self._permit.operation
        another = operation is PinOperation.UNBLOCK and pin == self._asked
        return PinOperation.UNBLOCK_ANOTHER if another else operation

    def _note(self, records: Mapping[PinSlot, PinRecord | None]) -> None:
        """What happened has happened: if it cannot be noted, the note before stays, which lets less pass."""
        try:
            self._page.write(_by_name(records))
        except PinRefused as error:
            _LOG.warning("How a PIN command ended could not be noted: %s", error.message)


def _by_name(records: Mapping[PinSlot, PinRecord | None]) -> dict[str, PinRecord | None]:
    return {pin.name.value: record for pin, record in records.items()}


def _provable(status: PinStatus, before: PinRecord | None) -> PinStatus:
    """What a counter can prove later of an attempt without an end: nothing, if it would cover up a refusal or another
    attempt without an end."""
    if before is None or before.state is PinRecordState.ACCEPTED:
        return status
    return PinStatus(status.state)


def _left_after(error: HardwareError, before: PinStatus) -> PinStatus:
    """The tries after a refusal, as the card said them with it."""
    if isinstance(error, PinIncorrect):
        return PinStatus(PinState.READY, error.retries_left)
    return PinStatus(PinState.BLOCKED, 0) if isinstance(error, PinBlocked) else before


def unsettled(before: PinRecord | None) -> PinRecord | None:
    """The change or unblocking without an end that a note tells of, or that it came after. The next note keeps it.
    Of two the later one: as long as either is kept, nothing goes unattended."""
    if before is None:
        return None
    if before.state is PinRecordState.PENDING and before.operation in _SETTING:
        return PinRecord(before.state, before.operation, before.at, before.retries_left)
    return before.unsettled


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
