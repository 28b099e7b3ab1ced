"""TLS sockets that say why a handshake failed: the key's own exception is the cause of the ``ssl.SSLError``.

A server may ask for the client's certificate in the handshake, and later as well: by renegotiation in TLS 1.2, by
post-handshake authentication in TLS 1.3. Then the key is used while data is read or written.
"""

import ssl
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from demail_hw.tls.openssl.attach import AttachedKey, attached_key

__all__ = ["KeySslObject", "KeySslSocket"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", ssl.SSLSocket, ssl.SSLObject)

_PROTOCOL_VERSION_ALERT: Final = "TLSV1_ALERT_PROTOCOL_VERSION"


def _with_cause(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """``method``, whose ``ssl.SSLError`` has the key's exception as its cause.

    Ctrl-C and its like come out as themselves.
    """

    def call(connection: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        attached = attached_key(connection.context)
        if attached is None:
            return method(connection, *args, **kwargs)
        attached.failures.clear()
        try:
            with attached.failures.catching():
                result = method(connection, *args, **kwargs)
        except OSError as error:
            cause = _cause(error, attached)
            if cause is None:
                raise
            raise error from cause
        attached.failures.take()
        return result

    return call


def _cause(error: OSError, attached: AttachedKey) -> Exception | None:
    failure = attached.failures.take()
    if failure is None and isinstance(error, ssl.SSLError) and error.reason == _PROTOCOL_VERSION_ALERT:
        return attached.one_version and attached.one_version()
    return failure


class KeySslSocket(ssl.SSLSocket):
    """What ``wrap_socket`` of a context with an attached key returns."""

    do_handshake = _with_cause(ssl.SSLSocket.do_handshake)
    read = _with_cause(ssl.SSLSocket.read)
    write = _with_cause(ssl.SSLSocket.write)
    send = _with_cause(ssl.SSLSocket.send)


class KeySslObject(ssl.SSLObject):
    """What ``wrap_bio`` of a context with an attached key returns."""

    do_handshake = _with_cause(ssl.SSLObject.do_handshake)
    read = _with_cause(ssl.SSLObject.read)
    write = _with_cause(ssl.SSLObject.write)
