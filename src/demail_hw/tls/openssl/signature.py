"""Signatures (provider-signature(7)): from OpenSSL's sign call to ``private_key.sign``.

OpenSSL hands over the whole message to be signed, not its digest: the key hashes, or its card does.
"""

import ctypes
import itertools
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.tls.openssl.dispatch import DispatchTable
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import KeyRegistry, RegisteredKey
from demail_hw.tls.openssl.params import ParamValue, describe, read
from demail_hw.tls.openssl.structures import ParamType, SignatureFunction

__all__ = ["Signatures"]

_SETTABLE: Final[Mapping[bytes, ParamType]] = {
    b"pad-mode": ParamType.INTEGER,
    b"saltlen": ParamType.UTF8_STRING,
    b"digest": ParamType.UTF8_STRING,
    b"mgf1-digest": ParamType.UTF8_STRING,
}

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    name: algorithm
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
    for name in (f"SHA{algorithm.digest_size * 8}", f"SHA2-{algorithm.digest_size * 8}")
}
_PSS: Final[Mapping[str, AsymmetricPadding]] = {
    name: padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH) for name, algorithm in _HASHES.items()
}
_PKCS1: Final = padding.PKCS1v15()
_PAD_MODES: Final[Mapping[ParamValue, bool]] = {1: False, "pkcs1": False, 6: True, "pss": True}
"""RSA_PKCS1_PADDING and RSA_PKCS1_PSS_PADDING: whether it is PSS."""
_SALT_LENGTHS: Final = frozenset({-1, "digest"})
"""RSA_PSS_SALTLEN_DIGEST, the only salt that TLS has (RFC 8446, 4.2.3)."""


class _Operation:
    """One signature in the making."""

    __slots__ = ("hash_name", "key", "pss")

    def __init__(self) -> None:
        self.key: RegisteredKey | None = None
        self.hash_name = ""
        self.pss = False

    def configure(self, params: Mapping[bytes, ParamValue]) -> None:
        """Take over what libssl sets (EVP_PKEY_CTX_set_rsa_padding(3) and its neighbours)."""
        if b"digest" in params:
            self.hash_name = _hash_name(params[b"digest"])
        if b"pad-mode" in params:
            self.pss = _PAD_MODES[params[b"pad-mode"]]
        if params.get(b"saltlen", "digest") not in _SALT_LENGTHS:
            raise AlgorithmNotSupported("TLS signs PSS with a salt as long as the digest.", layer=Layer.TLS)
        if _hash_name(params.get(b"mgf1-digest", self.hash_name)) != self.hash_name:
            raise AlgorithmNotSupported("TLS signs PSS with one hash throughout.", layer=Layer.TLS)

    def sign(self, message: bytes) -> bytes:
        """The signature, from the key itself."""
        key = self.bound_key.private_key
        algorithm = _HASHES[self.hash_name]
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(message, _PSS[self.hash_name] if self.pss else _PKCS1, algorithm)
        return key.sign(message, ec.ECDSA(algorithm))

    @property
    def bound_key(self) -> RegisteredKey:
        """The key that digest_sign_init gave."""
        if self.key is None:
            raise RuntimeError("OpenSSL asked for a signature without naming a key")
        return self.key


def _hash_name(name: ParamValue) -> str:
    if not isinstance(name, str) or name.upper() not in _HASHES:
        raise AlgorithmNotSupported(f"The key signs no {name!r} in TLS.", layer=Layer.TLS)
    return name.upper().replace("SHA2-", "SHA")


class Signatures:
    """The functions behind every signature algorithm; an operation is known to OpenSSL by a number."""

    def __init__(self, registry: KeyRegistry, failures: Failures) -> None:
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        prototype = ctypes.CFUNCTYPE
        self._registry = registry
        self._numbers = itertools.count(1)
        self._operations: dict[int, _Operation] = {}
        self._settable = describe(_SETTABLE)
        self.table = DispatchTable(
            failures,
            {
                SignatureFunction.NEWCTX: (prototype(pointer, pointer, ctypes.c_char_p), self._new),
                SignatureFunction.DIGEST_SIGN_INIT: (
                    prototype(integer, pointer, ctypes.c_char_p, pointer, pointer),
                    self._digest_sign_init,
                ),
                SignatureFunction.DIGEST_SIGN: (
                    prototype(integer, pointer, pointer, pointer, size, pointer, size),
                    self._digest_sign,
                ),
                SignatureFunction.FREECTX: (prototype(None, pointer), self._free),
                SignatureFunction.SET_CTX_PARAMS: (prototype(integer, pointer, pointer), self._set_ctx_params),
                SignatureFunction.SETTABLE_CTX_PARAMS: (prototype(pointer, pointer, pointer), self._settable_params),
            },
        )

    @property
    def pending(self) -> int:
        """How many operations OpenSSL has not freed yet."""
        return len(self._operations)

    def _new(self, _provider: int | None, _properties: bytes | None) -> int:
        number = next(self._numbers)
        self._operations[number] = _Operation()
        return number

    def _free(self, number: int | None) -> None:
        self._operations.pop(number or 0, None)

    def _digest_sign_init(self, number: int, hash_name: bytes | None, handle: int | None, params: int | None) -> int:
        operation = self._operations[number]
        if handle is not None:
            operation.key = self._registry.at(handle)
        if hash_name is not None:
            operation.hash_name = _hash_name(hash_name.decode())
        operation.configure(read(params))
        return True

    def _set_ctx_params(self, number: int, params: int | None) -> int:
        self._operations[number].configure(read(params))
        return True

    def _settable_params(self, _operation: int | None, _provider: int | None) -> int:
        return ctypes.addressof(self._settable)

    def _digest_sign(
        self, number: int, signature: int | None, length: int, room: int, message: int, message_length: int
    ) -> int:
        """Sign, or say how long the signature can be if there is nowhere to put it."""
        operation = self._operations[number]
        size = ctypes.c_size_t.from_address(length)
        if signature is None:
            size.value = operation.bound_key.public.max_size
            return True
        made = operation.sign(ctypes.string_at(message, message_length))
        if len(made) > room:
            raise ValueError(f"a signature of {len(made)} bytes does not fit into {room}")
        ctypes.memmove(signature, made, len(made))
        size.value = len(made)
        return True
