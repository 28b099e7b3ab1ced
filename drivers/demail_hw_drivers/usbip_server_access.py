"""The certificate that a client has shown, as the rules of :mod:`demail_hw.usbip.access` look at it."""

import dataclasses
import functools
from typing import Final

from cryptography import x509

from demail_hw_drivers.tls_stream import fingerprint

__all__ = ["ClientCertificate"]

_UNREADABLE: Final = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What cryptography raises of a certificate that OpenSSL has let pass; most of these are no ``ValueError``."""


@dataclasses.dataclass(frozen=True)
class ClientCertificate:
    """The certificate (DER) that a peer has shown and TLS has checked."""

    encoded: bytes

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal: the peer's identity."""
        return fingerprint(self.encoded)

    @functools.cached_property
    def subject(self) -> str:
        """The subject, as RFC 4514 writes it; empty if it cannot be read."""
        try:
            return self._certificate.subject.rfc4514_string()
        except _UNREADABLE:
            return ""

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The DNS names, mail addresses and URIs of its subjectAltName (RFC 5280, 4.2.1.6), in lower case; none
        if it cannot be read."""
        try:
            san = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (*_UNREADABLE, x509.ExtensionNotFound):
            return frozenset()
        kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
        return frozenset(name.value.lower() for name in san if isinstance(name, kinds))

    @functools.cached_property
    def _certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.encoded)
