"""The one way to send a PIN: written down first, counter first, the last tries never, a refused PIN never again."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Final

from demail_hw.errors import (
    CardError,
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
)
from demail_hw.interfaces import Deadline, PinLedger, PinOperation, PinPage, PinRecord, PinRecordState
from demail_hw.keys.pin_attempts import (
    PinAttempt,
    as_known,
    cleared,
    end_unknown,
    moment,
    nothing_was_lost,
    unsettled,
)
from demail_hw.keys.pin_remedies import KEPT_TRIES, PinRemedies
from demail_hw.keys.pin_told_tries import ToldTries
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit, PinSource
from demail_hw.tcos.card import PinState, PinStatus, TcosCard
from demail_hw.tcos.layout import PinSlot

__all__ = ["KEPT_TRIES", "PinGuard", "check_form", "puk_of"]

_LOG = logging.getLogger(__name__)
_TYPE_IT_ANEW: Final = "Type it anew."
_RESTORED: Final = PinStatus(PinState.VERIFIED)
"""After a VERIFY that the card accepted, where what the counter is does not matter."""


class PinGuard:
    """Guards the PINs of one card.

    ``serial``: its ICCSN. ``ledger``: what is written down before each command with a PIN, and how it ended; so a
    refusal counts in every process, until a person clears it. ``kept``: tries that are not spent. ``attended``: a
    person types the PIN, who may go on where the ledger stops a service; the counter is kept all the same.
    ``uri``: the card's address, for the commands that remedies name.

    To open a key has two steps, so that nobody holds the card while a person types: :meth:`is_open` and :meth:`open`
    are each called inside a transaction, and :meth:`ask` between them, outside. The counter is read in both. The last
    try is not spent by whom a check told of another number of them: meanwhile somebody else spent one.

    A card that says that it has the PIN verified counts as open only if it took the PIN from this guard before; to
    anybody else that proves nothing, for another program may have verified it.
    """

    __slots__ = ("_accepted", "_attended", "_kept", "_ledger", "_serial", "_source", "_told", "remedies")

    def __init__(
        self,
        source: PinSource | None,
        *,
        serial: str,
        ledger: PinLedger,
        kept: int = KEPT_TRIES,
        attended: bool = False,
        uri: str = "URI",
    ) -> None:
        self._source = source
        self._serial = serial
        self._ledger = ledger
        self._kept = kept
        self._attended = attended
        self.remedies = PinRemedies(ledger.state_dir, uri, attended)
        self._accepted: set[PinSlot] = set()
        self._told = ToldTries(self.remedies)

    def is_open(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> bool:
        """Whether the PIN is still verified, as the card says itself; if not, a VERIFY may be sent. Sends none.

        Errors, if it may not be sent: :class:`~demail_hw.errors.PinRefused`,
        :class:`~demail_hw.errors.PinRequired`, :class:`~demail_hw.errors.PinBlocked`,
        :class:`~demail_hw.errors.PinNotInitialized`.
        """
        self._need_source(pin)
        return self._counts_as_open(pin, self.check(card, pin, deadline=deadline))

    def check(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline, again: bool = False) -> PinStatus:
        """How the PIN is, with the tries that the ledger knows of where the card hides its counter. Sends none, and
        raises as :meth:`is_open` does if it may not be sent.

        ``again``: nobody is told of it this time, so that what an earlier check said has to hold.
        """
        records = self._ledger.records(self._serial)
        return self._tell(pin, self._admit(card, pin, records, deadline=deadline), records, again=again)

    def check_changing(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline, again: bool = False) -> PinStatus:
        """The same, if it may be changed too."""
        status = self.check(card, pin, deadline=deadline, again=again)
        self._stop_after_a_declined_one(pin, self._ledger.records(self._serial), pin)
        return status

    def check_unblocking(
        self, card: TcosCard, pin: PinSlot, *, deadline: Deadline, again: bool = False
    ) -> Mapping[PinSlot, PinStatus]:
        """How the PIN and the one that unblocks it are, that as in :meth:`check`. Raise if it may not be sent, or to
        no avail. Sends none."""
        records, keeper = self._ledger.records(self._serial), puk_of(card, pin)
        statuses = self._admit_unblocking(card, pin, records, deadline=deadline)
        return {**statuses, keeper: self._tell(keeper, statuses[keeper], records, again=again)}

    def check_null_pin(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> PinStatus:
        """How the PIN is. :class:`~demail_hw.errors.PinRefused` unless it was never set, and may be."""
        return self._admit_null_pin(card, pin, self._ledger.records(self._serial), deadline=deadline)

    def check_ledger(self, *, deadline: Deadline) -> None:
        """:class:`~demail_hw.errors.PinRefused` if nothing could be noted now. No note changes, but the page is
        written anew, and its folder made."""
        with self._ledger.page(self._serial, deadline=deadline) as page:
            page.write({})

    def ask(self, pin: PinSlot) -> Pin:
        """The PIN from its source, for the caller to wipe.

        Errors: :class:`~demail_hw.errors.PinRefused` if it can be none; what the source raises.
        """
        secret = self._need_source(pin).read()
        try:
            check_form(secret, pin)
        except PinRefused:
            secret.wipe()
            raise
        return secret

    def open(self, card: TcosCard, pin: PinSlot, secret: Pin, *, deadline: Deadline) -> None:
        """Open the card with the PIN, unless it is open by now: one VERIFY at the most. Errors: as :meth:`verify`."""
        if card.is_verified(pin):
            return
        with self._ledger.page(self._serial, deadline=deadline) as page:
            status = self._admit_as_told(card, pin, page, deadline=deadline)
            if not self._counts_as_open(pin, status):
                self._verify(card, pin, secret, page, status, deadline=deadline)

    def verify(self, card: TcosCard, pin: PinSlot, secret: Pin, *, deadline: Deadline) -> None:
        """One VERIFY, whether the card is open or not: what it says is said of this PIN.

        Errors: those of :meth:`is_open`, nothing was sent; :class:`~demail_hw.errors.PinIncorrect`: the card said no;
        any other on the way: the outcome says whether the card may have seen it. It is not sent again.
        """
        with self._ledger.page(self._serial, deadline=deadline) as page:
            status = self._admit_as_told(card, pin, page, deadline=deadline)
            self._verify(card, pin, secret, page, status, deadline=deadline)

    def _verify(
        self, card: TcosCard, pin: PinSlot, secret: Pin, page: PinPage, status: PinStatus, *, deadline: Deadline
    ) -> None:
        check_form(secret, pin)
        self._accepted.discard(pin)
        permit = PinPermit(_GUARD_KEY, PinOperation.VERIFY, pin.reference, (secret,))
        attempt = PinAttempt(page, permit, {pin: status}, asked=pin)
        with self._written_ahead(card, attempt, deadline=deadline):
            card.verify(pin, permit, deadline=deadline)
        self._accepted.add(pin)

    def change(self, card: TcosCard, pin: PinSlot, old: Pin, new: Pin, *, deadline: Deadline) -> None:
        """A new PIN in place of the old one: VERIFY, then CHANGE REFERENCE DATA. Inside a transaction.

        The card gets the two PINs without a border between them, and knows only how long its own is: what is typed
        too much of the old one would become part of the new one. So the old one is sent alone before.

        Errors: as for :meth:`verify`. Where the outcome is unknown, the ledger stops everything unattended, and its
        remedy is the way back. Where the card refuses anything but the old PIN, that may be sent as before, but it is
        not changed again unattended.
        """
        check_form(old, pin, "old PIN")
        check_form(new, pin, "new PIN")
        with self._ledger.page(self._serial, deadline=deadline) as page:
            status = self._admit_as_told(card, pin, page, deadline=deadline)
            self._stop_after_a_declined_one(pin, page.records, pin)
            self._verify(card, pin, old, page, status, deadline=deadline)
            self._accepted.discard(pin)
            permit = PinPermit(_GUARD_KEY, PinOperation.CHANGE, pin.reference, (old, new))
            attempt = PinAttempt(page, permit, {pin: _RESTORED}, asked=pin)
            with self._written_ahead(card, attempt, deadline=deadline):
                card.change(pin, permit, deadline=deadline)

    def unblock(self, card: TcosCard, pin: PinSlot, puk: Pin, new: Pin, *, deadline: Deadline) -> None:
        """A new PIN, and all its tries, by the PIN that unblocks it: VERIFY of that one alone, as in :meth:`change`,
        and RESET RETRY COUNTER. Inside a transaction.

        Errors: as for :meth:`change`, where it is the PUK that the card can refuse.
        """
        keeper = puk_of(card, pin)
        check_form(puk, keeper)
        check_form(new, pin, "new PIN")
        with self._ledger.page(self._serial, deadline=deadline) as page:
            statuses = self._admit_unblocking(card, pin, page.records, deadline=deadline)
            self._told.check(keeper, _known(keeper, statuses[keeper], page.records).retries_left)
            self._verify(card, keeper, puk, page, statuses[keeper], deadline=deadline)
            self._accepted -= {pin, keeper}
            permit = PinPermit(_GUARD_KEY, PinOperation.UNBLOCK, pin.reference, (puk, new))
            # VERIFY restored its tries, to how many no card tells but by its counter: the one from before would prove
            # that none was lost where one was.
            after = {**statuses, keeper: card.pin_status(keeper, deadline=deadline)}
            attempt = PinAttempt(page, permit, after, asked=keeper)
            with self._written_ahead(card, attempt, deadline=deadline):
                card.unblock(pin, keeper, permit, deadline=deadline)

    def initialize(self, card: TcosCard, pin: PinSlot, new: Pin, *, deadline: Deadline) -> None:
        """The first PIN, in place of the NullPIN: one CHANGE REFERENCE DATA. Inside a transaction.

        Errors: :class:`~demail_hw.errors.PinRefused` if it has been set before, nothing was sent; as for
        :meth:`change`.
        """
        check_form(new, pin, "new PIN")
        with self._ledger.page(self._serial, deadline=deadline) as page, Pin(card.profile.null_pin) as null_pin:
            status = self._admit_null_pin(card, pin, page.records, deadline=deadline)
            permit = PinPermit(_GUARD_KEY, PinOperation.INITIALIZE, pin.reference, (null_pin, new))
            attempt = PinAttempt(page, permit, {pin: status}, asked=pin)
            with self._written_ahead(card, attempt, deadline=deadline):
                card.change(pin, permit, deadline=deadline)

    def clear(self, pin: PinSlot, *, deadline: Deadline) -> PinRecord | None:
        """Forget what the ledger knows of the PIN, but how many tries are left, and give it. A person says by this
        that the PIN is right now."""
        name = pin.name.value
        with self._ledger.page(self._serial, deadline=deadline) as page:
            record = page.records.get(name)
            if record is None or record.state is PinRecordState.CLEARED:
                return None
            page.write({name: cleared(record)})
        return record

    @contextlib.contextmanager
    def _written_ahead(self, card: TcosCard, attempt: PinAttempt, *, deadline: Deadline) -> Iterator[None]:
        """Note that a command with PINs is on its way before it is, and then how it ended."""
        way = self.remedies.way_back(attempt.meant, attempt.begin())
        try:
            yield
        except HardwareError as error:
            if attempt.permit.spent:
                known = attempt.refused(error)
                error.remedy = self._explain(error, card, attempt, known, way, deadline=deadline)
            raise
        except BaseException:
            if attempt.permit.spent:
                _LOG.warning("Interrupted in the middle. %s", way)
            raise
        finally:
            # Only what never became a command is surely no attempt, whatever reader and server say.
            if not attempt.permit.spent:
                attempt.was_none()
        attempt.accepted()

    def _explain(
        self,
        error: HardwareError,
        card: TcosCard,
        attempt: PinAttempt,
        known: PinRecord | None,
        way: str,
        *,
        deadline: Deadline,
    ) -> str:
        """What to do next, if the error itself does not know. ``known``: of the PIN that the card refused, ``way``:
        what holds where nobody can say whether it did."""
        if isinstance(error, PinBlocked):
            return self._way_to_unblock(card, attempt.asked, deadline=deadline)
        if known is None:
            is_open = attempt.permit.operation is not PinOperation.VERIFY or error.outcome is Outcome.UNKNOWN
            return way if is_open else error.remedy
        if known.state is PinRecordState.DECLINED:
            status = error.status if isinstance(error, CardError) else None
            return self.remedies.after_declined(attempt.asked, attempt.meant, status, unnoted=attempt.unnoted)
        if known.unsettled is not None or isinstance(error, PinIncorrect):
            return self.remedies.after_refusal(attempt.asked, known, known.retries_left)
        return error.remedy

    def _need_source(self, pin: PinSlot) -> PinSource:
        if self._source is None:
            raise PinRequired(f"The key needs the PIN {pin.name.value}, and no PIN source was given.")
        return self._source

    def _counts_as_open(self, pin: PinSlot, status: PinStatus) -> bool:
        return status.state is PinState.VERIFIED and pin in self._accepted

    def _tell(self, pin: PinSlot, status: PinStatus, records: Mapping[str, PinRecord], *, again: bool) -> PinStatus:
        """Whoever types a PIN knows from this how many tries he has."""
        known = _known(pin, status, records)
        if again:
            self._told.check(pin, known.retries_left)
        self._told.tell(pin, known.retries_left)
        return known

    def _admit_as_told(self, card: TcosCard, pin: PinSlot, page: PinPage, *, deadline: Deadline) -> PinStatus:
        status = self._admit(card, pin, page.records, deadline=deadline)
        self._told.check(pin, _known(pin, status, page.records).retries_left)
        return status

    def _admit(
        self, card: TcosCard, pin: PinSlot, records: Mapping[str, PinRecord], *, deadline: Deadline
    ) -> PinStatus:
        """How the PIN is, as the card says; raise if it may not be sent."""
        record = records.get(pin.name.value)
        status = card.pin_status(pin, deadline=deadline)
        known = as_known(status, record)
        if status.state is not PinState.BLOCKED:  # that comes before whatever made it so
            self._stop_after_refusal(pin, record, known)
        try:
            self._check_status(pin, known, hidden=status.retries_left is None, doubt=unsettled(record))
        except PinBlocked as error:
            error.remedy = self._way_to_unblock(card, pin, deadline=deadline)
            raise
        if record is not None and not nothing_was_lost(record, status.retries_left):
            self._stop_without_end(pin, record, known)
        return status

    def _admit_unblocking(
        self, card: TcosCard, pin: PinSlot, records: Mapping[str, PinRecord], *, deadline: Deadline
    ) -> Mapping[PinSlot, PinStatus]:
        """How the PIN and the one that unblocks it are; raise if that may not be sent, or to no avail."""
        keeper, record = puk_of(card, pin), records.get(pin.name.value)
        target = card.pin_status(pin, deadline=deadline)
        if target.state in {PinState.ABSENT, PinState.NULL_PIN}:
            self._check_status(pin, target)
        doubt = unsettled(record)
        if doubt is not None:  # whatever a person tried since: which PIN counts is his to find out
            self._stop_without_end(pin, doubt, as_known(target, record))
        try:
            status = self._admit(card, keeper, records, deadline=deadline)
        except PinBlocked as error:
            statuses = {**self._those_that_unblock(card, pin, deadline=deadline), pin: target}
            error.remedy = self.remedies.puk_blocked(pin, keeper, statuses)
            raise
        self._stop_after_a_declined_one(keeper, records, pin)
        return {pin: target, keeper: status}

    def _admit_null_pin(
        self, card: TcosCard, pin: PinSlot, records: Mapping[str, PinRecord], *, deadline: Deadline
    ) -> PinStatus:
        # It has tries too, and no card tells how many: an attempt that the card refused is the only one. One without
        # an end is none, if the PIN still was never set.
        status = card.pin_status(pin, deadline=deadline)
        if status.state is PinState.BLOCKED:
            raise PinRefused(
                f"The PIN {pin.name.value} is not the NullPIN but blocked; nothing was sent.",
                remedy=self._way_to_unblock(card, pin, deadline=deadline),
            )
        self._stop_after_refusal(pin, records.get(pin.name.value), status)
        if status.state is not PinState.NULL_PIN:
            raise PinRefused(
                f"The PIN {pin.name.value} is not the NullPIN; nothing was sent.",
                remedy="It was set before: change it with the PIN that it has now.",
            )
        return status

    def _way_to_unblock(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> str:
        return self.remedies.unblocking(pin, self._those_that_unblock(card, pin, deadline=deadline))

    def _those_that_unblock(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> Mapping[PinSlot, PinStatus]:
        """How the PIN that unblocks this one is, and the one that unblocks that, as far as the card tells."""
        statuses: dict[PinSlot, PinStatus] = {}
        with contextlib.suppress(HardwareError):  # it is for a remedy, and there is an error already
            while pin.unblocked_by is not None and (puk := card.profile.pin(pin.unblocked_by)) not in statuses:
                statuses[puk] = card.pin_status(puk, deadline=deadline)
                pin = puk
        return statuses

    def _stop_after_refusal(self, pin: PinSlot, record: PinRecord | None, status: PinStatus) -> None:
        if record is None or record.state is not PinRecordState.REFUSED or self._attended:
            return
        raise PinRefused(
            f"The card refused the PIN {pin.name.value} at {moment(record)}; it is not sent again until a person "
            "says so.",
            remedy=self.remedies.after_refusal(pin, record, status.retries_left),
        )

    def _stop_without_end(self, pin: PinSlot, record: PinRecord, status: PinStatus) -> None:
        if record.state is not PinRecordState.PENDING or self._attended:
            return
        raise PinRefused(
            f"{end_unknown(record, f'the PIN {pin.name.value}')}; nothing is sent until a person says so.",
            remedy=self.remedies.way_back(pin, record, status),
        )

    def _stop_after_a_declined_one(self, pin: PinSlot, records: Mapping[str, PinRecord], target: PinSlot) -> None:
        """No try is at stake, but a card may count each use of a PIN too. ``target``: what it was to set."""
        record = records.get(pin.name.value)
        if record is None or record.state is not PinRecordState.DECLINED or self._attended:
            return
        what = "change it" if record.operation is PinOperation.CHANGE else "unblock a PIN with it"
        raise PinRefused(
            f"The card accepted the PIN {pin.name.value} at {moment(record)}, and then refused to {what}; that is "
            "not tried again until a person says so.",
            remedy=self.remedies.after_a_declined_one(pin, target),
        )

    def _check_status(
        self, pin: PinSlot, status: PinStatus, *, hidden: bool = False, doubt: PinRecord | None = None
    ) -> None:
        """Raise unless a try can be spent. ``hidden``: by the card, so that ``status`` has what is known. ``doubt``:
        a change or an unblocking without an end.

        Where nothing is known of it either it gets one: what the ledger notes of that decides about the next.
        """
        name, left = pin.name.value, status.retries_left
        match status.state:
            case PinState.READY | PinState.VERIFIED | PinState.UNREADABLE if left is not None and left <= self._kept:
                known = " as far as is known" if hidden else ""
                raise PinRefused(
                    f"The PIN {name} has {_tries(left)} left{known}, and {self._kept} "
                    f"{'is' if self._kept == 1 else 'are'} kept for people; nothing was sent.",
                    remedy=self.remedies.spend_a_try(pin, left, doubt),
                )
            case PinState.BLOCKED:
                raise PinBlocked(f"The PIN {name} is blocked.")
            case PinState.NULL_PIN:
                raise PinNotInitialized(
                    f"The PIN {name} still is the card's NullPIN.", remedy=self.remedies.first_pin(pin)
                )
            case PinState.ABSENT:
                raise PinRefused(f"The card has no PIN {name}.", remedy="Name another PIN (which= or --which).")
            case PinState.READY | PinState.VERIFIED | PinState.UNREADABLE:
                return


def _known(pin: PinSlot, status: PinStatus, records: Mapping[str, PinRecord]) -> PinStatus:
    return as_known(status, records.get(pin.name.value))


def _tries(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"


def puk_of(card: TcosCard, pin: PinSlot) -> PinSlot:
    """The PIN that unblocks this one. :class:`~demail_hw.errors.PinRefused` if none does."""
    if pin.unblocked_by is None:
        raise PinRefused(f"No PIN of this card unblocks the PIN {pin.name.value}.", remedy="Ask the card's issuer.")
    return card.profile.pin(pin.unblocked_by)


def check_form(secret: Pin, pin: PinSlot, what: str = "PIN", *, typed: bool = False) -> None:
    """Raise :class:`~demail_hw.errors.PinRefused` if this cannot be the PIN; its text does not show it.

    ``what``: which one of it, such as ``"new PIN"``. ``typed``: by a person, who has no source to look at.
    """
    lengths = pin.lengths
    if len(secret) not in lengths:
        raise PinRefused(
            f"The {what} {pin.name.value} is {lengths.start} to {lengths.stop - 1} characters long, and what was "
            "given is not; nothing was sent.",
            remedy=_TYPE_IT_ANEW if typed else "Check the source for stray spaces and lines.",
        )
    if any(not 0x20 < octet < 0x7F for octet in secret.buffer):
        raise PinRefused(
            f"What was given as the {what} {pin.name.value} has characters that no PIN has: a blank, or what is not "
            "printable ASCII; nothing was sent.",
            remedy=_TYPE_IT_ANEW
            if typed
            else "Check the source for a blank, a byte order mark, umlauts or line ends.",
        )
