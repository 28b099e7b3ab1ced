"""A card's RSA key as a real ``cryptography`` private key: it can be used wherever one is taken."""

from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric import rsa, utils

from demail_hw.errors import AlgorithmNotSupported, Layer, ProtocolViolation
from demail_hw.keys import rsa_padding
from demail_hw.keys.algorithms import HASHES, SIGNATURE_HASHES, Hash, digest_of, hash_named, pss_salt_length
from demail_hw.keys.card_bound import PREHASHED, CardBound, CardOperations

__all__ = ["CardRsaPrivateKey", "RsaOperations"]


class RsaOperations(CardOperations, Protocol):
    """What an RSA key on a card can do besides."""

    @property
    def raw(self) -> bool:
        """True if the card gives the raw RSA operation, False if it signs a DigestInfo only."""
        ...

    @property
    def decrypts(self) -> bool:
        """True if the key is meant for decryption."""
        ...

    def raw_rsa(self, block: bytes) -> bytes:
        """The raw private operation on a block of the modulus' length, for a signature."""
        ...

    def decipher(self, block: bytes) -> bytes:
        """The same, to decrypt."""
        ...


class CardRsaPrivateKey(CardBound, rsa.RSAPrivateKey):
    """An RSA key that never leaves its card.

    Every signature is verified with the public key before it is returned.
    """

    def __init__(self, public_key: rsa.RSAPublicKey, operations: RsaOperations, *, paired: bool = True) -> None:
        super().__init__(operations, paired=paired)
        self._public_key = public_key
        self._operations = operations
        self._length = (public_key.key_size + 7) // 8

    def supports(self, padding: paddings.AsymmetricPadding, algorithm: hashes.HashAlgorithm) -> bool:
        """Whether :meth:`sign` can do this combination."""
        if algorithm.name not in SIGNATURE_HASHES:
            return False
        if isinstance(padding, paddings.PKCS1v15):
            return True
        return isinstance(padding, paddings.PSS) and self._operations.raw and self._fits(padding, algorithm)

    def _fits(self, padding: paddings.PSS, algorithm: hashes.HashAlgorithm) -> bool:
        try:
            pss_salt_length(padding, HASHES[algorithm.name], self.key_size)
        except ValueError:
            return False
        return True

    def sign(
        self,
        data: bytes,
        padding: paddings.AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        """Sign with the card (RFC 8017, 8.1.1 and 8.2.1).

        Errors: :class:`~demail_hw.errors.AlgorithmNotSupported` for what the key cannot do, nothing was sent;
        :class:`~demail_hw.errors.SignatureInvalid` if the card returned a wrong signature; any other
        :class:`~demail_hw.errors.HardwareError` of the way to the card.
        """
        if isinstance(algorithm, utils.NoDigestInfo):
            raise AlgorithmNotSupported(
                "Card keys do not sign bare data.", remedy="Sign with SHA-256, SHA-384 or SHA-512."
            )
        used, digest = digest_of(data, algorithm)
        if isinstance(padding, paddings.PKCS1v15):
            signature = self._sign_pkcs1(used, digest)
        elif isinstance(padding, paddings.PSS):
            signature = self._sign_pss(used, digest, padding)
        else:
            raise TypeError("padding must be PKCS1v15 or PSS")
        self._verify(signature, digest, padding, used)
        return signature

    def _sign_pkcs1(self, used: Hash, digest: bytes) -> bytes:
        digest_info = used.digest_info + digest
        if self._operations.raw:
            return self._operations.raw_rsa(rsa_padding.pkcs1_type1_encode(digest_info, self._length))
        return self._operations.compute_digital_signature(digest_info)

    def _sign_pss(self, used: Hash, digest: bytes, padding: paddings.PSS) -> bytes:
        if not self._operations.raw:
            raise AlgorithmNotSupported(
                "This key signs with PKCS#1 v1.5 only: its card pads by itself and cannot do PSS.",
                remedy="Use PKCS1v15(), or the authentication key, which can do PSS.",
            )
        mgf_hash = hash_named(padding.mgf._algorithm.name)  # noqa: SLF001  cryptography offers no public way to it
        salt_length = pss_salt_length(padding, used, self._public_key.key_size)
        block = rsa_padding.pss_encode(digest, used, mgf_hash, salt_length, self._public_key.key_size)
        return self._operations.raw_rsa(block)

    def _verify(self, signature: bytes, digest: bytes, padding: paddings.AsymmetricPadding, used: Hash) -> None:
        try:
            self._public_key.verify(signature, digest, padding, PREHASHED[used.name])
        except InvalidSignature:
            raise self._reject_unverified() from None

    def decrypt(self, ciphertext: bytes, padding: paddings.AsymmetricPadding) -> bytes:
        """Decrypt with the card (RFC 8017, 7.1.2 and 7.2.2); the host removes the padding.

        Errors: ``ValueError`` for a ciphertext of the wrong length; :class:`~demail_hw.errors.DecryptionFailed`
        (a ``ValueError`` too) if the padding is wrong; :class:`~demail_hw.errors.AlgorithmNotSupported`.
        """
        if not self._operations.decrypts:
            raise AlgorithmNotSupported("This key does not decrypt.", remedy="Use the encryption key.")
        unpad = _unpadder(padding)
        if len(ciphertext) != self._length:
            raise ValueError("Ciphertext length must be equal to key size.")
        if int.from_bytes(ciphertext, "big") >= self._public_key.public_numbers().n:
            raise ValueError("The ciphertext is not smaller than the key's modulus.")
        block = self._operations.decipher(bytes(ciphertext))
        if len(block) != self._length:
            self._operations.suspect()
            raise ProtocolViolation(
                f"The card returned {len(block)} bytes where its key has {self._length}.", layer=Layer.CARD
            )
        return unpad(block)

    @property
    def key_size(self) -> int:
        """The modulus' length in bits."""
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half."""
        return self._public_key

    def __repr__(self) -> str:
        return f"<CardRsaPrivateKey {self.key_size} bits>"


def _unpadder(padding: paddings.AsymmetricPadding) -> Callable[[bytes], bytes]:
    if isinstance(padding, paddings.PKCS1v15):
        return rsa_padding.pkcs1_type2_decode
    if isinstance(padding, paddings.OAEP):
        used = hash_named(padding.algorithm.name)
        mgf_hash = hash_named(padding.mgf._algorithm.name)  # noqa: SLF001  as above
        label = padding._label or b""  # noqa: SLF001  as above
        return lambda block: rsa_padding.oaep_decode(block, used, mgf_hash, label)
    raise AlgorithmNotSupported("Card keys decrypt PKCS#1 v1.5 and OAEP only.")
