"""The very OpenSSL that Python's ssl module runs on: found, checked, and its functions declared."""

import _ssl
import ctypes
import ssl
import sys
from types import ModuleType
from typing import Final, Self

from demail_hw.errors import TlsKeyUnsupported
from demail_hw.tls.openssl.dispatch import address_of

__all__ = ["OpenSsl", "unsupported"]

_WAYS_OUT: Final = (
    "Use a Python whose ssl module is linked with a shared OpenSSL 3 or later (a distribution's, python.org's, "
    "conda's, pyenv's); or, for a card with a PKCS#11 module, set up pkcs11-provider 1.3 or later in OPENSSL_CONF; "
    "or leave mutual TLS to a proxy such as stunnel."
)
_FIRST_WITH_PROVIDERS: Final = 0x30000000
"""OPENSSL_VERSION_NUMBER of 3.0.0."""

_int, _long, _size, _pointer, _text = ctypes.c_int, ctypes.c_long, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
_PROTOTYPES: Final = {
    "OpenSSL_version": (_text, (_int,)),
    "OpenSSL_version_num": (ctypes.c_ulong, ()),
    "ERR_clear_error": (None, ()),
    "ERR_peek_last_error": (ctypes.c_ulong, ()),
    "ERR_reason_error_string": (_text, (ctypes.c_ulong,)),
    "CRYPTO_zalloc": (_pointer, (_size, _text, _int)),
    "CRYPTO_free": (None, (_pointer, _text, _int)),
    "OSSL_LIB_CTX_new": (_pointer, ()),
    "OSSL_PROVIDER_add_builtin": (_int, (_pointer, _text, _pointer)),
    "OSSL_PROVIDER_load": (_pointer, (_pointer, _text)),
    "EVP_KEYMGMT_fetch": (_pointer, (_pointer, _text, _text)),
    "EVP_KEYMGMT_free": (None, (_pointer,)),
    "EVP_SIGNATURE_fetch": (_pointer, (_pointer, _text, _text)),
    "EVP_SIGNATURE_free": (None, (_pointer,)),
    "EVP_PKEY_CTX_new_from_name": (_pointer, (_pointer, _text, _text)),
    "EVP_PKEY_CTX_free": (None, (_pointer,)),
    "EVP_PKEY_fromdata_init": (_int, (_pointer,)),
    "EVP_PKEY_fromdata": (_int, (_pointer, _pointer, _int, _pointer)),
    "EVP_PKEY_free": (None, (_pointer,)),
    "d2i_X509": (_pointer, (_pointer, _pointer, _long)),
    "X509_free": (None, (_pointer,)),
    "SSL_CTX_get_options": (ctypes.c_uint64, (_pointer,)),
    "SSL_CTX_get_verify_mode": (_int, (_pointer,)),
    "SSL_CTX_get0_certificate": (_pointer, (_pointer,)),
    "SSL_CTX_use_certificate_ASN1": (_int, (_pointer, _int, _text)),
    "SSL_CTX_use_PrivateKey": (_int, (_pointer, _pointer)),
    "SSL_CTX_check_private_key": (_int, (_pointer,)),
    "SSL_CTX_ctrl": (_long, (_pointer, _int, _long, _pointer)),
    "SSL_CTX_set_cert_cb": (None, (_pointer, _pointer, _pointer)),
    "SSL_get_sigalgs": (_int, (_pointer, _int, _pointer, _pointer, _pointer, _pointer, _pointer)),
    "SSL_get_shared_sigalgs": (_int, (_pointer, _int, _pointer, _pointer, _pointer, _pointer, _pointer)),
}
"""Result and argument types of every function that is used."""


def unsupported(why: str) -> TlsKeyUnsupported:
    """The error for a Python that cannot be helped, with the ways out."""
    return TlsKeyUnsupported(f"The ssl module of this Python cannot be given a card's key: {why}.", remedy=_WAYS_OUT)


class OpenSsl:
    """libssl and libcrypto as the ssl module sees them. ``functions``: all that are declared above, by name."""

    __slots__ = ("functions",)

    def __init__(self, functions: ctypes.CDLL) -> None:
        self.functions = functions
        for name, (result, arguments) in _PROTOTYPES.items():
            function = functions[name]
            function.restype, function.argtypes = result, arguments
            setattr(functions, name, function)

    @classmethod
    def find(cls, module: ModuleType = _ssl) -> Self:
        """The OpenSSL that ``module``, Python's ``_ssl``, is linked with.

        A symbol that is looked up in the extension module itself is looked up in its dependencies too, in order:
        so the right library is found wherever it lies, and however many others are loaded.

        Errors: :class:`~demail_hw.errors.TlsKeyUnsupported` if it is linked statically, is older than 3.0, or is
        another product (LibreSSL, AWS-LC, BoringSSL).
        """
        if sys.implementation.name != "cpython":
            raise unsupported(f"it is {sys.implementation.name}, not CPython")
        try:
            library = cls(ctypes.CDLL(getattr(module, "__file__", None)))
        except (OSError, AttributeError) as error:
            raise unsupported("its OpenSSL is linked statically, or knows no providers") from error
        library._check_version()
        return library

    def _check_version(self) -> None:
        found = self.functions.OpenSSL_version(0).decode()
        if found != ssl.OPENSSL_VERSION:
            raise unsupported(f"it runs on {ssl.OPENSSL_VERSION}, and only {found} can be reached")
        if self.functions.OpenSSL_version_num() < _FIRST_WITH_PROVIDERS:
            raise unsupported(f"{found} is older than OpenSSL 3")

    def address(self, name: str) -> int:
        """Where the machine code of a function is."""
        return address_of(self.functions[name])

    def take_reason(self) -> str:
        """Why the last call failed, in OpenSSL's words; its error queue is empty afterwards."""
        code = self.functions.ERR_peek_last_error()
        reason = self.functions.ERR_reason_error_string(code)
        self.functions.ERR_clear_error()
        return reason.decode() if reason else "no reason was given"
