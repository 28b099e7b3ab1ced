"""An OpenSSL 3 provider written in ctypes (provider(7)): how a handshake reaches the key.

::

    ssl.SSLContext                          attach.py gave its SSL_CTX an EVP_PKEY of this provider
      do_handshake
        libssl, CertificateRequest          certificate_request.py: does the key do what the server takes?
        libssl, CertificateVerify
          EVP_DigestSignInit                first offers the key to OpenSSL's own RSA; keymgmt.py does not export
                                            the private half, so libcrypto asks the provider of the key:
            digest_sign_init                signature.py: which key, which hash,
            set_ctx_params                  which padding
          EVP_DigestSign
            digest_sign                     private_key.sign(message, padding, hash): the card

The key as OpenSSL sees it is a block of memory with a number in it. The private key, a card's or any other of
cryptography's classes, stays in Python, held by its context (key_registry.py). What it raises goes round OpenSSL
(failures.py) and comes out as the cause of the ``ssl.SSLError``.

The provider lives in a library context of its own, and is the only one there: nothing else in the process ever
fetches an algorithm from it, and it needs no configuration. libssl may use its keys nevertheless.

A signal that comes while C runs is handled in the next Python function, and an exception at its entry cannot be
caught: C goes on with an undefined result. So what returns an address is never Python: it is a constant
(dispatch.py) or OpenSSL's own. Where Python returns success or failure, a wrong one does no harm, since nothing it
should have filled in has a meaning before; and the exception itself is recovered (failures.py).

OpenSSL cleans up after the interpreter has gone, and a Python function that is called then ends the process.
Therefore the provider has no teardown and is never unloaded, and the tables and everything they point to are never
given back. And OpenSSL makes and frees the blocks behind keys and operations itself: the entries NEW, NEWCTX, FREE
and FREECTX of the tables are its own CRYPTO_zalloc and CRYPTO_free. They take further arguments, a file and a line
for a debugging allocator, which nobody passes and nobody looks at. What they are passed first is the block to free;
or, to make one, the provider's context, which is ours to choose: it is the number of bytes.
"""

import ctypes
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from demail_hw.identity import PrivateKey
from demail_hw.tls.openssl.certificate_request import CertificateRequests
from demail_hw.tls.openssl.dispatch import DispatchTable
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import KeyRegistry, RegisteredKey
from demail_hw.tls.openssl.keymgmt import HARDWARE_KEY, KeyManagement
from demail_hw.tls.openssl.library import OpenSsl, unsupported
from demail_hw.tls.openssl.params import OwnedParams
from demail_hw.tls.openssl.signature import Signatures
from demail_hw.tls.openssl.structures import Algorithm, Operation, ProviderFunction, Selection

__all__ = ["SHARED_PROVIDER", "OpenSslKeyProvider", "SharedProvider"]

_BLOCK_SIZE: Final = 32
"""Bytes of a block of memory that stands for a key or a signature operation; both need less."""
_NAME: Final = b"demailhw"
_PROPERTIES: Final = b"provider=demailhw"
_RSA_NAMES: Final = b"RSA:rsaEncryption:1.2.840.113549.1.1.1"
_EC_NAMES: Final = b"EC:id-ecPublicKey:1.2.840.10045.2.1"
_ECDSA_NAMES: Final = b"ECDSA"

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_INIT: Final = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, ctypes.POINTER(_POINTER), ctypes.POINTER(_POINTER))
_QUERY: Final = ctypes.CFUNCTYPE(_POINTER, _POINTER, _INT, ctypes.POINTER(_INT))


class OpenSslKeyProvider:
    """The provider, loaded into ``library``. It stays for the life of the process: see the module's docstring.

    Errors: :class:`~demail_hw.errors.TlsKeyUnsupported` if OpenSSL does not take it.
    """

    def __init__(self, library: OpenSsl) -> None:
        self.library = library
        self.failures = Failures()
        self.registry = KeyRegistry()
        self.signatures = Signatures(library, self.registry, self.failures)
        self._rsa = KeyManagement(library, self.registry, self.failures)
        self._ec = KeyManagement(library, self.registry, self.failures, _ECDSA_NAMES)
        self._algorithms: Mapping[int, ctypes.Array[Algorithm]] = {
            Operation.KEYMGMT: _algorithms((_RSA_NAMES, self._rsa.table), (_EC_NAMES, self._ec.table)),
            Operation.SIGNATURE: _algorithms(
                (_RSA_NAMES, self.signatures.table), (_ECDSA_NAMES, self.signatures.table)
            ),
        }
        self.certificate_requests = CertificateRequests(library, self.registry, self.failures)
        self._table = DispatchTable(self.failures, {ProviderFunction.QUERY_OPERATION: (_QUERY, self._query)})
        self._init_thunk = _INIT(self.failures.guard(self._init))
        _make_immortal(self)
        self._library_context = self._load()

    def _load(self) -> int:
        """Load the provider into a library context of its own, and have OpenSSL fetch all that it has."""
        functions = self.library.functions
        context: int | None = functions.OSSL_LIB_CTX_new()
        if (
            not context
            or not functions.OSSL_PROVIDER_add_builtin(context, _NAME, self._init_thunk)
            or not functions.OSSL_PROVIDER_load(context, _NAME)
            or not self._fetch_all(context)
        ):
            raise unsupported(f"its OpenSSL refused the provider ({self.library.take_reason()})")
        return context

    def _fetch_all(self, context: int) -> bool:
        functions = self.library.functions
        keymgmts = [functions.EVP_KEYMGMT_fetch(context, name, None) for name in (b"RSA", b"EC")]
        signatures = [functions.EVP_SIGNATURE_fetch(context, name, None) for name in (b"RSA", b"ECDSA")]
        for keymgmt, signature in zip(keymgmts, signatures, strict=True):
            functions.EVP_KEYMGMT_free(keymgmt)
            functions.EVP_SIGNATURE_free(signature)
        return all(keymgmts) and all(signatures)

    def _init(
        self,
        _core: int | None,
        _core_functions: int | None,
        table: "ctypes._Pointer[ctypes.c_void_p]",
        context: "ctypes._Pointer[ctypes.c_void_p]",
    ) -> int:
        """The entry point (provider-base(7)). The provider's context is the size of a block: see the docstring."""
        table[0] = ctypes.c_void_p(self._table.address)
        context[0] = ctypes.c_void_p(_BLOCK_SIZE)
        return True

    def _query(self, _context: int | None, operation: int, no_cache: "ctypes._Pointer[ctypes.c_int]") -> int:
        no_cache[0] = 0
        algorithms = self._algorithms.get(operation)
        return 0 if algorithms is None else ctypes.addressof(algorithms)

    def new_evp_pkey(self, private_key: PrivateKey) -> tuple[RegisteredKey, int]:
        """An EVP_PKEY for a key, for the caller to free, and the registration that keeps it usable."""
        functions = self.library.functions
        key = self.registry.register(private_key)
        params = OwnedParams({HARDWARE_KEY: key.key_id})
        pkey = _POINTER()
        context = functions.EVP_PKEY_CTX_new_from_name(self._library_context, key.public.algorithm, None)
        made = (
            context
            and functions.EVP_PKEY_fromdata_init(context) > 0
            and functions.EVP_PKEY_fromdata(context, ctypes.byref(pkey), Selection.KEYPAIR, params.address) > 0
        )
        functions.EVP_PKEY_CTX_free(context)
        if not made or not pkey.value:
            raise unsupported(f"its OpenSSL refused the key ({self.library.take_reason()})") from self.failures.take()
        return key, pkey.value


def _algorithms(*named: tuple[bytes, DispatchTable]) -> "ctypes.Array[Algorithm]":
    rows = [Algorithm(names, _PROPERTIES, table.address, None) for names, table in named]
    return (Algorithm * (len(rows) + 1))(*rows)


def _make_immortal(thing: object) -> None:
    """Never give back an object, nor what it refers to, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _load_undisturbed() -> OpenSslKeyProvider:
    """Load it in a thread, where no signal is handled.

    The function that OpenSSL asks for the tables returns an address, and would return an undefined one if it were
    interrupted at its entry. It is asked for everything here, and for nothing later.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="openssl-provider") as thread:
        return thread.submit(lambda: OpenSslKeyProvider(OpenSsl.find())).result()


class SharedProvider:
    """The one provider of this process, made when the first key is attached.

    It is shared because it cannot be taken back: OpenSSL keeps its functions to the end of the process, so every
    further one would only be memory lost. It holds no key; a key belongs to its context.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._provider: OpenSslKeyProvider | None = None

    def get(self) -> OpenSslKeyProvider:
        """The provider. Errors: :class:`~demail_hw.errors.TlsKeyUnsupported`, and the next call tries again."""
        with self._lock:
            if self._provider is None:
                self._provider = _load_undisturbed()
            return self._provider


SHARED_PROVIDER: Final = SharedProvider()
