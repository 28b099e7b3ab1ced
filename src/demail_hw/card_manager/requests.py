"""Certificate requests (PKCS #10, RFC 2986), signed by a key on a card."""

import re
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from demail_hw.identity import PrivateKey

__all__ = ["parse_subject", "request_certificate"]

# RFC 4514, 3 gives short names to nine attributes; these are what people write for others.
_FURTHER_NAMES: Final[dict[str, ObjectIdentifier]] = {
    "E": NameOID.EMAIL_ADDRESS,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "title": NameOID.TITLE,
}
_PART: Final = re.compile(r"(?:\A|,)((?:[^,\\]|\\.?)*)", re.DOTALL)
"""A relative distinguished name ends at a comma without a backslash before it."""
_EXAMPLE: Final = "write it as TYPE=VALUE,TYPE=VALUE, such as CN=Poststelle,O=Beispiel GmbH,C=DE"


def parse_subject(text: str) -> x509.Name:
    """A distinguished name in the form of RFC 4514, such as ``CN=Poststelle,O=Beispiel GmbH,C=DE``.

    ``ValueError`` with a sentence if it is none, or empty.
    """
    try:
        name = x509.Name.from_rfc4514_string(text, _FURTHER_NAMES)
    except ValueError as error:
        raise ValueError(_what_is_wrong(text)) from error
    if not name.rdns:
        raise ValueError(f"it is empty; {_EXAMPLE}")
    empty = next((each for each in name if not each.value), None)
    if empty is not None:
        raise ValueError(f"{empty.rfc4514_attribute_name} has no value; {_EXAMPLE}")
    return name


def _what_is_wrong(text: str) -> str:
    """What cryptography says of the part that it does not take; it says nothing where the form is wrong."""
    for part in _parts(text):
        if not part:
            return f"a part between two commas is empty; {_EXAMPLE}"
        try:
            x509.Name.from_rfc4514_string(part, _FURTHER_NAMES)
        except ValueError as error:
            return f"{part!r}: {str(error) or f'no such type or form; {_EXAMPLE}'}"
    return _EXAMPLE


def _parts(text: str) -> list[str]:
    return [found[1] for found in _PART.finditer(text)]


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
