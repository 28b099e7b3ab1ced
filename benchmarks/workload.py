"""What is measured: one signature of fixed data, PKCS#1 v1.5 with SHA-256."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw.identity import KeyRole
from demail_hw.interfaces import KeyProvider

__all__ = ["Signer", "signer", "verifier"]

Signer: TypeAlias = Callable[[], bytes]

_DATA = b"What is signed does not matter, but it is the same each time."


def signer(provider: KeyProvider, role: KeyRole) -> Signer:
    """The hot path: everything that a caller does for one signature."""
    key, scheme, algorithm = _key(provider, role), padding.PKCS1v15(), SHA256()
    return lambda: key.sign(_DATA, scheme, algorithm)


def verifier(provider: KeyProvider, role: KeyRole) -> Callable[[], None]:
    """One verification of that signature, as the key does it."""
    public_key, signature = _key(provider, role).public_key(), signer(provider, role)()
    digest, scheme, algorithm = hashlib.sha256(_DATA).digest(), padding.PKCS1v15(), utils.Prehashed(SHA256())
    return lambda: public_key.verify(signature, digest, scheme, algorithm)


def _key(provider: KeyProvider, role: KeyRole) -> rsa.RSAPrivateKey:
    key = provider.identity(role).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    return key
