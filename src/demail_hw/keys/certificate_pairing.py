"""Which certificates are a key's own: found by their public key among what the card holds for it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import CertificateError
from demail_hw.tcos.layout import CertificateKind, KeySlot, Profile
from demail_hw.tcos.public_key_file import PublicKeyParts

__all__ = ["KeyFiles", "Look", "Teller", "most_trusted_first"]

Look: TypeAlias = x509.Certificate | CertificateError | None
"""What is in a certificate file: a certificate, why there is none to use, or nothing."""


class Teller(NamedTuple):
    """The certificate that tells a key's public half where there is no EF.PK, and its file."""

    file_id: int
    public_key: CertificatePublicKeyTypes


@dataclasses.dataclass(frozen=True, slots=True)
class KeyFiles:
    """What a card holds for a key.

    ``parts``: of its EF.PK, None where the card has none. ``looks``: by file identifier, in the order in which its
    certificates are taken. ``trusted``: the same files in the order in which they are believed.
    """

    key: KeySlot
    parts: PublicKeyParts | None
    looks: Mapping[int, Look]
    trusted: tuple[int, ...]

    def holding(self, file_id: int, look: Look) -> "KeyFiles":
        """The same with something else in one of the certificate files."""
        return dataclasses.replace(self, looks={**self.looks, file_id: look})

    @property
    def teller(self) -> Teller | None:
        """None where EF.PK tells the public half, or nothing does."""
        if self.parts is not None:
            return None
        looks = ((file_id, self.looks.get(file_id)) for file_id in self.trusted)
        return next(
            (Teller(file_id, look.public_key()) for file_id, look in looks if isinstance(look, x509.Certificate)),
            None,
        )

    @property
    def public_key(self) -> CertificatePublicKeyTypes | None:
        """The public half, None if nothing tells it.

        Errors: :class:`~demail_hw.errors.CertificateError` if what EF.PK holds is no key.
        """
        if self.parts is not None:
            return _rsa_key(self.parts, self.key)
        return self.teller.public_key if self.teller else None

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Those that have the key's public half; the key is used with the first."""
        return tuple(certificate for _, certificate in self._own())

    @property
    def used(self) -> int | None:
        """The file of the certificate that the key is used with."""
        return next((file_id for file_id, _ in self._own()), None)

    def _own(self) -> Iterator[tuple[int, x509.Certificate]]:
        teller = self.teller
        for file_id, look in self.looks.items():
            if isinstance(look, x509.Certificate) and _is_of(look, self.parts, teller):
                yield file_id, look

    def problems(self) -> Iterator[CertificateError]:
        """Why the other files do not count."""
        teller = self.teller
        for file_id, look in self.looks.items():
            if isinstance(look, CertificateError):
                yield look
            elif look is not None and not _is_of(look, self.parts, teller):
                yield _stranger(self.key, file_id) if teller is None else _disagreeing(self.key, file_id, teller)


def most_trusted_first(profile: Profile, key: KeySlot) -> tuple[int, ...]:
    """The key's certificate files, the card's own before the user's: anybody who has the PIN can write those."""
    users = {
        file.identifier
        for file in profile.certificate_files
        if file.application is key.application and file.kind is CertificateKind.USER
    }
    return tuple(sorted(key.certificate_files, key=users.__contains__))


def _is_of(certificate: x509.Certificate, parts: PublicKeyParts | None, teller: Teller | None) -> bool:
    if parts is not None:
        return _numbers(certificate) == parts
    return teller is not None and certificate.public_key() == teller.public_key


def _numbers(certificate: x509.Certificate) -> PublicKeyParts | None:
    public_key = certificate.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        return None
    numbers = public_key.public_numbers()
    return PublicKeyParts(numbers.n, numbers.e)


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


def _disagreeing(key: KeySlot, file_id: int, teller: Teller) -> CertificateError:
    return CertificateError(
        f"The certificates of the {key.label} in {file_id:04X} and {teller.file_id:04X} have different public keys; "
        f"that in {teller.file_id:04X} counts.",
        remedy="Erase the one that is not for this card's key (certs list shows both).",
    )
