"""Who may have a device: client certificates, by fingerprint, subject or a name in them."""

import dataclasses
import enum
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Final, Self, TypeAlias

from cryptography import x509

from demail_hw_drivers.tls_stream import fingerprint

__all__ = ["ANY_CERTIFICATE", "AccessRule", "AllowList", "ClientCertificate", "RuleKind", "may_have"]

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


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
        except ValueError:
            return ""

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The DNS names, mail addresses and URIs of its subjectAltName (RFC 5280, 4.2.1.6), in lower case."""
        try:
            san = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            return frozenset()
        kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
        return frozenset(name.value.lower() for name in san if isinstance(name, kinds))

    @functools.cached_property
    def _certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.encoded)


class RuleKind(enum.Enum):
    """What of a certificate a rule looks at."""

    SHA256 = "sha256"
    SUBJECT = "subject"
    SAN = "san"
    ANY = "any"


@dataclasses.dataclass(frozen=True, slots=True)
class AccessRule:
    """Lets one certificate in, or those with a name.

    ::

        sha256:8F:3A:...            one certificate, by its fingerprint
        subject:CN=gateway,O=Firm   by the whole subject, as RFC 4514 writes it
        san:gateway.example         by a DNS name, mail address or URI of its subjectAltName
        any                         whatever the authority issued

    Only a fingerprint means one certificate. The others trust the authority to give a name to its bearer alone.
    """

    kind: RuleKind
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule. ``ValueError`` says what is wrong with it."""
        word, _, value = text.partition(":")
        if word not in {kind.value for kind in RuleKind}:
            raise ValueError(f"{text!r} is no rule: write sha256:..., subject:..., san:... or any")
        kind = RuleKind(word)
        if kind is RuleKind.SHA256:
            value = value.replace(":", "").replace(" ", "").lower()
            if not _FINGERPRINT.fullmatch(value):
                raise ValueError(f"{text!r}: a SHA-256 fingerprint has 64 hexadecimal digits")
        if bool(value) is (kind is RuleKind.ANY):
            raise ValueError(f"{text!r}: {word} takes {'nothing' if value else 'a value'} after it")
        return cls(kind, value.lower() if kind is RuleKind.SAN else value)

    def fits(self, certificate: ClientCertificate) -> bool:
        """Does it let this one in?"""
        match self.kind:
            case RuleKind.SHA256:
                return certificate.fingerprint == self.value
            case RuleKind.SUBJECT:
                return certificate.subject == self.value
            case RuleKind.SAN:
                return self.value in certificate.names
            case RuleKind.ANY:
                return True


ANY_CERTIFICATE: Final = AccessRule(RuleKind.ANY)
"""Lets in whomever the authority knows."""

AllowList: TypeAlias = Mapping[str, Sequence[AccessRule]]
"""Rules by bus id. A device that is not in it is for nobody."""


def may_have(certificate: ClientCertificate | None, bus_id: str, allowed: AllowList | None) -> bool:
    """May this peer see and import the device? Without a list, everybody who got this far."""
    if allowed is None:
        return True
    return certificate is not None and any(rule.fits(certificate) for rule in allowed.get(bus_id, ()))
