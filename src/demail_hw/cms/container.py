"""The CMS octets out of what they arrived in: an S/MIME message, PEM (RFC 7468), or nothing at all."""

import binascii
import re
from typing import Final

from demail_hw.cms.malformed import malformed
from demail_hw.cms.mime import Entity

__all__ = ["cms_octets"]

_SEQUENCE: Final = b"\x30"
"""The first octet of a ContentInfo; no header field, no base64 of a ContentInfo and no PEM begins with it."""

_PEM: Final = re.compile(rb"\s*-----BEGIN (CMS|PKCS7|ENCRYPTED MESSAGE)-----(.*?)-----END \1-----", re.DOTALL)
"""RFC 7468, 8 and 9; the last label is GnuPG's."""

_ENCRYPTED_TYPES: Final = frozenset(
    {b"application/pkcs7-mime", b"application/x-pkcs7-mime", b"application/octet-stream"}
)
"""The last is what some mail gateways make of it (RFC 8551, 3.10)."""

_MAX_SHOWN: Final = 80
_REMEDY: Final = "Give the encrypted message itself: S/MIME (application/pkcs7-mime), PEM, or CMS in DER."


def cms_octets(message: bytes) -> bytes:
    """The ContentInfo in BER (RFC 5652, 3). :class:`~demail_hw.errors.ProtocolViolation` if there is none."""
    if message.startswith(_SEQUENCE):
        return message
    pem = _PEM.match(message)
    return _from_base64(pem[2]) if pem else _from_mime(message)


def _from_mime(message: bytes) -> bytes:
    entity = Entity.decode(message)
    if entity is None:
        raise malformed("The message is neither S/MIME nor PEM nor a CMS structure.", remedy=_REMEDY)
    content_type = entity.token(b"content-type")
    if content_type not in _ENCRYPTED_TYPES:
        raise malformed(f"The message is no encrypted S/MIME message: {_shown(content_type)}.", remedy=_REMEDY)
    return _transfer_decoded(entity)


def _shown(content_type: bytes | None) -> str:
    if not content_type:
        return "it has no Content-Type, as a plain mail"
    return f"its Content-Type is {content_type.decode('ascii', 'replace')[:_MAX_SHOWN]!a}"


def _transfer_decoded(entity: Entity) -> bytes:
    """The body without its transfer encoding (RFC 2045, 6), of which the body itself is the better witness."""
    if entity.body.startswith(_SEQUENCE):
        return entity.body
    if entity.token(b"content-transfer-encoding") == b"quoted-printable":
        return binascii.a2b_qp(entity.body)
    return _from_base64(entity.body)


def _from_base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error as error:
        raise malformed("The base64 of the message is broken.") from error
