"""What a person does next about a PIN, as commands that can be typed: each names the PIN that is meant."""

import dataclasses
import shlex
from typing import assert_never

from demail_hw.interfaces import PinOperation, PinRecord
from demail_hw.tcos.layout import PinName, PinSlot

__all__ = ["PinRemedies"]


@dataclasses.dataclass(frozen=True, slots=True)
class PinRemedies:
    """``state_dir``: the ledger's folder, where the command line would take another one."""

    state_dir: str | None = None

    def after_refusal(self, pin: PinSlot, record: PinRecord, *, kept: int) -> str:
        """After the card said no. ``kept``: tries that are not spent unless it is said."""
        if record.operation is PinOperation.INITIALIZE:
            initialize = self._command("initialize", pin)
            return f"See why the card did not take it, then once more at the terminal: {initialize}."
        left = record.retries_left
        is_kept = left is not None and 0 < left <= kept
        verify = self._command("verify", pin, f" --keep {left - 1}" if left is not None and is_kept else "")
        if record.unsettled is not None:
            return self._either_counts(pin, record.unsettled, verify)
        if is_kept:
            return (
                f"Correct the PIN at its source, and verify it at the terminal, which restores its tries: {verify}."
            )
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

    def way_back(self, pin: PinSlot, record: PinRecord) -> str:
        """After a command whose end nobody noted; ``record`` is the note before it."""
        verify = self._command("verify", pin)
        match record.operation:
            case PinOperation.VERIFY | PinOperation.UNBLOCK_ANOTHER:
                return self.way_back(pin, record.unsettled) if record.unsettled else self.look_and_verify(pin)
            case PinOperation.CHANGE:
                return (
                    f"Verify the new PIN at the terminal: {verify}; if the card refuses it, the old one counts still."
                )
            case PinOperation.UNBLOCK:
                return self._after_unblocking(pin, record, verify)
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
        """Where nobody knows what a PIN is worth."""
        return (
            f"See how many tries are left ({self._status}), then verify it at the terminal: "
            f"{self._command('verify', pin)}."
        )

    def unblocked(self, pin: PinSlot) -> str:
        """Where it was blocked, and the end of its unblocking was not noted, and it has tries again."""
        return f"So the new PIN counts: verify it at the terminal: {self._command('verify', pin)}."

    def spend_a_try(self, pin: PinSlot, left: int) -> str:
        """Where only tries are left that are kept for people."""
        if left <= 0:
            return self.unblocking(pin)
        verify = self._command("verify", pin, f" --keep {left - 1}")
        return f"Verify it at the terminal, which restores them: {verify}."

    def first_pin(self, pin: PinSlot) -> str:
        """Where it still is the NullPIN."""
        return f"Set the first one: {self._command('initialize', pin)}."

    def first_puk(self, puk: PinSlot) -> str:
        """Where the PIN that unblocks it still is the NullPIN."""
        name, initialize = puk.name.value, self._command("initialize", puk)
        return f"The PIN {name}, which unblocks it, was never set: set that first ({initialize})."

    def unblocking(self, pin: PinSlot) -> str:
        """Where it is blocked."""
        if pin.unblocked_by is None:
            return "No PIN of this card unblocks it: ask the card's issuer."
        return f"Unblock it with the PIN {pin.unblocked_by.value}: {self._command('unblock', pin)}."

    @property
    def _status(self) -> str:
        return f"{self._program} pin status URI"

    @property
    def _program(self) -> str:
        return "demail-hw" if self.state_dir is None else f"demail-hw --state-dir {shlex.quote(self.state_dir)}"

    def _command(self, name: str, pin: PinSlot, options: str = "") -> str:
        which = "" if pin.name is PinName.GLOBAL else f" --which {pin.name.value}"
        return f"{self._program} pin {name} URI{which}{options}"
