"""Which serial numbers the readers of a USB server have: a device list has none, and looking takes a reader."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from demail_hw.usbip.messages import UsbDevice

__all__ = ["SerialMemory"]

_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 600.0
_MAX_DEVICES: Final = 256


class _Look(NamedTuple):
    serial: str | None
    wait: float
    again: float


class SerialMemory:
    """What was found when the readers of one server were looked at; for one thread at a time.

    To look is to import: the reader is reset, and whoever wants it then finds it busy. So a device whose serial
    number is another is looked at again only after a wait that doubles, from 5 seconds to 10 minutes, in case that
    the server gives the numbers of a device to its successor. One with new numbers is new.
    """

    def __init__(self) -> None:
        self._looks: dict[tuple[str, int, int, int, int], _Look] = {}

    def candidates(self, serial: str, devices: Sequence[UsbDevice], now: float) -> Sequence[UsbDevice]:
        """The devices that may have this serial number, the one that had it last first."""
        had = [device for device in devices if self._had(device, serial)]
        return had + [each for each in devices if each not in had and self._may_look(each, now)]

    def note(self, device: UsbDevice, serial: str | None, now: float) -> None:
        """A device was looked at. ``serial``: None also if it could not be read."""
        known = self._looks.pop(_key(device), None)
        wait = _FIRST_WAIT if known is None or known.serial != serial else min(2 * known.wait, _LONGEST_WAIT)
        if len(self._looks) >= _MAX_DEVICES:
            del self._looks[next(iter(self._looks))]
        self._looks[_key(device)] = _Look(serial, wait, now + wait)

    def _had(self, device: UsbDevice, serial: str) -> bool:
        known = self._looks.get(_key(device))
        return known is not None and known.serial == serial

    def _may_look(self, device: UsbDevice, now: float) -> bool:
        known = self._looks.get(_key(device))
        return known is None or now >= known.again


def _key(device: UsbDevice) -> tuple[str, int, int, int, int]:
    return device.bus_id, device.devid, device.vendor_id, device.product_id, device.device_version
