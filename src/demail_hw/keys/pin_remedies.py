"""What a person does next about a PIN, as commands that can be typed: each names the PIN that is meant."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from demail_hw.interfaces import PinOperation, PinRecord
from demail_hw.iso7816.status import StatusWord
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinName, PinSlot

__all__ = ["KEPT_TRIES", "PinRemedies", "program"]

KEPT_TRIES: Final = 2
"""How many tries are left to people: no PIN is sent unless the card has more."""

_OF_THE_NEW_PIN: Final = frozenset({StatusWord.INCORRECT_DATA_FIELD, StatusWord.WRONG_LENGTH})
_FIND_OUT: Final = "find out why the card does not allow that"
_WITHOUT_TRIES: Final = frozenset({PinState.BLOCKED, PinState.ABSENT})


def program(state_dir: str | None) -> str:
    """How a command begins that is to have the same ledger. ``state_dir``: as of :class:`PinRemedies`."""
    return "demail-hw" if state_dir is None else f"demail-hw --state-dir {shlex.quote(state_dir)}"


@dataclasses.dataclass(frozen=True, slots=True)
class PinRemedies:
    """``state_dir``: the ledger's folder, where the command line would take another one. ``uri``: the card's address,
    where it is known. ``attended``: a person types the PIN, so that there is no source to correct."""

    state_dir: str | None = None
    uri: str = "URI"
    attended: bool = False

    def after_refusal(self, pin: PinSlot, record: PinRecord, left: int | None) -> str:
        """After the card said no. ``left``: the tries that it has now; None where the card hides them, then those
        that it named when it said no."""
        if record.operation is PinOperation.INITIALIZE:
            initialize = self._command("initialize", pin)
            return f"See why the card did not take it, then once more at the terminal: {initialize}."
        known = record.retries_left if left is None else left
        verify = self._verify(pin, known)
        if record.unsettled is not None:
            return self._either_counts(pin, record.unsettled, verify)
        if known is not None and known <= KEPT_TRIES:
            begin = "Verify the right one" if self.attended else "Correct the PIN at its source, and verify it"
            return f"{begin} at the terminal, which restores its tries: {verify}.{_last_one(pin, known)}"
        if self.attended:
            return f"Verify the right one at the terminal: {verify}."
        clear = self._command("clear", pin)
        return f"Correct the PIN at its source, then {clear}; or verify it at the terminal: {verify}."

    def _either_counts(self, pin: PinSlot, unsettled: PinRecord, verify: str) -> str:
        """After a refusal that came after a change or an unblocking without an end."""
        if unsettled.operation is PinOperation.CHANGE:
            return (
                "If that was the new PIN, the old one counts still; if it was the old one, the new one counts: "
                f"verify that one at the terminal: {verify}."
            )
        return (
            "If that was the new PIN, the unblocking did not set it: unblock it again "
            f"({self._command('unblock', pin)}); if it was another one, verify the new one at the terminal: {verify}."
        )

    def after_declined(
        self, asked: PinSlot, pin: PinSlot, status: int | None, *, unnoted: Sequence[PinSlot] = ()
    ) -> str:
        """After the card accepted the PIN ``asked``, and then refused, with this status word, what was to be set by
        it. ``unnoted``: of which the ledger could not take that."""
        is_the_new_one = status in _OF_THE_NEW_PIN
        why = "choose another new PIN, of another length or with other characters" if is_the_new_one else _FIND_OUT
        known = f"The PIN {asked.name.value} is right, and nothing was changed"
        if not unnoted:
            return f"{known}: {why}, then {self._begin_again(asked, pin)}"
        clears = " and ".join(self._command("clear", each) for each in unnoted)
        return f"{known}, but the ledger could not take that. When it can be written: {clears}. Then {why}."

    def after_a_declined_one(self, asked: PinSlot, pin: PinSlot) -> str:
        """The same, where it was to be begun again."""
        return (
            f"The PIN {asked.name.value} is right. See why the card refused it, then {self._begin_again(asked, pin)}"
        )

    def _begin_again(self, asked: PinSlot, pin: PinSlot) -> str:
        again = self._command("change" if asked == pin else "unblock", pin)
        if self.attended:
            return f"begin again: {again}."
        return f"begin again at the terminal: {again}; or {self._command('clear', asked)}, and a script may."

    def way_back(self, pin: PinSlot, record: PinRecord, seen: PinStatus | None = None) -> str:
        """After a command whose end nobody noted; ``record`` is the note before it. ``seen``: how the PIN is now, or
        nothing where nobody looked since."""
        verify = self._verify(pin, None if seen is None else seen.retries_left)
        match record.operation:
            case PinOperation.VERIFY | PinOperation.UNBLOCK_ANOTHER:
                if record.unsettled is not None:
                    return self.way_back(pin, record.unsettled, seen)
                return self.look_and_verify(pin) if seen is None else self.verify_by_hand(pin, seen.retries_left)
            case PinOperation.CHANGE:
                last = "" if seen is None else _last_one(pin, seen.retries_left)
                return (
                    f"Verify the new PIN at the terminal: {verify}; if the card refuses it, the old one counts "
                    f"still.{last}"
                )
            case PinOperation.UNBLOCK:
                return self._after_unblocking(pin, record, verify)
            case PinOperation.INITIALIZE if seen is not None:
                is_unset = seen.state is PinState.NULL_PIN
                return self.first_pin(pin) if is_unset else self.new_one_counts(pin, seen.retries_left)
            case PinOperation.INITIALIZE:
                return (
                    f"See whether it still is the NullPIN ({self._status}): if so initialize it again; if not, "
                    f"verify the new one ({verify})."
                )
            case _:
                assert_never(record.operation)

    def _after_unblocking(self, pin: PinSlot, record: PinRecord, verify: str) -> str:
        """Only of a PIN that was blocked does the counter tell whether it was unblocked."""
        if record.retries_left == 0:
            return (
                f"See whether the PIN has its tries again ({self._status}): if so the new one counts, verify it "
                f"({verify}); if not, unblock it again."
            )
        return (
            f"Verify the new PIN at the terminal: {verify}; if the card refuses it, it was not set: verify the old "
            f"one, or unblock it again ({self._command('unblock', pin)}). How many tries it has does not tell."
        )

    def look_and_verify(self, pin: PinSlot) -> str:
        """Where nobody knows what a PIN is worth, or how many tries are left: that decides what verifies it."""
        return f"See how many tries the PIN {pin.name.value} has left, and how to verify it: {self._status}."

    def verify_by_hand(self, pin: PinSlot, left: int | None) -> str:
        """The same, where somebody looked. ``left``: its tries; None where the card hides them."""
        return f"Verify it at the terminal: {self._verify(pin, left)}."

    def new_one_counts(self, pin: PinSlot, left: int | None) -> str:
        """Where the end of its setting was not noted, and how the PIN is now proves that it was set."""
        return f"So the new PIN counts: verify it at the terminal: {self._verify(pin, left)}."

    def spend_a_try(self, pin: PinSlot, left: int, unsettled: PinRecord | None = None) -> str:
        """Where only tries are left that are kept for people. ``unsettled``: a change or an unblocking without an
        end, after which either of two PINs may count."""
        if left <= 0:
            return self.unblocking(pin)
        if unsettled is not None:
            return self.way_back(pin, unsettled, PinStatus(PinState.READY, left))
        verify = self._command("verify", pin, f" --keep {left - 1}")
        return f"Verify it at the terminal, which restores them: {verify}.{_last_one(pin, left)}"

    def refused_key(self, pin: PinSlot) -> str:
        """Where the card refused the command of a key that this PIN opens, and nobody can say why."""
        return (
            f"See how the PIN {pin.name.value} is: {self._status}. If the card takes it and refuses the key all the "
            "same, that may be deactivated or used up, or want secure messaging: ask the card's issuer before you "
            "take the card out of service."
        )

    def first_pin(self, pin: PinSlot) -> str:
        """Where it still is the NullPIN."""
        return f"Set the first one: {self._command('initialize', pin)}."

    def first_puk(self, puk: PinSlot) -> str:
        """Where the PIN that unblocks it still is the NullPIN."""
        name, initialize = puk.name.value, self._command("initialize", puk)
        return f"The PIN {name}, which unblocks it, was never set: set that first ({initialize})."

    def unblocking(self, pin: PinSlot, statuses: Mapping[PinSlot, PinStatus] | None = None) -> str:
        """Where it is blocked. ``statuses``: of the PINs that unblock it and each other, as far as they are known."""
        if pin.unblocked_by is None:
            return "No PIN of this card unblocks it: ask the card's issuer."
        known = statuses or {}
        puk = _keeper(pin, known)
        if puk is not None and known[puk].state is PinState.NULL_PIN:
            return self.first_puk(puk)
        if puk is not None and known[puk].state in _WITHOUT_TRIES:
            return f"The PIN {puk.name.value}, which unblocks it, has no tries either: {self._before(puk, known)}"
        return f"Unblock it with the PIN {pin.unblocked_by.value}: {self._command('unblock', pin)}."

    def _before(self, puk: PinSlot, statuses: Mapping[PinSlot, PinStatus]) -> str:
        """Before a PIN without tries can unblock another one."""
        if _can_be_unblocked(puk, statuses):
            return f"see to that first: {self._command('unblock', puk)}."
        return "ask the card's issuer."

    def puk_blocked(self, pin: PinSlot, puk: PinSlot, statuses: Mapping[PinSlot, PinStatus]) -> str:
        """Where the PIN that was to unblock this one is blocked. ``statuses``: as for :meth:`unblocking`, and of this
        one."""
        name = pin.name.value
        before = self._before(puk, statuses)
        if statuses[pin].state is not PinState.BLOCKED:
            return f"The PIN {name} is not blocked. If the PIN {puk.name.value} is to have tries, {before}"
        return f"Without it nothing unblocks the PIN {name}: {before}"

    @property
    def _status(self) -> str:
        return f"{program(self.state_dir)} pin status {shlex.quote(self.uri)}"

    def _command(self, name: str, pin: PinSlot, options: str = "") -> str:
        which = "" if pin.name is PinName.GLOBAL else f" --which {pin.name.value}"
        return f"{program(self.state_dir)} pin {name} {shlex.quote(self.uri)}{which}{options}"

    def _verify(self, pin: PinSlot, left: int | None) -> str:
        """The command that is let through with so many tries."""
        is_kept = left is not None and 0 < left <= KEPT_TRIES
        return self._command("verify", pin, f" --keep {left - 1}" if left is not None and is_kept else "")


def _last_one(pin: PinSlot, left: int | None) -> str:
    """What comes of a wrong one."""
    if left != 1:
        return ""
    if pin.unblocked_by is None:
        return " Another wrong one blocks it, and no PIN of this card unblocks it."
    return f" Another wrong one blocks it, and then only the PIN {pin.unblocked_by.value} unblocks it."


def _keeper(pin: PinSlot, statuses: Mapping[PinSlot, PinStatus]) -> PinSlot | None:
    """The PIN that unblocks this one, where it is known how that is."""
    return next((each for each in statuses if each.name is pin.unblocked_by), None)


def _can_be_unblocked(pin: PinSlot, statuses: Mapping[PinSlot, PinStatus]) -> bool:
    """Is there one with tries among those that unblock it, or that unblock these? Two may unblock each other."""
    passed: set[PinSlot] = set()
    while (puk := _keeper(pin, statuses)) is not None and puk not in passed:
        if statuses[puk].state not in _WITHOUT_TRIES:
            return True
        passed.add(puk)
        pin = puk
    return False
