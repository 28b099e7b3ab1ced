"""Private keys as a card keeps them: by reference, with what they may do (ISO 7816-4, 10.3)."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw_simulators.card.access import AccessRule
from demail_hw_simulators.card.raw_rsa import PADDING_OVERHEAD, RawRsa, modulus_length

__all__ = ["ALGORITHMS", "CardKey", "ControlReferenceTemplate"]


class ControlReferenceTemplate(enum.IntEnum):
    """What a key in the security environment is for (ISO 7816-4, 10.3)."""

    DIGITAL_SIGNATURE = 0xB6
    CONFIDENTIALITY = 0xB8


ALGORITHMS: Final[Mapping[ControlReferenceTemplate, frozenset[int]]] = MappingProxyType(
    {
        # 02: the card pads by PKCS #1 v1.5. 0A: plain RSA, nothing is added or taken away.
        ControlReferenceTemplate.DIGITAL_SIGNATURE: frozenset({0x02}),
        ControlReferenceTemplate.CONFIDENTIALITY: frozenset({0x0A}),
    }
)
"""The algorithm references that a NetKey 3 card accepts; they may be left out."""


class CardKey:
    """One RSA key. ``template``: what it may be set for; ``rule``: the PINs that open it."""

    __slots__ = ("_raw", "modulus_length", "public_key", "reference", "rule", "template")

    def __init__(
        self, reference: int, private_key: rsa.RSAPrivateKey, *, template: ControlReferenceTemplate, rule: AccessRule
    ) -> None:
        self.reference = reference
        self.template = template
        self.rule = rule
        self.public_key = private_key.public_key()
        self.modulus_length = modulus_length(private_key)
        self._raw = RawRsa(private_key)

    @property
    def maximum_input(self) -> int:
        """How much the card can pad, in bytes."""
        return self.modulus_length - PADDING_OVERHEAD

    def sign(self, digest_info: bytes) -> bytes:
        """A PKCS #1 v1.5 signature; what is signed is not looked at."""
        return self._raw.sign(digest_info)

    def decipher(self, block: bytes) -> bytes:
        """The plain private operation. ``ValueError`` if the block is not smaller than the modulus."""
        return self._raw.apply(block)
