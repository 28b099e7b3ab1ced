"""What a value in a personality's file can be: each reads what TOML gave, or a ``ValueError`` says what it has to be.

The texts never repeat the value: it may be a PIN.
"""

import enum
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.atr import Atr

__all__ = [
    "Parser",
    "answer_to_reset",
    "byte",
    "choice",
    "file_identifier",
    "file_name",
    "flag",
    "hexadecimal",
    "list_of",
    "pin_value",
    "seconds",
    "share",
    "text",
    "whole_number",
]

_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.Enum)

Parser: TypeAlias = Callable[[object], _T]
"""From what TOML gave to what it means."""

_LONGEST_TEXT: Final = 200
_LONGEST_LIST: Final = 32
_LONGEST_WAIT: Final = 3600.0
_RESERVED_IDENTIFIERS: Final = frozenset({0x3F00, 0x3FFF, 0xFFFF})
"""The MF, the current DF, and one for later use (ISO 7816-4, 7.3)."""


def whole_number(lowest: int, highest: int) -> Parser[int]:
    """A number in this range."""

    def parse(value: object) -> int:
        # bool is a subclass of int.
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"has to be a whole number from {lowest} to {highest}")
        return value

    return parse


def byte(value: object) -> int:
    """A reference, a tag or another number of one byte."""
    if type(value) is not int or not 0 <= value <= 0xFF:
        raise ValueError("has to be a number from 0x00 to 0xFF")
    return value


def file_identifier(value: object) -> int:
    """The identifier of a DF or EF below the MF (ISO 7816-4, 7.3)."""
    if type(value) is not int or not 0 <= value <= 0xFFFF or value in _RESERVED_IDENTIFIERS:
        raise ValueError("has to be a file identifier from 0x0000 to 0xFFFE, neither 0x3F00 nor 0x3FFF")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError("has to be true or false")
    return value


def text(value: object) -> str:
    """A line for people."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT or not value.isprintable():
        raise ValueError(f"has to be a text of 1 to {_LONGEST_TEXT} characters in one line")
    return value


def file_name(value: object) -> str:
    """The name of one of our files, without its ending: no path."""
    if not isinstance(value, str) or not value.isascii() or not value.replace("-", "").isalnum():
        raise ValueError("has to be a name of letters, digits and hyphens")
    return value


def hexadecimal(shortest: int, longest: int) -> Parser[bytes]:
    """So many bytes, as a text of hexadecimal digits; blanks between bytes are allowed."""

    def parse(value: object) -> bytes:
        wrong = ValueError(f"has to be a text of {shortest} to {longest} bytes in hexadecimal")
        if not isinstance(value, str):
            raise wrong
        try:
            decoded = bytes.fromhex(value)
        except ValueError:
            raise wrong from None
        if not shortest <= len(decoded) <= longest:
            raise wrong
        return decoded

    return parse


def answer_to_reset(value: object) -> bytes:
    """An answer to reset that ISO 7816-3 allows, in hexadecimal."""
    atr = hexadecimal(2, 33)(value)
    try:
        Atr.decode(atr)
    except ProtocolViolation:
        raise ValueError("has to be an answer to reset as ISO 7816-3 describes it") from None
    return atr


def pin_value(value: object) -> bytes:
    """A PIN, as a text of ASCII characters."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ValueError("has to be a text of ASCII characters")
    return value.encode("ascii")


def choice(kind: type[_E]) -> Parser[_E]:
    """A member of an enumeration, by its name in small letters, with hyphens."""
    members = {member.name.lower().replace("_", "-"): member for member in kind}

    def parse(value: object) -> _E:
        found = members.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"has to be one of these: {', '.join(members)}")
        return found

    return parse


def list_of(parse: Parser[_T]) -> Parser[tuple[_T, ...]]:
    """A list without repetitions."""

    def parse_list(value: object) -> tuple[_T, ...]:
        if not isinstance(value, list) or len(value) > _LONGEST_LIST:
            raise ValueError(f"has to be a list of at most {_LONGEST_LIST} values")
        try:
            parsed = tuple(map(parse, value))
        except ValueError as error:
            raise ValueError(f"has to be a list, of which each value {error}") from None
        if len(set(parsed)) < len(parsed):
            raise ValueError("has to be a list without repetitions")
        return parsed

    return parse_list


def seconds(value: object) -> float:
    """A duration in milliseconds, as seconds."""
    return _number(value, "number of milliseconds", _LONGEST_WAIT * 1000) / 1000


def share(value: object) -> float:
    """A part of a whole."""
    return _number(value, "number", 1)


def _number(value: object, what: str, highest: float) -> float:
    # bool is a subclass of int.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
        raise ValueError(f"has to be a {what} from 0 to {highest:.0f}")
    return float(value)
