"""Whether a certificate is valid at this moment (RFC 5280, 4.1.2.5): a doubt, never a refusal."""

import datetime
import logging

from cryptography import x509

__all__ = ["ValidityWatch", "doubt"]

_LOG = logging.getLogger(__name__)


def doubt(certificate: x509.Certificate, name: str = "certificate") -> str:
    """A sentence if the certificate is not valid yet or any more, else nothing. ``name``: what it calls it."""
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        return f"The {name} expired at {certificate.not_valid_after_utc.isoformat()}."
    if certificate.not_valid_before_utc > now:
        return f"The {name} is not valid before {certificate.not_valid_before_utc.isoformat()}."
    return ""


class ValidityWatch:
    """Looked at before each signature: a service runs longer than its certificate may last.

    It warns once, and once more if the certificate was not valid yet and now is not any more. ``label``: of the key.
    """

    __slots__ = ("_certificate", "_name", "_told")

    def __init__(self, certificate: x509.Certificate, label: str) -> None:
        self._certificate = certificate
        self._name = f"certificate of the {label}"
        self._told = ""

    def look(self) -> None:
        """Warn, if there is something new."""
        found = doubt(self._certificate, self._name)
        if found and found != self._told:
            self._told = found
            _LOG.warning("%s Whoever checks what is signed with it may reject that.", found)
