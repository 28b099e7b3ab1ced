"""Who is shown the traffic: a tracer that keeps it, one that logs it, several as one."""

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from demail_hw.iso7816.trace.assembly import Assembly
from demail_hw.iso7816.trace.conversation import Trace
from demail_hw.iso7816.trace.deciphered import DecipherMask
from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.events import CardPowered, CommandSent, ReaderOpened, TraceEvent

__all__ = ["LoggingTracer", "Recorder", "SeveralTracers", "Tracer", "fit_for"]


class Tracer(Protocol):
    """Who wants to see the traffic. It is given masked values only.

    What a DECIPHER returns is masked too, unless the tracer has an attribute ``deciphered`` that is true.
    """

    @property
    def enabled(self) -> bool:
        """False: nothing is to be traced now."""
        ...

    def trace(self, event: TraceEvent) -> None:
        """Something has happened. An exchange is told twice: a command leaves, and it has ended."""
        ...


def _wants_deciphered(tracer: Tracer) -> bool:
    return getattr(tracer, "deciphered", False) is True


def fit_for(tracer: Tracer, entry: TraceEntry) -> TraceEntry:
    """The exchange as this tracer may see it: what a DECIPHER returned masked, unless it asks for that."""
    return entry.hidden() if entry.deciphered and not _wants_deciphered(tracer) else entry


class Recorder:
    """A tracer that keeps what it sees. ``deciphered``: what a DECIPHER returns too; else it is masked."""

    def __init__(self, *, deciphered: bool = False) -> None:
        self._assembly = Assembly()
        self.deciphered: Final = deciphered

    @property
    def enabled(self) -> bool:
        """Always true."""
        return True

    def trace(self, event: TraceEvent) -> None:
        """Keep it; a command when its exchange has ended."""
        match event:
            case TraceEntry():
                self._assembly.entries.append(event)
            case CardPowered(atr):
                self._assembly.power(atr)
            case ReaderOpened(name, serial):
                self._assembly.reader = self._assembly.reader or name
                self._assembly.serial = self._assembly.serial or serial
            case CommandSent():
                pass

    def recorded(self) -> Trace:
        """What was seen so far."""
        return Trace.of(self._assembly)


class SeveralTracers:
    """Several tracers as one."""

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    @property
    def enabled(self) -> bool:
        """True if one of them is."""
        return any(tracer.enabled for tracer in self._tracers)

    @property
    def deciphered(self) -> bool:
        """True if one of them asks for what a DECIPHER returns."""
        return any(map(_wants_deciphered, self._tracers))

    def trace(self, event: TraceEvent) -> None:
        """Show it to each that wants it; what a DECIPHER returned masked, unless it asks for that."""
        for tracer in self._tracers:
            if tracer.enabled:
                tracer.trace(fit_for(tracer, event) if isinstance(event, TraceEntry) else event)


class LoggingTracer:
    """A tracer that writes each exchange to a logger at DEBUG level, in the lines of a trace.

    What a DECIPHER returns is masked too: a log is read by more people than the message.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._mask = DecipherMask()

    @property
    def enabled(self) -> bool:
        """True while the logger takes DEBUG."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def trace(self, event: TraceEvent) -> None:
        """Write the lines of an exchange."""
        if isinstance(event, TraceEntry):
            for line in self._mask.hide(event).lines():
                self._logger.debug("%s", line)
