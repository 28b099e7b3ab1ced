"""The SSL_CTX of an ``ssl.SSLContext``: where CPython keeps it, and the proof that it is the one.

Every CPython up to 3.15 begins the object with its header and then the ``SSL_CTX *``. It is private, so nothing is
done with the pointer before it has been seen to follow its context.
"""

import _ssl
import ctypes
import ssl
from typing import Final

from demail_hw.tls.openssl.library import OpenSsl, unsupported

__all__ = ["ssl_ctx_of"]

_HEADER: Final = object.__basicsize__
_PROBES: Final = (ssl.OP_NO_TICKET, ssl.OP_CIPHER_SERVER_PREFERENCE)
_VERIFY_MODES: Final = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}
"""SSL_VERIFY_PEER and SSL_VERIFY_FAIL_IF_NO_PEER_CERT (SSL_CTX_set_verify(3))."""
_VERIFY_MASK: Final = 3


def ssl_ctx_of(context: ssl.SSLContext, library: OpenSsl) -> int:
    """The address of the context's SSL_CTX. Its options are toggled for a moment, and put back.

    Errors: :class:`~demail_hw.errors.TlsKeyUnsupported` if the object is not laid out as expected.
    """
    pointer = _read_pointer(context)
    if not pointer or not _is_proven(context, pointer, library):
        raise unsupported(f"the SSL_CTX of its {type(context).__qualname__} was not found")
    return pointer


def _read_pointer(context: ssl.SSLContext) -> int | None:
    room = _HEADER + ctypes.sizeof(ctypes.c_void_p)
    if _ssl._SSLContext.__basicsize__ < room:  # noqa: SLF001
        return None
    return ctypes.c_void_p.from_address(id(context) + _HEADER).value


def _is_proven(context: ssl.SSLContext, pointer: int, library: OpenSsl) -> bool:
    mode = library.functions.SSL_CTX_get_verify_mode(pointer) & _VERIFY_MASK
    if mode != _VERIFY_MODES[context.verify_mode]:
        return False
    before = context.options
    try:
        for probe in _PROBES:
            context.options ^= probe
            if library.functions.SSL_CTX_get_options(pointer) != context.options:
                return False
    finally:
        context.options = before
    return bool(library.functions.SSL_CTX_get_options(pointer) == before)
