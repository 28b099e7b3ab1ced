"""Decryption with a card's key (RFC 8551, 3.3 and 3.4; RFC 5652, 6; RFC 5083)."""

from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.cms.container import cms_octets
from demail_hw.cms.content_encryption import content_cipher
from demail_hw.cms.enveloped_data import EnvelopedData
from demail_hw.cms.key_transport import key_transport_padding, unwrap_key
from demail_hw.cms.recipients import recipient_for
from demail_hw.errors import AlgorithmNotSupported
from demail_hw.identity import Identity

__all__ = ["decrypt"]


def decrypt(message: bytes, identity: Identity) -> bytes:
    """The content of an encrypted message: for a mail, its MIME entity.

    ``message``: an S/MIME message (application/pkcs7-mime), PEM (RFC 7468), or a ContentInfo in BER or DER. Keys
    wrapped with RSA PKCS#1 v1.5 or OAEP; content in Triple-DES or AES in CBC, or AES in GCM.

    The key is asked at most once, and after everything else was checked. Raises what the key raises, and
    :class:`~demail_hw.errors.ProtocolViolation` for what is no such message;
    :class:`~demail_hw.errors.WrongRecipient` if it is for others, and says for whom;
    :class:`~demail_hw.errors.AlgorithmNotSupported` if an algorithm is none of these;
    :class:`~demail_hw.errors.DecryptionFailed` if it is damaged, and never says where.
    """
    if not isinstance(message, bytes):
        raise TypeError("message must be bytes")
    private_key = identity.private_key
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise AlgorithmNotSupported(
            "S/MIME messages are decrypted with RSA keys only.",
            remedy="Use a card with an RSA encryption key, and have messages encrypted with its certificate.",
        )
    enveloped = EnvelopedData.decode(cms_octets(message))
    recipient = recipient_for((identity.certificate, *identity.further_certificates), enveloped.recipients)
    content = content_cipher(enveloped.content)
    wrapping = key_transport_padding(recipient.key_encryption)
    return content.decrypt(unwrap_key(recipient, private_key, wrapping, content.key_size))
