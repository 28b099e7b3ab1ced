"""Traces: what went over the wire, with secrets masked, as values; recorded, written and read.

The text has a line ``> command`` and a line ``< data status`` for each exchange, all in hexadecimal::

    # reader: Identiv uTrust 2700 F
    # reader serial: 53692013000000
    # connected ATR 3bbf96008131fe5d00640411030131c073f701d00090007d
    > 0020008106************
    <  9000

The data field of a command that may hold a PIN is ``**`` a byte; no value in this module ever holds it. What a
DECIPHER returns is masked too, unless a tracer asks for it: it may be the key of a message.

A line that begins with ``#`` is a comment. Those of the example are read all the same; another ``# connected ATR``
among the exchanges says that the card was powered anew, or may have changed without us.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from demail_hw.errors import HardwareError, Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Buffers, CardConnection, CardLimits, Deadline
from demail_hw.iso7816.apdu import (
    MAX_EXTENDED_LC,
    MAX_EXTENDED_NE,
    SECRET_INSTRUCTIONS,
    data_field,
)

__all__ = [
    "EXTENDED_LIMITS",
    "MASKED",
    "BadTrace",
    "CardPowered",
    "CommandSent",
    "DecipherMask",
    "LoggingTracer",
    "PowerUp",
    "ReaderOpened",
    "Recorder",
    "SeveralTracers",
    "Trace",
    "TraceEntry",
    "TraceEvent",
    "TracedExchange",
    "Tracer",
    "mask",
]

EXTENDED_LIMITS: Final = CardLimits(extended=True, max_command=MAX_EXTENDED_LC + 9, max_response=MAX_EXTENDED_NE + 2)
"""The longest APDUs that there are."""
MASKED: Final = "**"
"""What stands for a byte that is not shown."""

_HEADER_SIZE: Final = 4
_STATUS_DIGITS: Final = 4
_MAX_LINE: Final = 4 * EXTENDED_LIMITS.max_command
"""In characters: two digits a byte and as many spaces. Nothing longer is an APDU."""
_ENVELOPES: Final = frozenset({0xC2, 0xC3})
_MASKED_INSTRUCTIONS: Final = SECRET_INSTRUCTIONS | _ENVELOPES
"""ENVELOPE holds another command (ISO 7816-4, 11.7.2): it may be one with a PIN."""
_DECIPHER: Final = re.compile(r"..(?:2[ab]80|c[23])")
"""An ENVELOPE may hold a DECIPHER."""
_GET_RESPONSE: Final = re.compile(r"..c0")


def mask(command: Buffers) -> str:
    """An encoded command APDU in hexadecimal, fit to be shown.

    For the commands that carry PINs (see :data:`~demail_hw.iso7816.apdu.SECRET_INSTRUCTIONS`), and for ENVELOPE,
    which carries any command, whatever their class, and so in every piece of a chain, each byte of the data field is
    ``**``; of a malformed one, each byte behind the header.
    """
    joined = bytearray().join(command)
    try:
        return _masked(memoryview(joined))
    finally:
        joined[:] = bytes(len(joined))


def _masked(encoded: memoryview) -> str:
    if len(encoded) < 2 or encoded[1] not in _MASKED_INSTRUCTIONS:
        return encoded.hex()
    try:
        start, stop = data_field(encoded)
    except ProtocolViolation:
        start, stop = _HEADER_SIZE, max(_HEADER_SIZE, len(encoded))
    return encoded[:start].hex() + MASKED * (stop - start) + encoded[stop:].hex()


@dataclasses.dataclass(frozen=True, slots=True)
class TraceEntry:
    """One exchange. ``command``: masked, ``response``: data and status; both in lower-case hexadecimal.

    An empty ``response``: none came, and ``failure`` says why, if it is known. ``line``: where it stands in the text
    it was read from, or 0. ``deciphered``: it is known that the response is what a DECIPHER returns.
    """

    command: str
    response: str
    line: int = dataclasses.field(default=0, compare=False)
    failure: str = dataclasses.field(default="", compare=False)
    deciphered: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def record(cls, command: Buffers, response: bytes) -> "TraceEntry":
        """An exchange as it went over the wire."""
        return cls(mask(command), response.hex())

    @property
    def status(self) -> int | None:
        """SW1-SW2; ``None`` if none came, or is masked."""
        digits = self.response[-_STATUS_DIGITS:]
        return int(digits, 16) if len(digits) == _STATUS_DIGITS and MASKED not in digits else None

    @property
    def data(self) -> str:
        """The response without its status."""
        return self.response[:-_STATUS_DIGITS]

    def hidden(self) -> "TraceEntry":
        """The same with the data of the response masked."""
        status = self.response[-_STATUS_DIGITS:]
        return dataclasses.replace(self, response=MASKED * (len(self.data) // 2) + status)

    def format(self) -> str:
        """Its lines, each with its end."""
        return "".join(f"{line}\n" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """The lines without their ends."""
        yield f"> {self.command}"
        yield from self.answer_lines()

    def answer_lines(self) -> Iterator[str]:
        """What follows the command's line."""
        if self.response:
            yield f"< {self.data} {self.response[-_STATUS_DIGITS:]}"
        elif self.failure:
            yield f"# no answer: {self.failure}"


class PowerUp(NamedTuple):
    """The card was powered anew, or may have changed without us. ``position``: how many exchanges came before."""

    position: int
    atr: bytes


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

        Errors: :class:`BadTrace` names the line that is none.
        """
        assembly = _Assembly()
        for number, line in enumerate(_LINE_END.split(text), start=1):
            _read_line(assembly, line, number)
        return assembly.trace()

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


class BadTrace(ProtocolViolation):
    """A text that is no trace. ``line``: the first one that is wrong."""

    default_layer = Layer.CARD
    default_outcome = Outcome.NOT_SENT

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"Line {line} of the trace {why}.")
        self.line = line


# --- Events ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderOpened:
    """A reader was opened: what follows is the talk with the card in it."""

    name: str
    serial: str | None

    def lines(self) -> Iterator[str]:
        """As it stands in a trace."""
        yield f"# reader: {_printable(self.name)}"
        if self.serial:
            yield f"# reader serial: {_printable(self.serial)}"


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


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


class _Assembly:
    """A trace as it grows."""

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []
        self.atr = b""
        self._powered: list[PowerUp] = []
        self.reader = ""
        self.serial: str | None = None

    def power(self, atr: bytes) -> None:
        """Before the first exchange the first time counts."""
        if self.entries:
            self._powered.append(PowerUp(len(self.entries), atr))
        else:
            self.atr = self.atr or atr

    def trace(self) -> Trace:
        """All of it."""
        return Trace(tuple(self.entries), self.atr, tuple(self._powered), self.reader, self.serial)


# --- Reading ---------------------------------------------------------------------------------------------------


def _read_line(assembly: _Assembly, line: str, number: int) -> None:
    if len(line) > _MAX_LINE:
        raise BadTrace(number, "is longer than any command and any response")
    for pattern, take in _LINES:
        if match := pattern.fullmatch(line):
            take(assembly, match[1], number)
            return
    raise _neither(number)


def _take_reader(assembly: _Assembly, text: str, _line: int) -> None:
    assembly.reader = assembly.reader or text


def _take_serial(assembly: _Assembly, text: str, _line: int) -> None:
    assembly.serial = assembly.serial or text


def _take_power(assembly: _Assembly, text: str, _line: int) -> None:
    assembly.power(bytes.fromhex(text))


def _take_first_atr(assembly: _Assembly, text: str, _line: int) -> None:
    assembly.atr = assembly.atr or bytes.fromhex(text)


def _take_failure(assembly: _Assembly, text: str, _line: int) -> None:
    if assembly.entries and not assembly.entries[-1].response:
        assembly.entries[-1] = dataclasses.replace(assembly.entries[-1], failure=text)


def _take_command(assembly: _Assembly, text: str, line: int) -> None:
    digits = _digits(text)
    masked = mask((bytes.fromhex(digits.replace(MASKED, "00")),))
    if MASKED in digits and MASKED not in masked:
        raise _neither(line)
    assembly.entries.append(TraceEntry(masked, "", line))


def _take_response(assembly: _Assembly, text: str, line: int) -> None:
    if not assembly.entries or assembly.entries[-1].response:
        raise _neither(line)
    assembly.entries[-1] = dataclasses.replace(assembly.entries[-1], response=_digits(text), failure="")


def _take_nothing(_assembly: _Assembly, _text: str, _line: int) -> None:
    """A comment, or an empty line."""


def _digits(text: str) -> str:
    return "".join(text.split()).lower()


def _neither(line: int) -> BadTrace:
    return BadTrace(line, "is neither a command nor its response")


_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_LINES: Final[tuple[tuple[re.Pattern[str], Callable[[_Assembly, str, int], None]], ...]] = (
    (re.compile(r">((?:\s*(?:[0-9a-f]{2}|\*\*))+)\s*", re.IGNORECASE), _take_command),
    (re.compile(r"<((?:\s*(?:[0-9a-f]{2}|\*\*))+)\s*", re.IGNORECASE), _take_response),
    (re.compile(r"# reader: (.+)"), _take_reader),
    (re.compile(r"# reader serial: (.+)"), _take_serial),
    (re.compile(r"# connected ATR ((?:[0-9a-f]{2})*)\s*", re.IGNORECASE), _take_power),
    (re.compile(r"# no answer: (.+)"), _take_failure),
    (re.compile(r"#.*\bATR ((?:[0-9a-f]{2})+)\s*", re.IGNORECASE), _take_first_atr),
    (re.compile(r"(#.*|\s*)"), _take_nothing),
)
"""The first that fits counts."""


# --- Recording -------------------------------------------------------------------------------------------------


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


class TracedExchange:
    """:meth:`~demail_hw.interfaces.CardConnection.transmit` of a connection, shown to a tracer: exchanges that failed
    included, and before the first one, and whenever the connection's epoch has changed, the card's ATR.

    What a DECIPHER returns is masked, unless the tracer asks for it (see :class:`Tracer`)."""

    __slots__ = ("_connection", "_epoch", "_mask", "_tracer")

    def __init__(self, connection: CardConnection, tracer: Tracer) -> None:
        self._connection = connection
        self._tracer = tracer
        self._epoch: int | None = None
        self._mask = DecipherMask()

    def __call__(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU."""
        tracer = self._tracer
        if not tracer.enabled:
            self._mask.lose_sight()
            return self._connection.transmit(command, deadline=deadline)
        self._look_at_the_card()
        masked = mask(command)
        tracer.trace(CommandSent(masked))
        try:
            response = self._connection.transmit(command, deadline=deadline)
        except BaseException as error:
            self._end(TraceEntry(masked, "", failure=_told(error)))
            raise
        self._end(TraceEntry(masked, response.hex()))
        return response

    def _end(self, entry: TraceEntry) -> None:
        self._tracer.trace(_fit_for(self._tracer, self._mask.mark(entry)))

    def _look_at_the_card(self) -> None:
        epoch = self._connection.epoch
        if epoch != self._epoch:
            self._epoch = epoch
            self._tracer.trace(CardPowered(self._connection.atr))


def _told(error: BaseException) -> str:
    """Only our own errors are known to hold no secret."""
    name = type(error).__name__
    return _printable(f"{name}: {error.message}" if isinstance(error, HardwareError) else name)


def _wants_deciphered(tracer: Tracer) -> bool:
    return getattr(tracer, "deciphered", False) is True


def _fit_for(tracer: Tracer, entry: TraceEntry) -> TraceEntry:
    return entry.hidden() if entry.deciphered and not _wants_deciphered(tracer) else entry


class Recorder:
    """A tracer that keeps what it sees. ``deciphered``: what a DECIPHER returns too; else it is masked."""

    def __init__(self, *, deciphered: bool = False) -> None:
        self._assembly = _Assembly()
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
        return self._assembly.trace()


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
                tracer.trace(_fit_for(tracer, event) if isinstance(event, TraceEntry) else event)


class DecipherMask:
    """Masks what a DECIPHER returns, with the GET RESPONSE that follow it: it may be the key of a message."""

    def __init__(self) -> None:
        self._deciphering = False

    def hide(self, entry: TraceEntry) -> TraceEntry:
        """The exchange, fit to be shown. Every one has to come by, in its order."""
        marked = self.mark(entry)
        return marked.hidden() if marked.deciphered else marked

    def mark(self, entry: TraceEntry) -> TraceEntry:
        """The exchange, and whether it is what a DECIPHER returns. Every one has to come by, in its order."""
        fetches = self._deciphering and bool(_GET_RESPONSE.match(entry.command))
        self._deciphering = fetches or bool(_DECIPHER.match(entry.command))
        return dataclasses.replace(entry, deciphered=True) if self._deciphering else entry

    def lose_sight(self) -> None:
        """An exchange does not come by: it may be a DECIPHER."""
        self._deciphering = True


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
