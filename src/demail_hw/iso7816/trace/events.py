"""What a tracer is shown, and the lines of it that a trace has."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from demail_hw.foreign_text import printable
from demail_hw.iso7816.trace.entry import TraceEntry

__all__ = ["CardPowered", "CommandSent", "PowerUp", "ReaderOpened", "TraceEvent"]


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderOpened:
    """A reader was opened: what follows is the talk with the card in it."""

    name: str
    serial: str | None

    def lines(self) -> Iterator[str]:
        """As it stands in a trace."""
        yield f"# reader: {printable(self.name)}"
        if self.serial:
            yield f"# reader serial: {printable(self.serial)}"


@dataclasses.dataclass(frozen=True, slots=True)
class CardPowered:
    """The card has this answer to reset; what was known of its state is void."""

    atr: bytes

    def line(self) -> str:
        """As it stands in a trace."""
        return f"# connected ATR {self.atr.hex()}"


@dataclasses.dataclass(frozen=True, slots=True)
class CommandSent:
    """A command is about to leave. ``command``: masked."""

    command: str


TraceEvent: TypeAlias = ReaderOpened | CardPowered | CommandSent | TraceEntry
"""What a tracer is shown; a :class:`TraceEntry` is an exchange that has ended."""


class PowerUp(NamedTuple):
    """The card was powered anew, or may have changed without us. ``position``: how many exchanges came before."""

    position: int
    atr: bytes
