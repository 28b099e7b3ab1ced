"""Signing with a card's key (RFC 8551, 3.5; RFC 5652, 5)."""

import datetime
import enum
from typing import Final, assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from demail_hw.cms import smime
from demail_hw.cms.algorithms import SIGNATURE_HASHES, SignatureHash
from demail_hw.cms.signed_data import Signature, SignatureKind, signed_attributes, signed_data
from demail_hw.identity import Identity, PrivateKey
from demail_hw.keys.validity import warn_once

__all__ = ["SignedForm", "sign"]

_SHA256: Final = hashes.SHA256()


class SignedForm(enum.Enum):
    """How a signed message is written.

    ``MULTIPART``: in clear, with a detached signature (multipart/signed); every mail client shows it.
    ``OPAQUE``: inside the signature (application/pkcs7-mime; smime-type=signed-data); no mail server can break it.
    ``DER``: the bare CMS structure over exactly the given octets, for files that are not mail.
    """

    MULTIPART = "multipart"
    OPAQUE = "opaque"
    DER = "der"


def sign(
    message: bytes,
    identity: Identity,
    *,
    form: SignedForm = SignedForm.MULTIPART,
    hash_algorithm: hashes.HashAlgorithm = _SHA256,
    detached: bool = False,
    signing_time: datetime.datetime | None = None,
) -> bytes:
    """The message signed with RSA (PKCS#1 v1.5) or ECDSA, with the certificate and its intermediate issuers.

    ``message``, for a mail: a MIME entity, a mail, or a text (:func:`demail_hw.cms.smime.signable` has the rules);
    line ends become CR LF, fields like ``Subject`` stay outside and unsigned (RFC 8551, 3.1). For ``DER``: any
    octets, signed as they are. ``hash_algorithm``: SHA-256, SHA-384 or SHA-512. ``detached``: leave the message
    out of a ``DER`` structure (``MULTIPART`` is always detached). ``signing_time``: now, unless it is given with
    its time zone.

    Raises what the key raises;
    ``ValueError`` for another hash, a detached ``OPAQUE``, a time without a zone, and a message whose
    Content-Transfer-Encoding is binary as ``MULTIPART``.
    """
    if not isinstance(message, bytes):
        raise TypeError("message must be bytes")
    signer = _Signer(identity, hash_algorithm, _aware(signing_time))
    match form:
        case SignedForm.MULTIPART:
            return _multipart(message, signer)
        case SignedForm.OPAQUE if detached:
            raise ValueError("an opaque message carries its content; for a detached signature use MULTIPART or DER")
        case SignedForm.OPAQUE:
            signable = smime.signable(message)
            return smime.opaque_signed(signable, signer.sign(signable.entity))
        case SignedForm.DER:
            return signer.sign(message, detached=detached)
        case _:
            assert_never(form)


def _multipart(message: bytes, signer: "_Signer") -> bytes:
    signable = smime.signable(message)
    if signable.binary:
        raise ValueError("a binary message can't be signed as MULTIPART; use OPAQUE, or encode it for transfer")
    signature = signer.sign(signable.entity, detached=True)
    return smime.multipart_signed(signable, signature, signer.algorithm.micalg)


def _aware(moment: datetime.datetime | None) -> datetime.datetime:
    if moment is None:
        return datetime.datetime.now(datetime.UTC)
    if moment.tzinfo is None:
        raise ValueError("the signing time has no time zone")
    return moment


class _Signer:
    """A key, a hash and a moment."""

    __slots__ = ("_hash", "_identity", "_private_key", "_signing_time", "algorithm")

    def __init__(
        self, identity: Identity, hash_algorithm: hashes.HashAlgorithm, signing_time: datetime.datetime
    ) -> None:
        self._identity = identity
        self._private_key = identity.private_key
        self._hash = hash_algorithm
        self._signing_time = signing_time
        self.algorithm = _signature_hash(hash_algorithm)

    def sign(self, content: bytes, *, detached: bool = False) -> bytes:
        """A ContentInfo with a SignedData over the content."""
        warn_once(self._identity)
        digest = hashes.Hash(self._hash)
        digest.update(content)
        attributes = signed_attributes(digest.finalize(), self._signing_time)
        signature = _signature(self._private_key, attributes, self._hash)
        certificates = [self._identity.certificate, *_intermediates(self._identity)]
        return signed_data(attributes, signature, certificates, self.algorithm, None if detached else content)


def _signature(private_key: PrivateKey, data: bytes, algorithm: hashes.HashAlgorithm) -> Signature:
    if isinstance(private_key, rsa.RSAPrivateKey):
        return Signature(SignatureKind.RSA, private_key.sign(data, padding.PKCS1v15(), algorithm))
    return Signature(SignatureKind.ECDSA, private_key.sign(data, ec.ECDSA(algorithm)))


def _signature_hash(algorithm: hashes.HashAlgorithm) -> SignatureHash:
    named = SIGNATURE_HASHES.get(algorithm.name)
    if named is None:
        raise ValueError(f"a message is signed with SHA-256, SHA-384 or SHA-512, not with {algorithm.name}")
    return named


def _intermediates(identity: Identity) -> list[x509.Certificate]:
    """The chain without its root: a receiver trusts the root that it has, or none."""
    return [issuer for issuer in identity.chain if issuer.issuer != issuer.subject]
