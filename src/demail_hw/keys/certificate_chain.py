"""The chain above a certificate: the issuers that a card holds, linked by their signatures."""

import logging
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from demail_hw.errors import CertificateError
from demail_hw.interfaces import Deadline
from demail_hw.keys.certificate_file import read_certificate
from demail_hw.tcos.card import TcosCard

__all__ = ["build_chain", "missing_issuer", "read_issuers"]

_LOG = logging.getLogger(__name__)


def read_issuers(card: TcosCard, *, deadline: Deadline) -> tuple[x509.Certificate, ...]:
    """The issuers' certificates that the card holds; inside a transaction. Unusable ones are logged and left out."""
    return tuple(_issuers(card, deadline))


def _issuers(card: TcosCard, deadline: Deadline) -> Iterator[x509.Certificate]:
    for application, file_id in card.profile.chain_files:
        try:
            certificate = read_certificate(card, application, file_id, deadline=deadline)
        except CertificateError as error:
            _LOG.warning("%s", error)
            continue
        if certificate is not None:
            yield certificate


def build_chain(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The issuers above a certificate, nearest first, as far as they are known; each link's signature holds."""
    chain: list[x509.Certificate] = []
    current = certificate
    while current.issuer != current.subject:
        issuer = next((candidate for candidate in issuers if _issued(candidate, current)), None)
        if issuer is None or issuer in chain:
            break
        chain.append(issuer)
        current = issuer
    return tuple(chain)


def missing_issuer(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Name | None:
    """Whose certificate a chain lacks to be whole; None if it ends with a root. ``chain``: of :func:`build_chain`."""
    last = chain[-1] if chain else certificate
    return None if last.issuer == last.subject else last.issuer


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
