"""What every key that never leaves its card has in common, whatever its algorithm."""

from typing import Final, NoReturn, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import utils

from demail_hw.errors import SignatureInvalid

__all__ = ["PREHASHED", "CardBound", "signature_invalid"]

PREHASHED: Final = {
    "sha256": utils.Prehashed(hashes.SHA256()),
    "sha384": utils.Prehashed(hashes.SHA384()),
    "sha512": utils.Prehashed(hashes.SHA512()),
}
"""The hashes of signatures, for verifying a digest that was made here."""


class CardBound:
    """Not serialisable: the methods that would show the key raise ``NotImplementedError``, as cryptography's
    documentation of HSM keys says. A copy is the key itself."""

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


def signature_invalid() -> SignatureInvalid:
    """The error for a signature that is thrown away."""
    return SignatureInvalid("The card returned a signature that does not verify with its certificate's public key.")
