"""The PINs of a command: from the sources that were named, or typed by a person who is told for which card."""

import dataclasses
from typing import Self

from demail_hw.cli.consent import ask, is_typed
from demail_hw.cli.new_pin import CheckedPin, NewPinPrompt, PinPrompt
from demail_hw.cli.output import JsonValue
from demail_hw.foreign_text import printable
from demail_hw.keys.card_session import CardSession
from demail_hw.pin_sources import need_terminal, parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinSlot

__all__ = ["CardPlace", "current_pin", "given_source", "typed_pin", "wanted_pin"]


@dataclasses.dataclass(frozen=True, slots=True)
class CardPlace:
    """Which card it is, by its ICCSN, and in which reader. Its text is for a terminal."""

    card: str
    reader: str
    reader_serial: str | None

    @classmethod
    def of(cls, session: CardSession) -> Self:
        """Of an open card."""
        return cls(session.serial, session.reader.name, session.reader.serial)

    @property
    def facts(self) -> dict[str, JsonValue]:
        """The same for a program."""
        return {"card": self.card, "reader": {"name": self.reader, "serial": self.reader_serial}}

    def __str__(self) -> str:
        serial = "" if self.reader_serial is None else f" ({self.reader_serial})"
        return printable(f"card {self.card} in the reader {self.reader}{serial}")


def given_source(text: str) -> PinSource | None:
    """Where a PIN comes from, before any card is opened; nothing where a person types it, who can be asked.

    Errors: :class:`~demail_hw.errors.ConfigurationError` for what is no source;
    :class:`~demail_hw.errors.PinRequired` without a terminal.
    """
    source = parse_pin_source(text)
    if not is_typed(text):
        return source
    need_terminal()
    return None


def current_pin(
    given: PinSource | None, place: CardPlace, pin: PinSlot, left: int | None, what: str = "PIN", use: str = ""
) -> PinSource:
    """A PIN that the card compares. Whoever types it is told how many tries are left, and asked before the last.
    ``what`` goes before its name, and ``use`` after it."""
    if given is not None:
        return CheckedPin(given, pin, what)
    if left == 1:
        name = f"{what} {pin.name.value}{use}"
        ask(f"The {place}: its {name} has its last try left: a wrong one blocks it. Go on?", yes=False)
    return typed_pin(place, pin, left, what, use)


def typed_pin(place: CardPlace, pin: PinSlot, left: int | None, what: str = "PIN", use: str = "") -> PinSource:
    """A PIN that a person types, who is told for which card, and how many tries are left."""
    tries = "" if left is None else f" ({left} {'try' if left == 1 else 'tries'} left)"
    prompt = PinPrompt(f"{_heading(place)}{what} {pin.name.value}{use}{tries}: ")
    return CheckedPin(prompt, pin, what, typed=True)


def wanted_pin(given: PinSource | None, place: CardPlace, pin: PinSlot) -> PinSource:
    """A PIN that the card is to have."""
    if given is not None:
        return CheckedPin(given, pin, "new PIN")
    return NewPinPrompt(pin, heading=_heading(place))


def _heading(place: CardPlace) -> str:
    """A line of its own, in the prompt itself: that goes to the terminal whatever is redirected."""
    return f"For the {place}\n"
