"""What a person does next about a PIN, as commands that can be typed: each names the PIN that is meant."""

from typing import Final

from demail_hw.interfaces import PinOperation, PinRecord
from demail_hw.tcos.layout import PinName, PinSlot

__all__ = ["after_refusal", "first_pin", "spend_a_try", "unblocking", "way_back"]

_STATUS: Final = "demail-hw pin status URI"


def _command(name: str, pin: PinSlot, options: str = "") -> str:
    which = "" if pin.name is PinName.GLOBAL else f" --which {pin.name.value}"
    return f"demail-hw pin {name} URI{which}{options}"


def after_refusal(pin: PinSlot, record: PinRecord, *, kept: int) -> str:
    """After the card said no. ``kept``: tries that are not spent unless it is said."""
    if record.operation is PinOperation.INITIALIZE:
        return f"See why the card did not take it, then once more at the terminal: {_command('initialize', pin)}."
    left = record.retries_left
    if left is not None and 0 < left <= kept:
        verify = _command("verify", pin, f" --keep {left - 1}")
        return f"Correct the PIN at its source, and verify it at the terminal, which restores its tries: {verify}."
    clear, verify = _command("clear", pin), _command("verify", pin)
    return f"Correct the PIN at its source, then {clear}; or verify it at the terminal: {verify}."


def way_back(pin: PinSlot, operation: PinOperation) -> str:
    """After a command whose end nobody noted."""
    verify = _command("verify", pin)
    match operation:
        case PinOperation.VERIFY:
            return f"See how many tries are left ({_STATUS}), then verify it at the terminal: {verify}."
        case PinOperation.CHANGE:
            return f"Verify the new PIN at the terminal: {verify}; if the card refuses it, the old one counts still."
        case PinOperation.UNBLOCK:
            return (
                f"See whether the PIN has its tries again ({_STATUS}): if so the new one counts, verify it "
                f"({verify}); if not, unblock it again."
            )
        case PinOperation.INITIALIZE:
            return (
                f"See whether it still is the NullPIN ({_STATUS}): if so initialize it again; if not, verify the new "
                f"one ({verify})."
            )


def spend_a_try(pin: PinSlot, left: int) -> str:
    """Where only tries are left that are kept for people."""
    if left <= 0:
        return unblocking(pin)
    return f"Verify it at the terminal, which restores them: {_command('verify', pin, f' --keep {left - 1}')}."


def first_pin(pin: PinSlot) -> str:
    """Where it still is the NullPIN."""
    return f"Set the first one: {_command('initialize', pin)}."


def unblocking(pin: PinSlot) -> str:
    """Where it is blocked."""
    if pin.unblocked_by is None:
        return "No PIN of this card unblocks it: ask the card's issuer."
    return f"Unblock it with the PIN {pin.unblocked_by.value}: {_command('unblock', pin)}."
