"""The private RSA operation without padding (RFC 8017, 5.1.2 and 5.2.1), at OpenSSL's speed.

A card raises any block to its private exponent. cryptography signs only blocks of the form
``00 01 FF..FF 00 || data``, and ``pow`` is twenty times slower than OpenSSL. So each prime ``p`` of the key gets
a signing key of its own, whose modulus is ``p`` times a known prime ``c``: it is more than eleven bytes longer
than ``p``, so the data can be chosen such that the padded block is congruent to any ``x`` modulo ``p``, and its
signature is ``x ** d`` modulo ``p``. The Chinese remainder theorem joins the two halves.
"""

import math
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

__all__ = ["RawRsa", "modulus_length"]

PADDING_OVERHEAD: Final = 11
"""What PKCS #1 v1.5 needs beside the data, in bytes (RFC 8017, 9.2)."""

_COFACTOR: Final = 2**127 - 1
_SMALLEST_PADDING: Final = b"\x00\x01" + b"\xff" * (PADDING_OVERHEAD - 3) + b"\x00"


def modulus_length(key: rsa.RSAPrivateKey | rsa.RSAPublicKey) -> int:
    """The length of the modulus, and so of every block, in bytes (k of RFC 8017)."""
    return (key.key_size + 7) // 8


class RawRsa:
    """One private key. ``ValueError`` if its public exponent is not coprime to the helper prime (65537 is)."""

    __slots__ = ("_coefficient", "_key", "_length", "_modulus", "_p", "_power_p", "_power_q", "_q")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        numbers = key.private_numbers()
        exponent = numbers.public_numbers.e
        self._key = key
        self._length = modulus_length(key)
        self._modulus = numbers.public_numbers.n
        self._p, self._q, self._coefficient = numbers.p, numbers.q, numbers.iqmp
        self._power_p = _PrimePower(numbers.p, exponent)
        self._power_q = _PrimePower(numbers.q, exponent)

    def apply(self, block: bytes) -> bytes:
        """``block ** d`` modulo n. ``ValueError`` if the block's length or its number is not one of this modulus."""
        if len(block) != self._length:
            raise ValueError(f"a block of {len(block)} bytes for a modulus of {self._length}")
        if data := _signature_data(block):
            return self.sign(data)
        number = int.from_bytes(block, "big")
        if number >= self._modulus:
            raise ValueError("the block is not smaller than the modulus")
        return self._apply(number).to_bytes(self._length, "big")

    def sign(self, data: bytes) -> bytes:
        """Data of at most k - 11 bytes, padded by PKCS #1 v1.5, type 1, and raised to the private exponent."""
        return self._key.sign(data, padding.PKCS1v15(), utils.NoDigestInfo())

    def _apply(self, number: int) -> int:
        by_p = self._power_p.apply(number)
        by_q = self._power_q.apply(number)
        return by_q + self._q * ((by_p - by_q) * self._coefficient % self._p)


class _PrimePower:
    """``x ** d`` modulo one prime, where d is the inverse of the public exponent."""

    __slots__ = ("_key", "_length", "_padding", "_prime")

    def __init__(self, prime: int, exponent: int) -> None:
        modulus = prime * _COFACTOR
        numbers = rsa.RSAPrivateNumbers(
            p=prime,
            q=_COFACTOR,
            d=pow(exponent, -1, math.lcm(prime - 1, _COFACTOR - 1)),
            dmp1=pow(exponent, -1, prime - 1),
            dmq1=pow(exponent, -1, _COFACTOR - 1),
            iqmp=pow(_COFACTOR, -1, prime),
            public_numbers=rsa.RSAPublicNumbers(exponent, modulus),
        )
        # Both factors are known primes; testing them again takes longer than everything else here.
        self._key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
        self._prime = prime
        self._length = modulus_length(self._key) - PADDING_OVERHEAD
        self._padding = int.from_bytes(_SMALLEST_PADDING, "big") << (8 * self._length)

    def apply(self, number: int) -> int:
        data = ((number - self._padding) % self._prime).to_bytes(self._length, "big")
        signature = self._key.sign(data, padding.PKCS1v15(), utils.NoDigestInfo())
        return int.from_bytes(signature, "big") % self._prime


def _signature_data(block: bytes) -> bytes:
    """What a block of PKCS #1 v1.5, type 1, holds; empty for any other block."""
    if not block.startswith(_SMALLEST_PADDING[:-1]):
        return b""
    body = block[2:].lstrip(b"\xff")
    return body[1:] if body.startswith(b"\x00") else b""
