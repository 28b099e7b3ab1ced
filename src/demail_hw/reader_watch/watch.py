"""Looking at readers again and again."""

import contextlib
import datetime
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

from demail_hw.address import Address
from demail_hw.errors import HardwareError
from demail_hw.interfaces import Deadline, Reader, ReaderInfo, Timeouts
from demail_hw.reader_watch.changes import ReaderEvent, Readers, changes, remembering
from demail_hw.reader_watch.complaints import Complain, Complaints
from demail_hw.registry import find_readers, open_reader

__all__ = ["INTERVAL_SECONDS", "ReaderWatch", "watch_readers"]

INTERVAL_SECONDS: Final = 1.0
"""Between two looks."""

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 5.0


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

    At first every reader arrives, with its card. ``interval``: between two looks, in seconds. There is one look at
    the least; none waits for a reader or a server beyond the deadline. ``complain``: as for :class:`ReaderWatch`; a
    warning is logged unless it is given. The readers that a watch holds (see there) are let go at the end of the
    ``with`` block.

    ``ValueError`` for what is no address.
    """
    parsed = [Address.parse(each) if isinstance(each, str) else each for each in addresses]
    with ReaderWatch(parsed, complain) as watch:
        yield watch.events(deadline, interval)


class _Held(NamedTuple):
    """An open reader, and what is known of it."""

    reader: Reader
    info: ReaderInfo


class ReaderWatch:
    """The readers at some addresses, look by look.

    A listing tells what is in most readers. Where it does not, as on a USB server, the reader is opened and stays
    open, and nobody else can use it meanwhile; one of which the listing does not even know whether it is there and
    free, as a bound one, only if one of the addresses is its own. ``complain``: gets what is in the way of an
    address, once until it changes; nothing is raised for it.

    A context manager; at its end it lets all readers go.
    """

    def __init__(self, addresses: Sequence[Address], complain: Complain) -> None:
        self._addresses = addresses
        self._seen: Readers = {}
        self._held: dict[str, _Held] = {}
        # Two kinds: the same text can be the address of a server and of its reader.
        self._of_listings = Complaints(complain)
        self._of_readers = Complaints(complain)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for address in tuple(self._held):
            self._let_go(address)

    def events(self, deadline: Deadline, interval: float) -> Iterator[ReaderEvent]:
        """What every look finds, to the deadline."""
        yield from self.look(deadline)
        while (left := deadline - time.monotonic()) > 0:
            self.pause(min(interval, left))
            if time.monotonic() < deadline:
                yield from self.look(deadline)

    def look(self, deadline: Deadline = math.inf) -> Iterator[ReaderEvent]:
        """What is different from the last look; at the first one every reader arrives.

        One that the deadline cuts off says of nobody that he left. One that an exception ends (of ``complain``, say)
        was none: the next look tells everything.
        """
        before, now = self._seen, self._see(deadline)
        if time.monotonic() >= deadline:  # whoever is missing was not asked, perhaps
            now = {**before, **now}
        self._seen = remembering(before, now)
        return changes(before, self._seen, datetime.datetime.now(datetime.UTC))

    def pause(self, seconds: float = INTERVAL_SECONDS) -> None:
        """Wait for the next look: this long, or until the card of the only open reader comes or goes."""
        end = time.monotonic() + seconds
        if len(self._held) == 1:
            (held,) = self._held.values()
            with contextlib.suppress(HardwareError):  # the next look tells what it was
                held.reader.wait_for_card(not held.info.card, deadline=end)
                return
        time.sleep(max(0.0, end - time.monotonic()))

    def _see(self, deadline: Deadline) -> Readers:
        """Those that are held tell of themselves: a USB server does not list them. One that cannot any more has left,
        and arrives at the next look if it is listed then."""
        held = tuple(self._held)
        asked = {address: self._ask(address, deadline) for address in held}
        listed = {info.address: info for address in self._addresses for info in self._find(address, deadline)}
        met = {address: self._meet(info, deadline) for address, info in listed.items() if address not in held}
        return {address: info for address, info in (asked | met).items() if info is not None}

    def _is_to_be_opened(self, info: ReaderInfo) -> bool:
        """The listing does not tell what is in it; and it is free, or was named on purpose and may be."""
        named = any(str(address) == info.address for address in self._addresses)
        return info.card is None and (info.in_use is False or (info.in_use is None and named))

    def _find(self, address: Address, deadline: Deadline) -> Sequence[ReaderInfo]:
        try:
            found = find_readers(address, timeouts=_timeouts(deadline))
        except HardwareError as error:
            self._of_listings.tell(str(address), error)
            return ()
        self._of_listings.over(str(address))
        return found

    def _meet(self, info: ReaderInfo, deadline: Deadline) -> ReaderInfo | None:
        """One that is listed; None if it had to be opened, could not be, and was not there before."""
        if not self._is_to_be_opened(info):
            return info
        try:
            reader = open_reader(info.address, timeouts=_timeouts(deadline))
        except HardwareError as error:  # somebody was faster, perhaps: the next look tries again
            self._of_readers.tell(info.address, error)
            return info if info.address in self._seen else None
        self._of_readers.over(info.address)
        self._held[info.address] = _Held(reader, info._replace(name=reader.name, serial=reader.serial))
        return self._ask(info.address, deadline)

    def _ask(self, address: str, deadline: Deadline) -> ReaderInfo | None:
        reader, info = self._held[address]
        try:
            card = reader.card_present(deadline=min(deadline, time.monotonic() + _LOOK_SECONDS))
        except HardwareError as error:
            self._let_go(address)
            self._of_readers.tell(address, error)
            return None
        self._held[address] = _Held(reader, info._replace(card=card))
        return self._held[address].info

    def _let_go(self, address: str) -> None:
        self._held.pop(address).reader.close()


def _timeouts(deadline: Deadline) -> Timeouts:
    """The usual ones, or what is left."""
    left = max(0.0, deadline - time.monotonic())
    return Timeouts(*(min(each, left) for each in Timeouts()))
