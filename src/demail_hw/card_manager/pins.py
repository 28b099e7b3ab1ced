"""The PINs of a card: their states, and every way to change one. Each sends one or two commands, by the PIN guard."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

from demail_hw.card_manager.pin_states import PinReport, describe
from demail_hw.errors import KeyNotFound, PinRefused
from demail_hw.interfaces import PinLedger, PinRecord
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import KEPT_TRIES, PinGuard, check_form, puk_of
from demail_hw.keys.pin_remedies import PinRemedies
from demail_hw.secrets import Pin, PinSource
from demail_hw.tcos.card import PinStatus
from demail_hw.tcos.layout import PinName, PinSlot

__all__ = ["PinManager"]

_LOG = logging.getLogger(__name__)
_BROKEN: Final = (
    "Delete that file when you have seen how many tries are left: a refusal that was noted in it is forgotten then."
)


class PinManager:
    """The PINs of an open card.

    ``kept``: tries that are never spent. ``attended``: the PINs are typed by a person, who may go on where the ledger
    stops a service.

    Every method raises, beside what is in the way of a command, what :class:`~demail_hw.keys.pin_guard.PinGuard`
    does, and :class:`~demail_hw.errors.KeyNotFound` for a PIN that such a card does not have. PIN sources are asked
    outside of transactions, and only when the card could take what they give.
    """

    def __init__(
        self, session: CardSession, ledger: PinLedger, *, kept: int = KEPT_TRIES, attended: bool = False
    ) -> None:
        self._session = session
        self._card = session.card
        self._ledger = ledger
        self._guard = PinGuard(
            None, serial=session.serial, ledger=ledger, kept=kept, attended=attended, uri=session.uri
        )

    def report(self) -> Sequence[PinReport]:
        """How each PIN is. Spends no try."""
        records = self._records()
        with self._session.transaction() as deadline:
            statuses = {pin: self._card.pin_status(pin, deadline=deadline) for pin in self._card.profile.pins}
        remedies = PinRemedies(self._ledger.state_dir, self._session.uri)
        return [describe(pin, statuses, records.get(pin.name.value), remedies) for pin in statuses]

    def _records(self) -> Mapping[str, PinRecord]:
        """To look at a card, no ledger is needed."""
        try:
            return self._ledger.records(self._session.serial)
        except PinRefused as error:
            is_broken = error.__cause__ is not None and not isinstance(error.__cause__, OSError)
            # Its own remedy sends to where this is said.
            _LOG.warning("%s %s", error.message, _BROKEN if is_broken else error.remedy)
            return {}

    def check(self, name: PinName, *, again: bool = False) -> PinStatus:
        """How this PIN is, as far as card and ledger know; raise if it may not be sent now. Sends none.

        Who was told by it of more tries does not spend the last one. ``again``: nobody is told of it this time.
        """
        with self._session.transaction() as deadline:
            return self._guard.check(self._card, self._slot(name), deadline=deadline, again=again)

    def check_changing(self, name: PinName, *, again: bool = False) -> PinStatus:
        """As :meth:`check`; raise if it may not be changed now either."""
        with self._session.transaction() as deadline:
            return self._guard.check_changing(self._card, self._slot(name), deadline=deadline, again=again)

    def check_unblocking(self, name: PinName, *, again: bool = False) -> tuple[PinName, int | None]:
        """The PIN that unblocks this one, and its tries, as in :meth:`check`; raise if it may not be sent, or to no
        avail. Sends none."""
        pin = self._slot(name)
        with self._session.transaction() as deadline:
            statuses = self._guard.check_unblocking(self._card, pin, deadline=deadline, again=again)
        keeper = puk_of(self._card, pin)
        return keeper.name, statuses[keeper].retries_left

    def check_initializing(self, name: PinName) -> None:
        """Raise unless this PIN was never set. Sends none."""
        with self._session.transaction() as deadline:
            self._guard.check_null_pin(self._card, self._slot(name), deadline=deadline)

    def rehearse(self, *given: tuple[PinName, PinSource]) -> None:
        """Ask these sources and wipe what they give; raise if one gives no PIN, or one that cannot be this PIN, or if
        the ledger could not be written. After one of the checks nothing else is refused before the card is asked.
        """
        with self._session.transaction() as deadline:
            self._guard.check_ledger(deadline=deadline)
        for name, source in given:
            with _read(source) as secret:
                check_form(secret, self._slot(name))

    def verify(self, name: PinName, secret: PinSource) -> None:
        """VERIFY. The tries are restored, and what the ledger knew of a refusal is past."""
        pin = self._slot(name)
        self.check(name, again=True)
        with _read(secret) as current, self._session.transaction() as deadline:
            self._guard.verify(self._card, pin, current, deadline=deadline)

    def change(self, name: PinName, old: PinSource, new: PinSource) -> None:
        """VERIFY and CHANGE REFERENCE DATA: a new PIN in place of the old one."""
        pin = self._slot(name)
        self.check_changing(name, again=True)
        with _read(old) as current, _read(new) as wanted, self._session.transaction() as deadline:
            self._guard.change(self._card, pin, current, wanted, deadline=deadline)

    def unblock(self, name: PinName, puk: PinSource, new: PinSource) -> None:
        """VERIFY of the PUK and RESET RETRY COUNTER: a new PIN and all its tries, by the PIN that unblocks it."""
        pin = self._slot(name)
        self.check_unblocking(name, again=True)
        with _read(puk) as key, _read(new) as wanted, self._session.transaction() as deadline:
            self._guard.unblock(self._card, pin, key, wanted, deadline=deadline)

    def initialize(self, name: PinName, new: PinSource) -> None:
        """The first PIN in place of the NullPIN."""
        pin = self._slot(name)
        self.check_initializing(name)
        with _read(new) as wanted, self._session.transaction() as deadline:
            self._guard.initialize(self._card, pin, wanted, deadline=deadline)

    def clear(self, name: PinName) -> PinRecord | None:
        """Forget what the ledger knows of this PIN, but how many tries are left, and give it: the operator says that
        the PIN is right by now."""
        return self._guard.clear(self._slot(name), deadline=self._session.deadline())

    def _slot(self, name: PinName) -> PinSlot:
        if not isinstance(name, PinName):
            raise TypeError(f"a PIN is named by a PinName, such as {PinName.GLOBAL}")
        profile = self._card.profile
        slot = next((pin for pin in profile.pins if pin.name is name), None)
        if slot is None:
            names = ", ".join(pin.name.value for pin in profile.pins)
            raise KeyNotFound(f"This {profile.name} card has no PIN {name.value}.", remedy=f"It has these: {names}.")
        return slot


def _read(source: PinSource) -> AbstractContextManager[Pin]:
    if not hasattr(source, "read"):
        raise TypeError("a PIN comes from a PIN source, such as parse_pin_source('file:PATH') gives; never as text")
    return source.read()
