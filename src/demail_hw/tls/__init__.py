"""TLS with a card's key in an ordinary ssl.SSLContext."""

from demail_hw.tls.context import attach, client_context
from demail_hw.tls.policy import DEMAIL, LimitedKey, TlsProfile

__all__ = ["DEMAIL", "LimitedKey", "TlsProfile", "attach", "client_context"]
