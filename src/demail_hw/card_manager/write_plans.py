"""What is to be written into a certificate file, and what changes with it."""

import dataclasses

from cryptography import x509

from demail_hw.card_manager.certificate_entries import CertificateEntry
from demail_hw.card_manager.file_writing import Write
from demail_hw.keys.certificate_pairing import KeyFiles
from demail_hw.tcos.layout import CertificateFile, KeySlot, StorageForm

__all__ = ["KeyUse", "WritePlan", "use_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class KeyUse:
    """The certificate that a key is used with, by whatever signs or opens TLS: ``before`` the plan is carried out,
    and ``after`` it. None where it has none."""

    key: KeySlot
    before: x509.Certificate | None
    after: x509.Certificate | None


@dataclasses.dataclass(frozen=True, slots=True)
class WritePlan:
    """What is to be written into a file, checked as far as that goes without a PIN.

    ``size``: of the EF, in bytes. ``before``: what it holds now. ``writes``: none if it holds the same already.
    ``certificate``, ``form``, ``length`` in bytes: of what is imported; None and 0 to erase. ``warnings``: sentences.
    ``use``: None if the file is for no key here, or if the card's own public key file is broken.
    """

    file: CertificateFile
    size: int
    before: CertificateEntry
    writes: tuple[Write, ...]
    certificate: x509.Certificate | None = None
    form: StorageForm | None = None
    length: int = 0
    warnings: tuple[str, ...] = ()
    use: KeyUse | None = None


def use_of(held: KeyFiles, file: CertificateFile, certificate: x509.Certificate | None) -> KeyUse:
    """What it means for a key that one of its files gets a certificate, or none. ``held``: on the card now."""
    after = held.holding(file.identifier, certificate)
    return KeyUse(held.key, _in_use(held), _in_use(after))


def _in_use(files: KeyFiles) -> x509.Certificate | None:
    return next(iter(files.certificates()), None)
