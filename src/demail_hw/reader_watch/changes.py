"""What is different between two looks at the readers: values alone."""

import dataclasses
import datetime
import enum
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from demail_hw.interfaces import ReaderInfo

__all__ = ["ReaderEvent", "Readers", "WatchEvent", "changes", "remembering"]

Readers: TypeAlias = Mapping[str, ReaderInfo]
"""The readers of one look, by their addresses."""


class WatchEvent(enum.Enum):
    """What happened, in words for people."""

    READER_ARRIVED = "reader arrived"
    READER_LEFT = "reader left"
    CARD_INSERTED = "card inserted"
    CARD_REMOVED = "card removed"


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderEvent:
    """``reader``: as the look showed it; of one that left, as the last look did. ``at``: with a time zone."""

    event: WatchEvent
    reader: ReaderInfo
    at: datetime.datetime


_CARD: Final[Mapping[tuple[bool | None, bool | None], WatchEvent]] = {
    (None, True): WatchEvent.CARD_INSERTED,
    (False, True): WatchEvent.CARD_INSERTED,
    (True, False): WatchEvent.CARD_REMOVED,
}
"""By what was in the reader before and is now; an empty reader that arrives is none."""


def changes(before: Readers, now: Readers, at: datetime.datetime) -> Iterator[ReaderEvent]:
    """What happened between two looks: who left, who arrived, and then the cards.

    A reader that leaves takes its card along without another word. ``now``: see :func:`remembering`.
    """
    for address in (each for each in before if each not in now):
        yield ReaderEvent(WatchEvent.READER_LEFT, before[address], at)
    for address, reader in now.items():
        if address not in before:
            yield ReaderEvent(WatchEvent.READER_ARRIVED, reader, at)
    for address, reader in now.items():
        if event := _CARD.get((_card(before, address), reader.card)):
            yield ReaderEvent(event, reader, at)


def remembering(before: Readers, now: Readers) -> dict[str, ReaderInfo]:
    """The readers of now; where a look did not tell whether there is a card, what was known before holds."""
    return {
        address: reader if reader.card is not None else reader._replace(card=_card(before, address))
        for address, reader in now.items()
    }


def _card(readers: Readers, address: str) -> bool | None:
    return readers[address].card if address in readers else None
