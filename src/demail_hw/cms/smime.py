"""S/MIME messages (RFC 8551, 3): what of a message is signed, and how signature and message travel together."""

import dataclasses
import secrets
from typing import Final

from demail_hw.cms.mime import CRLF, Entity, HeaderField, base64_lines, canonical

__all__ = ["Signable", "multipart_signed", "opaque_signed", "signable"]

_MAX_LINE: Final = 998
"""Characters in a line of a mail (RFC 5322, 2.1.1)."""

_TEXT: Final = b"text/plain; charset=utf-8"
_BYTES: Final = b"application/octet-stream"
_TRANSFER_ENCODING: Final = b"content-transfer-encoding"


@dataclasses.dataclass(frozen=True, slots=True)
class Signable:
    """A message on its way to be signed. ``transport``: the fields of the mail, which stay outside and unsigned
    (RFC 8551, 3.1); ``entity``: exactly what is signed; ``binary``: it has no lines and can't go in a multipart."""

    transport: tuple[HeaderField, ...]
    entity: bytes = dataclasses.field(repr=False)
    binary: bool = False


def signable(message: bytes) -> Signable:
    """What is signed of a message, with canonical line ends (RFC 8551, 3.1.1).

    - A MIME entity (``Content-`` fields, ``MIME-Version``): all of it.
    - A mail (``From``, ``Subject``, ...): its ``Content-`` fields and its body. If it has no such field, its body
      is a text.
    - Anything else is a text: ``text/plain; charset=utf-8`` is put before it. What is not UTF-8 becomes
      ``application/octet-stream`` in base64.
    """
    entity = Entity.decode(message)
    if entity is None:
        return Signable((), _undeclared(message).encode())
    transport = tuple(field for field in entity.fields if not field.is_mime)
    inner = _without_transport(entity) if transport else entity
    binary = inner.token(_TRANSFER_ENCODING) == b"binary"
    body = inner.body if binary else canonical(inner.body)
    return Signable(transport, dataclasses.replace(inner, body=body).encode(), binary)


def multipart_signed(message: Signable, signature: bytes, micalg: str) -> bytes:
    """The message in clear with a detached signature (RFC 8551, 3.5.3; RFC 1847, 2.1)."""
    boundary = _boundary(message.entity)
    delimiter = b"--" + boundary
    outer = [
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";',
        b' micalg=%b; boundary="%b"' % (micalg.encode(), boundary),
    ]
    if not message.entity.isascii():
        outer.append(b"Content-Transfer-Encoding: 8bit")
    preamble = [b"", b"This is an S/MIME signed message", b"", delimiter, message.entity, delimiter]
    part = [
        b'Content-Type: application/pkcs7-signature; name="smime.p7s"',
        b"Content-Transfer-Encoding: base64",
        b'Content-Disposition: attachment; filename="smime.p7s"',
        b"",
        base64_lines(signature) + delimiter + b"--",
        b"",
    ]
    return _header(message) + CRLF.join([*outer, *preamble, *part])


def opaque_signed(message: Signable, signed_data: bytes) -> bytes:
    """The message inside its SignedData (RFC 8551, 3.5.2)."""
    lines = [
        b'Content-Type: application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"',
        b"Content-Transfer-Encoding: base64",
        b'Content-Disposition: attachment; filename="smime.p7m"',
        b"",
        base64_lines(signed_data),
    ]
    return _header(message) + CRLF.join(lines)


def _header(message: Signable) -> bytes:
    return b"".join([*(field.encoding for field in message.transport), b"MIME-Version: 1.0\r\n"])


def _boundary(entity: bytes) -> bytes:
    """A boundary that does not occur in the entity (RFC 2046, 5.1.1)."""
    while (boundary := b"----" + secrets.token_hex(16).upper().encode()) in entity:
        pass
    return boundary


def _without_transport(mail: Entity) -> Entity:
    content = tuple(field for field in mail.fields if field.name.startswith(b"content-"))
    return Entity(content, mail.body) if content else _undeclared(mail.body)


def _undeclared(body: bytes) -> Entity:
    """An entity around bytes of which nothing is known."""
    if not _is_text(body):
        return _entity(_BYTES, b"base64", base64_lines(body))
    text = canonical(body)
    if max(map(len, text.split(CRLF))) > _MAX_LINE:
        return _entity(_TEXT, b"base64", base64_lines(text))
    return _entity(_TEXT, b"7bit" if text.isascii() else b"8bit", text)


def _is_text(body: bytes) -> bool:
    if b"\0" in body:
        return False
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _entity(content_type: bytes, transfer_encoding: bytes, body: bytes) -> Entity:
    fields = (
        HeaderField(b"content-type", b"Content-Type: " + content_type + CRLF),
        HeaderField(_TRANSFER_ENCODING, b"Content-Transfer-Encoding: " + transfer_encoding + CRLF),
    )
    return Entity(fields, body)
