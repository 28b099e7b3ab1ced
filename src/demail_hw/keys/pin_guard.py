"""The one way to send a PIN: written down first, counter first, the last tries never, a refused PIN never again."""

import contextlib
import logging
from collections.abc import Iterator, Mapping

from demail_hw.errors import (
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
)
from demail_hw.interfaces import Deadline, PinLedger, PinOperation, PinPage, PinRecord, PinRecordState
from demail_hw.keys.pin_attempts import PinAttempt, end_unknown, moment, nothing_was_lost, unsettled
from demail_hw.keys.pin_remedies import KEPT_TRIES, PinRemedies
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit, PinSource
from demail_hw.tcos.card import PinState, PinStatus, TcosCard
from demail_hw.tcos.layout import PinSlot

__all__ = ["KEPT_TRIES", "PinGuard", "check_form", "puk_of"]

_LOG = logging.getLogger(__name__)


class PinGuard:
    """Guards the PINs of one card.

    ``serial``: its ICCSN. ``ledger``: what is written down before each command with a PIN, and how it ended; so a
    refusal counts in every process, until a person clears it. ``kept``: tries that are not spent. ``attended``: a
    person types the PIN, who may go on where the ledger stops a service; the counter is kept all the same.
    ``uri``: the card's address, for the commands that remedies name.

    To open a key has two steps, so that nobody holds the card while a person types: :meth:`is_open` and :meth:`open`
    are each called inside a transaction, and :meth:`ask` between them, outside. The counter is read in both.

    A card that says that it has the PIN verified counts as open only if it took the PIN from this guard before; to
    anybody else that proves nothing, for another program may have verified it.
    """

    __slots__ = ("_accepted", "_attended", "_kept", "_ledger", "_remedies", "_serial", "_source")

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
        self._remedies = PinRemedies(ledger.state_dir, uri, attended)
        self._accepted: set[PinSlot] = set()

    def is_open(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> bool:
        """Whether the PIN is still verified, as the card says itself; if not, a VERIFY may be sent. Sends none.

        Errors, if it may not be sent: :class:`~demail_hw.errors.PinRefused`,
        :class:`~demail_hw.errors.PinRequired`, :class:`~demail_hw.errors.PinBlocked`,
        :class:`~demail_hw.errors.PinNotInitialized`.
        """
        self._need_source(pin)
        return self._counts_as_open(pin, self.check(card, pin, deadline=deadline))

    def check(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> PinStatus:
        """How the PIN is. Sends none, and raises as :meth:`is_open` does if it may not be sent."""
        return self._admit(card, pin, self._ledger.records(self._serial), deadline=deadline)

    def check_unblocking(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> Mapping[PinSlot, PinStatus]:
        """How the PIN and the one that unblocks it are. Raise if that may not be sent, or to no avail. Sends none."""
        return self._admit_unblocking(card, pin, self._ledger.records(self._serial), deadline=deadline)

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
            status = self._admit(card, pin, page.records, deadline=deadline)
            if not self._counts_as_open(pin, status):
                self._verify(card, pin, secret, page, status, deadline=deadline)

    def verify(self, card: TcosCard, pin: PinSlot, secret: Pin, *, deadline: Deadline) -> None:
        """One VERIFY, whether the card is open or not: what it says is said of this PIN.

        Errors: those of :meth:`is_open`, nothing was sent; :class:`~demail_hw.errors.PinIncorrect`: the card said no;
        any other on the way: the outcome says whether the card may have seen it. It is not sent again.
        """
        with self._ledger.page(self._serial, deadline=deadline) as page:
            status = self._admit(card, pin, page.records, deadline=deadline)
            self._verify(card, pin, secret, page, status, deadline=deadline)

    def _verify(
        self, card: TcosCard, pin: PinSlot, secret: Pin, page: PinPage, status: PinStatus, *, deadline: Deadline
    ) -> None:
        check_form(secret, pin)
        self._accepted.discard(pin)
        permit = PinPermit(_GUARD_KEY, PinOperation.VERIFY, pin.reference, (secret,))
        try:
            with self._written_ahead(page, permit, {pin: status}, asked=pin):
                card.verify(pin, permit, deadline=deadline)
        except PinBlocked as error:
            error.remedy = self._way_to_unblock(card, pin, deadline=deadline)
            raise
        self._accepted.add(pin)

    def change(self, card: TcosCard, pin: PinSlot, old: Pin, new: Pin, *, deadline: Deadline) -> None:
        """A new PIN in place of the old one: VERIFY, then CHANGE REFERENCE DATA. Inside a transaction.

        The card gets the two PINs without a border between them, and knows only how long its own is: what is typed
        too much of the old one would become part of the new one. So the old one is sent alone before.

        Errors: as for :meth:`verify`. Where the outcome is unknown, the ledger stops everything unattended, and its
        remedy is the way back.
        """
        check_form(old, pin)
        check_form(new, pin)
        with self._ledger.page(self._serial, deadline=deadline) as page:
            status = self._admit(card, pin, page.records, deadline=deadline)
            self._verify(card, pin, old, page, status, deadline=deadline)
            self._accepted.discard(pin)
            permit = PinPermit(_GUARD_KEY, PinOperation.CHANGE, pin.reference, (old, new))
            with self._written_ahead(page, permit, {pin: _restored(status)}, asked=pin):
                card.change(pin, permit, deadline=deadline)

    def unblock(self, card: TcosCard, pin: PinSlot, puk: Pin, new: Pin, *, deadline: Deadline) -> None:
        """A new PIN, and all its tries, by the PIN that unblocks it: VERIFY of that one alone, as in :meth:`change`,
        and RESET RETRY COUNTER. Inside a transaction.

        Errors: as for :meth:`change`, where it is the PUK that the card can refuse.
        """
        keeper = puk_of(card, pin)
        check_form(puk, keeper)
        check_form(new, pin)
        with self._ledger.page(self._serial, deadline=deadline) as page:
            statuses = self._admit_unblocking(card, pin, page.records, deadline=deadline)
            self._verify(card, keeper, puk, page, statuses[keeper], deadline=deadline)
            self._accepted -= {pin, keeper}
            permit = PinPermit(_GUARD_KEY, PinOperation.UNBLOCK, pin.reference, (puk, new))
            after = {**statuses, keeper: _restored(statuses[keeper])}
            with self._written_ahead(page, permit, after, asked=keeper):
                card.unblock(pin, keeper, permit, deadline=deadline)

    def initialize(self, card: TcosCard, pin: PinSlot, new: Pin, *, deadline: Deadline) -> None:
        """The first PIN, in place of the NullPIN: one CHANGE REFERENCE DATA. Inside a transaction.

        Errors: :class:`~demail_hw.errors.PinRefused` if it has been set before, nothing was sent; as for
        :meth:`change`.
        """
        check_form(new, pin)
        with self._ledger.page(self._serial, deadline=deadline) as page, Pin(card.profile.null_pin) as null_pin:
            status = self._admit_null_pin(card, pin, page.records, deadline=deadline)
            permit = PinPermit(_GUARD_KEY, PinOperation.INITIALIZE, pin.reference, (null_pin, new))
            with self._written_ahead(page, permit, {pin: status}, asked=pin):
                card.change(pin, permit, deadline=deadline)

    def clear(self, pin: PinSlot, *, deadline: Deadline) -> PinRecord | None:
        """Forget what the ledger knows of the PIN, and give it. A person says by this that the PIN is right now."""
        with self._ledger.page(self._serial, deadline=deadline) as page:
            record = page.records.get(pin.name.value)
            page.write({pin.name.value: None})
        return record

    @contextlib.contextmanager
    def _written_ahead(
        self, page: PinPage, permit: PinPermit, pins: Mapping[PinSlot, PinStatus], *, asked: PinSlot
    ) -> Iterator[None]:
        """Note that a command with these PINs is on its way before it is, and then how it ended.

        The first of them is the one that is meant; ``asked``: the one that the card compares.
        """
        attempt = PinAttempt(page, permit, pins, asked=asked)
        meant, note = next(iter(attempt.begin().items()))
        way = self._remedies.way_back(meant, note)
        try:
            yield
        except HardwareError as error:
            if permit.spent:
                self._tell(error, permit, attempt.refused(error), asked, way)
            raise
        except BaseException:
            if permit.spent:
                _LOG.warning("Interrupted in the middle. %s", way)
            raise
        finally:
            # Only what never became a command is surely no attempt, whatever reader and server say.
            if not permit.spent:
                attempt.was_none()
        attempt.accepted()

    def _tell(
        self, error: HardwareError, permit: PinPermit, refusal: PinRecord | None, asked: PinSlot, way: str
    ) -> None:
        """What to do next, where the error does not know."""
        if refusal is None:
            if permit.operation is not PinOperation.VERIFY or error.outcome is Outcome.UNKNOWN:
                error.remedy = way
        elif refusal.unsettled is not None or isinstance(error, PinIncorrect):
            error.remedy = self._remedies.after_refusal(asked, refusal, refusal.retries_left)

    def _need_source(self, pin: PinSlot) -> PinSource:
        if self._source is None:
            raise PinRequired(f"The key needs the PIN {pin.name.value}, and no PIN source was given.")
        return self._source

    def _counts_as_open(self, pin: PinSlot, status: PinStatus) -> bool:
        return status.state is PinState.VERIFIED and pin in self._accepted

    def _admit(
        self, card: TcosCard, pin: PinSlot, records: Mapping[str, PinRecord], *, deadline: Deadline
    ) -> PinStatus:
        """How the PIN is; raise if it may not be sent."""
        record = records.get(pin.name.value)
        status = card.pin_status(pin, deadline=deadline)
        if status.state is not PinState.BLOCKED:  # that comes before whatever made it so
            self._stop_after_refusal(pin, record, status)
        try:
            self._check_status(pin, status, record)
        except PinBlocked as error:
            error.remedy = self._way_to_unblock(card, pin, deadline=deadline)
            raise
        if record is not None and not nothing_was_lost(record, status.retries_left):
            self._stop_without_end(pin, record, status)
        return status

    def _admit_unblocking(
        self, card: TcosCard, pin: PinSlot, records: Mapping[str, PinRecord], *, deadline: Deadline
    ) -> Mapping[PinSlot, PinStatus]:
        """How the PIN and the one that unblocks it are; raise if that may not be sent, or to no avail."""
        keeper, doubt = puk_of(card, pin), unsettled(records.get(pin.name.value))
        target = card.pin_status(pin, deadline=deadline)
        if target.state in {PinState.ABSENT, PinState.NULL_PIN}:
            self._check_status(pin, target, None)
        if doubt is not None:  # whatever a person tried since: which PIN counts is his to find out
            self._stop_without_end(pin, doubt, target)
        try:
            return {pin: target, keeper: self._admit(card, keeper, records, deadline=deadline)}
        except PinBlocked as error:
            statuses = {**self._those_that_unblock(card, pin, deadline=deadline), pin: target}
            error.remedy = self._remedies.puk_blocked(pin, keeper, statuses)
            raise

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
        return self._remedies.unblocking(pin, self._those_that_unblock(card, pin, deadline=deadline))

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
            remedy=self._remedies.after_refusal(pin, record, status.retries_left),
        )

    def _stop_without_end(self, pin: PinSlot, record: PinRecord, status: PinStatus) -> None:
        if record.state is not PinRecordState.PENDING or self._attended:
            return
        raise PinRefused(
            f"{end_unknown(record, f'the PIN {pin.name.value}')}; nothing is sent until a person says so.",
            remedy=self._remedies.way_back(pin, record, status),
        )

    def _check_status(self, pin: PinSlot, status: PinStatus, record: PinRecord | None) -> None:
        """Raise unless a try can be spent.

        A card that hides its counter, or has none, gets one: what the ledger notes of it decides about the next.
        """
        name = pin.name.value
        left = _known_tries(status, record)
        match status.state:
            case PinState.READY | PinState.VERIFIED | PinState.UNREADABLE if left is not None and left <= self._kept:
                raise PinRefused(
                    f"The PIN {name} has {_tries(left)} left, and {self._kept} {'is' if self._kept == 1 else 'are'} "
                    "kept for people; nothing was sent.",
                    remedy=self._remedies.spend_a_try(pin, left),
                )
            case PinState.BLOCKED:
                raise PinBlocked(f"The PIN {name} is blocked.")
            case PinState.NULL_PIN:
                raise PinNotInitialized(
                    f"The PIN {name} still is the card's NullPIN.", remedy=self._remedies.first_pin(pin)
                )
            case PinState.ABSENT:
                raise PinRefused(f"The card has no PIN {name}.", remedy="Name another PIN (which= or --which).")
            case PinState.READY | PinState.VERIFIED | PinState.UNREADABLE:
                return


def _known_tries(status: PinStatus, record: PinRecord | None) -> int | None:
    """The counter; where the card hides it, what it said when it refused a PIN the last time."""
    if status.retries_left is not None or record is None or record.state is not PinRecordState.REFUSED:
        return status.retries_left
    return record.retries_left


def _restored(status: PinStatus) -> PinStatus:
    """After a VERIFY that the card accepted. One of the last tries is restored, to how many no card tells: the
    counter from before would prove that none was lost where one was."""
    is_spent = status.retries_left is not None and status.retries_left <= KEPT_TRIES
    return PinStatus(status.state) if is_spent else status


def _tries(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"


def puk_of(card: TcosCard, pin: PinSlot) -> PinSlot:
    """The PIN that unblocks this one. :class:`~demail_hw.errors.PinRefused` if none does."""
    if pin.unblocked_by is None:
        raise PinRefused(f"No PIN of this card unblocks the PIN {pin.name.value}.", remedy="Ask the card's issuer.")
    return card.profile.pin(pin.unblocked_by)


def check_form(secret: Pin, pin: PinSlot) -> None:
    """Raise :class:`~demail_hw.errors.PinRefused` if this cannot be the PIN; its text does not show it."""
    lengths = pin.lengths
    if len(secret) not in lengths:
        raise PinRefused(
            f"The PIN {pin.name.value} is {lengths.start} to {lengths.stop - 1} characters long, and what was given "
            "is not; nothing was sent.",
            remedy="Check the source for stray spaces and lines.",
        )
    if any(not 0x20 < octet < 0x7F for octet in secret.buffer):
        raise PinRefused(
            f"What was given as the PIN {pin.name.value} has characters that no PIN has: a blank, or what is not "
            "printable ASCII; nothing was sent.",
            remedy="Check the source for a blank, a byte order mark, umlauts or line ends.",
        )
