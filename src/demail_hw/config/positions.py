"""On which line of a TOML document a key stands: tomllib does not tell.

A document is cut into its statements, a ``[table]`` or a ``key = value`` each. Each of them is a document too:
tomllib itself says where one ends, and nothing of TOML's grammar is written here a second time.
"""

import io
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["KeyPath", "key_lines", "line_of"]

KeyPath: TypeAlias = tuple[str | int, ...]
_TABLE: Final = "["
_CLOSING: Final = ("]", "}", '"""', "'''")
"""A statement of several lines ends on a line with one of these: other lines of it need not be tried."""
_MOST_TRIED: Final = 1 << 20
"""Characters that are read to find where statements end. Only lists in lists on many lines need more than a few times
the document; whatever comes behind them has no line then."""
_DEEPEST: Final = 16
"""Keys in keys; no key of ours is that deep, and whatever is has the line of the one around it."""


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line of each key and table of a valid document, from 1 on; where a table is made by many, the first."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for line, statement, source in _statements(text):
        if source.lstrip().startswith(_TABLE):
            table = _table_path(statement, counts)
            found: Iterator[KeyPath] = iter([table])
        else:
            found = (table + path for path in _paths(statement, _DEEPEST))
        for path in found:
            for length in range(1, min(len(path), _DEEPEST) + 1):
                lines.setdefault(path[:length], line)
    return lines


def line_of(path: Sequence[str | int], lines: Mapping[KeyPath, int]) -> int | None:
    """The line of a key, or of the table nearest to it; None if it has none in the document."""
    return next((lines[found] for length in range(len(path), 0, -1) if (found := (*path[:length],)) in lines), None)


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Each with the line where it begins."""
    begin, source, tried = 1, "", 0
    for number, line in enumerate(io.StringIO(text), 1):  # str.splitlines knows line ends that TOML does not
        goes_on = bool(source)
        source += line
        if goes_on and not any(closing in line for closing in _CLOSING):
            continue
        tried += len(source)
        if tried > _MOST_TRIED:
            return
        try:
            statement = tomllib.loads(source)
        except tomllib.TOMLDecodeError:
            continue  # it goes on
        if statement:
            yield begin, statement, source
        begin, source = number + 1, ""


def _table_path(statement: Mapping[str, Any], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of the table that a header opens, with the numbers of the arrays' elements in it."""
    path: KeyPath = ()
    inner: Any = statement
    while inner:
        if isinstance(inner, list):
            counts[path] = counts.get(path, -1) + 1
            inner = inner[0]
        else:
            ((key, inner),) = inner.items()
            path = (*_in_last_element(path, counts), key)
    return _in_last_element(path, counts)


def _in_last_element(path: KeyPath, counts: Mapping[KeyPath, int]) -> KeyPath:
    return (*path, counts[path]) if path in counts else path


def _paths(value: Any, depth: int) -> Iterator[KeyPath]:
    """Every path in a value, from the outside in, of so many keys at most."""
    if depth and isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (key,)
            yield from ((key, *path) for path in _paths(inner, depth - 1))
