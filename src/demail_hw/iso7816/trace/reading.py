"""The text of a trace, read line by line."""

import dataclasses
import re
from collections.abc import Callable
from typing import Final

from demail_hw.errors import Layer, Outcome, ProtocolViolation
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.trace.assembly import Assembly
from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.masking import MASKED, mask

__all__ = ["BadTrace", "read"]

_MAX_LINE: Final = 4 * EXTENDED_LIMITS.max_command
"""In characters: two digits a byte and as many spaces. Nothing longer is an APDU."""


class BadTrace(ProtocolViolation):
    """A text that is no trace. ``line``: the first one that is wrong."""

    default_layer = Layer.CARD
    default_outcome = Outcome.NOT_SENT

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"Line {line} of the trace {why}.")
        self.line = line


def read(text: str) -> Assembly:
    """All that the lines tell; what is not masked yet, is. Any line that begins with ``#`` may name the first ATR.

    Errors: :class:`BadTrace` names the line that is none.
    """
    assembly = Assembly()
    for number, line in enumerate(_LINE_END.split(text), start=1):
        _read_line(assembly, line, number)
    return assembly


def _read_line(assembly: Assembly, line: str, number: int) -> None:
    if len(line) > _MAX_LINE:
        raise BadTrace(number, "is longer than any command and any response")
    for pattern, take in _LINES:
        if match := pattern.fullmatch(line):
            take(assembly, match[1], number)
            return
    raise _neither(number)


def _take_reader(assembly: Assembly, text: str, _line: int) -> None:
    assembly.reader = assembly.reader or text


def _take_serial(assembly: Assembly, text: str, _line: int) -> None:
    assembly.serial = assembly.serial or text


def _take_power(assembly: Assembly, text: str, _line: int) -> None:
    assembly.power(bytes.fromhex(text))


def _take_first_atr(assembly: Assembly, text: str, _line: int) -> None:
    assembly.atr = assembly.atr or bytes.fromhex(text)


def _take_failure(assembly: Assembly, text: str, _line: int) -> None:
    if assembly.entries and not assembly.entries[-1].response:
        assembly.entries[-1] = dataclasses.replace(assembly.entries[-1], failure=text)


def _take_command(assembly: Assembly, text: str, line: int) -> None:
    digits = _digits(text)
    masked = mask((bytes.fromhex(digits.replace(MASKED, "00")),))
    if MASKED in digits and MASKED not in masked:
        raise _neither(line)
    assembly.entries.append(TraceEntry(masked, "", line))


def _take_response(assembly: Assembly, text: str, line: int) -> None:
    if not assembly.entries or assembly.entries[-1].response:
        raise _neither(line)
    assembly.entries[-1] = dataclasses.replace(assembly.entries[-1], response=_digits(text), failure="")


def _take_nothing(_assembly: Assembly, _text: str, _line: int) -> None:
    """A comment, or an empty line."""


def _digits(text: str) -> str:
    return "".join(text.split()).lower()


def _neither(line: int) -> BadTrace:
    return BadTrace(line, "is neither a command nor its response")


_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_LINES: Final[tuple[tuple[re.Pattern[str], Callable[[Assembly, str, int], None]], ...]] = (
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
