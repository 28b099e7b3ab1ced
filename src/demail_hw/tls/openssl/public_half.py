"""The public half of a key in OpenSSL's words (EVP_PKEY-RSA(7), EVP_PKEY-EC(7))."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.tls.openssl.params import ParamValue
from demail_hw.tls.openssl.structures import ParamType

__all__ = ["EXPORT_TYPES", "PARAM_TYPES", "PublicHalf"]

PARAM_TYPES: Final[Mapping[bytes, ParamType]] = {
    b"bits": ParamType.INTEGER,
    b"security-bits": ParamType.INTEGER,
    b"max-size": ParamType.INTEGER,
    b"default-digest": ParamType.UTF8_STRING,
    b"n": ParamType.UNSIGNED_INTEGER,
    b"e": ParamType.UNSIGNED_INTEGER,
    b"group": ParamType.UTF8_STRING,
    b"pub": ParamType.OCTET_STRING,
    b"encoded-pub-key": ParamType.OCTET_STRING,
    b"point-format": ParamType.UTF8_STRING,
    b"encoding": ParamType.UTF8_STRING,
}
"""What can be asked of a key; which of it there is depends on its kind."""

EXPORT_TYPES: Final[Mapping[bytes, ParamType]] = {name: PARAM_TYPES[name] for name in (b"n", b"e", b"group", b"pub")}

_GROUPS: Final[Mapping[str, str]] = {"secp256r1": "prime256v1", "secp384r1": "secp384r1", "secp521r1": "secp521r1"}
_RSA_STRENGTH: Final = ((15360, 256), (7680, 192), (3072, 128), (2048, 112), (1024, 80), (0, 0))
"""Modulus and security bits (NIST SP 800-57 part 1, table 2)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PublicHalf:
    """``algorithm``: OpenSSL's name of the kind of key. ``max_size``: bytes of its longest signature.

    ``exported``: the public key itself. ``answers``: everything that can be asked of it.
    """

    algorithm: bytes
    max_size: int
    exported: Mapping[bytes, ParamValue]
    answers: Mapping[bytes, ParamValue]

    @classmethod
    def describe(cls, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> "PublicHalf":
        """The description of a key.

        Errors: :class:`~demail_hw.errors.AlgorithmNotSupported` for a curve that TLS 1.3 has no scheme for.
        """
        return _describe_rsa(key) if isinstance(key, rsa.RSAPublicKey) else _describe_ec(key)


def _describe_rsa(key: rsa.RSAPublicKey) -> PublicHalf:
    numbers, bits = key.public_numbers(), key.key_size
    strength = next(strength for least, strength in _RSA_STRENGTH if bits >= least)
    size = (bits + 7) // 8
    return _public_half(b"RSA", bits, strength, size, {b"n": numbers.n, b"e": numbers.e}, {})


def _describe_ec(key: ec.EllipticCurvePublicKey) -> PublicHalf:
    group, bits = _GROUPS.get(key.curve.name), key.curve.key_size
    if group is None:
        raise AlgorithmNotSupported(f"TLS does not take a key on the curve {key.curve.name}.", layer=Layer.TLS)
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    extra: dict[bytes, ParamValue] = {
        b"encoded-pub-key": point,
        b"point-format": "uncompressed",
        b"encoding": "named_curve",
    }
    return _public_half(b"EC", bits, bits // 2, _longest_ecdsa(bits), {b"group": group, b"pub": point}, extra)


def _longest_ecdsa(order_bits: int) -> int:
    """Bytes of the longest Ecdsa-Sig-Value (RFC 3279, 2.2.3): a SEQUENCE of two INTEGERs below the order."""
    header, long_header, short_form_max = 2, 3, 127
    content = 2 * (header + order_bits // 8 + 1)
    return content + (header if content <= short_form_max else long_header)


def _public_half(
    algorithm: bytes,
    bits: int,
    strength: int,
    max_size: int,
    exported: Mapping[bytes, ParamValue],
    extra: Mapping[bytes, ParamValue],
) -> PublicHalf:
    answers: dict[bytes, ParamValue] = {
        b"bits": bits,
        b"security-bits": strength,
        b"max-size": max_size,
        b"default-digest": "SHA256",
    }
    return PublicHalf(algorithm, max_size, exported, {**answers, **exported, **extra})
