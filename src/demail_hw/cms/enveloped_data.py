"""EnvelopedData (RFC 5652, 6) and AuthEnvelopedData (RFC 5083) as values."""

import dataclasses
from typing import Final, Self, TypeAlias

from demail_hw.cms import ber
from demail_hw.cms.algorithms import AlgorithmIdentifier, ContentType
from demail_hw.cms.ber import Element, Fields, Tag
from demail_hw.cms.malformed import malformed
from demail_hw.cms.names import printable_name

__all__ = [
    "EncryptedContent",
    "EnvelopedData",
    "IssuerAndSerialNumber",
    "KeyTransRecipientInfo",
    "OtherRecipientInfo",
    "RecipientIdentifier",
    "RecipientInfo",
    "SubjectKeyIdentifier",
]

_MAX_KEY_IDENTIFIER: Final = 64
_SET_OF: Final = b"\x31"


@dataclasses.dataclass(frozen=True, slots=True)
class IssuerAndSerialNumber:
    """RFC 5652, 10.2.4. ``issuer``: the encoded Name."""

    issuer: bytes
    serial_number: int

    @classmethod
    def decode(cls, element: Element) -> Self:
        """From its SEQUENCE."""
        fields = Fields(element)
        return cls(bytes(fields.take(Tag.SEQUENCE).encoding), fields.take(Tag.INTEGER).integer())

    def __str__(self) -> str:
        return f"serial number {self.serial_number:X} of {printable_name(self.issuer)}"


@dataclasses.dataclass(frozen=True, slots=True)
class SubjectKeyIdentifier:
    """RFC 5652, 6.2.1: the recipient by the identifier of the key."""

    key_identifier: bytes

    def __str__(self) -> str:
        return f"key identifier {self.key_identifier[:_MAX_KEY_IDENTIFIER].hex().upper()}"


RecipientIdentifier: TypeAlias = IssuerAndSerialNumber | SubjectKeyIdentifier


@dataclasses.dataclass(frozen=True, slots=True)
class KeyTransRecipientInfo:
    """RFC 5652, 6.2.1: the content-encryption key, encrypted for one public key."""

    recipient: RecipientIdentifier
    key_encryption: AlgorithmIdentifier
    encrypted_key: bytes

    @classmethod
    def decode(cls, element: Element) -> Self:
        """From its SEQUENCE."""
        fields = Fields(element)
        fields.take(Tag.INTEGER)
        return cls(
            _recipient_identifier(fields),
            AlgorithmIdentifier.decode(fields.take(Tag.SEQUENCE)),
            fields.take(Tag.OCTET_STRING).octets(),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class OtherRecipientInfo:
    """RFC 5652, 6.2: a kind of recipient that an RSA key can't be: key agreement, a shared key, a password."""

    tag: int


RecipientInfo: TypeAlias = KeyTransRecipientInfo | OtherRecipientInfo


@dataclasses.dataclass(frozen=True, slots=True)
class EncryptedContent:
    """RFC 5652, 6.1 (EncryptedContentInfo), with what AuthEnvelopedData puts beside it (RFC 5083, 2.1).

    ``mac`` is None in EnvelopedData; ``authenticated_attributes``: their DER as a SET OF, or empty.
    """

    algorithm: AlgorithmIdentifier
    ciphertext: bytes
    mac: bytes | None = None
    authenticated_attributes: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class EnvelopedData:
    """An encrypted message: for whom, and what."""

    recipients: tuple[RecipientInfo, ...]
    content: EncryptedContent

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """From a ContentInfo (RFC 5652, 3) in BER."""
        fields = Fields(ber.decode(message))
        content_type = fields.take(Tag.OBJECT_IDENTIFIER).object_identifier()
        authenticated = content_type == ContentType.AUTH_ENVELOPED_DATA.value
        if not authenticated and content_type != ContentType.ENVELOPED_DATA.value:
            raise malformed(
                f"The message is not encrypted: it is {_content_name(content_type)}.",
                remedy="Nothing of it has to be decrypted: read it with another program, such as openssl cms.",
            )
        inner = Fields(fields.take(Tag.CONTEXT_0).inner())
        inner.take(Tag.INTEGER)
        inner.optional(Tag.CONTEXT_0)
        recipients = tuple(map(_recipient_info, inner.take(Tag.SET).children))
        return cls(recipients, _authenticated_content(inner) if authenticated else _content(inner))


def _recipient_info(element: Element) -> RecipientInfo:
    if element.tag == Tag.SEQUENCE:
        return KeyTransRecipientInfo.decode(element)
    return OtherRecipientInfo(element.tag)


def _recipient_identifier(fields: Fields) -> RecipientIdentifier:
    key_identifier = fields.optional(Tag.CONTEXT_0)
    if key_identifier is not None:
        return SubjectKeyIdentifier(key_identifier.octets())
    return IssuerAndSerialNumber.decode(fields.take(Tag.SEQUENCE))


def _content(fields: Fields) -> EncryptedContent:
    info = Fields(fields.take(Tag.SEQUENCE))
    info.take(Tag.OBJECT_IDENTIFIER)
    algorithm = AlgorithmIdentifier.decode(info.take(Tag.SEQUENCE))
    return EncryptedContent(algorithm, info.take(Tag.CONTEXT_0).octets())


def _authenticated_content(fields: Fields) -> EncryptedContent:
    content = _content(fields)
    attributes = fields.optional(Tag.CONTEXT_1)
    return dataclasses.replace(
        content,
        mac=fields.take(Tag.OCTET_STRING).octets(),
        # RFC 5083, 2.2: what is authenticated has the tag of SET OF, not the one that it is sent with.
        authenticated_attributes=b"" if attributes is None else _SET_OF + bytes(attributes.encoding[1:]),
    )


def _content_name(oid: str) -> str:
    names = {member.value: member.name for member in ContentType}
    return names.get(oid, oid).replace("_", "-").lower()
