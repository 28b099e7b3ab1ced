"""A reader of the CCID class over a transport that a driver has just claimed."""

import time
from typing import Final

from demail_hw.ccid.reader import CcidReader
from demail_hw.interfaces import Deadline, UsbTransport
from demail_hw.polling import look_again, pause
from demail_hw.transaction_lock import TransactionLock

__all__ = ["reader_over"]

_GRACE_SECONDS: Final = 2.0


def reader_over(transport: UsbTransport) -> CcidReader:
    """The reader at the transport's other end, which is closed if there is none. Errors: as of
    :class:`~demail_hw.ccid.reader.CcidReader`."""
    try:
        return CcidReader(
            transport,
            lock=TransactionLock(),
            grace=_grace,
            pause=pause,
            look_again=look_again,
            now=time.monotonic,
        )
    except BaseException:
        transport.close()
        raise


def _grace() -> Deadline:
    return time.monotonic() + _GRACE_SECONDS
