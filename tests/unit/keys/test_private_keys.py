"""Which class a card's key becomes, and which certificates cannot be its own."""

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.errors import CertificateError
from demail_hw.keys.private_keys import CardEcPrivateKey, CardRsaPrivateKey, card_private_key
from demail_hw.tcos.layout import KeySlot
from demail_hw.tcos.profiles import NETKEY2, NETKEY3, SIGNATURE_CARD_V2

RSA = rsa.generate_private_key(65537, 2048).public_key()
P256, BRAINPOOL, P384 = (
    ec.generate_private_key(curve).public_key() for curve in (ec.SECP256R1(), ec.BrainpoolP256R1(), ec.SECP384R1())
)
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()
DSA = dsa.generate_private_key(1024).public_key()
RSA_SLOT, EC_SLOT = NETKEY3.keys[0], SIGNATURE_CARD_V2.keys[0]


class Unused:
    """Operations that nobody calls here."""

    raw = True
    decrypts = False

    def compute_digital_signature(self, data: bytes) -> bytes:
        raise NotImplementedError

    def suspect(self) -> None:
        raise NotImplementedError

    def raw_rsa(self, block: bytes) -> bytes:
        raise NotImplementedError

    def decipher(self, block: bytes) -> bytes:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("slot", "public_key", "kind"),
    [
        (RSA_SLOT, RSA, CardRsaPrivateKey),
        (NETKEY2.keys[1], RSA, CardRsaPrivateKey),
        (EC_SLOT, P256, CardEcPrivateKey),
        (EC_SLOT, BRAINPOOL, CardEcPrivateKey),
    ],
)
def test_the_class_that_fits(slot: KeySlot, public_key: CertificatePublicKeyTypes, kind: type) -> None:
    made = card_private_key(slot, public_key, Unused())
    assert type(made) is kind
    assert made.public_key() is public_key


@pytest.mark.parametrize(
    ("slot", "public_key", "complaint"),
    [
        (RSA_SLOT, P256, "an EC key on secp256r1, where the card has an RSA key"),
        (RSA_SLOT, ED25519, "a key of another kind"),
        (EC_SLOT, RSA, "an RSA key, where the card has an EC key on brainpoolP256r1 or secp256r1"),
        (EC_SLOT, P384, "an EC key on secp384r1"),
        (EC_SLOT, DSA, "a key of another kind"),
    ],
)
def test_a_certificate_that_cannot_be_the_keys(
    slot: KeySlot, public_key: CertificatePublicKeyTypes, complaint: str
) -> None:
    with pytest.raises(CertificateError, match=complaint) as caught:
        card_private_key(slot, public_key, Unused())
    assert slot.label in caught.value.message
    assert caught.value.remedy
