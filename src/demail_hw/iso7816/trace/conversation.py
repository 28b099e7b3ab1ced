"""A recorded conversation with a card, and its text."""

import dataclasses
from collections.abc import Iterator

from demail_hw.iso7816.trace.assembly import Assembly
from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.events import CardPowered, PowerUp, ReaderOpened
from demail_hw.iso7816.trace.reading import read

__all__ = ["Trace"]


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """A recorded conversation with a card.

    ``atr``: empty if it is not known; ``powered``: every later time. ``reader`` and ``serial``: where the card was.
    """

    entries: tuple[TraceEntry, ...]
    atr: bytes = b""
    powered: tuple[PowerUp, ...] = ()
    reader: str = ""
    serial: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Trace":
        """Read a trace; what is not masked yet, is. Any line that begins with ``#`` may name the first ATR.

        Errors: :class:`~demail_hw.iso7816.trace.BadTrace` names the line that is none.
        """
        return cls.of(read(text))

    @classmethod
    def of(cls, assembly: Assembly) -> "Trace":
        """All that has been put together so far."""
        return cls(tuple(assembly.entries), assembly.atr, tuple(assembly.powered), assembly.reader, assembly.serial)

    def format(self) -> str:
        """The text that :meth:`parse` reads."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        if self.reader:
            yield from ReaderOpened(self.reader, self.serial).lines()
        if self.atr:
            yield CardPowered(self.atr).line()
        begin = 0
        for position, atr in self.powered:
            yield from self._exchanges(begin, position)
            yield CardPowered(atr).line()
            begin = position
        yield from self._exchanges(begin, len(self.entries))

    def _exchanges(self, begin: int, end: int) -> Iterator[str]:
        for entry in self.entries[begin:end]:
            yield from entry.lines()
