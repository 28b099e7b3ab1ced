"""A device of this process on the USB that libusb sees: usbfs (umockdev), our USB/IP client, TCP, our server.

Only for a process that was started with libumockdev-preload.so, see :func:`environment`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from demail_hw.interfaces import ExportedDevice
from demail_hw_drivers.usbip_server import UsbIpServer
from umockdev import _test_bed as test_bed

__all__ = ["PRELOADED", "environment", "plugged_in"]

_LIBRARY: Final = "libumockdev-preload.so.0"
_VARIABLE: Final = "UMOCKDEV_DIR"

PRELOADED: Final = _LIBRARY in os.environ.get("LD_PRELOAD", "")


def environment() -> Mapping[str, str]:
    """For the process in which libusb is to see the device."""
    return {**os.environ, "LD_PRELOAD": _LIBRARY}


@contextlib.contextmanager
def plugged_in(device: ExportedDevice) -> Iterator[Callable[[], None]]:
    """The device is plugged in to the end of the ``with`` block, as 1-1, alone; what it gives unplugs it."""
    with UsbIpServer([device], port=0) as server, test_bed(server.port) as folder:
        os.environ[_VARIABLE] = folder
        try:
            yield server.close
        finally:
            del os.environ[_VARIABLE]
