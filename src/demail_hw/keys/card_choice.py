"""Which of several readers has the card that ``?card=`` names.

No driver knows what a card's number is, so this stands above them all: where an address means several readers, they
are opened one after the other, each under its own deadline, and let go again if the card is another one. No PIN is
sent.

A reader that another program has in use is passed over, and the error says so. Only where the card is to be shared it
is looked at too, after the others: if its card is another one, it is reset when it is let go, like any shared card
that got a command.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from demail_hw.address import Address
from demail_hw.errors import DeviceNotFound, HardwareError, ReaderBusy, UnexpectedCard
from demail_hw.interfaces import ReaderInfo, ShareMode, Timeouts
from demail_hw.registry import find_readers

__all__ = ["open_demanded"]

_Session = TypeVar("_Session")

_SEVERAL: Final = 2
_REMEDY: Final = UnexpectedCard.default_remedy


def open_demanded(address: Address, open_one: Callable[[Address], _Session], *, timeouts: Timeouts) -> _Session:
    """What ``open_one`` gives for the address; if that means several readers, for the one with the demanded card.

    Errors: :class:`~demail_hw.errors.UnexpectedCard` if it is in none of them, :class:`~demail_hw.errors.ReaderBusy`
    if it may be in one that cannot be had at the moment; those of ``open_one``.
    """
    try:
        return open_one(address)
    except DeviceNotFound as error:
        readers = () if address.card is None else _possible(address, timeouts)
        if len(readers) < _SEVERAL:
            raise
        return _first(address, readers, open_one, otherwise=error)


def _possible(address: Address, timeouts: Timeouts) -> Sequence[ReaderInfo]:
    """The readers that can have the card; those first that nobody else uses."""
    if len({address.serial, address.reader} - {None}) > 1:
        return ()
    readers = (info for info in find_readers(address, timeouts=timeouts) if info.card is not False)
    return sorted(readers, key=lambda info: bool(info.in_use))


def _first(
    address: Address,
    readers: Sequence[ReaderInfo],
    open_one: Callable[[Address], _Session],
    *,
    otherwise: DeviceNotFound,
) -> _Session:
    passed: list[tuple[str, HardwareError]] = []
    for info in readers:
        try:
            _check_free(info, address)
            return open_one(_address_of(info, address))
        except DeviceNotFound:
            continue  # by its serial number it is another reader, or it is gone
        except HardwareError as error:
            passed.append((info.name, error))
    raise _nowhere(address, passed) if passed else otherwise


def _check_free(info: ReaderInfo, address: Address) -> None:
    if info.in_use and address.share != ShareMode.SHARED.value:
        raise ReaderBusy("Another program has the card.")


def _address_of(info: ReaderInfo, address: Address) -> Address:
    """Where the reader is, with all that is demanded: a listing knows no serial numbers everywhere."""
    return dataclasses.replace(
        Address.parse(info.address), card=address.card, reader=address.reader or address.serial, share=address.share
    )


def _nowhere(address: Address, passed: Sequence[tuple[str, HardwareError]]) -> HardwareError:
    looks = " ".join(f"{name!r}: {error.message}" for name, error in passed)
    message = f"No reader has the card {address.card}: {looks}"
    if any(error.transient for _, error in passed):
        return ReaderBusy(message, remedy=f"End the program that uses a reader, or wait for it. {_REMEDY}")
    return UnexpectedCard(message, remedy=_REMEDY)
