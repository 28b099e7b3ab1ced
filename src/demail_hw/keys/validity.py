"""Whether a certificate is valid at this moment (RFC 5280, 4.1.2.5): a doubt, never a refusal."""

import datetime
import enum
import logging

from cryptography import x509

from demail_hw.identity import Identity
from demail_hw.keys.card_bound import CardBound

__all__ = ["Validity", "ValidityWatch", "doubt", "validity_of", "warn_once"]

_LOG = logging.getLogger(__name__)


class Validity(enum.Enum):
    """What a certificate is at this moment."""

    NOT_YET = "not yet valid"
    VALID = "valid"
    EXPIRED = "expired"


def validity_of(certificate: x509.Certificate) -> Validity:
    """Whether it is valid now, by its dates alone."""
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        return Validity.EXPIRED
    return Validity.NOT_YET if certificate.not_valid_before_utc > now else Validity.VALID


def doubt(certificate: x509.Certificate, name: str = "certificate") -> str:
    """A sentence if the certificate is not valid yet or any more, else nothing. ``name``: what it calls it."""
    match validity_of(certificate):
        case Validity.EXPIRED:
            return f"The {name} expired at {certificate.not_valid_after_utc.isoformat()}."
        case Validity.NOT_YET:
            return f"The {name} is not valid before {certificate.not_valid_before_utc.isoformat()}."
        case Validity.VALID:
            return ""


class ValidityWatch:
    """Looked at before each signature: a service runs longer than its certificate may last.

    It warns once, and once more if the certificate was not valid yet and now is not any more. ``label``: of the key.
    ``told``: the warnings that there were; those who share it warn once together.
    """

    __slots__ = ("_certificate", "_name", "_told")

    def __init__(self, certificate: x509.Certificate, label: str, told: list[str] | None = None) -> None:
        self._certificate = certificate
        self._name = f"certificate of the {label}"
        self._told: list[str] = [] if told is None else told

    def look(self) -> None:
        """Warn, if there is something new."""
        found = doubt(self._certificate, self._name)
        if found and found not in self._told:
            self._told.append(found)
            _LOG.warning("%s Whoever checks what is signed with it may reject that.", found)


def warn_once(identity: Identity) -> None:
    """For whoever signs with any identity: a card's key looks itself, one in a file does not."""
    if not isinstance(identity.private_key, CardBound):
        told = identity._told  # noqa: SLF001  kept there for this alone
        ValidityWatch(identity.certificate, identity.label, told).look()
