"""What every key that never leaves its card has in common, whatever its algorithm."""

from typing import Final, NoReturn, Protocol, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import utils

from demail_hw.errors import SignatureInvalid

__all__ = ["PREHASHED", "CardBound", "CardOperations"]

PREHASHED: Final = {
    "sha256": utils.Prehashed(hashes.SHA256()),
    "sha384": utils.Prehashed(hashes.SHA384()),
    "sha512": utils.Prehashed(hashes.SHA512()),
}
"""The hashes of signatures, for verifying a digest that was made here."""

_PERHAPS_THE_CERTIFICATE: Final = (
    "Check that the certificate on the card was issued for this very key, for this card has no public key to compare "
    "it with. If it was, take the card out of service: it, its reader or the way to it is broken."
)


class CardOperations(Protocol):
    """What every key on a card can do; the host does the rest."""

    def compute_digital_signature(self, data: bytes) -> bytes:
        """An RSA key pads a DigestInfo and signs it. An EC key signs a digest that is not longer than the order of
        its curve: r and s, each as long as the order."""
        ...

    def suspect(self) -> None:
        """What the card answered is wrong: it is looked at again before it is used again."""
        ...


class CardBound:
    """Not serialisable: the methods that would show the key raise ``NotImplementedError``, as cryptography's
    documentation of HSM keys says. A copy is the key itself.

    ``paired``: whether the card itself says that the public key is this key's.
    """

    def __init__(self, operations: CardOperations, *, paired: bool) -> None:
        self._card = operations
        self._paired = paired

    def _reject(self, complaint: str) -> SignatureInvalid:
        """The error for a signature that is thrown away; the certificate may be to blame where nothing proved it."""
        self._card.suspect()
        return SignatureInvalid(complaint, remedy=None if self._paired else _PERHAPS_THE_CERTIFICATE)

    def _reject_unverified(self) -> SignatureInvalid:
        return self._reject("The card returned a signature that does not verify with its certificate's public key.")

    def private_numbers(self) -> NoReturn:
        """Never: the key does not leave the card."""
        raise NotImplementedError("the private numbers do not leave the card")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002  the name in cryptography's abstract classes
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Never: the key does not leave the card."""
        raise NotImplementedError("the private key does not leave the card")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a card's key is not pickled")
