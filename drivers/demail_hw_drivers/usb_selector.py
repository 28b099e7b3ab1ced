"""What follows the last slash of a USB device's address, for every driver that takes one."""

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError

__all__ = ["require_usb_selector"]


def require_usb_selector(address: Address) -> None:
    """:class:`~demail_hw.errors.ConfigurationError` unless the selector is a serial number, VID:PID, a bus id, or
    empty."""
    known = (address.serial, address.vendor_product, address.bus_id)
    if address.selector and not any(selector is not None for selector in known):
        raise ConfigurationError(
            f"{address.selector!r} names no USB device.", remedy="Use serial=..., VID:PID, a bus id, or nothing."
        )
