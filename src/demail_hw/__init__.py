"""A key on a smartcard, used from Python as easily and as safely as a key in a file, wherever the card is.

::

    import demail_hw

    with demail_hw.open_provider("usbip://usb-server/", pin="credential:demail-pin") as provider:
        identity = provider.identity(demail_hw.KeyRole.SIGNATURE)
        signature = identity.private_key.sign(data, PKCS1v15(), SHA256())

See :mod:`demail_hw.cms`, :mod:`demail_hw.tls` and :mod:`demail_hw.gateway` for what can be done with an identity,
and :mod:`demail_hw.errors` for what can go wrong.
"""

from demail_hw.errors import HardwareError
from demail_hw.identity import Identity, KeyRole
from demail_hw.interfaces import KeyProvider, Timeouts
from demail_hw.keys.provider import open_provider
from demail_hw.reader_watch import ReaderEvent, WatchEvent, watch_readers
from demail_hw.secrets import Pin, PinSource
from demail_hw.tcos.layout import PinName
from demail_hw.traces.files import FileTracer

__all__ = [
    "FileTracer",
    "HardwareError",
    "Identity",
    "KeyProvider",
    "KeyRole",
    "Pin",
    "PinName",
    "PinSource",
    "ReaderEvent",
    "Timeouts",
    "WatchEvent",
    "open_provider",
    "watch_readers",
]
