"""Signatures (provider-signature(7)): from OpenSSL's sign call to ``private_key.sign``.

OpenSSL hands over the whole message to be signed, not its digest: the key hashes, or its card does.

The state of an operation lies in a block of OpenSSL's memory, which its own functions make and free (see
provider.py): that spares the handshake four calls into Python, and nothing is left behind if one is broken off.
"""

import ctypes
from collections.abc import Mapping
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.identity import PrivateKey
from demail_hw.tls.openssl.dispatch import CCallback, DispatchTable
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import KeyId, KeyRegistry
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.params import ParamValue, describe, read
from demail_hw.tls.openssl.structures import ParamType, SignatureFunction

__all__ = ["OperationState", "Signatures"]

_SETTABLE: Final[Mapping[bytes, ParamType]] = {
    b"pad-mode": ParamType.INTEGER,
    b"saltlen": ParamType.UTF8_STRING,
    b"mgf1-digest": ParamType.UTF8_STRING,
}


class _Digest(NamedTuple):
    """A hash, and the padding that TLS uses with it."""

    algorithm: hashes.HashAlgorithm
    pss: padding.PSS
    ecdsa: ec.ECDSA


def _digest(algorithm: hashes.HashAlgorithm) -> _Digest:
    pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
    return _Digest(algorithm, pss, ec.ECDSA(algorithm))


_DIGESTS: Final = tuple(map(_digest, (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())))
_INDEX: Final[Mapping[bytes, int]] = {
    name: index
    for index, digest in enumerate(_DIGESTS)
    for name in (
        b"SHA%d" % (digest.algorithm.digest_size * 8),
        b"SHA2-%d" % (digest.algorithm.digest_size * 8),
    )
}
"""OpenSSL's names of the hashes, and their places in ``_DIGESTS``."""

_PKCS1: Final = padding.PKCS1v15()
_IS_PSS: Final[Mapping[ParamValue, bool]] = {1: False, 6: True}
"""RSA_PKCS1_PADDING and RSA_PKCS1_PSS_PADDING."""
_SALT_LENGTHS: Final = frozenset({-1, "digest"})
"""RSA_PSS_SALTLEN_DIGEST, the only salt that TLS has (RFC 8446, 4.2.3)."""


class OperationState(ctypes.Structure):
    """One signature in the making: whose, which hash, and for RSA whether with PSS."""

    _fields_ = (("key_id", KeyId), ("digest", ctypes.c_uint8), ("pss", ctypes.c_uint8))


def _digest_index(name: bytes) -> int:
    index = _INDEX.get(name)
    if index is None:
        raise AlgorithmNotSupported(f"The key signs no {name.decode()} in TLS.", layer=Layer.TLS)
    return index


def _configure(state: OperationState, params: Mapping[bytes, ParamValue]) -> None:
    """Take over what libssl sets (EVP_PKEY_CTX_set_rsa_padding(3) and its neighbours)."""
    for name, value in params.items():
        match name:
            case b"pad-mode":
                state.pss = _IS_PSS[value]
            case b"saltlen" if value not in _SALT_LENGTHS:
                raise AlgorithmNotSupported("TLS signs PSS with a salt as long as the digest.", layer=Layer.TLS)
            case b"mgf1-digest" if _digest_index(str(value).encode()) != state.digest:
                raise AlgorithmNotSupported("TLS signs PSS with one hash throughout.", layer=Layer.TLS)


def _sign(key: PrivateKey, state: OperationState, message: bytes) -> bytes:
    digest = _DIGESTS[state.digest]
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, digest.pss if state.pss else _PKCS1, digest.algorithm)
    return key.sign(message, digest.ecdsa)


class Signatures:
    """The functions behind every signature algorithm."""

    def __init__(self, library: OpenSsl, registry: KeyRegistry, failures: Failures) -> None:
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        prototype = ctypes.CFUNCTYPE
        self._registry = registry
        self._settable = describe(_SETTABLE)
        functions: dict[int, CCallback] = {
            SignatureFunction.DIGEST_SIGN_INIT: (
                prototype(integer, pointer, ctypes.c_char_p, pointer, pointer),
                self._digest_sign_init,
            ),
            SignatureFunction.DIGEST_SIGN: (
                prototype(integer, pointer, pointer, pointer, size, pointer, size),
                self._digest_sign,
            ),
            SignatureFunction.SET_CTX_PARAMS: (prototype(integer, pointer, pointer), self._set_ctx_params),
        }
        constants: dict[int, int] = {SignatureFunction.SETTABLE_CTX_PARAMS: ctypes.addressof(self._settable)}
        native: dict[int, int] = {
            SignatureFunction.NEWCTX: library.address("CRYPTO_zalloc"),
            SignatureFunction.FREECTX: library.address("CRYPTO_free"),
        }
        self.table = DispatchTable(failures, functions, constants=constants, native=native)

    def _digest_sign_init(
        self, operation: int, hash_name: bytes | None, handle: int | None, params: int | None
    ) -> int:
        state = OperationState.from_address(operation)
        if handle is not None:
            state.key_id = KeyId.from_address(handle).value
        if hash_name is not None:
            state.digest = _digest_index(hash_name)
        if params is not None:
            _configure(state, read(params))
        return True

    def _set_ctx_params(self, operation: int, params: int | None) -> int:
        _configure(OperationState.from_address(operation), read(params))
        return True

    def _digest_sign(
        self, operation: int, signature: int | None, length: int, room: int, message: int, message_length: int
    ) -> int:
        """Sign, or say how long the signature can be if there is nowhere to put it."""
        state = OperationState.from_address(operation)
        key = self._registry.find(state.key_id)
        size = ctypes.c_size_t.from_address(length)
        if signature is None:
            size.value = key.public.max_size
            return True
        made = _sign(key.private_key, state, ctypes.string_at(message, message_length))
        if len(made) > room:
            raise ValueError(f"a signature of {len(made)} bytes does not fit into {room}")
        ctypes.memmove(signature, made, len(made))
        size.value = len(made)
        return True
