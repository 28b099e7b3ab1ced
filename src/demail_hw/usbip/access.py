"""Who may have a device: rules about client certificates, as the configuration and the command line write them.

::

    sha256:8F:3A:...            one certificate, by its fingerprint
    subject:CN=gateway,O=Firm   by the whole subject, as RFC 4514 writes it
    san:gateway.example         by a DNS name, mail address or URI of its subjectAltName
    any                         whatever the authority issued

Only a fingerprint means one certificate. The others trust the authority to give a name to its bearer alone.
"""

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, Self, TypeAlias

__all__ = ["ANY_CERTIFICATE", "AccessRule", "AllowList", "PeerCertificate", "RuleKind", "may_have"]

_BLANK: Final = re.compile(r"(?:^|(?<!\\)[,+])(?: +[\w.-]+ *=|[\w.-]+ +=|[\w.-]+= )")
"""Beside a comma or an equals sign: RFC 4514 writes none there, and openssl does unless told otherwise."""
_AS_RFC_4514: Final = "openssl x509 -noout -subject -nameopt RFC2253 writes it right"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


class PeerCertificate(Protocol):
    """What of a certificate the rules look at: ``fingerprint``, SHA-256 in lower-case hexadecimal; ``subject``, as
    RFC 4514 writes it; ``names`` of its subjectAltName in lower case (RFC 5280, 4.2.1.6)."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102  the class says it

    @property
    def subject(self) -> str: ...  # noqa: D102

    @property
    def names(self) -> frozenset[str]: ...  # noqa: D102


class RuleKind(enum.Enum):
    """What of a certificate a rule looks at."""

    SHA256 = "sha256"
    SUBJECT = "subject"
    SAN = "san"
    ANY = "any"


@dataclasses.dataclass(frozen=True, slots=True)
class AccessRule:
    """Lets one certificate in, or those with a name."""

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
        if kind is RuleKind.SAN and "*" in value:
            raise ValueError(f"{text!r}: a name is compared whole, and * stands for nothing")
        if kind is RuleKind.SUBJECT and _BLANK.search(value):
            raise ValueError(f"{text!r}: no blank beside = and commas; {_AS_RFC_4514}")
        return cls(kind, value.lower() if kind is RuleKind.SAN else value)

    def fits(self, certificate: PeerCertificate) -> bool:
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


def may_have(certificate: PeerCertificate | None, bus_id: str, allowed: AllowList | None) -> bool:
    """May this peer see and import the device? Without a list, everybody who got this far."""
    if allowed is None:
        return True
    return certificate is not None and any(rule.fits(certificate) for rule in allowed.get(bus_id, ()))
