"""How the keys of a card are named: by reference, and by application where two of them have the same reference."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

__all__ = ["KeyName", "KeyNameError", "KeyPlace", "places_of"]

KeyName: TypeAlias = int | tuple[str, int]
"""``0x80``, or ``("nks", 0x80)``: an application is called as its table in the personality's file."""


class KeyPlace(NamedTuple):
    """The one key that a name means."""

    application: str
    reference: int

    def __str__(self) -> str:
        return f"{self.application}:{self.reference:02X}"


class KeyNameError(ValueError):
    """No key is meant, or several. ``name``: by what; ``remedy``: what to do."""

    def __init__(self, message: str, *, name: KeyName, remedy: str) -> None:
        super().__init__(message)
        self.name = name
        self.remedy = remedy


def places_of(names: Iterable[KeyName], places: Iterable[KeyPlace]) -> dict[KeyName, KeyPlace]:
    """Where each of the names is. :class:`KeyNameError` for no key, for several, and for one that is named twice."""
    known = tuple(places)
    found: dict[KeyName, KeyPlace] = {}
    for name in names:
        place = _place_of(name, known)
        if place in found.values():
            raise KeyNameError(f"key {place} is given twice", name=name, remedy="Give each key once.")
        found[name] = place
    return found


def _place_of(name: KeyName, known: tuple[KeyPlace, ...]) -> KeyPlace:
    meant = [place for place in known if name in (place, place.reference)]
    if not meant:
        raise KeyNameError(
            f"this card has no key {_text(name)}; it has these: {', '.join(_shortest_names(known))}",
            name=name,
            remedy="Name one of these, or take another personality.",
        )
    if len(meant) > 1:
        choices = " or ".join(map(str, meant))
        raise KeyNameError(
            f"this card has several keys {_text(name)}", name=name, remedy=f"Say which one you mean: {choices}."
        )
    return meant[0]


def _text(name: KeyName) -> str:
    return f"{name:02X}" if isinstance(name, int) else str(KeyPlace(*name))


def _shortest_names(known: tuple[KeyPlace, ...]) -> list[str]:
    references = [place.reference for place in known]
    return [
        _text(place.reference) if references.count(place.reference) == 1 else str(place) for place in sorted(known)
    ]
