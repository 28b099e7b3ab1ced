"""The content out of its encryption: CBC (RFC 3370, 5.1; RFC 3565, 2.3) and AES-GCM (RFC 5084, 3.2).

CBC proves nothing about the content: one random key in 256 gives garbage instead of an error, as with every
other S/MIME software. AES-GCM finds each changed bit.
"""

import dataclasses
from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes
from cryptography.hazmat.primitives.padding import PKCS7

from demail_hw.cms.algorithms import CONTENT_CIPHERS, CipherMode, CipherSuite
from demail_hw.cms.ber import Element, Fields, Tag
from demail_hw.cms.enveloped_data import EncryptedContent
from demail_hw.cms.malformed import malformed
from demail_hw.errors import AlgorithmNotSupported, DecryptionFailed

__all__ = ["CbcContent", "ContentCipher", "GcmContent", "content_cipher"]

_DEFAULT_TAG_LENGTH: Final = 12
_TAG_LENGTHS: Final = range(12, 17)
_NONCE_LENGTHS: Final = range(8, 65)
"""Octets: RFC 5084, 3.2 allows tags of 12 to 16, prefers nonces of 12; OpenSSL takes nonces from 8 on."""


@dataclasses.dataclass(frozen=True, slots=True)
class CbcContent:
    """Content in CBC with the padding of RFC 5652, 6.3."""

    algorithm: Callable[[bytes], BlockCipherAlgorithm]
    block_size: int
    key_size: int
    initialisation_vector: bytes
    ciphertext: bytes = dataclasses.field(repr=False)

    def decrypt(self, key: bytes) -> bytes:
        """The content. :class:`~demail_hw.errors.DecryptionFailed` if this is not its key."""
        decryptor = Cipher(self.algorithm(key), modes.CBC(self.initialisation_vector)).decryptor()
        unpadder = PKCS7(8 * self.block_size).unpadder()
        try:
            padded = decryptor.update(self.ciphertext) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise _failed() from None


@dataclasses.dataclass(frozen=True, slots=True)
class GcmContent:
    """Content in GCM, with its tag and what is authenticated beside it."""

    algorithm: Callable[[bytes], BlockCipherAlgorithm]
    key_size: int
    nonce: bytes
    tag: bytes
    authenticated: bytes
    ciphertext: bytes = dataclasses.field(repr=False)

    def decrypt(self, key: bytes) -> bytes:
        """The content. :class:`~demail_hw.errors.DecryptionFailed` if this is not its key, or a bit was changed."""
        mode = modes.GCM(self.nonce, self.tag, min_tag_length=len(self.tag))
        decryptor = Cipher(self.algorithm(key), mode).decryptor()
        decryptor.authenticate_additional_data(self.authenticated)
        try:
            return decryptor.update(self.ciphertext) + decryptor.finalize()
        except InvalidTag:
            raise _failed() from None


ContentCipher: TypeAlias = CbcContent | GcmContent


def content_cipher(content: EncryptedContent) -> ContentCipher:
    """How to decrypt this content, decided before the key is asked for anything.

    :class:`~demail_hw.errors.AlgorithmNotSupported` if the algorithm is none of the table's.
    """
    suite = CONTENT_CIPHERS.get(content.algorithm.oid)
    if suite is None:
        raise AlgorithmNotSupported(f"The message is encrypted with {content.algorithm.oid}, which is not supported.")
    match suite.mode:
        case CipherMode.CBC:
            return _cbc(suite, content)
        case CipherMode.GCM:
            return _gcm(suite, content)
        case _:
            assert_never(suite.mode)


def _cbc(suite: CipherSuite, content: EncryptedContent) -> CbcContent:
    vector = _octets(content.algorithm.parameters)
    if content.mac is not None or len(vector) != suite.block_size:
        raise malformed("The CMS message has wrong parameters for CBC.")
    return CbcContent(suite.algorithm, suite.block_size, suite.key_size, vector, content.ciphertext)


def _gcm(suite: CipherSuite, content: EncryptedContent) -> GcmContent:
    nonce, tag_length = _gcm_parameters(content.algorithm.parameters)
    mac = content.mac
    if mac is None or len(mac) != tag_length or tag_length not in _TAG_LENGTHS or len(nonce) not in _NONCE_LENGTHS:
        raise malformed("The CMS message has wrong parameters for GCM.")
    authenticated = content.authenticated_attributes
    return GcmContent(suite.algorithm, suite.key_size, nonce, mac, authenticated, content.ciphertext)


def _gcm_parameters(parameters: Element | None) -> tuple[bytes, int]:
    """GCMParameters (RFC 5084, 3.2): the nonce, and the length of the tag."""
    if parameters is None:
        raise malformed("The CMS message has no parameters for GCM.")
    fields = Fields(parameters)
    nonce = fields.take(Tag.OCTET_STRING).octets()
    length = fields.optional(Tag.INTEGER)
    return nonce, _DEFAULT_TAG_LENGTH if length is None else length.integer()


def _octets(parameters: Element | None) -> bytes:
    if parameters is None or parameters.tag != Tag.OCTET_STRING:
        raise malformed("The CMS message has no initialisation vector.")
    return parameters.octets()


def _failed() -> DecryptionFailed:
    return DecryptionFailed(
        "The message can't be decrypted.", remedy="Ask the sender for the message again, encrypted anew."
    )
