"""What a server may ask for in its CertificateRequest (RFC 8446, 4.3.2; RFC 5246, 7.4.4), held against the key.

If nothing fits, libssl quietly sends no certificate, and all that is seen is the server's alert. So it is looked at
before (SSL_CTX_set_cert_cb(3)), and the handshake ends with a sentence.
"""

import ctypes
from typing import Final

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.tls.openssl.dispatch import address_of
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import KeyRegistry, RegisteredKey
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.policy import scheme_name

__all__ = ["CertificateRequests"]

_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SHARED: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, *(ctypes.c_void_p,) * 5)
"""SSL_get_shared_sigalgs, without letting other threads in for the few instructions it takes."""
_FIRST: Final = 0
_COUNT_ONLY: Final = -1


class CertificateRequests:
    """The certificate callback of every context. ``address``: where C calls it."""

    def __init__(self, library: OpenSsl, registry: KeyRegistry, failures: Failures) -> None:
        self._functions = library.functions
        self._count_shared = _SHARED(library.address("SSL_get_shared_sigalgs"))
        self._registry = registry
        self._thunk = _CALLBACK(failures.guard(self._check))
        self.address = address_of(self._thunk)

    def _check(self, connection: int, key_id: int) -> int:
        if self._count_shared(connection, _FIRST, None, None, None, None, None):
            return True
        asked = self._asked_for(connection)
        if asked:
            raise _nothing_fits(asked, self._registry.find(key_id))
        return True

    def _asked_for(self, connection: int) -> list[int]:
        """The code points that the server listed."""
        low, high = ctypes.c_ubyte(), ctypes.c_ubyte()
        where = (None, None, None, ctypes.byref(low), ctypes.byref(high))
        asked = []
        for index in range(self._functions.SSL_get_sigalgs(connection, _COUNT_ONLY, *where)):
            self._functions.SSL_get_sigalgs(connection, index, *where)
            asked.append(high.value << 8 | low.value)
        return asked


def _nothing_fits(asked: list[int], key: RegisteredKey) -> AlgorithmNotSupported:
    wanted, able = (", ".join(map(scheme_name, codes)) for codes in (asked, key.schemes))
    return AlgorithmNotSupported(
        f"The server takes these signatures from a client: {wanted}; the key makes these: {able}.",
        remedy="Use a key that makes one of them (on a NetKey card the AUTHENTICATION key does PSS), "
        "or let the server take one that the key makes.",
        layer=Layer.TLS,
    )
