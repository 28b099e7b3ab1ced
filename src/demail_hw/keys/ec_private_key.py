"""A card's EC key as a real ``cryptography`` private key: it can be used wherever one is taken."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils

from demail_hw.errors import AlgorithmNotSupported
from demail_hw.interfaces import Buffer
from demail_hw.keys.algorithms import Hash, digest_of
from demail_hw.keys.card_bound import PREHASHED, CardBound, CardOperations

__all__ = ["CardEcPrivateKey", "der_signature"]

_ECDSA: Final[Mapping[str, ec.ECDSA]] = MappingProxyType(
    {name: ec.ECDSA(prehashed) for name, prehashed in PREHASHED.items()}
)


class CardEcPrivateKey(CardBound, ec.EllipticCurvePrivateKey):
    """An EC key that never leaves its card.

    Every signature is verified with the public key before it is returned.
    """

    def __init__(
        self, public_key: ec.EllipticCurvePublicKey, operations: CardOperations, *, paired: bool = True
    ) -> None:
        super().__init__(operations, paired=paired)
        self._public_key = public_key
        self._operations = operations
        self._length = (public_key.key_size + 7) // 8

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign with the card (FIPS 186-5, 6.4.1): an Ecdsa-Sig-Value in DER (RFC 3279, 2.2.3).

        Errors: :class:`~demail_hw.errors.AlgorithmNotSupported` for what the key cannot do, nothing was sent;
        :class:`~demail_hw.errors.SignatureInvalid` if the card returned a wrong signature; any other
        :class:`~demail_hw.errors.HardwareError` of the way to the card.
        """
        used, digest = _digest(data, signature_algorithm)
        # The order's length is all of a digest that ECDSA looks at, and the most that a card may take.
        plain = self._operations.compute_digital_signature(digest[: self._length])
        if len(plain) != 2 * self._length:
            raise self._reject(
                f"The card returned a signature of {len(plain)} bytes instead of {2 * self._length}: it is not r and "
                f"s of a key on {self.curve.name}."
            )
        signature = der_signature(plain)
        self._verify(signature, digest, used)
        return signature

    def _verify(self, signature: bytes, digest: bytes, used: Hash) -> None:
        """Of r and s as well, which have to lie between 0 and the order (FIPS 186-5, 6.4.2)."""
        try:
            self._public_key.verify(signature, digest, _ECDSA[used.name])
        except InvalidSignature:
            raise self._reject_unverified() from None

    def exchange(
        self,
        algorithm: ec.ECDH,  # noqa: ARG002  the parameters of cryptography's abstract class
        peer_public_key: ec.EllipticCurvePublicKey,  # noqa: ARG002
    ) -> NoReturn:
        """Never: how these cards do it is not public.

        Errors: :class:`~demail_hw.errors.AlgorithmNotSupported`.
        """
        raise AlgorithmNotSupported(
            "This EC key signs only: key agreement with its card is not known.",
            remedy="Have messages encrypted for a card with an RSA key.",
        )

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve that the key is on."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """The order's length in bits."""
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    def __repr__(self) -> str:
        return f"<CardEcPrivateKey {self.curve.name}>"


def _digest(data: Buffer, algorithm: ec.EllipticCurveSignatureAlgorithm) -> tuple[Hash, bytes]:
    if not isinstance(algorithm, ec.ECDSA):
        raise TypeError("signature_algorithm must be ECDSA")
    if algorithm.deterministic_signing:
        raise AlgorithmNotSupported(
            "The card takes a random number for each signature; it signs ECDSA in no other way."
        )
    return digest_of(data, algorithm.algorithm)


def der_signature(plain: bytes) -> bytes:
    """The Ecdsa-Sig-Value (RFC 3279, 2.2.3) of the plain form, r and s of equal length (BSI TR-03111, 5.2.1)."""
    half = len(plain) // 2
    return utils.encode_dss_signature(int.from_bytes(plain[:half], "big"), int.from_bytes(plain[half:], "big"))
