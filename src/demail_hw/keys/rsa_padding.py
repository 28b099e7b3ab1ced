"""RSA encodings that the host does for a key whose card knows only the raw operation (RFC 8017).

The decoders take the same time and the same way for every block, as far as Python allows: they look at all bytes,
branch only on the verdict at the end, and say nothing but yes or no. (Python's integers are not constant-time
hardware: an attacker who measures nanoseconds in this process is outside what these decoders promise.)
"""

import hmac
import os
from typing import Final

from demail_hw.errors import DecryptionFailed
from demail_hw.keys.algorithms import Hash

__all__ = ["oaep_decode", "pkcs1_type1_encode", "pkcs1_type2_decode", "pss_encode"]

_SHORTEST_PADDING: Final = 8
_PSS_TRAILER: Final = b"\xbc"


def pkcs1_type1_encode(digest_info: bytes, length: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017, 9.2): ``00 01 FF.. 00 DigestInfo``, ``length`` bytes."""
    fill = length - len(digest_info) - 3
    if fill < _SHORTEST_PADDING:
        raise ValueError("the key is too short for this digest")
    return b"".join((b"\x00\x01", b"\xff" * fill, b"\x00", digest_info))


def pss_encode(digest: bytes, used: Hash, mgf_hash: Hash, salt_length: int, modulus_bits: int) -> bytes:
    """EMSA-PSS (RFC 8017, 9.1.1) for emBits = modulus_bits - 1, padded on the left to the modulus' length."""
    em_bits = modulus_bits - 1
    em_length = (em_bits + 7) // 8
    salt = os.urandom(salt_length)
    hashed = used.new(bytes(8) + digest + salt).digest()
    data_block = bytes(em_length - salt_length - used.size - 2) + b"\x01" + salt
    masked = _xor(data_block, _mgf1(hashed, len(data_block), mgf_hash))
    unused_bits = 8 * em_length - em_bits
    first = masked[0] & (0xFF >> unused_bits)
    encoded = bytes((first,)) + masked[1:] + hashed + _PSS_TRAILER
    return encoded.rjust((modulus_bits + 7) // 8, b"\0")


def pkcs1_type2_decode(block: bytes) -> bytes:
    """EME-PKCS1-v1_5 (RFC 8017, 7.2.2): the message in ``00 02 PS 00 M``.

    Errors: :class:`~demail_hw.errors.DecryptionFailed`, always the same.
    """
    bad = block[0] | (block[1] ^ 0x02)
    searching, start = 1, 0
    for index in range(2, len(block)):
        is_zero = ((block[index] - 1) >> 8) & 1
        start |= index & -(searching & is_zero)
        searching &= ~is_zero & 1
    too_short = ((start - (_SHORTEST_PADDING + 2)) >> 31) & 1
    if bad | searching | too_short:
        raise _failed()
    return block[start + 1 :]


def oaep_decode(block: bytes, used: Hash, mgf_hash: Hash, label: bytes) -> bytes:
    """EME-OAEP (RFC 8017, 7.1.2). Errors: :class:`~demail_hw.errors.DecryptionFailed`, always the same."""
    size = used.size
    if len(block) < 2 * size + 2:
        raise _failed()
    masked_seed, masked_block = block[1 : 1 + size], block[1 + size :]
    seed = _xor(masked_seed, _mgf1(masked_block, size, mgf_hash))
    data_block = _xor(masked_block, _mgf1(seed, len(masked_block), mgf_hash))
    label_hash = used.new(label).digest()
    bad = block[0] | (not hmac.compare_digest(label_hash, data_block[:size]))
    searching, start = 1, 0
    for index in range(size, len(data_block)):
        octet = data_block[index]
        is_one = (((octet ^ 1) - 1) >> 8) & 1
        is_zero = ((octet - 1) >> 8) & 1
        start |= index & -(searching & is_one)
        bad |= searching & ~(is_one | is_zero) & 1
        searching &= is_zero
    if bad | searching:
        raise _failed()
    return data_block[start + 1 :]


def _failed() -> DecryptionFailed:
    return DecryptionFailed("Decryption failed.")


def _mgf1(seed: bytes, length: int, used: Hash) -> bytes:
    """MGF1 (RFC 8017, B.2.1)."""
    rounds = -(-length // used.size)
    blocks = [used.new(seed + counter.to_bytes(4, "big")).digest() for counter in range(rounds)]
    return b"".join(blocks)[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
