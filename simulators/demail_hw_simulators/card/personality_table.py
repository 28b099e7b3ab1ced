"""The form of a personality's file: tables of values, each value under a mark that says how it is known.

::

    [pins.global]
    measured = { reference = 0x00 }
    assumed = { value = "123456" }

A value outside a mark, a value under two marks, a table or a value that nobody asked for: each is a
:class:`~demail_hw.errors.ConfigurationError`.
"""

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from demail_hw.errors import ConfigurationError
from demail_hw_simulators.card.personality_values import Parser

__all__ = ["Mark", "PersonalityText", "Table", "Tree", "Value"]

_T = TypeVar("_T")
_D = TypeVar("_D")

_DEEPEST: Final = 8
_REMEDY: Final = "Mend the file: its form is in the README of demail_hw_simulators/card/personalities."
_HEADER: Final = re.compile(r"^\s*\[([^\[\]]+)\]")


class Mark(enum.Enum):
    """How a value is known."""

    MEASURED = "measured"
    SOURCE = "source"
    ASSUMED = "assumed"


_MARKS: Final[Mapping[str, Mark]] = {mark.value: mark for mark in Mark}


@dataclasses.dataclass(frozen=True, slots=True)
class PersonalityText:
    """The text of a file. ``name``: what people know it by."""

    name: str
    text: str = dataclasses.field(repr=False)

    def error(self, path: tuple[str, ...], why: str, *, remedy: str = _REMEDY) -> ConfigurationError:
        """Something is wrong there; ``why`` goes on where the path ends."""
        line = self._line(path)
        where = f"{self.name}, line {line}" if line else self.name
        what = ".".join(name if name.isprintable() else ascii(name) for name in path)
        sentence = f"In {where}, {what or 'the file'} {why}."
        return ConfigurationError(sentence, file=self.name, line=line, remedy=remedy)

    def _line(self, path: tuple[str, ...]) -> int | None:
        """Where the last name of the path is, as far as a look at the table headers tells."""
        for length in range(len(path), 0, -1):
            if line := self._find(path[: length - 1], path[length - 1]):
                return line
        return None

    def _find(self, table: tuple[str, ...], key: str) -> int | None:
        assignment = re.compile(rf"(?:^|[{{,.])\s*{re.escape(key)}\s*=")
        header: tuple[str, ...] = ()
        for number, line in enumerate(self.text.split("\n"), 1):
            if found := _HEADER.match(line):
                header = tuple(name.strip(" \t\"'") for name in found[1].split("."))
                if header == (*table, key):
                    return number
            elif header == table and not line.lstrip().startswith("#") and assignment.search(line):
                return number
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A value as TOML gave it, how it is known, and where it stands."""

    content: object = dataclasses.field(repr=False)
    mark: Mark
    text: PersonalityText
    path: tuple[str, ...]

    def parse(self, parse: Parser[_T]) -> _T:
        """What it means. :class:`~demail_hw.errors.ConfigurationError`."""
        try:
            return parse(self.content)
        except ValueError as error:
            raise self.text.error(self.path, str(error)) from None


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A table with its values and the tables in it, by name."""

    text: PersonalityText
    path: tuple[str, ...]
    values: Mapping[str, Value]
    tables: Mapping[str, "Tree"]

    @classmethod
    def of(cls, raw: Mapping[str, object], text: PersonalityText, path: tuple[str, ...] = ()) -> "Tree":
        """A table as TOML gave it."""
        if len(path) > _DEEPEST:
            raise text.error(path, "is too deep")
        values: dict[str, Value] = {}
        tables: dict[str, Tree] = {}
        for name, content in raw.items():
            if not isinstance(content, dict):
                raise text.error((*path, name), _unmarked())
            if name in _MARKS:
                _add_marked(values, content, _MARKS[name], text, path)
            else:
                tables[name] = cls.of(content, text, (*path, name))
        return cls(text, path, values, tables)

    def overridden_by(self, other: "Tree") -> "Tree":
        """This table, with what another one says of it instead or besides."""
        tables = {
            name: self.tables[name].overridden_by(tree) if name in self.tables else tree
            for name, tree in other.tables.items()
        }
        return Tree(other.text, other.path, {**self.values, **other.values}, {**self.tables, **tables})

    def marked(self) -> Iterator[Value]:
        """Each value in it and in the tables below."""
        yield from self.values.values()
        for tree in self.tables.values():
            yield from tree.marked()


def _unmarked() -> str:
    return f"has to stand under a mark: {', '.join(_MARKS)}"


def _add_marked(
    values: dict[str, Value], content: Mapping[str, object], mark: Mark, text: PersonalityText, path: tuple[str, ...]
) -> None:
    for name, each in content.items():
        if name in values:
            raise text.error((*path, name), f"stands under two marks, {values[name].mark.value} and {mark.value}")
        values[name] = Value(each, mark, text, (*path, name))


class Table:
    """A table that is being read: what nobody takes out of it is an error at the end."""

    __slots__ = ("_asked", "_tables", "_tree", "_values")

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._asked: list[str] = []
        self._values = dict(tree.values)
        self._tables = dict(tree.tables)

    @property
    def name(self) -> str:
        """What it is called in the table above it."""
        return self._tree.path[-1]

    def value(self, name: str, parse: Parser[_T]) -> _T:
        """A value that has to be there."""
        found = self._value(name)
        if found is None:
            raise self._tree.text.error(self._tree.path, f"lacks {name}")
        return found.parse(parse)

    def optional(self, name: str, parse: Parser[_T], absent: _D) -> _T | _D:
        """A value, or what its absence means."""
        found = self._value(name)
        return absent if found is None else found.parse(parse)

    def table(self, name: str, read: Callable[["Table"], _T]) -> _T:
        """A table that has to be there."""
        found = self._table(name)
        if found is None:
            raise self._tree.text.error(self._tree.path, f"lacks the table {name}")
        return Table(found).read(read)

    def optional_table(self, name: str, read: Callable[["Table"], _T]) -> _T | None:
        """A table, or nothing."""
        found = self._table(name)
        return None if found is None else Table(found).read(read)

    def tables(self, name: str, read: Callable[["Table"], _T]) -> tuple[_T, ...]:
        """The tables in a table, in order; none if it is absent."""
        found = self._table(name)
        return () if found is None else Table(found).read(lambda table: table.each(read))

    def each(self, read: Callable[["Table"], _T]) -> tuple[_T, ...]:
        """Every table in this one, in order."""
        self._tables.clear()
        return tuple(Table(tree).read(read) for tree in self._tree.tables.values())

    def read(self, read: Callable[["Table"], _T]) -> _T:
        """Read it to the end. A ``ValueError`` is about the whole table."""
        try:
            made = read(self)
        except ValueError as error:
            raise self._tree.text.error(self._tree.path, f"does not fit together: {error}") from None
        self._require_nothing_left()
        return made

    def _value(self, name: str) -> Value | None:
        self._asked.append(name)
        return self._values.pop(name, None)

    def _table(self, name: str) -> Tree | None:
        self._asked.append(name)
        return self._tables.pop(name, None)

    def _require_nothing_left(self) -> None:
        for name in (*self._values, *self._tables):
            known = f"Known here are: {', '.join(self._asked)}." if self._asked else "This table only holds tables."
            raise self._tree.text.error((*self._tree.path, name), "is not known here", remedy=known)
