"""Certificate requests (PKCS #10, RFC 2986), signed by a key on a card."""

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from demail_hw.identity import PrivateKey

__all__ = ["alternative_names", "parse_subject", "request_certificate"]

# RFC 4514, 3 gives short names to nine attributes; these are what people write for others.
_FURTHER_NAMES: Final[dict[str, ObjectIdentifier]] = {
    "E": NameOID.EMAIL_ADDRESS,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "title": NameOID.TITLE,
}


def parse_subject(text: str) -> x509.Name:
    """A distinguished name in the form of RFC 4514, such as ``CN=Poststelle,O=Beispiel GmbH,C=DE``.

    ``ValueError`` if it is none, or empty.
    """
    name = x509.Name.from_rfc4514_string(text, _FURTHER_NAMES)
    if not name.rdns:
        raise ValueError("a subject needs an attribute, such as CN=")
    return name


def alternative_names(dns: Sequence[str], emails: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """What goes into subjectAltName (RFC 5280, 4.2.1.6). ``ValueError`` for one that is empty or not ASCII."""
    if not all((*dns, *emails)):
        raise ValueError("a name is empty")
    return (*map(x509.DNSName, dns), *map(x509.RFC822Name, emails))


def request_certificate(
    private_key: PrivateKey, subject: x509.Name, names: Sequence[x509.GeneralName] = ()
) -> x509.CertificateSigningRequest:
    """A request, signed with SHA-256: PKCS#1 v1.5 by an RSA key, ECDSA by an EC key. The key signs once.

    Errors: those of the key.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(private_key, hashes.SHA256())
