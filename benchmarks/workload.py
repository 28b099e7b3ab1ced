"""What is measured: one signature of fixed data, PKCS#1 v1.5 with SHA-256."""

import hashlib

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.samples import Call
from demail_hw.identity import KeyRole
from demail_hw.interfaces import KeyProvider

__all__ = ["DATA", "DIGEST", "private_key", "signer"]

DATA = b"What is signed does not matter, but it is the same each time."
DIGEST = hashlib.sha256(DATA).digest()


def private_key(provider: KeyProvider, role: KeyRole) -> rsa.RSAPrivateKey:
    """The key of a role."""
    key = provider.identity(role).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def signer(provider: KeyProvider, role: KeyRole) -> Call:
    """The hot path: everything that a caller does for one signature."""
    key, scheme, algorithm = private_key(provider, role), padding.PKCS1v15(), SHA256()
    return lambda: key.sign(DATA, scheme, algorithm)
