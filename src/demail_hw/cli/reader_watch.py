"""Watching readers: which come and go, and what is put into them."""

import contextlib
import dataclasses
import datetime
import enum
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from demail_hw.address import Address
from demail_hw.errors import HardwareError
from demail_hw.interfaces import Reader, ReaderInfo
from demail_hw.registry import find_readers, open_reader

__all__ = ["INTERVAL_SECONDS", "ReaderEvent", "ReaderWatch", "WatchEvent"]

INTERVAL_SECONDS: Final = 1.0
"""Between two looks."""

_LOOK_SECONDS: Final = 5.0


class WatchEvent(enum.Enum):
    """What happened, in words for people."""

    READER_ARRIVED = "reader arrived"
    READER_LEFT = "reader left"
    CARD_INSERTED = "card inserted"
    CARD_REMOVED = "card removed"


_CARD: Final = {True: WatchEvent.CARD_INSERTED, False: WatchEvent.CARD_REMOVED}


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderEvent:
    """``reader``: as a listing shows it. ``at``: with a time zone."""

    event: WatchEvent
    reader: ReaderInfo
    at: datetime.datetime


@dataclasses.dataclass(slots=True)
class _Watched:
    """``opened``: where only the reader itself tells what is in it."""

    info: ReaderInfo
    opened: Reader | None
    card: bool | None = None


class ReaderWatch:
    """The readers at some addresses, looked at again and again.

    A listing tells what is in most readers. Where it does not, as on a USB server, the reader is opened and stays
    open, and nobody else can use it meanwhile. ``complain``: gets what is in the way of an address, once until it
    changes.

    A context manager; at its end it lets all readers go.
    """

    def __init__(self, addresses: Sequence[Address], complain: Callable[[str, HardwareError], None]) -> None:
        self._addresses = addresses
        self._complain = complain
        self._watched: dict[str, _Watched] = {}
        self._troubles: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for watched in self._watched.values():
            _let_go(watched)

    def look(self) -> Iterator[ReaderEvent]:
        """What is different from the last look; at the first one every reader arrives."""
        listed = self._listed()
        for address in [each for each, watched in self._watched.items() if watched.opened is None]:
            if address not in listed:
                yield self._leave(address)
        for address, info in listed.items():
            if address not in self._watched:
                yield from self._arrive(address, info)
        for address, watched in tuple(self._watched.items()):
            yield from self._look_at(address, watched, listed.get(address))

    def pause(self, seconds: float = INTERVAL_SECONDS) -> None:
        """Wait for the next look: this long, or until the card of the only open reader comes or goes."""
        end = time.monotonic() + seconds
        opened = [watched for watched in self._watched.values() if watched.opened is not None]
        if len(opened) == 1 and opened[0].opened is not None and opened[0].card is not None:
            with contextlib.suppress(HardwareError):  # the next look tells what it was
                opened[0].opened.wait_for_card(not opened[0].card, deadline=end)
                return
        time.sleep(max(0.0, end - time.monotonic()))

    def _listed(self) -> dict[str, ReaderInfo]:
        return {info.address: info for address in self._addresses for info in self._find(address)}

    def _find(self, address: Address) -> Sequence[ReaderInfo]:
        try:
            found = find_readers(address)
        except HardwareError as error:
            self._report(str(address), error)
            return ()
        self._troubles.pop(str(address), None)
        return found

    def _report(self, address: str, error: HardwareError) -> None:
        if self._troubles.get(address) != error.message:
            self._troubles[address] = error.message
            self._complain(address, error)

    def _arrive(self, address: str, info: ReaderInfo) -> Iterator[ReaderEvent]:
        opened = None
        if info.card is None and info.in_use is False:
            try:
                opened = open_reader(address)
            except HardwareError as error:  # somebody was faster, perhaps: the next look tries again
                self._report(address, error)
                return
            info = info._replace(name=opened.name, serial=opened.serial)
        self._troubles.pop(address, None)
        self._watched[address] = _Watched(info, opened)
        yield _event(WatchEvent.READER_ARRIVED, info)

    def _leave(self, address: str) -> ReaderEvent:
        watched = self._watched.pop(address)
        _let_go(watched)
        return _event(WatchEvent.READER_LEFT, watched.info)

    def _look_at(self, address: str, watched: _Watched, info: ReaderInfo | None) -> Iterator[ReaderEvent]:
        card = info.card if info is not None and watched.opened is None else None
        if watched.opened is not None:
            try:
                card = watched.opened.card_present(deadline=time.monotonic() + _LOOK_SECONDS)
            except HardwareError as error:
                self._report(address, error)
                yield self._leave(address)
                return
        before, watched.card = watched.card, card
        if card is not None and card is not before and (card or before is not None):
            yield _event(_CARD[card], watched.info)


def _let_go(watched: _Watched) -> None:
    if watched.opened is not None:
        watched.opened.close()


def _event(event: WatchEvent, reader: ReaderInfo) -> ReaderEvent:
    return ReaderEvent(event, reader, datetime.datetime.now(datetime.UTC))
