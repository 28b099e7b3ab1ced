"""MIME entities (RFC 2045, RFC 5322) as S/MIME signs and reads them: header fields and a body, as bytes.

The ``email`` package re-writes what it parses; under a signature every octet must stay. So this module only finds
the fields, and keeps their encoding.
"""

import binascii
import dataclasses
import re
from typing import Final, Self

__all__ = ["CRLF", "Entity", "HeaderField", "base64_lines", "canonical"]

CRLF: Final = b"\r\n"
BASE64_LINE: Final = 76
"""Characters in a line (RFC 2045, 6.8)."""

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_MIME_FIELDS: Final = (b"content-", b"mime-version")
_MESSAGE_FIELDS: Final = frozenset(
    {b"from", b"sender", b"to", b"subject", b"date", b"message-id", b"received", b"return-path"}
)
"""RFC 5322, 3.6: each of these is in some mail and makes a text that begins with fields a mail."""


def canonical(text: bytes) -> bytes:
    """Every line end, CR LF, LF or CR alone, as CR LF (RFC 8551, 3.1.1)."""
    return text.replace(CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", CRLF)


def base64_lines(data: bytes) -> bytes:
    """Base64 in lines, each with its CR LF (RFC 2045, 6.8)."""
    text = binascii.b2a_base64(data, newline=False)
    lines = [text[at : at + BASE64_LINE] for at in range(0, len(text), BASE64_LINE)]
    return CRLF.join([*lines, b""])


@dataclasses.dataclass(frozen=True, slots=True)
class HeaderField:
    """A header field. ``name`` in lower case; ``encoding`` canonical, with its folded lines and last CR LF."""

    name: bytes
    encoding: bytes

    @classmethod
    def decode(cls, encoding: bytes) -> Self | None:
        """From its lines, or None if they are no header field (RFC 5322, 2.2)."""
        match = _FIELD.match(encoding)
        return cls(match[1].lower(), encoding) if match else None

    @property
    def is_mime(self) -> bool:
        """Does it describe the entity (RFC 2045, 3) and not the mail?"""
        return self.name.startswith(_MIME_FIELDS)

    @property
    def token(self) -> bytes:
        """The value up to its parameters, in lower case."""
        return self.encoding.partition(b":")[2].partition(b";")[0].strip().lower()


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """Header fields in canonical form, and a body as it was found."""

    fields: tuple[HeaderField, ...]
    body: bytes = dataclasses.field(repr=False)

    @classmethod
    def decode(cls, message: bytes) -> Self | None:
        """From a message, or None if it does not begin with the header of a mail or of a MIME entity."""
        blank = _BLANK_LINE.search(message)
        end = len(message) if blank is None else blank.start()
        fields = _header_fields(message[:end])
        if not any(field.is_mime or field.name in _MESSAGE_FIELDS for field in fields):
            return None
        return cls(fields, b"" if blank is None else message[blank.end() :])

    def encode(self) -> bytes:
        """Header, blank line, body."""
        return b"".join([*(field.encoding for field in self.fields), CRLF, self.body])

    def token(self, name: bytes) -> bytes:
        """The value of a field, without parameters and in lower case; empty if there is no such field."""
        return next((field.token for field in self.fields if field.name == name), b"")


def _header_fields(header: bytes) -> tuple[HeaderField, ...]:
    """All fields of a header, or none if any of its lines is not part of one."""
    fields = []
    for lines in _unfold(canonical(header).removesuffix(CRLF)):
        field = HeaderField.decode(lines)
        if field is None:
            return ()
        fields.append(field)
    return tuple(fields)


def _unfold(header: bytes) -> list[bytes]:
    """The lines of each field together (RFC 5322, 2.2.3)."""
    return [lines + CRLF for lines in re.split(rb"\r\n(?![ \t])", header)]
