"""The algorithms of S/MIME as tables: object identifiers, names and what cryptography calls them.

RFC 5754 (SHA-2), RFC 3370 (RSA, Triple-DES, SHA-1 inside OAEP), RFC 3560 (OAEP), RFC 3565 (AES-CBC),
RFC 5084 (AES-GCM).
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from demail_hw.cms.ber import Element, Fields, Tag

__all__ = [
    "CONTENT_CIPHERS",
    "HASHES",
    "SIGNATURE_HASHES",
    "AlgorithmIdentifier",
    "CipherMode",
    "CipherSuite",
    "ContentType",
    "KeyTransport",
    "SignatureHash",
]


class ContentType(enum.Enum):
    """What a ContentInfo holds (RFC 5652, 4 and 14; RFC 5083, 2.1)."""

    DATA = "1.2.840.113549.1.7.1"
    SIGNED_DATA = "1.2.840.113549.1.7.2"
    ENVELOPED_DATA = "1.2.840.113549.1.7.3"
    DIGESTED_DATA = "1.2.840.113549.1.7.5"
    ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
    AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
    COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9"


class KeyTransport(enum.Enum):
    """How the content-encryption key is wrapped (RFC 3370, 4.2.1; RFC 3560, 3) and what OAEP is made of."""

    RSAES_PKCS1_V1_5 = "1.2.840.113549.1.1.1"
    RSAES_OAEP = "1.2.840.113549.1.1.7"
    MGF1 = "1.2.840.113549.1.1.8"
    P_SPECIFIED = "1.2.840.113549.1.1.9"


class CipherMode(enum.Enum):
    """How the content is encrypted: CBC in EnvelopedData, GCM in AuthEnvelopedData."""

    CBC = "CBC"
    GCM = "GCM"


class CipherSuite(NamedTuple):
    """A content-encryption algorithm. ``key_size`` in octets."""

    mode: CipherMode
    algorithm: Callable[[bytes], BlockCipherAlgorithm]
    block_size: int
    key_size: int


class SignatureHash(NamedTuple):
    """A hash for signatures: asn1crypto's name, and the word for ``micalg`` (RFC 8551, 3.5.3.2)."""

    name: str
    micalg: str


@dataclasses.dataclass(frozen=True, slots=True)
class AlgorithmIdentifier:
    """RFC 5280, 4.1.1.2. ``parameters`` is as it was found, or None."""

    oid: str
    parameters: Element | None

    @classmethod
    def decode(cls, element: Element) -> Self:
        """From its SEQUENCE."""
        fields = Fields(element)
        return cls(fields.take(Tag.OBJECT_IDENTIFIER).object_identifier(), fields.any())


HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "1.3.14.3.2.26": hashes.SHA1(),  # noqa: S303 - OAEP's default, where collisions do no harm (RFC 8017, B.1)
        "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
        "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
        "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
        "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
    }
)
"""The hashes that OAEP and MGF1 may name."""

SIGNATURE_HASHES: Final[Mapping[str, SignatureHash]] = MappingProxyType(
    {
        "sha256": SignatureHash("sha256", "sha-256"),
        "sha384": SignatureHash("sha384", "sha-384"),
        "sha512": SignatureHash("sha512", "sha-512"),
    }
)
"""The hashes for signatures, by cryptography's name."""

CONTENT_CIPHERS: Final[Mapping[str, CipherSuite]] = MappingProxyType(
    {
        "1.2.840.113549.3.7": CipherSuite(CipherMode.CBC, TripleDES, 8, 24),
        "2.16.840.1.101.3.4.1.2": CipherSuite(CipherMode.CBC, AES, 16, 16),
        "2.16.840.1.101.3.4.1.22": CipherSuite(CipherMode.CBC, AES, 16, 24),
        "2.16.840.1.101.3.4.1.42": CipherSuite(CipherMode.CBC, AES, 16, 32),
        "2.16.840.1.101.3.4.1.6": CipherSuite(CipherMode.GCM, AES, 16, 16),
        "2.16.840.1.101.3.4.1.26": CipherSuite(CipherMode.GCM, AES, 16, 24),
        "2.16.840.1.101.3.4.1.46": CipherSuite(CipherMode.GCM, AES, 16, 32),
    }
)
