"""The C structures and code points of OpenSSL's provider interface (openssl/core.h, core_dispatch.h, ssl.h).

They have not changed from OpenSSL 3.0 to 4.0; later versions only add to them.
"""

import ctypes
import enum

__all__ = [
    "Algorithm",
    "Dispatch",
    "KeymgmtFunction",
    "Operation",
    "Param",
    "ParamType",
    "ProviderFunction",
    "Selection",
    "SignatureFunction",
    "SslCtrl",
]


class Dispatch(ctypes.Structure):
    """OSSL_DISPATCH: one function of a table; a table ends with id 0."""

    _fields_ = (("function_id", ctypes.c_int), ("function", ctypes.c_void_p))


class Algorithm(ctypes.Structure):
    """OSSL_ALGORITHM: names, separated by colons, and the dispatch table that does it; a list ends with NULL."""

    _fields_ = (
        ("names", ctypes.c_char_p),
        ("properties", ctypes.c_char_p),
        ("implementation", ctypes.c_void_p),
        ("description", ctypes.c_char_p),
    )


class Param(ctypes.Structure):
    """OSSL_PARAM: a named value, or room for one; a list ends with the key NULL. Integers are native-endian."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


class ParamType(enum.IntEnum):
    """OSSL_PARAM_*: what the data of a parameter is."""

    INTEGER = 1
    UNSIGNED_INTEGER = 2
    UTF8_STRING = 4
    OCTET_STRING = 5


class Operation(enum.IntEnum):
    """OSSL_OP_*: what a provider is asked for."""

    KEYMGMT = 10
    SIGNATURE = 12


class ProviderFunction(enum.IntEnum):
    """OSSL_FUNC_PROVIDER_*."""

    QUERY_OPERATION = 1027


class KeymgmtFunction(enum.IntEnum):
    """OSSL_FUNC_KEYMGMT_* (provider-keymgmt(7))."""

    NEW = 1
    FREE = 10
    GET_PARAMS = 11
    GETTABLE_PARAMS = 12
    QUERY_OPERATION_NAME = 20
    HAS = 21
    IMPORT = 40
    IMPORT_TYPES = 41
    EXPORT = 42
    EXPORT_TYPES = 43


class SignatureFunction(enum.IntEnum):
    """OSSL_FUNC_SIGNATURE_* (provider-signature(7))."""

    NEWCTX = 1
    DIGEST_SIGN_INIT = 8
    DIGEST_SIGN = 11
    FREECTX = 16
    SET_CTX_PARAMS = 20
    SETTABLE_CTX_PARAMS = 21


class Selection(enum.IntFlag):
    """OSSL_KEYMGMT_SELECT_*: which parts of a key are meant."""

    PRIVATE_KEY = 0x01
    PUBLIC_KEY = 0x02
    DOMAIN_PARAMETERS = 0x04
    OTHER_PARAMETERS = 0x80
    KEYPAIR = PRIVATE_KEY | PUBLIC_KEY | DOMAIN_PARAMETERS | OTHER_PARAMETERS


class SslCtrl(enum.IntEnum):
    """SSL_CTRL_*: commands of SSL_CTX_ctrl (SSL_CTX_add1_chain_cert(3), SSL_CTX_set1_client_sigalgs_list(3))."""

    CHAIN = 88
    CHAIN_CERT = 89
    SET_CLIENT_SIGALGS_LIST = 102
