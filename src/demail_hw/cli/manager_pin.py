"""The PINs of a command that opens a card manager, looked at before the card is."""

from demail_hw.card_manager.manager import CardManager
from demail_hw.cli.new_pin import CheckedPin
from demail_hw.cli.pin_dialog import CardPlace, typed_pin
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName

__all__ = ["pin_for", "rehearse"]


def pin_for(manager: CardManager, given: PinSource | None, which: PinName) -> PinSource:
    """Where the PIN comes from; ``given``: as :func:`~demail_hw.cli.pin_dialog.given_source` has it. Whoever is to
    type it is told for which card, and how many tries are left.

    Errors: those of :meth:`~demail_hw.card_manager.pins.PinManager.check`, before anybody types for nothing.
    """
    if given is not None:
        return given
    left = manager.pins.check(which).retries_left
    return typed_pin(CardPlace.of(manager.session), manager.session.card.profile.pin(which), left)


def rehearse(manager: CardManager, *pins: tuple[PinName, PinSource | None, str]) -> None:
    """For a dry run, after the checks of its deed: whatever else could be refused before the card is asked. Nobody is
    asked to type for nothing. ``pins``: each with its source, and what it is called before its name.

    Errors: those of :meth:`~demail_hw.card_manager.pins.PinManager.rehearse`.
    """
    pin = manager.session.card.profile.pin
    given = ((name, CheckedPin(source, pin(name), what)) for name, source, what in pins if source is not None)
    manager.pins.rehearse(*given)
