"""libusb-1.0 through the package libusb1, and what its errors mean. Only here and in the module of the device is it
spoken to."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from demail_hw.errors import ConfigurationError, DeviceLost, HardwareError, Outcome, TransportError
from demail_hw.usbip.messages import UrbStatus

__all__ = ["ERROR_ACCESS", "ERROR_BUSY", "ERROR_NO_DEVICE", "error_status", "libusb_errors", "load_libusb"]

ERROR_ACCESS: Final = -3
ERROR_NO_DEVICE: Final = -4
ERROR_BUSY: Final = -6
_ERROR_PIPE: Final = -9

_STATUS: Final[Mapping[int, int]] = {ERROR_NO_DEVICE: UrbStatus.ENODEV, _ERROR_PIPE: UrbStatus.EPIPE}


class _Meaning(NamedTuple):
    kind: type[HardwareError]
    text: str
    remedy: str
    transient: bool | None = None


_MEANINGS: Final[Mapping[int, _Meaning]] = {
    ERROR_ACCESS: _Meaning(
        TransportError,
        "This user may not open the reader",
        'Add a udev rule, and plug the reader in anew: SUBSYSTEM=="usb", ENV{ID_USB_INTERFACES}=="*:0b0000:*", '
        'TAG+="uaccess"',
        transient=False,
    ),
    ERROR_NO_DEVICE: _Meaning(DeviceLost, "The reader was unplugged", "Plug the reader in, then open it again."),
}
_ANY: Final = _Meaning(TransportError, "libusb could not do it", "Plug the reader out and in, then open it again.")


def load_libusb() -> Any:
    """The module ``usb1``, with the library loaded.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if the package, or the library under it, is not installed.
    """
    try:
        usb1 = importlib.import_module("usb1")
    except ImportError as error:
        raise ConfigurationError(
            "Local USB readers need libusb1, which is not installed.",
            remedy="Install it: pip install 'demail-hw[usb]'.",
        ) from error
    try:
        usb1.loadLibrary()
    except OSError as error:
        raise ConfigurationError(
            "Local USB readers need the library libusb-1.0, which is not installed.",
            remedy="Install it; on Debian: apt-get install libusb-1.0-0.",
        ) from error
    return usb1


@contextlib.contextmanager
def libusb_errors(usb1: Any, reader: str) -> Iterator[None]:
    """Where libusb's errors become errors of ours, before anything was sent to a card."""
    try:
        yield
    except usb1.USBError as error:
        meaning = _MEANINGS.get(error.value, _ANY)
        raise meaning.kind(
            f"{meaning.text} ({reader}): {error}.",
            outcome=Outcome.NOT_SENT,
            remedy=meaning.remedy,
            transient=meaning.transient,
        ) from error


def error_status(code: int) -> int:
    """The status of a transfer that libusb did not even begin."""
    return _STATUS.get(code, UrbStatus.EIO)
