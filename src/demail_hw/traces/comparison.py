"""A trace against a card: the recorded commands are sent again, and the answers compared."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from demail_hw.errors import HardwareError
from demail_hw.interfaces import CardConnection, Deadline
from demail_hw.iso7816.command_names import CommandView
from demail_hw.iso7816.trace import MASKED, Trace, TracedExchange, TraceEntry, Tracer

__all__ = ["Comparison", "Difference", "Skipped", "compare"]

_HARMLESS: Final = frozenset(
    {
        *(0xA4, 0xB0, 0xB1, 0xB2, 0xB3),  # SELECT, READ BINARY, READ RECORD
        *(0xCA, 0xCB, 0xC0, 0x84),  # GET DATA, GET RESPONSE, GET CHALLENGE
        *(0x22, 0x2A, 0x88),  # MANAGE SECURITY ENVIRONMENT, PERFORM SECURITY OPERATION, INTERNAL AUTHENTICATE
    }
)
"""None changes what is on the card."""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where the card answered otherwise.

    ``line``: of the command in the trace; ``expected`` and ``got``: responses in hexadecimal; ``failure``: why there
    was none.
    """

    line: int
    command: str
    expected: str
    got: str = ""
    failure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A command that was not sent. ``line``: where it stands in the trace."""

    line: int
    command: str
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How it went. ``sent``: the number of commands."""

    sent: int
    differences: tuple[Difference, ...]
    skipped: tuple[Skipped, ...]


def compare(
    trace: Trace, connection: CardConnection, deadline: Callable[[], Deadline], *, tracer: Tracer | None = None
) -> Comparison:
    """Send the commands of a trace to a card, and compare what comes back. The card is reset where it was when the
    trace was recorded.

    Only what is known to read, or to use a key, is sent: no PIN, and nothing that writes. The first error on the way
    ends it, and is the last difference. ``deadline``: of the next command. Inside no transaction.
    """
    run = _Run(connection, deadline, tracer)
    powered = dict(trace.powered)
    with connection.transaction(deadline=deadline()):
        try:
            run.check_atr(trace.atr, trace.entries[0].line if trace.entries else 0)
            for position, entry in enumerate(trace.entries):
                if position in powered:
                    run.reset(powered[position], entry.line)
                run.send(entry)
        except HardwareError as error:
            run.fail(error)
    return Comparison(run.sent, tuple(run.differences), tuple(run.skipped))


class _Run:
    def __init__(self, connection: CardConnection, deadline: Callable[[], Deadline], tracer: Tracer | None) -> None:
        self._connection = connection
        self._exchange = connection.transmit if tracer is None else TracedExchange(connection, tracer)
        self._deadline = deadline
        self._under_way = Difference(0, "connect", "")
        self.sent = 0
        self.differences: list[Difference] = []
        self.skipped: list[Skipped] = []

    def check_atr(self, expected: bytes, line: int) -> None:
        got = self._connection.atr
        if expected not in (b"", got):
            self.differences.append(Difference(line, "answer to reset", expected.hex(), got.hex()))

    def reset(self, expected: bytes, line: int) -> None:
        self._under_way = Difference(line, "reset", expected.hex())
        self._connection.reset(deadline=self._deadline())
        self.check_atr(expected, line)

    def send(self, entry: TraceEntry) -> None:
        view = CommandView.of(entry.command)
        name = view.name if view else entry.command
        why = _why_not(entry, view, self._connection.limits.max_command)
        if why:
            self.skipped.append(Skipped(entry.line, name, why))
            return
        self._under_way = Difference(entry.line, name, entry.response)
        got = self._exchange((bytes.fromhex(entry.command),), deadline=self._deadline()).hex()
        self.sent += 1
        if not _agrees(entry.response, got):
            self.differences.append(dataclasses.replace(self._under_way, got=got))

    def fail(self, error: HardwareError) -> None:
        self.differences.append(dataclasses.replace(self._under_way, failure=error.message))


def _why_not(entry: TraceEntry, view: CommandView | None, longest: int) -> str:
    """Why a command must not be sent; empty if it may be."""
    if MASKED in entry.command:
        return "it carries a PIN"
    if view is None or view.nc is None:
        return "it is malformed"
    reasons: Mapping[str, bool] = MappingProxyType(
        {
            "it may change the card": not _is_harmless(view),
            "no answer was recorded": not entry.response,
            "it is too long for this reader": len(entry.command) // 2 > longest,
        }
    )
    return next((why for why, holds in reasons.items() if holds), "")


def _is_harmless(view: CommandView) -> bool:
    return view.asks_for_tries or (view.interindustry and view.header[1] in _HARMLESS)


def _agrees(expected: str, got: str) -> bool:
    """Of what is masked, the length counts."""
    return len(expected) == len(got) and all(
        one in (other, MASKED) for one, other in zip(_bytes_of(expected), _bytes_of(got), strict=True)
    )


def _bytes_of(digits: str) -> list[str]:
    return [digits[at : at + 2] for at in range(0, len(digits), 2)]
