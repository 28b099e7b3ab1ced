"""Which key a handle means: OpenSSL holds numbers, Python holds the keys."""

import ctypes
import functools
import itertools
import weakref
from typing import Final

from demail_hw.errors import KeyNotFound, Layer
from demail_hw.identity import PrivateKey
from demail_hw.tls.openssl.params import OwnedParams
from demail_hw.tls.openssl.public_half import PublicHalf
from demail_hw.tls.policy import signature_schemes

__all__ = ["KeyId", "KeyRegistry", "RegisteredKey"]

KeyId: Final = ctypes.c_uint64
"""How a key id lies in the memory of a handle."""


class RegisteredKey:
    """A private key that OpenSSL may ask for signatures.

    ``key_id``: what OpenSSL knows it by. ``schemes``: what it signs in TLS.
    """

    __slots__ = ("__weakref__", "exported", "key_id", "private_key", "public", "schemes")

    def __init__(self, key_id: int, private_key: PrivateKey) -> None:
        self.key_id = key_id
        self.private_key = private_key
        self.schemes = signature_schemes(private_key)
        self.public = PublicHalf.describe(private_key.public_key())
        self.exported = OwnedParams(self.public.exported)


class KeyRegistry:
    """Every registered key that somebody still holds; an SSL context holds its own.

    OpenSSL's structures do not keep a key alive, so a key goes when its context goes, even if it refers to it.
    Ids are never used twice.
    """

    __slots__ = ("_ids", "_keys")

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._keys: dict[int, weakref.ref[RegisteredKey]] = {}

    def register(self, private_key: PrivateKey) -> RegisteredKey:
        """Give a key an id; it is known as long as the caller holds what comes back."""
        key = RegisteredKey(next(self._ids), private_key)
        self._keys[key.key_id] = weakref.ref(key, functools.partial(self._forget, key.key_id))
        return key

    def _forget(self, key_id: int, _reference: "weakref.ref[RegisteredKey]") -> None:
        del self._keys[key_id]

    def find(self, key_id: int) -> RegisteredKey:
        """The key with this id. Errors: :class:`~demail_hw.errors.KeyNotFound` if nobody holds it any more."""
        reference = self._keys.get(key_id)
        key = None if reference is None else reference()
        if key is None:
            raise KeyNotFound("The TLS context of this key is gone.", layer=Layer.TLS)
        return key

    def at(self, handle: int) -> RegisteredKey:
        """The key whose id lies at ``handle``, which the key management made."""
        return self.find(KeyId.from_address(handle).value)
