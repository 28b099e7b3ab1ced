"""Readers on the USB of this machine, without PC/SC: the addresses of the scheme ``libusb:``.

::

    libusb:                         the only reader
    libusb:serial=53692013000000    by serial number
    libusb:04e6:5710                by VID:PID
    libusb:1-1.2                    by bus id: a socket, not a reader

A reader belongs to whoever claims it first. Where pcscd runs that is pcscd, for every reader, from the moment it is
plugged in; the error says so, and what to do.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from demail_hw.address import Address
from demail_hw.ccid.class_descriptor import CCID_DESCRIPTOR_SIZE
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import ConfigurationError, DeviceNotFound
from demail_hw.interfaces import Deadline, ReaderInfo, Timeouts, UsbIdentity
from demail_hw.usb.descriptors import SMART_CARD_CLASS, DeviceDescriptor
from demail_hw_drivers.ccid_reader import reader_over
from demail_hw_drivers.libusb_device import LibusbDevice
from demail_hw_drivers.libusb_holder import UsbPlace, busy
from demail_hw_drivers.libusb_library import libusb_errors, load_libusb
from demail_hw_drivers.libusb_transport import DeviceTransport
from demail_hw_drivers.usb_selector import require_usb_selector

__all__ = ["LibusbReaders", "check_address", "claim", "connect"]

_STALE_SECONDS: Final = 0.05
_VENDOR_INTERFACE_CLASS: Final = 0xFF


class _Found(NamedTuple):
    """A reader that is plugged in. ``serial``: None where it cannot be read. ``device``: of the module ``usb1``."""

    place: UsbPlace
    vendor_id: int
    product_id: int
    serial: str | None
    product: str | None
    interface: int
    device: Any

    @property
    def ids(self) -> str:
        """VID:PID."""
        return f"{self.vendor_id:04x}:{self.product_id:04x}"


class LibusbReaders:
    """The driver of ``libusb:`` (:class:`~demail_hw.interfaces.ReaderDriver`).

    Errors: :class:`~demail_hw.errors.ConfigurationError` if libusb1 is not installed.
    """

    in_process: Final = False
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset({"interface"})

    def __init__(self) -> None:
        self._usb1 = load_libusb()

    def open(self, address: Address, *, timeouts: Timeouts) -> CcidReader:
        """Claim the one reader that the address means. Errors: as :func:`connect`."""
        return reader_over(connect(address, deadline=time.monotonic() + timeouts.connect))

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:  # noqa: ARG002  the seam's
        """The readers that the address can mean. None is claimed, so that nobody knows of their cards."""
        check_address(address)
        with contextlib.closing(_open_context(self._usb1)) as context:
            return [_info(address, found) for found in _plugged_in(self._usb1, context) if _can_mean(address, found)]


def connect(address: Address, *, deadline: Deadline) -> DeviceTransport:
    """Claim the one reader that the address means, and let it say to the end what it had to say to others.

    Errors: as :func:`claim`.
    """
    device, place = _claim(address)
    descriptor = DeviceDescriptor.decode(device.device_descriptor)
    identity = UsbIdentity(
        descriptor.vendor_id,
        descriptor.product_id,
        device.serial or None,
        device.product or None,
        place.bus_id,
        descriptor.device_version,
        device.interface.number,
    )
    transport = DeviceTransport(device, device.interface, identity, device.close)
    try:
        transport.drain(deadline=min(deadline, time.monotonic() + _STALE_SECONDS))
    except BaseException:
        transport.close()
        raise
    return transport


def claim(address: Address) -> LibusbDevice:
    """Claim the one reader that the address means, to export it; the caller closes it.

    Errors: :class:`~demail_hw.errors.DeviceNotFound` (no such reader, or several),
    :class:`~demail_hw.errors.DeviceBusy` with who has it, :class:`~demail_hw.errors.TransportError` if this user may
    not, :class:`~demail_hw.errors.ConfigurationError`; nothing was sent to a card.
    """
    return _claim(address)[0]


def _claim(address: Address) -> tuple[LibusbDevice, UsbPlace]:
    check_address(address)
    usb1 = load_libusb()
    context = _open_context(usb1)
    try:
        found = _choose(address, list(_plugged_in(usb1, context)))
        # From here on the context is the device's, which closes it.
        return _claim_found(usb1, context, found, address.interface), found.place
    except BaseException:
        context.close()
        raise


def _claim_found(usb1: Any, context: Any, found: _Found, interface: int | None) -> LibusbDevice:
    with libusb_errors(usb1, f"{found.place.bus_id}, {found.ids}"):
        try:
            return LibusbDevice(usb1, context, found.device, interface)
        except usb1.USBErrorBusy as error:
            raise busy(found.place, found.interface if interface is None else interface) from error


def _open_context(usb1: Any) -> Any:
    with libusb_errors(usb1, "this machine's USB"):
        return usb1.USBContext().open()


def check_address(address: Address) -> None:
    """Can it mean a device on this machine's USB? :class:`~demail_hw.errors.ConfigurationError` if not; nobody is
    asked."""
    if address.host:
        raise ConfigurationError(
            f"{str(address)!r} names a host, but these readers are here.",
            remedy="Write libusb:SELECTOR without //; a reader of another machine is usbip://HOST/.",
        )
    require_usb_selector(address)


def _plugged_in(usb1: Any, context: Any) -> Iterator[_Found]:
    for device in context.getDeviceIterator(skip_on_error=True):
        setting = next((setting for setting in device.iterSettings() if _is_reader(setting)), None)
        if setting is not None:
            ports = ".".join(map(str, device.getPortNumberList())) or "0"
            bus, number = device.getBusNumber(), device.getDeviceAddress()
            place = UsbPlace(f"{bus}-{ports}", bus, number)
            serial, product = _strings(usb1, device)
            ids = device.getVendorID(), device.getProductID()
            yield _Found(place, *ids, serial, product, setting.getNumber(), device)


def _is_reader(setting: Any) -> bool:
    if setting.getClass() == SMART_CARD_CLASS:
        return True
    extras = setting.getExtra()
    return setting.getClass() == _VENDOR_INTERFACE_CLASS and any(len(e) == CCID_DESCRIPTOR_SIZE for e in extras)


def _strings(usb1: Any, device: Any) -> tuple[str | None, str | None]:
    """Serial number and product of a device, where this user may read them."""
    try:
        return device.getSerialNumber(), device.getProduct()
    except usb1.USBError:
        return None, None


def _can_mean(address: Address, found: _Found) -> bool:
    if address.reader not in (None, found.serial):
        return False
    if address.serial is not None:
        return found.serial == address.serial
    if address.bus_id is not None:
        return found.place.bus_id == address.bus_id
    return address.vendor_product in (None, (found.vendor_id, found.product_id))


def _choose(address: Address, plugged_in: Sequence[_Found]) -> _Found:
    meant = [found for found in plugged_in if _can_mean(address, found)]
    if len(meant) == 1:
        return meant[0]
    if not plugged_in:
        raise DeviceNotFound("No USB reader is plugged in here.", remedy="Plug it in; lsusb shows what is there.")
    what = f"{len(meant)} readers" if meant else "no reader"
    listed = ", ".join(f"{f.place.bus_id} ({f.ids}, {_serial(f)})" for f in plugged_in)
    raise DeviceNotFound(
        f"There is {what} {address.selector}".rstrip() + f" on this machine's USB; there are {listed}.",
        remedy="Name one reader in the address: libusb:serial=..., or the card with ?card=ICCSN.",
    )


def _serial(found: _Found) -> str:
    return f"serial number {found.serial or 'not known'}"


def _info(address: Address, found: _Found) -> ReaderInfo:
    selector = f"serial={found.serial}" if found.serial else found.place.bus_id
    where = dataclasses.replace(address, selector=selector)
    name = found.product or f"CCID reader {found.ids}"
    return ReaderInfo(str(where), name, found.serial, card=None, in_use=None)
