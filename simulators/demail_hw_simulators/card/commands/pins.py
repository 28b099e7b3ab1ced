"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (ISO 7816-4, 11.5.6, 11.5.7 and 11.5.10).

A secret that is followed by a new one has no length of its own: the card knows how long it must be.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.answers import DONE, field, require_field
from demail_hw_simulators.card.pins import MINIMUM_LENGTH, CardPin
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["change_reference_data", "reset_retry_counter", "verify"]

_Variant: TypeAlias = Callable[[CardState, CardPin, CommandApdu], None]


def verify(card: CardState, command: CommandApdu) -> ResponseApdu:
    """VERIFY; without a data field it asks for the state: 9000 if verified, else 63Cx, 6983 or 6985."""
    if command.p1:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    pin = card.pin(command.p2)
    if command.nc:
        _verify(card, pin, field(command))
    elif pin not in card.verified:
        raise Refused(pin.status)
    return DONE


def change_reference_data(card: CardState, command: CommandApdu) -> ResponseApdu:
    """CHANGE REFERENCE DATA. P1 = 00: old and new; 01: new, where a PIN that may set it is verified."""
    return _run(_CHANGES, card, command)


def reset_retry_counter(card: CardState, command: CommandApdu) -> ResponseApdu:
    """RESET RETRY COUNTER. P1 = 00: PUK and new PIN; 01: PUK; 02: new PIN; 03: nothing (verified before)."""
    return _run(_RESETS, card, command)


def _run(variants: Mapping[int, _Variant], card: CardState, command: CommandApdu) -> ResponseApdu:
    if command.p1 not in variants:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    variants[command.p1](card, card.pin(command.p2), command)
    return DONE


def _verify(card: CardState, pin: CardPin, candidate: bytes) -> None:
    _compare(card, pin, candidate)
    card.verified.add(pin)


def _compare(card: CardState, pin: CardPin, candidate: bytes) -> None:
    """:class:`Refused` with 6700 for what no PIN can be, at no cost; else as :meth:`CardPin.verify`."""
    if not MINIMUM_LENGTH <= len(candidate) <= pin.maximum:
        raise Refused(StatusWord.WRONG_LENGTH)
    with _closed_by_a_wrong_one(card, pin):
        pin.verify(candidate)


@contextlib.contextmanager
def _closed_by_a_wrong_one(card: CardState, pin: CardPin) -> Iterator[None]:
    """A wrong secret closes what the right one opened."""
    try:
        yield
    except Refused:
        card.verified.discard(pin)
        raise


def _change(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    pin.change(_split(card, pin, pin, command))
    if card.dialect.change_verifies:
        card.verified.add(pin)


def _replace(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    new = require_field(command)
    _require_setter_verified(card, pin)
    pin.change(new)


def _reset_with_both(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    puk = _puk(card, pin)
    new = _split(card, puk, pin, command)
    pin.change(new)
    puk.restore_tries()
    card.verified.discard(pin)


def _reset_with_puk(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    candidate = require_field(command)
    _compare(card, _puk(card, pin), candidate)
    pin.restore_tries()


def _reset_with_new(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    _replace(card, pin, command)
    card.verified.discard(pin)


def _reset_alone(card: CardState, pin: CardPin, command: CommandApdu) -> None:
    if command.nc:
        raise Refused(StatusWord.WRONG_LENGTH)
    _require_setter_verified(card, pin)
    pin.restore_tries()


def _split(card: CardState, known: CardPin, pin: CardPin, command: CommandApdu) -> bytes:
    """What follows the secret that the card knows; a wrong one costs it a try and its verified state."""
    data = require_field(command)
    if not known.shortest + MINIMUM_LENGTH <= len(data) <= known.maximum + pin.maximum:
        raise Refused(StatusWord.WRONG_LENGTH)
    with _closed_by_a_wrong_one(card, known):
        return known.split(data)


def _puk(card: CardState, pin: CardPin) -> CardPin:
    """The PIN that resets this one. :class:`Refused` with 6A81 if there is none, 6985 if it is a NullPIN."""
    if pin.unblocked_by is None:
        raise Refused(StatusWord.FUNCTION_NOT_SUPPORTED)
    puk = card.pin(pin.unblocked_by)
    if not puk.initialized:
        raise Refused(puk.status)
    return puk


def _require_setter_verified(card: CardState, pin: CardPin) -> None:
    """:class:`Refused` with 6A81 if no PIN can do it, 6985 if the one that unblocks it is a NullPIN, else 6982."""
    if card.verified.isdisjoint(map(card.pin, pin.set_by)):
        _puk(card, pin)
        raise Refused(StatusWord.SECURITY_STATUS_NOT_SATISFIED)


_CHANGES: Final[Mapping[int, _Variant]] = MappingProxyType({0x00: _change, 0x01: _replace})
_RESETS: Final[Mapping[int, _Variant]] = MappingProxyType(
    {0x00: _reset_with_both, 0x01: _reset_with_puk, 0x02: _reset_with_new, 0x03: _reset_alone}
)
