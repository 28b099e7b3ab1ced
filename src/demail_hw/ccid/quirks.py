"""Readers that need something else than the standard says: named, with the device and the source."""

import dataclasses
from typing import Final

from demail_hw.interfaces import UsbIdentity

__all__ = ["NO_ZERO_LENGTH_PACKET", "ReaderQuirk", "quirk_for"]

_SCM: Final = 0x04E6
_GNUPG: Final = "GnuPG scd/ccid-driver.c: these hang where a response is a multiple of wMaxPacketSize"


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderQuirk:
    """One model whose answers are read in two steps, up to ``first_read`` bytes first, then the rest.

    Such firmware omits the zero-length packet that ends a transfer of whole packets (USB 2.0, 5.8.3), so a read for
    more than it sends never ends. ``before``: the first bcdDevice that does not need it, ``None`` if all do.
    """

    name: str
    vendor_id: int
    product_id: int
    before: int | None
    source: str
    first_read: int = 64

    def applies(self, device: UsbIdentity) -> bool:
        """Is this the device? One of unknown version is taken for an old one: two reads are never wrong."""
        if (device.vendor_id, device.product_id) != (self.vendor_id, self.product_id):
            return False
        return self.before is None or device.version is None or device.version < self.before


NO_ZERO_LENGTH_PACKET: Final = (
    ReaderQuirk("SCM SCR331", _SCM, 0xE001, 0x0516, _GNUPG),
    ReaderQuirk("SCM SCR331-DI", _SCM, 0x5111, 0x0620, _GNUPG),
    ReaderQuirk("SCM SCR335", _SCM, 0x5115, 0x0514, _GNUPG),
    ReaderQuirk("SCM SCR3320", _SCM, 0x5117, 0x0522, _GNUPG),
    ReaderQuirk("SCM SPR532", _SCM, 0xE003, 0x0504, _GNUPG),
)


def quirk_for(device: UsbIdentity) -> ReaderQuirk | None:
    """The quirk of a device, if it has one."""
    return next((quirk for quirk in NO_ZERO_LENGTH_PACKET if quirk.applies(device)), None)
