"""What a key provider hands out: a key, the certificate that belongs to it, and its chain."""

import dataclasses
import enum
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["Identity", "KeyRole", "PrivateKey"]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
"""The two abstract classes of cryptography that a card's key is a real subclass of."""


class KeyRole(enum.Enum):
    """What a key is for; a De-Mail card has one of each."""

    SIGNATURE = "signature"
    ENCRYPTION = "encryption"
    AUTHENTICATION = "authentication"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"there is no key role {value!r}; there are: {', '.join(role.value for role in cls)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A private key with its certificate.

    ``chain``: the issuers above ``certificate`` as far as they are known, nearest first, root included
    if it is there. ``label``: what the card calls the key, for people. ``further_certificates``: others of the same
    key, such as the card's own beside one that was imported; what is encrypted for them the key decrypts too.
    """

    role: KeyRole
    label: str
    private_key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    further_certificates: tuple[x509.Certificate, ...] = ()
    _told: list[str] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)
    """The warnings that there were of its certificate (:func:`~demail_hw.keys.validity.warn_once`)."""
