"""BER as CMS messages use it (X.690, 8): a bounded reader for bytes that anybody may have sent.

Senders that stream write indefinite lengths and strings in pieces, so a reader of DER is not enough; and
asn1crypto, with which this room writes, joins such pieces in quadratic time. Every error is a
:class:`~demail_hw.errors.ProtocolViolation`.
"""

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from demail_hw.cms.malformed import malformed

__all__ = ["Element", "Fields", "Tag", "decode"]

MAX_DEPTH: Final = 24
"""Levels of nesting. A CMS message with certificates has about 15."""

MAX_ELEMENTS: Final = 65_536
"""Elements in a message, and one more for each :data:`CHUNK` octets: a small message can't become a big tree."""

CHUNK: Final = 256
MAX_INTEGER: Final = 64
MAX_OBJECT_IDENTIFIER: Final = 32
"""Octets of a number that we read; RFC 5280, 4.1.2.2 allows 20 for a serial number."""

_CONSTRUCTED: Final = 0x20
_HIGH_TAG_NUMBER: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_INDEFINITE_LENGTH: Final = 0x80
_END_OF_CONTENTS: Final = b"\0\0"
_ARC_BITS: Final = 7
_MAX_LENGTH_OCTETS: Final = 8


class Tag(enum.IntEnum):
    """Identifier octets (X.690, 8.1.2) without the bit that says *constructed*."""

    INTEGER = 0x02
    OCTET_STRING = 0x04
    OBJECT_IDENTIFIER = 0x06
    SEQUENCE = 0x10
    SET = 0x11
    CONTEXT_0 = 0x80
    CONTEXT_1 = 0x81
    CONTEXT_2 = 0x82


class Element(NamedTuple):
    """One encoded value. ``encoding``: all of it; ``content``: what is in it; ``children``: if it is constructed."""

    tag: int
    constructed: bool
    encoding: memoryview
    content: memoryview
    children: Sequence["Element"]

    def octets(self) -> bytes:
        """The value of an octet string, whose pieces are joined (X.690, 8.7.3)."""
        return b"".join(self._pieces()) if self.constructed else bytes(self.content)

    def _pieces(self) -> list[bytes]:
        if any(child.tag != Tag.OCTET_STRING for child in self.children):
            raise malformed("An octet string of the CMS message consists of other things.")
        return [child.octets() for child in self.children]

    def integer(self) -> int:
        """The value of an integer (X.690, 8.3)."""
        if self.constructed or not 0 < len(self.content) <= MAX_INTEGER:
            raise malformed("A number of the CMS message is empty or far too long.")
        return int.from_bytes(self.content, "big", signed=True)

    def object_identifier(self) -> str:
        """The value of an object identifier in dotted form (X.690, 8.19)."""
        content = self.content
        if self.constructed or not 0 < len(content) <= MAX_OBJECT_IDENTIFIER or content[-1] & _LONG_LENGTH:
            raise malformed("An object identifier of the CMS message is broken.")
        first, *others = _subidentifiers(content)
        root = min(first // 40, 2)
        return ".".join(map(str, (root, first - 40 * root, *others)))

    def inner(self) -> "Element":
        """The only child: what an explicit tag holds (X.690, 8.14.2)."""
        if len(self.children) != 1:
            raise malformed("An explicit tag of the CMS message does not hold exactly one value.")
        return self.children[0]


class Fields:
    """The components of a SEQUENCE, taken in their order."""

    __slots__ = ("_children", "_next")

    def __init__(self, sequence: Element, tag: int = Tag.SEQUENCE) -> None:
        if sequence.tag != tag or not sequence.constructed:
            raise malformed("The CMS message has another value where a sequence belongs.")
        self._children = sequence.children
        self._next = 0

    def any(self) -> Element | None:
        """The next component, if there is one."""
        if self._next >= len(self._children):
            return None
        self._next += 1
        return self._children[self._next - 1]

    def optional(self, tag: Tag) -> Element | None:
        """The next component if it has this tag."""
        element = self.any()
        if element is None or element.tag == tag:
            return element
        self._next -= 1
        return None

    def take(self, tag: Tag) -> Element:
        """The next component, which must have this tag."""
        element = self.optional(tag)
        if element is None:
            raise malformed(f"A structure of the CMS message lacks its {tag.name.replace('_', ' ').lower()}.")
        return element


def decode(data: bytes) -> Element:
    """The first element of ``data``; what follows it is ignored, as mail systems append line ends."""
    return _Reader(data).element(0, len(data), 0)


def _subidentifiers(content: memoryview) -> list[int]:
    numbers, number = [], 0
    for octet in content:
        number = number << _ARC_BITS | octet & ~_LONG_LENGTH
        if not octet & _LONG_LENGTH:
            numbers.append(number)
            number = 0
    return numbers


class _Header(NamedTuple):
    tag: int
    constructed: bool
    start: int
    length: int | None

    @classmethod
    def decode(cls, data: memoryview, at: int, end: int) -> Self:
        """Identifier and length octets (X.690, 8.1.2 and 8.1.3); ``length`` is None if it is indefinite."""
        if end - at < 2:
            raise malformed("The CMS message ends inside a value.")
        identifier, first = data[at], data[at + 1]
        if identifier & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
            raise malformed("The CMS message has a tag that does not occur in CMS.")
        more = first & ~_LONG_LENGTH if first & _LONG_LENGTH else 0
        start = at + 2 + more
        if more > _MAX_LENGTH_OCTETS or start > end:
            raise malformed("The CMS message ends inside a length.")
        return cls(
            identifier & ~_CONSTRUCTED,
            bool(identifier & _CONSTRUCTED),
            start,
            _length(first, data[at + 2 : start]),
        )


def _length(first: int, more: memoryview) -> int | None:
    if first == _INDEFINITE_LENGTH:
        return None
    return int.from_bytes(more, "big") if more else first


class _Reader:
    """One pass over a message. Positions are offsets; an ``end`` is where the surrounding value ends."""

    __slots__ = ("_data", "_left")

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._left = MAX_ELEMENTS + len(data) // CHUNK

    def element(self, at: int, end: int, depth: int) -> Element:
        self._count(depth)
        header = _Header.decode(self._data, at, end)
        if header.length is None:
            return self._indefinite(at, end, header, depth)
        stop = header.start + header.length
        if stop > end:
            raise malformed("The CMS message ends before the value that its length announces.")
        children = self._children(header.start, stop, depth + 1) if header.constructed else ()
        return self._build(at, stop, header, stop, children)

    def _count(self, depth: int) -> None:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise malformed("The CMS message is nested too deeply or has too many parts.")

    def _build(self, at: int, end: int, header: _Header, stop: int, children: Sequence[Element]) -> Element:
        return Element(header.tag, header.constructed, self._data[at:end], self._data[header.start : stop], children)

    def _children(self, at: int, stop: int, depth: int) -> list[Element]:
        children = []
        while at < stop:
            child = self.element(at, stop, depth)
            children.append(child)
            at += len(child.encoding)
        return children

    def _indefinite(self, at: int, end: int, header: _Header, depth: int) -> Element:
        """Children up to the end-of-contents octets (X.690, 8.1.5)."""
        if not header.constructed:
            raise malformed("A primitive value of the CMS message has no length.")
        children, stop = [], header.start
        while bytes(self._data[stop:end][:2]) != _END_OF_CONTENTS:
            child = self.element(stop, end, depth + 1)
            children.append(child)
            stop += len(child.encoding)
        return self._build(at, stop + 2, header, stop, children)
