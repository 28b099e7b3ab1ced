"""A serial line through pyserial, bytes without meaning: a device, ``socket://HOST:PORT``, ``rfc2217://HOST:PORT``."""

import contextlib
import errno
import importlib
import os
from collections.abc import Iterator
from typing import Any, Final

from demail_hw.ccid.serial_framing import BAUD_RATE
from demail_hw.errors import ConfigurationError, DeviceBusy, DeviceNotFound, HardwareError, TransportError
from demail_hw.interfaces import Buffers

__all__ = ["SLICE_SECONDS", "SerialLine", "load_pyserial"]

SLICE_SECONDS: Final = 0.05
"""So long one read waits at most: whoever has a deadline looks at it in between. pyserial's own timeout is set once,
because to set it anew configures the port anew, over RFC 2217 with a round trip for each setting."""

_WRITE_SECONDS: Final = 5.0
_DATA_BITS: Final = 8
_STOP_BITS: Final = 2
_NO_PARITY: Final = "N"
_RFC2217: Final = "rfc2217://"
_NO_SUCH_DEVICE: Final = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM})
_HELD: Final = frozenset({errno.EBUSY, errno.EAGAIN})


def load_pyserial() -> Any:
    """The module ``serial``.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if pyserial is not installed.
    """
    try:
        return importlib.import_module("serial")
    except ImportError as error:
        raise ConfigurationError(
            "Serial readers need pyserial, which is not installed.",
            remedy="Install it: pip install 'demail-hw[serial]'.",
        ) from error


class SerialLine:
    """An open line with the settings of a GemPC Twin, ours alone. ``serial``: pyserial; ``url``: what it opens.

    Errors: :class:`~demail_hw.errors.DeviceNotFound`, :class:`~demail_hw.errors.DeviceBusy`,
    :class:`~demail_hw.errors.TransportError`; :class:`~demail_hw.errors.ConfigurationError` for a URL that pyserial
    does not know.
    """

    def __init__(self, serial: Any, url: str) -> None:
        with _opening(url):
            self._port = serial.serial_for_url(url, do_not_open=True)
            self._configure(url)
            self._port.open()

    def read(self, wanted: int) -> bytes:
        """At most so many bytes as are wanted; none if nothing came for a while. ``OSError`` for a broken line."""
        data: bytes = self._port.read(wanted)
        return data

    def read_now(self) -> bytes:
        """What is there already."""
        data = b""
        while self._port.in_waiting:
            data += self._port.read(self._port.in_waiting)
        return data

    def write(self, data: Buffers) -> None:
        """Send these bytes, in one piece. ``OSError`` for a broken line, or one that takes nothing.

        They are joined in a buffer that is wiped; pyserial makes a copy of its own, and frees that without wiping.
        """
        joined = bytearray().join(data)
        try:
            self._port.write(joined)
        finally:
            joined[:] = bytes(len(joined))

    def close(self) -> None:
        """Never raises; closing twice is allowed."""
        with contextlib.suppress(OSError):
            self._port.close()

    def _configure(self, url: str) -> None:
        port = self._port
        port.baudrate, port.bytesize, port.parity, port.stopbits = BAUD_RATE, _DATA_BITS, _NO_PARITY, _STOP_BITS
        port.timeout = SLICE_SECONDS
        # Low, so that the reader does not say its plug-and-play string.
        port.rts = False
        if not url.startswith(_RFC2217):
            port.write_timeout = _WRITE_SECONDS
        if "://" not in url:
            port.exclusive = True


@contextlib.contextmanager
def _opening(url: str) -> Iterator[None]:
    """Where pyserial's exceptions become errors of ours: nothing was sent to a card."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(
            f"{url!r} is no serial line: {error}.",
            remedy="Write serial:/dev/ttyUSB0, serial:socket://HOST:PORT or serial:rfc2217://HOST:PORT.",
        ) from error
    except OSError as error:
        raise _cannot_open(url, error) from error


def _cannot_open(url: str, error: OSError) -> HardwareError:
    if error.errno in _NO_SUCH_DEVICE:
        return DeviceNotFound(
            f"There is no serial device {url}.", remedy="Plug it in; demail-hw readers serial: lists those there are."
        )
    if error.errno in _NOT_ALLOWED:
        return TransportError(
            f"The serial device {url} may not be opened by this user.",
            remedy="Put the user into the group that owns it (Debian: adduser USER dialout), and log in anew.",
            transient=False,
        )
    if error.errno in _HELD:
        return DeviceBusy(
            f"Another program has the serial device {url}.",
            remedy="End it: pcscd, if a reader of /etc/reader.conf.d names the device, or a terminal program.",
        )
    return DeviceNotFound(
        f"The serial line {url} cannot be opened: {_reason(error)}.",
        remedy="Check its address, and that the COM server runs.",
    )


def _reason(error: OSError) -> str:
    """The system's word: pyserial puts a number and brackets round it."""
    first = (error.errno, *getattr(error.__context__, "args", ()))
    number = next((each for each in first if isinstance(each, int)), None)
    return str(error) if number is None else os.strerror(number)
