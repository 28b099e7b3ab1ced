"""A certificate from somebody's file: PEM or DER, exactly one, and if it is none, what it is instead."""

import re
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from demail_hw.errors import CertificateError
from demail_hw.keys.certificate_file import decode_certificate

__all__ = ["LONGEST_INPUT", "parse_certificate"]

LONGEST_INPUT: Final = 1 << 20
"""More bytes than any file with one certificate has."""

_PEM_BEGIN: Final = re.compile(rb"^-----BEGIN ([^\r\n-]*)-----", re.MULTILINE)
_PEM_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
"""RFC 7468, 5.1; the second is an old word for it."""
_REMEDY: Final = "Give the certificate alone, as the issuer sent it, in PEM or DER."


def parse_certificate(content: bytes) -> x509.Certificate:
    """The certificate in a file.

    Errors: :class:`~demail_hw.errors.CertificateError` for everything else, with what it seems to be. No text of it
    repeats the content, which may be somebody's private key.
    """
    if not content.strip():
        raise _error("The file is empty.")
    if len(content) > LONGEST_INPUT:
        raise _error(f"The file is longer than {LONGEST_INPUT} bytes: it is no certificate.")
    labels = [label.decode("ascii", "replace") for label in _PEM_BEGIN.findall(content)]
    return _from_pem(content, labels) if labels else _from_der(content)


def _from_pem(content: bytes, labels: list[str]) -> x509.Certificate:
    if len(labels) > 1:
        raise _error(f"The file holds {len(labels)} PEM blocks, and one certificate is wanted.")
    if labels[0] not in _PEM_LABELS:
        raise _error(f"The file holds {_described(labels[0])} and no certificate.")
    try:
        certificate = x509.load_pem_x509_certificate(content)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise _error("The PEM block in the file is called a certificate, and is none.") from error
    return decode_certificate(certificate.public_bytes(serialization.Encoding.DER))


def _described(label: str) -> str:
    kinds = {"PRIVATE KEY": "a private key", "REQUEST": "a certificate request", "PKCS7": "PKCS#7", "CMS": "PKCS#7"}
    return next((kind for ending, kind in kinds.items() if label.endswith(ending)), "something else in PEM")


def _from_der(content: bytes) -> x509.Certificate:
    try:
        return decode_certificate(content)
    except CertificateError as error:
        what = next((what for what, load in _OTHERS.items() if _can(load, content)), None)
        raise _error(
            f"The file holds {what} and no certificate." if what else "The file is no certificate."
        ) from error


def _can(load: Callable[[bytes], object], content: bytes) -> bool:
    try:
        load(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


_OTHERS: Final[dict[str, Callable[[bytes], object]]] = {
    "a certificate request": x509.load_der_x509_csr,
    "a private key": lambda content: serialization.load_der_private_key(content, None),
    "PKCS#7": pkcs7.load_der_pkcs7_certificates,
}
"""What people take for a certificate, in DER."""


def _error(message: str) -> CertificateError:
    return CertificateError(message, remedy=_REMEDY)
