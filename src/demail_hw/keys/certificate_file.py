"""The EF that a certificate is in: read, and taken apart from its container and its padding."""

from typing import Final, assert_never

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from demail_hw.errors import CardError, CertificateError, FileNotFound, ProtocolViolation
from demail_hw.interfaces import Deadline
from demail_hw.iso7816 import tlv
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.layout import Application, StorageForm

__all__ = ["decode_certificate", "form_of", "read_certificate", "unwrap", "wrap"]

_SEQUENCE: Final = 0x30
_OBJECT_IDENTIFIER: Final = 0x06
_USER_CERTIFICATE: Final = bytes.fromhex("550424")  # 2.5.4.36


def unwrap(content: bytes) -> bytes | None:
    """The certificate's DER in an EF: bare, or in a userCertificate container ``SEQUENCE { OID, Certificate }``.

    None if the file was never written. Errors: :class:`~demail_hw.errors.CertificateError`.
    """
    if not content or content[:1] in {b"\xff", b"\x00"}:
        return None
    try:
        outer, whole = _first_object(content)
        inner, object_identifier = _first_object(outer.value)
        if outer.tag != _SEQUENCE:
            raise CertificateError("A certificate file does not begin with a SEQUENCE.")
        if inner.tag != _OBJECT_IDENTIFIER:
            return whole
        return _first_object(outer.value[len(object_identifier) :])[1]
    except ProtocolViolation as error:
        raise CertificateError(f"A certificate file is broken: {error.message}") from error


def wrap(der: bytes, form: StorageForm) -> bytes:
    """What an EF holds for a certificate: the way back from :func:`unwrap`."""
    match form:
        case StorageForm.BARE:
            return der
        case StorageForm.CONTAINER:
            return tlv.Tlv(_SEQUENCE, tlv.Tlv(_OBJECT_IDENTIFIER, _USER_CERTIFICATE).encode() + der).encode()
        case _:
            assert_never(form)


def form_of(content: bytes) -> StorageForm:
    """The form of what :func:`unwrap` found a certificate in."""
    inner = content[tlv.decode_header(content).size :]
    return StorageForm.CONTAINER if inner[0] == _OBJECT_IDENTIFIER else StorageForm.BARE


def _first_object(content: bytes) -> tuple[tlv.Tlv, bytes]:
    """The data object that ``content`` begins with, and its bytes; what follows it is padding."""
    header = tlv.decode_header(content)
    total = header.size + header.length
    whole = content[:total]
    if len(whole) < total:
        raise CertificateError(f"A certificate file ends after {len(whole)} of {total} bytes.")
    return tlv.Tlv(header.tag, whole[header.size :]), whole


def read_certificate(
    card: TcosCard, application: Application, file_id: int, *, deadline: Deadline
) -> x509.Certificate | None:
    """The certificate in an EF; inside a transaction. None if the EF is empty or not there.

    Errors: :class:`~demail_hw.errors.CertificateError` if it is broken or cannot be read.
    """
    try:
        der = unwrap(card.read_file(application, file_id, deadline=deadline))
    except FileNotFound:
        return None
    except (CardError, CertificateError) as error:
        raise CertificateError(f"EF {file_id:04X}: {error.message}") from error
    if der is None:
        return None
    try:
        return decode_certificate(der)
    except CertificateError as error:
        raise CertificateError(f"The certificate in EF {file_id:04X} is broken.") from error


def decode_certificate(der: bytes) -> x509.Certificate:
    """A certificate with names and a public key that can be used.

    Errors: :class:`~demail_hw.errors.CertificateError`.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These are decoded when they are asked for: now, so that what is broken in them is found here.
        certificate.public_key(), certificate.subject, certificate.issuer
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError("This is no certificate that can be used.") from error
    return certificate
