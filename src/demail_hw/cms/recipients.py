"""Who a message is for (RFC 5652, 6.2.1)."""

from collections.abc import Iterable, Sequence
from typing import Final, assert_never

from cryptography import x509

from demail_hw.cms.enveloped_data import (
    IssuerAndSerialNumber,
    KeyTransRecipientInfo,
    RecipientIdentifier,
    RecipientInfo,
    SubjectKeyIdentifier,
)
from demail_hw.cms.names import same_name
from demail_hw.errors import CertificateError, WrongRecipient

__all__ = ["recipient_for"]

_NAMED: Final = 3
"""Recipients that an error names; a message to a mailing list has hundreds."""


def recipient_for(
    certificates: Sequence[x509.Certificate], recipients: Sequence[RecipientInfo]
) -> KeyTransRecipientInfo:
    """The part of the message that is for one of these certificates of a key.

    :class:`~demail_hw.errors.WrongRecipient` says whom the message is for, if it is for others.
    """
    ours = [one for one in _transported(recipients) for each in certificates if _is_for(one.recipient, each)]
    if not ours:
        raise WrongRecipient(
            f"The message is not encrypted for this certificate (serial number {certificates[0].serial_number:X}), "
            f"but for {_others(recipients)}.",
            remedy="Use the key of one of these, or ask the sender to encrypt with this certificate.",
        )
    return ours[0]


def _transported(recipients: Iterable[RecipientInfo]) -> list[KeyTransRecipientInfo]:
    return [one for one in recipients if isinstance(one, KeyTransRecipientInfo)]


def _is_for(recipient: RecipientIdentifier, certificate: x509.Certificate) -> bool:
    match recipient:
        case IssuerAndSerialNumber():
            return recipient.serial_number == certificate.serial_number and same_name(
                recipient.issuer, certificate.issuer.public_bytes()
            )
        case SubjectKeyIdentifier():
            return recipient.key_identifier == _key_identifier(certificate)
        case _:
            assert_never(recipient)


def _key_identifier(certificate: x509.Certificate) -> bytes:
    """As the certificate says it, or by RFC 5280, 4.2.1.2, method 1."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        extension = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    except (ValueError, x509.DuplicateExtension) as error:
        raise CertificateError("The extensions of the certificate are broken.") from error
    return extension.digest


def _others(recipients: Sequence[RecipientInfo]) -> str:
    named = [str(one.recipient) for one in _transported(recipients)][:_NAMED]
    more = len(recipients) - len(named)
    if more:
        named.append(f"{more} {'more' if named else 'that have no RSA key'}")
    return "; ".join(named) or "nobody"
