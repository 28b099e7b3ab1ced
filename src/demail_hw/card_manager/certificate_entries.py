"""What an EF for a certificate holds, as people are shown it."""

import dataclasses
import enum
import shlex
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import HardwareError
from demail_hw.keys.certificate_file import decode_certificate, form_of, unwrap
from demail_hw.keys.pin_remedies import program
from demail_hw.keys.validity import Validity, validity_of
from demail_hw.tcos.layout import CertificateFile, KeySlot, StorageForm

__all__ = ["CardCommands", "CertificateEntry", "CertificateState", "entry_of", "with_key"]


@dataclasses.dataclass(frozen=True, slots=True)
class CardCommands:
    """Commands that change this card, as they are typed. ``uri``: its address. ``state_dir``: as of
    :class:`~demail_hw.keys.pin_remedies.PinRemedies`, for each sends a PIN."""

    uri: str
    state_dir: str | None = None

    def erasing(self, name: str) -> str:
        """To make a file empty."""
        return f"{program(self.state_dir)} certs erase {shlex.quote(self.uri)} --file {name}"


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
    certificate's public key, if one has. ``in_use``: whether it is the certificate that the key of its file is used
    with, of several. ``problem``: why there is none to use, or that it is not of the key that its file is for.
    """

    file: CertificateFile
    state: CertificateState
    form: StorageForm | None = None
    certificate: x509.Certificate | None = None
    key: KeySlot | None = None
    problem: str = ""
    in_use: bool = False

    def next_step(self, commands: CardCommands) -> str:
        """What to do about it, a sentence; empty where all is well, or nobody here can do anything."""
        erase = commands.erasing(self.file.name)
        match self.state:
            case CertificateState.BROKEN if self.file.writable:
                return f"Import a certificate into it, or erase it: {erase}."
            case CertificateState.CERTIFICATE if self.problem and self.file.writable:
                return f"If it is of no use there, erase it: {erase}."
            case CertificateState.CERTIFICATE if self.in_use and self._is_expired():
                return "Request a new one (demail-hw csr); if the card has one, erase this."
            case _:
                return ""

    def _is_expired(self) -> bool:
        return self.certificate is not None and validity_of(self.certificate) is Validity.EXPIRED


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
