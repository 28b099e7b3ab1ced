"""Giving a context its key: certificate, chain, key, and the signature schemes it may use."""

import ctypes
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.errors import AlgorithmNotSupported, CertificateError, Layer
from demail_hw.identity import PrivateKey
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import RegisteredKey
from demail_hw.tls.openssl.provider import SHARED_PROVIDER, OpenSslKeyProvider
from demail_hw.tls.openssl.structures import SslCtrl
from demail_hw.tls.policy import scheme_name

__all__ = ["AttachedKey", "attach_key", "attached_key"]

_ATTRIBUTE: Final = "_demail_hw_attached_key"
"""Where a context holds its key, and so keeps it alive."""

_TAKE_REFERENCE: Final = 1
_DER: Final = Encoding.DER


class AttachedKey:
    """What a context holds: its key, and where the key's exceptions are found. ``one_version``: if the key is the
    reason why only one version of TLS is offered, this says so to whoever speaks to a server that refuses it."""

    __slots__ = ("failures", "key", "one_version")

    def __init__(self, key: RegisteredKey, failures: Failures) -> None:
        self.key = key
        self.failures = failures
        self.one_version: Callable[[], AlgorithmNotSupported] | None = None


def attached_key(context: ssl.SSLContext) -> AttachedKey | None:
    """The key that was attached to a context."""
    return getattr(context, _ATTRIBUTE, None)


def attach_key(
    context: ssl.SSLContext, private_key: PrivateKey, certificate: x509.Certificate, chain: Sequence[x509.Certificate]
) -> AttachedKey:
    """Make ``private_key`` the client key of a context. ``chain``: what is sent after the certificate.
    A context for which this fails is of no more use.

    Errors: ``ValueError`` if it has one already; :class:`~demail_hw.errors.TlsKeyUnsupported`;
    :class:`~demail_hw.errors.CertificateError` if OpenSSL refuses a certificate or the pair.
    """
    provider = SHARED_PROVIDER.get()
    pointer = ssl_ctx_of(context, provider.library)
    # Wherever it came from: load_cert_chain() leaves no trace in Python's object.
    if provider.library.functions.SSL_CTX_get0_certificate(pointer):
        raise ValueError("this context has a key already; make another context")
    provider.failures.clear()
    with provider.failures.catching():
        key, pkey = provider.new_evp_pkey(private_key)
        try:
            _use_certificate(provider, pointer, certificate, chain)
            _use_key(provider, pointer, key, pkey)
        finally:
            provider.library.functions.EVP_PKEY_free(pkey)
    provider.failures.take()
    attached = AttachedKey(key, provider.failures)
    setattr(context, _ATTRIBUTE, attached)
    return attached


def _use_certificate(
    provider: OpenSslKeyProvider, pointer: int, certificate: x509.Certificate, chain: Sequence[x509.Certificate]
) -> None:
    functions = provider.library.functions
    der = certificate.public_bytes(_DER)
    if functions.SSL_CTX_use_certificate_ASN1(pointer, len(der), der) != 1:
        raise _refused(provider, "the certificate")
    functions.SSL_CTX_ctrl(pointer, SslCtrl.CHAIN, 0, None)
    for issuer in chain:
        _add_to_chain(provider, pointer, issuer.public_bytes(_DER))


def _add_to_chain(provider: OpenSslKeyProvider, pointer: int, der: bytes) -> None:
    functions = provider.library.functions
    position = ctypes.c_char_p(der)
    issuer = functions.d2i_X509(None, ctypes.byref(position), len(der))
    added = issuer and functions.SSL_CTX_ctrl(pointer, SslCtrl.CHAIN_CERT, _TAKE_REFERENCE, issuer) == 1
    functions.X509_free(issuer)
    if not added:
        raise _refused(provider, "a certificate of the chain")


def _use_key(provider: OpenSslKeyProvider, pointer: int, key: RegisteredKey, pkey: int) -> None:
    functions = provider.library.functions
    if functions.SSL_CTX_use_PrivateKey(pointer, pkey) != 1 or functions.SSL_CTX_check_private_key(pointer) != 1:
        raise _refused(provider, "the key for this certificate")
    schemes = ":".join(map(scheme_name, key.schemes)).encode()
    if functions.SSL_CTX_ctrl(pointer, SslCtrl.SET_CLIENT_SIGALGS_LIST, 0, schemes) != 1:
        raise _refused(provider, "the key's signature schemes")
    functions.SSL_CTX_set_cert_cb(pointer, provider.certificate_requests.address, key.key_id)


def _refused(provider: OpenSslKeyProvider, what: str) -> CertificateError:
    error = CertificateError(
        f"OpenSSL refused {what} ({provider.library.take_reason()}).",
        remedy="See that the card's keys and certificates are strong enough for TLS (RSA from 2048 bits on); if not, "
        "use another card.",
        layer=Layer.TLS,
    )
    error.__cause__ = provider.failures.take()
    return error
