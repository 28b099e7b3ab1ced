"""A trace against a card: the recorded commands are sent again, and the answers compared."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from demail_hw.errors import HardwareError
from demail_hw.interfaces import CardConnection, Deadline
from demail_hw.iso7816.command_names import CommandView
from demail_hw.iso7816.trace import MASKED, DecipherMask, Trace, TracedExchange, TraceEntry, Tracer

__all__ = ["Comparison", "Difference", "Skipped", "compare"]


class _Rule(NamedTuple):
    """Commands by INS, P1 and P2; ``None``: any."""

    ins: frozenset[int]
    p1: frozenset[int] | None = None
    p2: frozenset[int] | None = None

    def covers(self, view: CommandView) -> bool:
        _, ins, p1, p2 = view.header
        return ins in self.ins and (self.p1 is None or p1 in self.p1) and (self.p2 is None or p2 in self.p2)


_SET: Final = frozenset(range(0x01, 0x100, 0x10))
"""P1 of MANAGE SECURITY ENVIRONMENT: SET (ISO 7816-4, 11.5.11); the others store, restore and erase."""
_TEMPLATES: Final = frozenset({0xA4, 0xA6, 0xAA, 0xAC, 0xB4, 0xB6, 0xB8})

_READS: Final = (
    _Rule(frozenset({0xA4, 0xB0, 0xB1, 0xB2, 0xB3})),  # SELECT, READ BINARY, READ RECORD
    _Rule(frozenset({0xCA, 0xCB, 0xC0, 0x84})),  # GET DATA, GET RESPONSE, GET CHALLENGE
    _Rule(frozenset({0x22}), _SET, _TEMPLATES),
)
"""None changes what is on the card, or uses a key."""
_KEY_USES: Final = (
    _Rule(frozenset({0x2A}), frozenset({0x9E}), frozenset({0x9A, 0xAC, 0xBC})),  # COMPUTE DIGITAL SIGNATURE
    _Rule(frozenset({0x2A}), frozenset({0x80}), frozenset({0x82, 0x84, 0x86})),  # DECIPHER
    _Rule(frozenset({0x88})),  # INTERNAL AUTHENTICATE
)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where the card answered otherwise.

    ``line``: of the command in the trace; ``expected`` and ``got``: responses in hexadecimal, the latter masked where
    the former is, and where a DECIPHER returns it; ``failure``: why there was none.
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
    trace: Trace,
    connection: CardConnection,
    deadline: Callable[[], Deadline],
    *,
    use_keys: bool = False,
    tracer: Tracer | None = None,
) -> Comparison:
    """Send the commands of a trace to a card, and compare what comes back. The card is reset where it was when the
    trace was recorded.

    Only what is known to read is sent, and how a key is chosen: no PIN, and nothing that writes. ``use_keys``: what
    signs, deciphers or authenticates is sent too; a card that is open already does it, for whoever wrote the trace.
    The first error on the way ends it, and is the last difference. ``deadline``: of the next command. Inside no
    transaction.
    """
    run = _Run(connection, deadline, tracer, use_keys=use_keys)
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
    def __init__(
        self, connection: CardConnection, deadline: Callable[[], Deadline], tracer: Tracer | None, *, use_keys: bool
    ) -> None:
        self._connection = connection
        self._exchange = connection.transmit if tracer is None else TracedExchange(connection, tracer)
        self._deadline = deadline
        self._use_keys = use_keys
        self._mask = DecipherMask()
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
        why = _why_not(entry, view, self._connection.limits.max_command, use_keys=self._use_keys)
        if why:
            self.skipped.append(Skipped(entry.line, name, why))
            return
        self._under_way = Difference(entry.line, name, entry.response)
        got = self._exchange((bytes.fromhex(entry.command),), deadline=self._deadline()).hex()
        self.sent += 1
        answer = self._mask.mark(TraceEntry(entry.command, got))
        if not _agrees(entry.response, got):
            shown = answer.hidden() if answer.deciphered or MASKED in entry.response else answer
            self.differences.append(dataclasses.replace(self._under_way, got=shown.response))

    def fail(self, error: HardwareError) -> None:
        self.differences.append(dataclasses.replace(self._under_way, failure=error.message))


def _why_not(entry: TraceEntry, view: CommandView | None, longest: int, *, use_keys: bool) -> str:
    """Why a command must not be sent; empty if it may be."""
    if MASKED in entry.command:
        return "it may carry a PIN"
    if view is None or view.nc is None:
        return "it is malformed"
    reasons: Mapping[str, bool] = MappingProxyType(
        {
            "it uses a key": _is_one_of(view, _KEY_USES) and not use_keys,
            "it may change the card": not (_asks_for_tries(view) or _is_one_of(view, _READS + _KEY_USES)),
            "no answer was recorded": not entry.response,
            "it is too long for this reader": len(entry.command) // 2 > longest,
        }
    )
    return next((why for why, holds in reasons.items() if holds), "")


def _asks_for_tries(view: CommandView) -> bool:
    """A VERIFY with P1 = FF ends what the PIN opened (ISO 7816-4, 11.5.6)."""
    return view.asks_for_tries and view.header[2] == 0


def _is_one_of(view: CommandView, rules: Iterable[_Rule]) -> bool:
    return view.interindustry and any(rule.covers(view) for rule in rules)


def _agrees(expected: str, got: str) -> bool:
    """Of what is masked, the length counts."""
    return len(expected) == len(got) and all(
        one in (other, MASKED) for one, other in zip(_bytes_of(expected), _bytes_of(got), strict=True)
    )


def _bytes_of(digits: str) -> list[str]:
    return [digits[at : at + 2] for at in range(0, len(digits), 2)]
