"""TLS sockets that say why a handshake failed: the key's own exception is the cause of the ``ssl.SSLError``."""

import ssl
from collections.abc import Callable
from typing import Concatenate, Final, NoReturn, ParamSpec, TypeVar

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.tls.openssl.attach import AttachedKey, attached_key
from demail_hw.tls.policy import is_good_for_tls13

__all__ = ["KeySslObject", "KeySslSocket"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", ssl.SSLSocket, ssl.SSLObject)

_PROTOCOL_VERSION_ALERTS: Final = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})
