"""The private RSA operation without padding (RFC 8017, 5.1.2 and 5.2.1), at OpenSSL's speed.

A card raises any block to its private exponent d. libcrypto does it where it can be reached. Elsewhere cryptography
has to, which signs only blocks of the form ``00 01 FF..FF 00 || data``; ``pow`` takes ten times as long. But the data
can be chosen such that such a block is congruent to any number modulo one prime of the key, for a prime has half the
length of the modulus. So the block is signed twice, once for each prime, and the Chinese remainder theorem joins the
two halves.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from demail_hw_simulators.card.libcrypto_rsa import LibcryptoRsa

__all__ = ["PADDING_OVERHEAD", "RawRsa", "modulus_length"]

PADDING_OVERHEAD: Final = 11
"""What PKCS #1 v1.5 needs beside the data, in bytes (RFC 8017, 9.2)."""

_PADDING: Final = b"\x00\x01" + b"\xff" * (PADDING_OVERHEAD - 3)
_END_OF_PADDING: Final = b"\x00"


def modulus_length(key: rsa.RSAPrivateKey) -> int:
    """The length of the modulus, and so of every block, in bytes (k of RFC 8017)."""
    return (key.key_size + 7) // 8


def _libcrypto(key: rsa.RSAPrivateKey) -> LibcryptoRsa | None:
    try:
        return LibcryptoRsa(key)
    except (AttributeError, OSError):
        return None


class RawRsa:
    """One private key. ``use_libcrypto``: False does without, as on a Python that is linked statically."""

    __slots__ = ("_coefficient", "_key", "_length", "_libcrypto", "_modulus", "_p", "_padding", "_q")

    def __init__(self, key: rsa.RSAPrivateKey, *, use_libcrypto: bool = True) -> None:
        numbers = key.private_numbers()
        self._key = key
        self._libcrypto = _libcrypto(key) if use_libcrypto else None
        self._length = modulus_length(key)
        self._modulus = numbers.public_numbers.n
        self._p, self._q, self._coefficient = numbers.p, numbers.q, numbers.iqmp
        shortest = _PADDING + _END_OF_PADDING
        self._padding = int.from_bytes(shortest.ljust(self._length, b"\x00"), "big")

    def sign(self, data: bytes) -> bytes:
        """Data of at most k - 11 bytes, padded by PKCS #1 v1.5, type 1, and raised to the private exponent."""
        return self._key.sign(data, padding.PKCS1v15(), utils.NoDigestInfo())

    def apply(self, block: bytes) -> bytes:
        """``block ** d`` modulo n. ``ValueError`` if the block's length or its number is not one of this modulus."""
        if len(block) != self._length:
            raise ValueError(f"a block of {len(block)} bytes for a modulus of {self._length}")
        if data := _signature_data(block):
            return self.sign(data)
        number = int.from_bytes(block, "big")
        if number >= self._modulus:
            raise ValueError("the block is not smaller than the modulus")
        if self._libcrypto is not None:
            return self._libcrypto.apply(block)
        by_p = self._apply_modulo(number, self._p)
        by_q = self._apply_modulo(number, self._q)
        result = by_q + self._q * ((by_p - by_q) * self._coefficient % self._p)
        return result.to_bytes(self._length, "big")

    def _apply_modulo(self, number: int, prime: int) -> int:
        data = (number - self._padding) % prime
        signature = self.sign(data.to_bytes(self._length - PADDING_OVERHEAD, "big"))
        return int.from_bytes(signature, "big") % prime


def _signature_data(block: bytes) -> bytes:
    """What a block of PKCS #1 v1.5, type 1, holds; empty for any other block."""
    if not block.startswith(_PADDING):
        return b""
    body = block[len(_PADDING) :].lstrip(b"\xff")
    return body[1:] if body.startswith(_END_OF_PADDING) else b""
