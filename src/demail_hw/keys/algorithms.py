"""Hash algorithms as a card's key needs them: digest, and for RSA the DigestInfo in front of it (RFC 8017, 9.2)."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric import utils

from demail_hw.errors import AlgorithmNotSupported
from demail_hw.interfaces import Buffer

__all__ = ["HASHES", "SIGNATURE_HASHES", "Hash", "digest_of", "hash_named", "pss_salt_length"]


@dataclasses.dataclass(frozen=True, slots=True)
class Hash:
    """``name``: hashlib's and cryptography's. ``size``: bytes. ``digest_info``: the DER before the digest.

    ``new``: begins a hash, without looking its name up in OpenSSL each time.
    """

    name: str
    size: int
    digest_info: bytes
    new: Callable[[Buffer], "hashlib._Hash"] = dataclasses.field(repr=False, compare=False)


def _hash(name: str, size: int, digest_info: str) -> Hash:
    return Hash(name, size, bytes.fromhex(digest_info), getattr(hashlib, name))


HASHES: Final = {
    entry.name: entry
    for entry in (
        _hash("sha1", 20, "3021300906052b0e03021a05000414"),
        _hash("sha224", 28, "302d300d06096086480165030402040500041c"),
        _hash("sha256", 32, "3031300d060960864801650304020105000420"),
        _hash("sha384", 48, "3041300d060960864801650304020205000430"),
        _hash("sha512", 64, "3051300d060960864801650304020305000440"),
    )
}
SIGNATURE_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})
"""What a card signs here; SHA-1 and SHA-224 are not accepted for new signatures (BSI TR-02102-1, 4)."""


def hash_named(name: str) -> Hash:
    """The hash of this name. :class:`~demail_hw.errors.AlgorithmNotSupported` if it is not one of ours."""
    entry = HASHES.get(name)
    if entry is None:
        raise AlgorithmNotSupported(f"The hash {name} is not supported.", remedy="Use SHA-256, SHA-384 or SHA-512.")
    return entry


def digest_of(data: Buffer, algorithm: utils.Prehashed | hashes.HashAlgorithm) -> tuple[Hash, bytes]:
    """The hash to use and the digest of ``data``, which is the digest itself with ``Prehashed``.

    Errors: :class:`~demail_hw.errors.AlgorithmNotSupported`; ``ValueError`` if a prehashed digest has a wrong length.
    """
    if isinstance(algorithm, utils.Prehashed):
        inner = algorithm._algorithm  # noqa: SLF001  cryptography offers no public way to it
        used = _signature_hash(inner)
        if len(data) != used.size:
            raise ValueError("The provided data must be the same length as the hash algorithm's digest size.")
        return used, bytes(data)
    if not isinstance(algorithm, hashes.HashAlgorithm):
        raise TypeError("algorithm must be a hash algorithm or Prehashed")
    used = _signature_hash(algorithm)
    return used, used.new(data).digest()


def _signature_hash(algorithm: hashes.HashAlgorithm) -> Hash:
    if algorithm.name not in SIGNATURE_HASHES:
        raise AlgorithmNotSupported(
            f"Card keys do not sign with {algorithm.name}.", remedy="Use SHA-256, SHA-384 or SHA-512."
        )
    return HASHES[algorithm.name]


def pss_salt_length(padding: paddings.PSS, used: Hash, modulus_bits: int) -> int:
    """The salt's length in bytes (RFC 8017, 9.1.1). ``ValueError`` if it does not fit."""
    longest = (modulus_bits + 6) // 8 - used.size - 2
    wanted = padding._salt_length  # noqa: SLF001  as above
    if isinstance(wanted, int):
        length = wanted
    elif wanted is paddings.PSS.DIGEST_LENGTH:
        length = used.size
    elif wanted is paddings.PSS.AUTO:
        raise ValueError("a salt length of AUTO is for verifying")
    else:
        length = longest
    if not 0 <= length <= longest:
        raise ValueError(f"a salt of {length} bytes does not fit; at most {longest} do")
    return length
