"""The certificates on a card: unwrapped, paired with their keys by public key, and with their chain."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, assert_never

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import CardError, CertificateError, FileNotFound, KeyNotFound, ProtocolViolation
from demail_hw.interfaces import Deadline
from demail_hw.iso7816 import tlv
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.layout import Application, CertificateKind, KeySlot, StorageForm
from demail_hw.tcos.public_key_file import PublicKeyParts

__all__ = [
    "KeyCertificate",
    "build_chain",
    "decode_certificate",
    "form_of",
    "read_issuers",
    "read_key_certificate",
    "read_public_key",
    "unwrap",
    "wrap",
]

_LOG = logging.getLogger(__name__)
_SEQUENCE = 0x30
_OBJECT_IDENTIFIER = 0x06
_USER_CERTIFICATE = bytes.fromhex("550424")  # 2.5.4.36


def unwrap(content: bytes) -> bytes | None:
    """The certificate's DER in an EF: bare, or in a userCertificate container ``SEQUENCE { OID, Certificate }``.

    None if the file was never written. Errors: :class:`~demail_hw.errors.CertificateError`.
    """
    if not content or content[:1] in {b"\xff", b"\x00"}:
        return None
    try:
        outer, whole = _first_object(content)
        inner, object_identifier = _first_object(outer.value)
        if outer.tag != _SEQUENCE:
            raise CertificateError("A certificate file does not begin with a SEQUENCE.")
        if inner.tag != _OBJECT_IDENTIFIER:
            return whole
        return _first_object(outer.value[len(object_identifier) :])[1]
    except ProtocolViolation as error:
        raise CertificateError(f"A certificate file is broken: {error.message}") from error


def wrap(der: bytes, form: StorageForm) -> bytes:
    """What an EF holds for a certificate: the way back from :func:`unwrap`."""
    match form:
        case StorageForm.BARE:
            return der
        case StorageForm.CONTAINER:
            return tlv.Tlv(_SEQUENCE, tlv.Tlv(_OBJECT_IDENTIFIER, _USER_CERTIFICATE).encode() + der).encode()
        case _:
            assert_never(form)


def form_of(content: bytes) -> StorageForm:
    """The form of what :func:`unwrap` found a certificate in."""
    inner = content[tlv.decode_header(content).size :]
    return StorageForm.CONTAINER if inner[0] == _OBJECT_IDENTIFIER else StorageForm.BARE


def _first_object(content: bytes) -> tuple[tlv.Tlv, bytes]:
    """The data object that ``content`` begins with, and its bytes; what follows it is padding."""
    header = tlv.decode_header(content)
    total = header.size + header.length
    whole = content[:total]
    if len(whole) < total:
        raise CertificateError(f"A certificate file ends after {len(whole)} of {total} bytes.")
    return tlv.Tlv(header.tag, whole[header.size :]), whole


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
    parts = _read_public_key(card, key, deadline)
    looks = {file_id: _look(card, key, file_id, deadline) for file_id in key.certificate_files}
    teller = None if parts is not None else _teller(card, key, looks)
    problems: list[CertificateError] = []
    found: list[x509.Certificate] = []
    for file_id, look in looks.items():
        if isinstance(look, CertificateError):
            problems.append(look)
        elif look is not None and _is_of(look, parts, teller):
            found.append(look)
        elif look is not None:
            problems.append(_stranger(key, file_id) if teller is None else _disagreeing(key, file_id, teller))
    if not found:
        _warn_of(problems[1:])
        raise problems[0] if problems else KeyNotFound(f"The card holds no certificate for the {key.label}.")
    _warn_of(problems)
    return KeyCertificate(found[0], paired=parts is not None, further=tuple(found[1:]))


class _Teller(NamedTuple):
    """The certificate that tells a key's public half where there is no EF.PK, and its file."""

    file_id: int
    public_key: CertificatePublicKeyTypes


def _teller(
    card: TcosCard, key: KeySlot, looks: Mapping[int, x509.Certificate | CertificateError | None]
) -> _Teller | None:
    certificates = ((file_id, looks[file_id]) for file_id in _most_trusted_first(card, key))
    return next(
        (_Teller(file_id, each.public_key()) for file_id, each in certificates if isinstance(each, x509.Certificate)),
        None,
    )


def _most_trusted_first(card: TcosCard, key: KeySlot) -> list[int]:
    """The key's files, the card's own before the user's: anybody who has the PIN can write those."""
    users = {
        file.identifier
        for file in card.profile.certificate_files
        if file.application is key.application and file.kind is CertificateKind.USER
    }
    return sorted(key.certificate_files, key=users.__contains__)


def _is_of(certificate: x509.Certificate, parts: PublicKeyParts | None, teller: _Teller | None) -> bool:
    if parts is not None:
        return _numbers(certificate) == parts
    return teller is not None and certificate.public_key() == teller.public_key


def read_public_key(card: TcosCard, key: KeySlot, *, deadline: Deadline) -> CertificatePublicKeyTypes | None:
    """The public half of a key; inside a transaction. None if nothing on the card tells it.

    It is in EF.PK; where the card has no EF.PK, in the first of the key's certificates that is none of the broken,
    the card's own before those that the user wrote.
    Errors: :class:`~demail_hw.errors.CertificateError` if EF.PK is broken.
    """
    parts = _read_public_key(card, key, deadline)
    if parts is not None:
        return _rsa_key(parts, key)
    for file_id in _most_trusted_first(card, key):
        look = _look(card, key, file_id, deadline)
        if isinstance(look, x509.Certificate):
            return look.public_key()
    return None


def _look(
    card: TcosCard, key: KeySlot, file_id: int, deadline: Deadline
) -> x509.Certificate | CertificateError | None:
    try:
        return _read_certificate(card, key.application, file_id, deadline)
    except CertificateError as error:
        return error


def _rsa_key(parts: PublicKeyParts, key: KeySlot) -> rsa.RSAPublicKey:
    try:
        return rsa.RSAPublicNumbers(parts.exponent, parts.modulus).public_key()
    except ValueError as error:
        raise CertificateError(f"What the card holds as public half of the {key.label} is no RSA key.") from error


def _stranger(key: KeySlot, file_id: int) -> CertificateError:
    return CertificateError(
        f"The certificate of the {key.label} in {file_id:04X} belongs to another key.",
        remedy="Write the certificate that was issued for this card's key.",
    )


def _disagreeing(key: KeySlot, file_id: int, teller: _Teller) -> CertificateError:
    return CertificateError(
        f"The certificates of the {key.label} in {file_id:04X} and {teller.file_id:04X} have different public keys; "
        f"that in {teller.file_id:04X} counts.",
        remedy="Erase the one that is not for this card's key (certs list shows both).",
    )


def _warn_of(problems: Sequence[CertificateError]) -> None:
    for problem in problems:
        _LOG.warning("%s", problem)


def _read_public_key(card: TcosCard, key: KeySlot, deadline: Deadline) -> PublicKeyParts | None:
    file = key.public_key_file
    if file is None:
        return None
    try:
        return card.read_public_key(key.application, file, deadline=deadline)
    except FileNotFound:
        return None
    except CardError as error:
        raise CertificateError(f"EF {file.identifier:04X}: {error.message}") from error


def _read_certificate(
    card: TcosCard, application: Application, file_id: int, deadline: Deadline
) -> x509.Certificate | None:
    try:
        der = unwrap(card.read_file(application, file_id, deadline=deadline))
    except FileNotFound:
        return None
    except (CardError, CertificateError) as error:
        raise CertificateError(f"EF {file_id:04X}: {error.message}") from error
    if der is None:
        return None
    try:
        return decode_certificate(der)
    except CertificateError as error:
        raise CertificateError(f"The certificate in EF {file_id:04X} is broken.") from error


def decode_certificate(der: bytes) -> x509.Certificate:
    """A certificate with names and a public key that can be used.

    Errors: :class:`~demail_hw.errors.CertificateError`.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These are decoded when they are asked for: now, so that what is broken in them is found here.
        certificate.public_key(), certificate.subject, certificate.issuer
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError("This is no certificate that can be used.") from error
    return certificate


def _numbers(certificate: x509.Certificate) -> PublicKeyParts | None:
    public_key = certificate.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        return None
    numbers = public_key.public_numbers()
    return PublicKeyParts(numbers.n, numbers.e)


def read_issuers(card: TcosCard, *, deadline: Deadline) -> tuple[x509.Certificate, ...]:
    """The issuers' certificates that the card holds; inside a transaction. Unusable ones are logged and left out."""
    return tuple(_issuers(card, deadline))


def _issuers(card: TcosCard, deadline: Deadline) -> Iterator[x509.Certificate]:
    for application, file_id in card.profile.chain_files:
        try:
            certificate = _read_certificate(card, application, file_id, deadline)
        except CertificateError as error:
            _warn_of((error,))
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


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
