"""BER-TLV data objects, read strictly (ISO 7816-4, 6.3; ISO 8825-1).

Definite and shortest lengths only, at most three bytes in a tag and after the first byte of a length field. Depth
and size are bounded, for the bytes come from a card.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer

__all__ = [
    "MAX_DEPTH",
    "MAX_SIZE",
    "Tlv",
    "TlvHeader",
    "decode_all",
    "decode_header",
    "encode_all",
    "find",
]

MAX_DEPTH: Final = 8
"""How deep constructed objects may nest by default; the outermost stand at depth 1."""
MAX_SIZE: Final = 0x10000
"""How many bytes are read at most by default."""

_MAX_TAG_BYTES: Final = 3
_MAX_LENGTH_BYTES: Final = 3
_CONSTRUCTED: Final = 0x20
_NUMBER_MASK: Final = 0x1F
_MORE: Final = 0x80
_INVALID_FIRST_BYTES: Final = frozenset({0x00, 0xFF})


class TlvHeader(NamedTuple):
    """Tag and length field of an object. ``length``: of its value; ``size``: of the header itself, in bytes."""

    tag: int
    length: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tlv:
    """One data object.

    ``tag``: its bytes as one number, as the standard prints it (0x62, 0x7F21, ...). ``ValueError`` if that is no
    tag, or if the value is too long for a length field.
    """

    tag: int
    value: bytes

    def __post_init__(self) -> None:
        if self.tag < 0 or _flaw_of_tag(_tag_bytes(self.tag)):
            raise ValueError(f"{self.tag:#x} is not a BER-TLV tag")
        if len(self.value) >> (8 * _MAX_LENGTH_BYTES):
            raise ValueError(f"a value of {len(self.value)} bytes is too long")

    @classmethod
    def constructed_of(cls, tag: int, children: Iterable["Tlv"]) -> "Tlv":
        """A constructed object. ``ValueError`` if the tag is one of a primitive object."""
        made = cls(tag, encode_all(children))
        if not made.constructed:
            raise ValueError(f"{tag:#x} is a tag of a primitive object")
        return made

    @property
    def constructed(self) -> bool:
        """True if its value is itself a row of data objects."""
        return bool(_tag_bytes(self.tag)[0] & _CONSTRUCTED)

    @property
    def children(self) -> tuple["Tlv", ...]:
        """The objects one level down; none in a primitive object.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`, but never for what :func:`decode_all` returned.
        """
        return tuple(_split(memoryview(self.value))) if self.constructed else ()

    def find(self, tag: int, *, max_depth: int = MAX_DEPTH) -> "Tlv | None":
        """The first object of this tag below this one, depth first; ``None`` if there is none.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` below ``max_depth``, but never for what
        :func:`decode_all` returned with the same depth.
        """
        return find(self.children, tag, max_depth=max_depth)

    def encode(self) -> bytes:
        """Tag, shortest length, value."""
        return _tag_bytes(self.tag) + _encode_length(len(self.value)) + self.value


def decode_all(data: Buffer, *, max_depth: int = MAX_DEPTH, max_size: int = MAX_SIZE) -> tuple[Tlv, ...]:
    """Read a row of data objects that fills ``data``, and check everything inside them.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` for any byte that breaks the rules.
    """
    if len(data) > max_size:
        raise _violation(f"{len(data)} bytes are more than the {max_size} that are allowed")
    objects = tuple(_split(memoryview(data)))
    _check_inside(objects, max_depth)
    return objects


def encode_all(objects: Iterable[Tlv]) -> bytes:
    """The objects one after the other."""
    return b"".join(each.encode() for each in objects)


def find(objects: Iterable[Tlv], tag: int, *, max_depth: int = MAX_DEPTH) -> Tlv | None:
    """The first object of this tag among ``objects`` and below them, depth first; ``None`` if there is none.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` below ``max_depth``, but never for what
    :func:`decode_all` returned with the same depth.
    """
    return next((each for each in _walk(objects, max_depth) if each.tag == tag), None)


def decode_header(data: Buffer) -> TlvHeader:
    """Tag and length of the object that ``data`` begins with; its value need not be there.

    So one learns from the first bytes of a file how much to read. Errors:
    :class:`~demail_hw.errors.ProtocolViolation` if they are no header or not the whole of one.
    """
    raw = memoryview(data)
    tag, tag_size = _decode_tag(raw)
    length, length_size = _decode_length(raw[tag_size:])
    return TlvHeader(tag, length, tag_size + length_size)


def _split(raw: memoryview) -> Iterator[Tlv]:
    while raw:
        header = decode_header(raw)
        end = header.size + header.length
        if end > len(raw):
            raise _violation(f"an object of {end} bytes stands where {len(raw)} are left")
        yield Tlv(header.tag, bytes(raw[header.size : end]))
        raw = raw[end:]


def _check_inside(objects: tuple[Tlv, ...], max_depth: int) -> None:
    for _ in _walk(objects, max_depth):
        pass


def _walk(objects: Iterable[Tlv], levels: int) -> Iterator[Tlv]:
    for each in objects:
        if levels < 1:
            raise _violation("its objects are nested too deep")
        yield each
        yield from _walk(each.children, levels - 1)


def _tag_bytes(tag: int) -> bytes:
    return tag.to_bytes(max(1, (tag.bit_length() + 7) // 8), "big")


def _decode_tag(raw: memoryview) -> tuple[int, int]:
    """Tag and its size in bytes."""
    if not raw:
        raise _violation("it ends where a tag should stand")
    encoded = bytes(raw[: _tag_size(raw) or _MAX_TAG_BYTES])
    if flaw := _flaw_of_tag(encoded):
        raise _violation(flaw)
    return int.from_bytes(encoded, "big"), len(encoded)


def _tag_size(raw: memoryview) -> int:
    """Where the tag ends, in bytes; 0 if it does not end where it may."""
    if raw[0] & _NUMBER_MASK != _NUMBER_MASK:
        return 1
    following = raw[1:_MAX_TAG_BYTES]
    return next((size for size, byte in enumerate(following, start=2) if not byte & _MORE), 0)


def _flaw_of_tag(encoded: bytes) -> str:
    """What is wrong with the bytes of a tag; empty if nothing is."""
    if encoded[0] in _INVALID_FIRST_BYTES:
        return f"a tag begins with {encoded[0]:02X}"
    size = _tag_size(memoryview(encoded))
    if size != len(encoded):
        return "a tag is cut off or too long"
    # ISO 8825-1, 8.1.2.4: a number below 31 fits into the first byte, and the others have no leading zeros.
    if size > 1 and (encoded[1] == _MORE or (size == 2 and encoded[1] < _NUMBER_MASK)):
        return "a tag is longer than its number needs"
    return ""


def _decode_length(raw: memoryview) -> tuple[int, int]:
    """Length and the size of its field in bytes."""
    if not raw:
        raise _violation("it ends where a length should stand")
    first = raw[0]
    if first < _MORE:
        return first, 1
    if first == _MORE:
        raise _violation("a length is indefinite")
    following = first & ~_MORE
    if following > _MAX_LENGTH_BYTES:
        raise _violation(f"a length has {following} bytes")
    if following >= len(raw):
        raise _violation("a length is cut off")
    length = int.from_bytes(raw[1 : 1 + following], "big")
    if len(_encode_length(length)) != 1 + following:
        raise _violation("a length has more bytes than it needs")
    return length, 1 + following


def _encode_length(length: int) -> bytes:
    if length < _MORE:
        return bytes((length,))
    size = (length.bit_length() + 7) // 8
    return bytes((_MORE | size,)) + length.to_bytes(size, "big")


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The card's BER-TLV data are malformed: {why}.", layer=Layer.CARD)
