"""What TLS is to be: versions, suites and groups as a profile, and the signature schemes of a key."""

import dataclasses
import enum
import ssl
from collections.abc import Collection, Mapping
from typing import Final, Protocol, runtime_checkable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.identity import PrivateKey

__all__ = [
    "DEMAIL",
    "LimitedKey",
    "SignatureScheme",
    "TlsProfile",
    "is_good_for_tls13",
    "scheme_name",
    "signature_algorithms",
    "signature_schemes",
]


_CURVES: Final[Mapping[str, str]] = {"prime256v1": "secp256r1"}
"""OpenSSL's name of a curve, where the standard's (RFC 8422, 5.1.1) is another."""


@dataclasses.dataclass(frozen=True, slots=True)
class TlsProfile:
    """What a client offers, no more and no less.

    ``ciphers``: the suites of TLS 1.2 in OpenSSL's words; those of TLS 1.3 are not limited. ``group``: the one
    group for the key exchange, in both versions, or empty for OpenSSL's own choice.
    """

    name: str
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str = ""
    group: str = ""

    def apply(self, context: ssl.SSLContext) -> None:
        """Limit a context. ``ssl.SSLError`` or ``ValueError`` if this OpenSSL does not know a name."""
        context.minimum_version = self.minimum_version
        context.maximum_version = self.maximum_version
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        if self.group:
            context.set_ecdh_curve(self.group)

    def takes_in_tls12(self, private_key: PrivateKey) -> bool:
        """Can a client show a certificate of this key in TLS 1.2? There the groups that it offers are the curves of
        its certificate too (RFC 8422, 5.1). In TLS 1.3 they are not (RFC 8446, 4.2.7)."""
        return (
            not self.group
            or isinstance(private_key, rsa.RSAPrivateKey)
            or private_key.curve.name == _CURVES.get(self.group, self.group)
        )


DEMAIL: Final = TlsProfile(name="demail", ciphers="ECDHE-RSA-AES256-SHA384", group="secp521r1")
"""The De-Mail gateway: TLS 1.2 with this suite and curve; or TLS 1.3, where a client signs RSA with PSS."""


class SignatureScheme(enum.IntEnum):
    """TLS SignatureScheme (RFC 8446, 4.2.3; the IANA registry). In lower case, a name is OpenSSL's as well."""

    RSA_PKCS1_SHA1 = 0x0201
    ECDSA_SHA1 = 0x0203
    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B


def scheme_name(code: int) -> str:
    """The name of a code point in OpenSSL's words; a number if it has none here."""
    return SignatureScheme(code).name.lower() if code in set(SignatureScheme) else f"{code:#06x}"


_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}

_RSA: Final[Mapping[SignatureScheme, tuple[AsymmetricPadding, hashes.HashAlgorithm]]] = {
    SignatureScheme[f"RSA_PSS_RSAE_{name}"]: (padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH), hashed)
    for name, hashed in _HASHES.items()
} | {SignatureScheme[f"RSA_PKCS1_{name}"]: (padding.PKCS1v15(), hashed) for name, hashed in _HASHES.items()}

_ECDSA: Final[Mapping[str, SignatureScheme]] = {
    "secp256r1": SignatureScheme.ECDSA_SECP256R1_SHA256,
    "secp384r1": SignatureScheme.ECDSA_SECP384R1_SHA384,
    "secp521r1": SignatureScheme.ECDSA_SECP521R1_SHA512,
}


@runtime_checkable
class LimitedKey(Protocol):
    """A key that cannot do everything its class can, and says so. A key without this method does everything."""

    def supports(self, padding: AsymmetricPadding, algorithm: hashes.HashAlgorithm) -> bool:
        """Can it sign with this padding and this hash?"""
        ...


def signature_schemes(private_key: PrivateKey) -> tuple[SignatureScheme, ...]:
    """The schemes that a key signs in TLS, PSS before PKCS#1 v1.5.

    An ECDSA scheme is bound to its curve in TLS 1.3 only; in TLS 1.2 it stands for its hash, so a key has them all.

    Errors: :class:`~demail_hw.errors.AlgorithmNotSupported` if there is none.
    """
    if isinstance(private_key, rsa.RSAPrivateKey):
        schemes = _rsa_schemes(private_key)
    else:
        schemes = _ecdsa_schemes(private_key.curve.name)
    if not schemes:
        raise AlgorithmNotSupported(
            "The key does none of the signatures of TLS: RSA (PSS or PKCS#1 v1.5) or ECDSA with SHA-256, -384, -512.",
            remedy="Use an RSA key, or an EC key on P-256, P-384 or P-521.",
            layer=Layer.TLS,
        )
    return schemes


def _rsa_schemes(private_key: rsa.RSAPrivateKey) -> tuple[SignatureScheme, ...]:
    if not isinstance(private_key, LimitedKey):
        return tuple(_RSA)
    return tuple(scheme for scheme, what in _RSA.items() if private_key.supports(*what))


def _ecdsa_schemes(curve: str) -> tuple[SignatureScheme, ...]:
    own = _ECDSA.get(curve)
    if own is None:
        return ()
    return (own, *(scheme for scheme in _ECDSA.values() if scheme is not own))


def signature_algorithms(private_key: PrivateKey) -> tuple[str, ...]:
    """The same in OpenSSL's words (SSL_CTX_set1_client_sigalgs_list(3))."""
    return tuple(map(scheme_name, signature_schemes(private_key)))


def is_good_for_tls13(schemes: Collection[SignatureScheme]) -> bool:
    """Is any of them a client's signature in TLS 1.3, which has no PKCS#1 v1.5 (RFC 8446, 4.2.3)?"""
    return any(not scheme.name.startswith("RSA_PKCS1") for scheme in schemes)
