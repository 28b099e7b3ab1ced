"""What an EF for a certificate holds, as people are shown it."""

import dataclasses
import enum
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import HardwareError
from demail_hw.keys.certificate_file import decode_certificate, form_of, unwrap
from demail_hw.tcos.layout import CertificateFile, KeySlot, StorageForm

__all__ = ["CertificateEntry", "CertificateState", "entry_of", "with_key"]


class CertificateState(enum.Enum):
    """What an EF for a certificate holds."""

    EMPTY = "empty"
    CERTIFICATE = "certificate"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    """The card does not let it be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate file of a card.

    ``form`` and ``certificate``: None unless ``state`` is CERTIFICATE. ``key``: the key of the card that has the
    certificate's public key, if one has. ``problem``: why there is none to use, or that it is not of the key that its
    file is for.
    """

    file: CertificateFile
    state: CertificateState
    form: StorageForm | None = None
    certificate: x509.Certificate | None = None
    key: KeySlot | None = None
    problem: str = ""


def entry_of(file: CertificateFile, content: bytes) -> CertificateEntry:
    """The entry of a file with this content."""
    try:
        der = unwrap(content)
        if der is None:
            return CertificateEntry(file, CertificateState.EMPTY)
        return CertificateEntry(file, CertificateState.CERTIFICATE, form_of(content), decode_certificate(der))
    except HardwareError as error:
        return CertificateEntry(file, CertificateState.BROKEN, problem=error.message)


def with_key(
    entry: CertificateEntry, keys: Mapping[KeySlot, CertificatePublicKeyTypes], meant: KeySlot | None
) -> CertificateEntry:
    """The same with the key that its certificate is of. ``meant``: the key that the file is for."""
    if entry.certificate is None:
        return entry
    public_key = entry.certificate.public_key()
    key = next((key for key, known in keys.items() if known == public_key), None)
    stranger = meant is not None and keys.get(meant, public_key) != public_key
    problem = f"not of the {meant.label}, which this file is for" if meant is not None and stranger else ""
    return dataclasses.replace(entry, key=key, problem=problem)
