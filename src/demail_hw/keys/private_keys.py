"""Which class of ``cryptography`` a card's key becomes: the one that its certificate's public key asks for."""

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import CertificateError
from demail_hw.identity import PrivateKey
from demail_hw.keys.card_bound import CardOperations
from demail_hw.keys.ec_private_key import CardEcPrivateKey
from demail_hw.keys.rsa_private_key import CardRsaPrivateKey, RsaOperations
from demail_hw.tcos.layout import KeySlot

__all__ = [
    "CardEcPrivateKey",
    "CardOperations",
    "CardRsaPrivateKey",
    "RsaOperations",
    "card_private_key",
    "check_kind",
]


def card_private_key(
    key: KeySlot, public_key: CertificatePublicKeyTypes, operations: RsaOperations, *, paired: bool = True
) -> PrivateKey:
    """The private key to a certificate's public key. ``paired``: whether the card itself says that it is the key's.

    Errors: :class:`~demail_hw.errors.CertificateError` if the card's key cannot be of this kind or on this curve.
    """
    known = check_kind(key, public_key)
    if isinstance(known, rsa.RSAPublicKey):
        return CardRsaPrivateKey(known, operations, paired=paired)
    return CardEcPrivateKey(known, operations, paired=paired)


def check_kind(key: KeySlot, public_key: CertificatePublicKeyTypes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The public key, if the card's key can be of its kind. Errors: as :func:`card_private_key`."""
    if isinstance(public_key, rsa.RSAPublicKey) and not key.curves:
        return public_key
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in key.curves:
        return public_key
    expected = f"an EC key on {' or '.join(sorted(key.curves))}" if key.curves else "an RSA key"
    raise CertificateError(
        f"The certificate of the {key.label} holds {_kind(public_key)}, where the card has {expected}.",
        remedy="Write the certificate that was issued for this card's key.",
    )


def _kind(public_key: CertificatePublicKeyTypes) -> str:
    match public_key:
        case rsa.RSAPublicKey():
            return "an RSA key"
        case ec.EllipticCurvePublicKey():
            return f"an EC key on {public_key.curve.name}"
        case _:
            return "a key of another kind"
