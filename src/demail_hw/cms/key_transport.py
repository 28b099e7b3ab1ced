"""Key transport with RSA (RFC 3370, 4.2.1; RFC 3560): the content-encryption key out of its wrapping.

With PKCS#1 v1.5 padding, whoever can tell a well padded block from a badly padded one can decrypt without the
key (Bleichenbacher). So a block that does not unwrap gives a random key of the right length instead of an error
(RFC 3218, 2.3.2), and what fails is the content, in the same way for every cause.
"""

import secrets

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from demail_hw.cms.algorithms import HASHES, AlgorithmIdentifier, KeyTransport
from demail_hw.cms.ber import Element, Fields, Tag
from demail_hw.cms.enveloped_data import KeyTransRecipientInfo
from demail_hw.cms.malformed import malformed
from demail_hw.errors import AlgorithmNotSupported

__all__ = ["key_transport_padding", "unwrap_key"]

_SHA1 = "1.3.14.3.2.26"


def unwrap_key(
    recipient: KeyTransRecipientInfo, private_key: rsa.RSAPrivateKey, wrapping: AsymmetricPadding, size: int
) -> bytes:
    """The content-encryption key of ``size`` octets, or a random one if it can't be had.

    What the hardware raises passes through; only ``ValueError``, bad padding, is answered with a random key.
    """
    substitute = secrets.token_bytes(size)
    try:
        key = private_key.decrypt(recipient.encrypted_key, wrapping)
    except ValueError:
        return substitute
    return key if len(key) == size else substitute


def key_transport_padding(algorithm: AlgorithmIdentifier) -> AsymmetricPadding:
    """What the key was wrapped with. :class:`~demail_hw.errors.AlgorithmNotSupported` if it is unknown."""
    match algorithm.oid:
        case KeyTransport.RSAES_PKCS1_V1_5.value:
            return padding.PKCS1v15()
        case KeyTransport.RSAES_OAEP.value:
            return _oaep(algorithm.parameters)
        case other:
            raise AlgorithmNotSupported(f"The key of the message is wrapped with {other}, which is not RSA.")


def _oaep(parameters: Element | None) -> padding.OAEP:
    """RSAES-OAEP-params (RFC 4055, 4.1); each part has its default there."""
    if parameters is None:
        return padding.OAEP(padding.MGF1(HASHES[_SHA1]), HASHES[_SHA1], None)
    fields = Fields(parameters)
    algorithm = _hash(fields.optional(Tag.CONTEXT_0))
    mask = padding.MGF1(_mask_hash(fields.optional(Tag.CONTEXT_1)))
    return padding.OAEP(mask, algorithm, _label(fields.optional(Tag.CONTEXT_2)))


def _hash(field: Element | None) -> HashAlgorithm:
    return HASHES[_SHA1] if field is None else _named_hash(AlgorithmIdentifier.decode(field.inner()))


def _mask_hash(field: Element | None) -> HashAlgorithm:
    if field is None:
        return HASHES[_SHA1]
    generation = AlgorithmIdentifier.decode(field.inner())
    if generation.oid != KeyTransport.MGF1.value:
        raise AlgorithmNotSupported(f"OAEP with the mask generation function {generation.oid} is not supported.")
    if generation.parameters is None:
        raise malformed("The parameters of OAEP name no hash for MGF1.")
    return _named_hash(AlgorithmIdentifier.decode(generation.parameters))


def _named_hash(algorithm: AlgorithmIdentifier) -> HashAlgorithm:
    named = HASHES.get(algorithm.oid)
    if named is None:
        raise AlgorithmNotSupported(f"OAEP with the hash {algorithm.oid} is not supported.")
    return named


def _label(field: Element | None) -> bytes | None:
    if field is None:
        return None
    source = AlgorithmIdentifier.decode(field.inner())
    if source.oid != KeyTransport.P_SPECIFIED.value:
        raise AlgorithmNotSupported(f"OAEP with the label source {source.oid} is not supported.")
    if source.parameters is None or source.parameters.tag != Tag.OCTET_STRING:
        raise malformed("The parameters of OAEP have a label that is not an octet string.")
    return source.parameters.octets() or None
