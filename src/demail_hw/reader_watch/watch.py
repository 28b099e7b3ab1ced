"""Looking at readers again and again."""

import contextlib
import datetime
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from demail_hw.address import Address
from demail_hw.errors import HardwareError
from demail_hw.interfaces import Deadline, Reader, ReaderInfo
from demail_hw.reader_watch.changes import ReaderEvent, Readers, changes, remembering
from demail_hw.registry import find_readers, open_reader

__all__ = ["INTERVAL_SECONDS", "Complain", "ReaderWatch", "watch_readers"]

INTERVAL_SECONDS: Final = 1.0
"""Between two looks."""

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 5.0

Complain = Callable[[str, HardwareError], None]
"""Gets what is in the way of an address, once until it changes."""


def _warn(address: str, error: HardwareError) -> None:
    _LOG.warning("%s: %s", address, error.message)


@contextlib.contextmanager
def watch_readers(
    addresses: Sequence[Address | str],
    *,
    deadline: Deadline = math.inf,
    interval: float = INTERVAL_SECONDS,
    complain: Complain = _warn,
) -> Iterator[Iterator[ReaderEvent]]:
    """Watch the readers at some addresses: whatever comes or goes, as it happens, to the deadline.

    At first every reader arrives, with its card. ``interval``: between two looks, in seconds; there is one at the
    least. ``complain``: as for :class:`ReaderWatch`; a warning is logged unless it is given. The readers that a watch
    holds (see there) are let go at the end of the ``with`` block.

    ``ValueError`` for what is no address.
    """
    parsed = [Address.parse(each) if isinstance(each, str) else each for each in addresses]
    with ReaderWatch(parsed, complain) as watch:
        yield watch.events(deadline, interval)


class ReaderWatch:
    """The readers at some addresses, look by look.

    A listing tells what is in most readers. Where it does not, as on a USB server, the reader is opened and stays
    open, and nobody else can use it meanwhile. ``complain``: gets what is in the way of an address, once until it
    changes; nothing is raised for it.

    A context manager; at its end it lets all readers go.
    """

    def __init__(self, addresses: Sequence[Address], complain: Complain) -> None:
        self._addresses = addresses
        self._complain = complain
        self._seen: Readers = {}
        self._opened: dict[str, Reader] = {}
        self._troubles: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for address in tuple(self._opened):
            self._let_go(address)

    def events(self, deadline: Deadline, interval: float) -> Iterator[ReaderEvent]:
        """What every look finds, to the deadline."""
        while True:
            yield from self.look()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.pause(min(interval, left))

    def look(self) -> Iterator[ReaderEvent]:
        """What is different from the last look; at the first one every reader arrives."""
        before = self._seen
        self._seen = remembering(before, self._see())
        return changes(before, self._seen, datetime.datetime.now(datetime.UTC))

    def pause(self, seconds: float = INTERVAL_SECONDS) -> None:
        """Wait for the next look: this long, or until the card of the only open reader comes or goes."""
        end = time.monotonic() + seconds
        if len(self._opened) == 1:
            ((address, reader),) = self._opened.items()
            with contextlib.suppress(HardwareError):  # the next look tells what it was
                reader.wait_for_card(not self._seen[address].card, deadline=end)
                return
        time.sleep(max(0.0, end - time.monotonic()))

    def _see(self) -> Readers:
        """Those that are held tell of themselves: a USB server does not list them. One that cannot any more has left,
        and arrives at the next look if it is listed then."""
        held = tuple(self._opened)
        asked = {address: self._ask(address, self._seen[address]) for address in held}
        listed = {address: self._meet(info) for address, info in self._listed().items() if address not in held}
        return {address: info for address, info in (asked | listed).items() if info is not None}

    def _listed(self) -> Readers:
        return {info.address: info for address in self._addresses for info in self._find(address)}

    def _find(self, address: Address) -> Sequence[ReaderInfo]:
        try:
            found = find_readers(address)
        except HardwareError as error:
            self._report(str(address), error)
            return ()
        self._troubles.pop(str(address), None)
        return found

    def _meet(self, info: ReaderInfo) -> ReaderInfo | None:
        """One that is listed; it is opened the first time if the listing does not tell what is in it."""
        if info.address in self._seen or info.card is not None or info.in_use is not False:
            return info
        try:
            reader = open_reader(info.address)
        except HardwareError as error:  # somebody was faster, perhaps: the next look tries again
            self._report(info.address, error)
            return None
        self._troubles.pop(info.address, None)
        self._opened[info.address] = reader
        return self._ask(info.address, info._replace(name=reader.name, serial=reader.serial))

    def _ask(self, address: str, info: ReaderInfo) -> ReaderInfo | None:
        try:
            card = self._opened[address].card_present(deadline=time.monotonic() + _LOOK_SECONDS)
        except HardwareError as error:
            self._report(address, error)
            self._let_go(address)
            return None
        return info._replace(card=card)

    def _report(self, address: str, error: HardwareError) -> None:
        if self._troubles.get(address) != error.message:
            self._troubles[address] = error.message
            self._complain(address, error)

    def _let_go(self, address: str) -> None:
        self._opened.pop(address).close()
