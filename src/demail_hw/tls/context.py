"""SSL contexts whose client key is an identity's."""

import functools
import os
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.errors import AlgorithmNotSupported, CertificateError, Layer
from demail_hw.identity import Identity
from demail_hw.keys.validity import warn_once
from demail_hw.tls.openssl.attach import AttachedKey, attach_key
from demail_hw.tls.policy import TlsProfile, is_good_for_tls13, signature_schemes
from demail_hw.tls.sockets import KeySslObject, KeySslSocket

__all__ = ["attach", "client_context"]


def client_context(
    identity: Identity,
    *,
    cafile: str | os.PathLike[str] | None = None,
    cadata: str | bytes | None = None,
    profile: TlsProfile | None = None,
) -> ssl.SSLContext:
    """An ordinary client context of the standard library whose client key is ``identity``'s.

    ``cafile``, ``cadata``: whom to trust, as in :func:`ssl.create_default_context`; without them, the system's
    certificates. ``profile``: limits what is offered; without it, the standard library's defaults. With an EC key on
    another curve than the profile's the context is limited to TLS 1.3.

    Errors: :class:`~demail_hw.errors.AlgorithmNotSupported` for such a key if the profile has no TLS 1.3; those of
    :func:`attach`, and of :func:`ssl.create_default_context`.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    if profile is None:
        attach(context, identity)
    else:
        profile.apply(context)
        _attach_under(profile, context, identity)
    return context


def _attach_under(profile: TlsProfile, context: ssl.SSLContext, identity: Identity) -> None:
    if profile.takes_in_tls12(identity.private_key):
        attach(context, identity)
        return
    if context.maximum_version == ssl.TLSVersion.TLSv1_2:
        raise _another_curve(profile, identity)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _attach(context, identity).one_version = functools.partial(_another_curve, profile, identity)


def attach(context: ssl.SSLContext, identity: Identity) -> None:
    """Make an identity's key the client key of a context, once a context.

    The private key may be a card's or any other RSA key or EC key (P-256, P-384, P-521) of cryptography's classes.
    It signs in the thread that does the handshake, and lives as long as the context. The signature schemes are
    those that it supports (:class:`~demail_hw.tls.policy.LimitedKey`); if none of them is good for TLS 1.3, the
    context is limited to TLS 1.2. What the key raises is the ``__cause__`` of the ``ssl.SSLError``.

    Errors: :class:`~demail_hw.errors.CertificateError` if the certificate does not belong to the key, or is
    refused; :class:`~demail_hw.errors.AlgorithmNotSupported` if the key does nothing that this context may use;
    :class:`~demail_hw.errors.TlsKeyUnsupported` if Python's OpenSSL cannot be given a key; ``ValueError`` for a
    server's context, or one that has a key already.
    """
    _attach(context, identity)


def _attach(context: ssl.SSLContext, identity: Identity) -> AttachedKey:
    _check_context(context)
    _check_pair(identity)
    limit = not is_good_for_tls13(signature_schemes(identity.private_key))
    if limit:
        _check_tls12(context)
    attached = attach_key(context, identity.private_key, identity.certificate, _without_root(identity.chain))
    if limit:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        attached.one_version = _no_tls13
    warn_once(identity)
    context.sslsocket_class = KeySslSocket
    context.sslobject_class = KeySslObject
    return attached


def _check_context(context: ssl.SSLContext) -> None:
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("a key is attached to a client's context")


def _check_pair(identity: Identity) -> None:
    certificate = identity.certificate
    try:
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"The certificate of {identity.label!r} has no usable key.", layer=Layer.TLS
        ) from error
    if public_key != identity.private_key.public_key():
        raise CertificateError(
            f"The certificate {certificate.subject.rfc4514_string()!r} belongs to another key than "
            f"{identity.label!r}.",
            layer=Layer.TLS,
        )


def _check_tls12(context: ssl.SSLContext) -> None:
    if context.minimum_version > ssl.TLSVersion.TLSv1_2:
        raise AlgorithmNotSupported(
            "The context demands TLS 1.3, which needs RSA-PSS, and the key does not do it.",
            remedy="Use a key that does PSS, or allow TLS 1.2.",
            layer=Layer.TLS,
        )


def _no_tls13() -> AlgorithmNotSupported:
    return AlgorithmNotSupported(
        "The server does not take TLS 1.2, and TLS 1.3 needs RSA-PSS, which the key does not do.",
        remedy="Use a key that does PSS (on a NetKey card the AUTHENTICATION key), or let the server take TLS 1.2.",
        layer=Layer.TLS,
    )


def _another_curve(profile: TlsProfile, identity: Identity) -> AlgorithmNotSupported:
    assert not isinstance(identity.private_key, rsa.RSAPrivateKey)
    return AlgorithmNotSupported(
        f"The key {identity.label!r} is on the curve {identity.private_key.curve.name}, and in TLS 1.2 the profile "
        f"{profile.name!r} takes RSA keys and EC keys on {profile.group} only.",
        remedy="Use such a key, or let both sides take TLS 1.3, where the curve of the key is free.",
        layer=Layer.TLS,
    )


def _without_root(chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """The peer has its own root, or none (RFC 8446, 4.4.2)."""
    return tuple(certificate for certificate in chain if certificate.issuer != certificate.subject)
