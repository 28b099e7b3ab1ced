"""Traces: what went over the wire, with secrets masked, as values; recorded, written, read and replayed.

The text has a line ``> command`` and a line ``< data status`` for each exchange, all in hexadecimal::

    # connected ATR 3bbf96008131fe5d00640411030131c073f701d00090007d
    > 0020008106************
    <  9000

The data field of a command that may hold a PIN is ``**`` a byte; no value in this module ever holds it.
"""

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from demail_hw.errors import CardMute, Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Buffers, CardLimits, CardLock, Deadline
from demail_hw.iso7816.apdu import (
    MAX_EXTENDED_LC,
    MAX_EXTENDED_NE,
    SECRET_INSTRUCTIONS,
    data_field,
)

__all__ = [
    "EXTENDED_LIMITS",
    "Exchange",
    "LoggingTracer",
    "Recorder",
    "ReplayConnection",
    "SeveralTracers",
    "Trace",
    "TraceEntry",
    "TracedExchange",
    "Tracer",
    "mask",
]

EXTENDED_LIMITS: Final = CardLimits(extended=True, max_command=MAX_EXTENDED_LC + 9, max_response=MAX_EXTENDED_NE + 2)
"""The longest APDUs that there are."""

_MASKED: Final = "**"
_HEADER_SIZE: Final = 4
_STATUS_DIGITS: Final = 4
_ATR_LINE: Final = re.compile(r"#.*\bATR ((?:[0-9a-f]{2})+)\s*", re.IGNORECASE)
_COMMAND_LINE: Final = re.compile(r">((?:\s*(?:[0-9a-f]{2}|\*\*))+)\s*", re.IGNORECASE)
_RESPONSE_LINE: Final = re.compile(r"<((?:\s*(?:[0-9a-f]{2}|\*\*))+)\s*", re.IGNORECASE)
_DECIPHER: Final = re.compile(r"..2a80")
_GET_RESPONSE: Final = re.compile(r"..c0")
_SHOWN_DIGITS: Final = 32


def mask(command: Buffers) -> str:
    """An encoded command APDU in hexadecimal, fit to be shown.

    For the commands that carry PINs (see :data:`~demail_hw.iso7816.apdu.SECRET_INSTRUCTIONS`), whatever their
    class, and so in every piece of a chain, each byte of the data field is ``**``; of a malformed one, each byte
    behind the header.
    """
    joined = bytearray().join(command)
    try:
        return _masked(memoryview(joined))
    finally:
        joined[:] = bytes(len(joined))


def _masked(encoded: memoryview) -> str:
    if len(encoded) < 2 or encoded[1] not in SECRET_INSTRUCTIONS:
        return encoded.hex()
    try:
        start, stop = data_field(encoded)
    except ProtocolViolation:
        start, stop = _HEADER_SIZE, max(_HEADER_SIZE, len(encoded))
    return encoded[:start].hex() + _MASKED * (stop - start) + encoded[stop:].hex()


@dataclasses.dataclass(frozen=True, slots=True)
class TraceEntry:
    """One exchange. ``command``: masked, ``response``: data and status; both in lower-case hexadecimal.

    An empty ``response``: none came. ``line``: where it stands in the text it was read from, or 0.
    """

    command: str
    response: str
    line: int = dataclasses.field(default=0, compare=False)

    @classmethod
    def record(cls, command: Buffers, response: bytes) -> "TraceEntry":
        """An exchange as it went over the wire."""
        return cls(mask(command), response.hex())

    def format(self) -> str:
        """Its two lines, or the first alone if no response came."""
        return "".join(f"{line}\n" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """The lines without their ends."""
        yield f"> {self.command}"
        if self.response:
            yield f"< {self.response[:-_STATUS_DIGITS]} {self.response[-_STATUS_DIGITS:]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """A recorded conversation with a card. ``atr``: empty if it is not known."""

    entries: tuple[TraceEntry, ...]
    atr: bytes = b""

    @classmethod
    def parse(cls, text: str) -> "Trace":
        """Read a trace; what is not masked yet, is. Lines that begin with ``#`` may name the ATR, the first counts.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` names the line that is none.
        """
        entries: list[TraceEntry] = []
        atr = b""
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("#") or not line.strip():
                atr = atr or _parse_atr(line)
            elif match := _COMMAND_LINE.fullmatch(line):
                entries.append(TraceEntry(_parse_command(_digits(match), number), "", number))
            elif (match := _RESPONSE_LINE.fullmatch(line)) and entries and not entries[-1].response:
                entries[-1] = dataclasses.replace(entries[-1], response=_digits(match))
            else:
                raise _bad_line(number)
        return cls(tuple(entries), atr)

    def format(self) -> str:
        """The text that :meth:`parse` reads."""
        head = f"# connected ATR {self.atr.hex()}\n" if self.atr else ""
        return head + "".join(entry.format() for entry in self.entries)


def _parse_atr(line: str) -> bytes:
    match = _ATR_LINE.fullmatch(line)
    return bytes.fromhex(match[1]) if match else b""


def _digits(match: re.Match[str]) -> str:
    return "".join(match[1].split()).lower()


def _parse_command(digits: str, line: int) -> str:
    masked = mask((bytes.fromhex(digits.replace(_MASKED, "00")),))
    if _MASKED in digits and _MASKED not in masked:
        raise _bad_line(line)
    return masked


def _bad_line(number: int) -> ProtocolViolation:
    return ProtocolViolation(
        f"Line {number} of the trace is neither a command nor its response.",
        layer=Layer.CARD,
        outcome=Outcome.NOT_SENT,
    )


# --- Recording -------------------------------------------------------------------------------------------------


class Tracer(Protocol):
    """Who wants to see the traffic. It is given masked values only."""

    @property
    def enabled(self) -> bool:
        """False: nothing is to be traced now."""
        ...

    def trace(self, entry: TraceEntry) -> None:
        """One exchange has ended."""
        ...


class Exchange(Protocol):
    """The shape of :meth:`demail_hw.interfaces.CardConnection.transmit`."""

    def __call__(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU."""
        ...


class TracedExchange:
    """An exchange that shows its traffic to a tracer, exchanges that failed included."""

    __slots__ = ("_exchange", "_tracer")

    def __init__(self, exchange: Exchange, tracer: Tracer) -> None:
        self._exchange = exchange
        self._tracer = tracer

    def __call__(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU."""
        if not self._tracer.enabled:
            return self._exchange(command, deadline=deadline)
        response = b""
        try:
            response = self._exchange(command, deadline=deadline)
        finally:
            self._tracer.trace(TraceEntry.record(command, response))
        return response


class Recorder:
    """A tracer that keeps what it sees."""

    def __init__(self) -> None:
        self._entries: list[TraceEntry] = []

    @property
    def enabled(self) -> bool:
        """Always true."""
        return True

    def trace(self, entry: TraceEntry) -> None:
        """Keep it."""
        self._entries.append(entry)

    def recorded(self, atr: bytes = b"") -> Trace:
        """What was seen so far."""
        return Trace(tuple(self._entries), atr)


class SeveralTracers:
    """Several tracers as one."""

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    @property
    def enabled(self) -> bool:
        """True if one of them is."""
        return any(tracer.enabled for tracer in self._tracers)

    def trace(self, entry: TraceEntry) -> None:
        """Show it to each that wants it."""
        for tracer in self._tracers:
            if tracer.enabled:
                tracer.trace(entry)


class LoggingTracer:
    """A tracer that writes to a logger at DEBUG level, in the lines of a trace.

    What a DECIPHER returns is masked too: it may be the key of a message, and a log is read by more people than
    the message.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._deciphering = False

    @property
    def enabled(self) -> bool:
        """True while the logger takes DEBUG."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def trace(self, entry: TraceEntry) -> None:
        """Write its lines."""
        fetches = self._deciphering and bool(_GET_RESPONSE.match(entry.command))
        self._deciphering = fetches or bool(_DECIPHER.match(entry.command))
        shown = _hide_data(entry) if self._deciphering else entry
        for line in shown.lines():
            self._logger.debug("%s", line)


def _hide_data(entry: TraceEntry) -> TraceEntry:
    data, status = entry.response[:-_STATUS_DIGITS], entry.response[-_STATUS_DIGITS:]
    return dataclasses.replace(entry, response=_MASKED * (len(data) // 2) + status)


# --- Replay ----------------------------------------------------------------------------------------------------


class ReplayConnection:
    """A :class:`~demail_hw.interfaces.CardConnection` to a recorded card: the same commands in the same order.

    ``lock``: what a transaction holds. Any PIN of the recorded length is taken for the recorded one.
    """

    def __init__(self, trace: Trace, lock: CardLock, *, limits: CardLimits = EXTENDED_LIMITS) -> None:
        self._trace = trace
        self._lock = lock
        self._limits = limits
        self._position = 0
        self._epoch = 0
        self._closed = False

    @property
    def atr(self) -> bytes:
        """The recorded answer to reset."""
        return self._trace.atr

    @property
    def limits(self) -> CardLimits:
        """What fits through."""
        return self._limits

    @property
    def epoch(self) -> int:
        """Changes with every reset."""
        return self._epoch

    @property
    def exhausted(self) -> bool:
        """True if every recorded exchange was replayed."""
        return self._position == len(self._trace.entries)

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block."""
        return self._lock.hold(deadline=deadline)

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:  # noqa: ARG002 - it answers at once
        """The recorded response.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` names the line where the trace has another command or
        a response that is masked; :class:`~demail_hw.errors.CardMute` where it has none.
        """
        if self._closed or not self._lock.held:
            raise RuntimeError("no command outside a transaction of an open connection")
        sent = mask(command)
        if self.exhausted:
            raise _mismatch(f"The trace has ended, and {_shorten(sent)} came.")
        entry = self._trace.entries[self._position]
        place = f"Line {entry.line}" if entry.line else f"Exchange {self._position + 1}"
        if sent != entry.command:
            raise _mismatch(f"{place} of the trace has {_shorten(entry.command)}, and {_shorten(sent)} came.")
        if _MASKED in entry.response:
            raise _mismatch(f"{place} of the trace has a masked response.")
        self._position += 1
        if not entry.response:
            raise CardMute(f"{place} of the trace has no response.")
        return bytes.fromhex(entry.response)

    def reset(self, *, deadline: Deadline) -> None:  # noqa: ARG002 - it is done at once
        """A new epoch; the recorded conversation goes on where it was."""
        self._epoch += 1

    def close(self) -> None:
        """Take no more commands."""
        self._closed = True


def _shorten(command: str) -> str:
    return command if len(command) <= _SHOWN_DIGITS else f"{command[:_SHOWN_DIGITS]}..."


def _mismatch(message: str) -> ProtocolViolation:
    return ProtocolViolation(message, layer=Layer.CARD, outcome=Outcome.NOT_SENT)
