"""SignedData (RFC 5652, 5) with one signer, as RFC 8551 and RFC 5754 want it."""

import datetime
import enum
from collections.abc import Sequence
from typing import Final, NamedTuple, assert_never

from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.cms.algorithms import SignatureHash

__all__ = ["Signature", "SignatureKind", "signed_attributes", "signed_data"]

_CAPABILITIES: Final = ("aes256_gcm", "aes128_gcm", "aes256_cbc", "aes128_cbc")
"""What the owner of the certificate can decrypt, best first (RFC 8551, 2.5.2 and 2.7)."""

_UTC_TIME_YEARS: Final = range(1950, 2050)
"""A signing time outside these years is a GeneralizedTime (RFC 5652, 11.3)."""


class SignatureKind(enum.Enum):
    """What kind of key signed."""

    RSA = "RSASSA-PKCS1-v1_5"
    ECDSA = "ECDSA"


class Signature(NamedTuple):
    """``value``: what stands in the SignerInfo; of ECDSA an Ecdsa-Sig-Value (RFC 5753, 7.2)."""

    kind: SignatureKind
    value: bytes


def signed_attributes(digest: bytes, signing_time: datetime.datetime) -> bytes:
    """The DER of SignedAttributes, as a SET OF: what the signature is over (RFC 5652, 5.4)."""
    attributes = cms.CMSAttributes(
        [
            _attribute("content_type", "data"),
            _attribute("signing_time", _time(signing_time)),
            _attribute("message_digest", digest),
            _attribute("smime_capabilities", [{"capability_id": name} for name in _CAPABILITIES]),
        ]
    )
    return bytes(attributes.dump())


def signed_data(
    attributes: bytes,
    signature: Signature,
    certificates: Sequence[x509.Certificate],
    algorithm: SignatureHash,
    content: bytes | None,
) -> bytes:
    """The DER of a ContentInfo with a SignedData. The first of ``certificates`` is the signer's; ``content`` is
    None if the signature is detached."""
    encoded = [asn1_x509.Certificate.load(one.public_bytes(Encoding.DER)) for one in certificates]
    body = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [_digest_algorithm(algorithm)],
            "encap_content_info": {"content_type": "data", "content": content},
            "certificates": [cms.CertificateChoices("certificate", one) for one in encoded],
            "signer_infos": [_signer_info(attributes, signature, encoded[0], algorithm)],
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": body}).dump())


def _attribute(name: str, value: object) -> cms.CMSAttribute:
    return cms.CMSAttribute({"type": name, "values": [value]})


def _time(moment: datetime.datetime) -> cms.Time:
    moment = moment.astimezone(datetime.UTC).replace(microsecond=0)
    if moment.year in _UTC_TIME_YEARS:
        return cms.Time("utc_time", core.UTCTime(moment))
    return cms.Time("generalized_time", core.GeneralizedTime(moment))


def _digest_algorithm(algorithm: SignatureHash) -> cms.DigestAlgorithm:
    """Without parameters (RFC 5754, 2); asn1crypto by itself would put NULL there."""
    identifier = cms.DigestAlgorithm({"algorithm": algorithm.name})
    del identifier["parameters"]
    return identifier


def _signer_info(
    attributes: bytes, signature: Signature, certificate: asn1_x509.Certificate, algorithm: SignatureHash
) -> cms.SignerInfo:
    """RFC 5652, 5.3."""
    signer = cms.IssuerAndSerialNumber({"issuer": certificate.issuer, "serial_number": certificate.serial_number})
    return cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier("issuer_and_serial_number", signer),
            "digest_algorithm": _digest_algorithm(algorithm),
            "signed_attrs": cms.CMSAttributes.load(attributes),
            "signature_algorithm": {"algorithm": _signature_algorithm(signature.kind, algorithm)},
            "signature": signature.value,
        }
    )


def _signature_algorithm(kind: SignatureKind, algorithm: SignatureHash) -> str:
    """asn1crypto's name of it. For RSA rsaEncryption, which every receiver knows (RFC 5754, 3.2); for ECDSA the one
    with the hash, without parameters (RFC 5754, 3.3)."""
    match kind:
        case SignatureKind.RSA:
            return "rsassa_pkcs1v15"
        case SignatureKind.ECDSA:
            return f"{algorithm.name}_ecdsa"
        case _:
            assert_never(kind)
