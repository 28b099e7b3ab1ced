"""The private RSA operation without padding, by the libcrypto that Python's ssl module is linked with."""

import _ssl
import ctypes
import threading
import weakref
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["LibcryptoRsa"]

_NO_PADDING: Final = 3
"""RSA_NO_PADDING (openssl/rsa.h)."""

_pointer, _int, _size, _bytes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_PROTOTYPES: Final = {
    "d2i_AutoPrivateKey": (_pointer, (_pointer, _pointer, ctypes.c_long)),
    "EVP_PKEY_free": (None, (_pointer,)),
    "EVP_PKEY_CTX_new": (_pointer, (_pointer, _pointer)),
    "EVP_PKEY_CTX_free": (None, (_pointer,)),
    "EVP_PKEY_CTX_set_rsa_padding": (_int, (_pointer, _int)),
    "EVP_PKEY_decrypt_init": (_int, (_pointer,)),
    "EVP_PKEY_decrypt": (_int, (_pointer, _pointer, _pointer, _bytes, _size)),
}


class LibcryptoRsa:
    """One private key. Safe for several threads.

    Errors: ``AttributeError`` or ``OSError`` where libcrypto cannot be reached (a Python that is linked statically)
    or is older than 3.0.
    """

    __slots__ = ("__weakref__", "_context", "_decrypt", "_length", "_lock", "_result")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        functions = ctypes.CDLL(getattr(_ssl, "__file__", None))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = functions[name]
            function.restype, function.argtypes = result, arguments
            setattr(functions, name, function)
        self._lock = threading.Lock()
        self._length = _size()
        self._result = ctypes.create_string_buffer((key.key_size + 7) // 8)
        self._decrypt = functions.EVP_PKEY_decrypt
        self._context = _context(functions, key)
        weakref.finalize(self, functions.EVP_PKEY_CTX_free, self._context)

    def apply(self, block: bytes) -> bytes:
        """``block ** d`` modulo n, for a block as long as the modulus. ``ValueError`` if libcrypto refuses it."""
        with self._lock:
            self._length.value = len(self._result)
            if self._decrypt(self._context, self._result, ctypes.byref(self._length), block, len(block)) <= 0:
                raise ValueError("libcrypto refuses the block")
            return self._result.raw


def _context(functions: ctypes.CDLL, key: rsa.RSAPrivateKey) -> int:
    """An EVP_PKEY_CTX that decrypts without padding."""
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    private_key = functions.d2i_AutoPrivateKey(None, ctypes.byref(_bytes(der)), len(der))
    context: int = functions.EVP_PKEY_CTX_new(private_key, None)
    functions.EVP_PKEY_free(private_key)  # The context has a reference of its own.
    functions.EVP_PKEY_decrypt_init(context)
    functions.EVP_PKEY_CTX_set_rsa_padding(context, _NO_PADDING)
    return context
