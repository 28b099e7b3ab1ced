"""The certificates and the public half of a card's key, read from the card."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import CardError, CertificateError, FileNotFound, KeyNotFound
from demail_hw.interfaces import Deadline
from demail_hw.keys.certificate_file import read_certificate
from demail_hw.keys.certificate_pairing import KeyFiles, Look, most_trusted_first
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.layout import KeySlot
from demail_hw.tcos.public_key_file import PublicKeyParts

__all__ = ["KeyCertificate", "read_key_certificate", "read_key_files", "read_public_half", "read_public_key"]

_LOG = logging.getLogger(__name__)


class KeyCertificate(NamedTuple):
    """A key's certificate. ``paired``: whether its public key was compared with the card's own (EF.PK). ``further``:
    the other certificates of this public key."""

    certificate: x509.Certificate
    paired: bool
    further: tuple[x509.Certificate, ...] = ()


def read_key_certificate(card: TcosCard, key: KeySlot, *, deadline: Deadline) -> KeyCertificate:
    """The certificates of a key; inside a transaction.

    Its certificate is that in the first of its files whose public key is the key's own, as :func:`read_public_key`
    has it. A broken file is passed over, and so is one that disagrees, with a warning, if another one has it.
    Errors: :class:`~demail_hw.errors.KeyNotFound` if there is no certificate,
    :class:`~demail_hw.errors.CertificateError` if it is broken, cannot be read, or belongs to another key.
    """
    files = read_key_files(card, key, deadline=deadline)
    found, problems = files.certificates(), list(files.problems())
    if not found:
        _warn_of(problems[1:])
        raise problems[0] if problems else _none_for(key)
    _warn_of(problems)
    return KeyCertificate(found[0], paired=files.parts is not None, further=found[1:])


def _none_for(key: KeySlot) -> KeyNotFound:
    return KeyNotFound(
        f"The card holds no certificate for the {key.label}.",
        remedy="Request one (demail-hw csr), and import what its issuer makes of that (demail-hw certs import).",
    )


def read_public_key(card: TcosCard, key: KeySlot, *, deadline: Deadline) -> CertificatePublicKeyTypes | None:
    """The public half of a key; inside a transaction. None if nothing on the card tells it.

    It is in EF.PK; where the card has no EF.PK, in the first of the key's certificates that is none of the broken,
    the card's own before those that the user wrote. What disagrees with it is a warning.
    Errors: :class:`~demail_hw.errors.CertificateError` if EF.PK is broken.
    """
    files = read_public_half(card, key, deadline=deadline)
    _warn_of(files.problems())
    return files.public_key


def read_public_half(card: TcosCard, key: KeySlot, *, deadline: Deadline) -> KeyFiles:
    """As much as tells the public half of a key: no certificates where the card has an EF.PK; inside a transaction.

    Errors: :class:`~demail_hw.errors.CertificateError` if EF.PK is broken.
    """
    return _read(card, key, deadline, always=False)


def read_key_files(card: TcosCard, key: KeySlot, *, deadline: Deadline) -> KeyFiles:
    """All that the card holds for a key; inside a transaction. Errors: as for :func:`read_public_half`."""
    return _read(card, key, deadline, always=True)


def _read(card: TcosCard, key: KeySlot, deadline: Deadline, *, always: bool) -> KeyFiles:
    parts = _read_public_key_file(card, key, deadline)
    wanted = key.certificate_files if always or parts is None else ()
    looks = {file_id: _look(card, key, file_id, deadline) for file_id in wanted}
    return KeyFiles(key, parts, looks, most_trusted_first(card.profile, key))


def _look(card: TcosCard, key: KeySlot, file_id: int, deadline: Deadline) -> Look:
    try:
        return read_certificate(card, key.application, file_id, deadline=deadline)
    except CertificateError as error:
        return error


def _read_public_key_file(card: TcosCard, key: KeySlot, deadline: Deadline) -> PublicKeyParts | None:
    file = key.public_key_file
    if file is None:
        return None
    try:
        return card.read_public_key(key.application, file, deadline=deadline)
    except FileNotFound:
        return None
    except CardError as error:
        raise CertificateError(f"EF {file.identifier:04X}: {error.message}") from error


def _warn_of(problems: Iterable[CertificateError]) -> None:
    for problem in problems:
        _LOG.warning("%s", problem)
