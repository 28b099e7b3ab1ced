"""Address -> driver, by entry points: our own drivers are found the way anybody else's are."""

import importlib.metadata
from collections.abc import Mapping
from typing import Final

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeviceNotFound
from demail_hw.interfaces import Reader, ReaderDriver, ReaderInfo, ShareMode, Timeouts

__all__ = ["driver_of", "find_readers", "open_reader", "reader_driver", "reader_schemes"]

_READERS = "demail_hw.readers"
_TLS_ALONE: Final = "It is for TLS: write usbips://HOST/, or leave it out."
_FOR: Final[Mapping[str, str]] = {
    "ca": _TLS_ALONE,
    "capture": "It is for USB/IP: usbip:, usbips:; leave it out.",
    "cert": _TLS_ALONE,
    "interface": "It is for USB: usbip:, usbips:, libusb:; leave it out.",
    "key": _TLS_ALONE,
    "profile": "It is for simulated readers, as in sim:netkey3?profile=tpdu; leave it out.",
}
"""Parameter of an address that only some drivers take -> what it is for."""


def reader_schemes() -> tuple[str, ...]:
    """Every scheme that a reader address can have here, sorted."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=_READERS)}))


def reader_driver(scheme: str) -> ReaderDriver:
    """The driver of a scheme.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if there is none, or it cannot be loaded because its
    extra is not installed.
    """
    points = importlib.metadata.entry_points(group=_READERS, name=scheme)
    if not points:
        known = ", ".join(reader_schemes())
        raise ConfigurationError(
            f"No driver for addresses of the scheme {scheme!r}.", remedy=f"Installed schemes: {known}."
        )
    point = next(iter(points))
    try:
        driver: ReaderDriver = point.load()()
    except ImportError as error:
        raise ConfigurationError(
            f"The driver for {scheme!r} needs the module {error.name!r}, which is not installed.",
            remedy="Install the extra of this driver (pip install 'demail-hw[all]').",
        ) from error
    return driver


def open_reader(address: Address | str, *, timeouts: Timeouts | None = None) -> Reader:
    """Open the one reader that an address means.

    Errors: :class:`~demail_hw.errors.ConfigurationError` for ``?share=shared`` where a card cannot be shared, and for
    a parameter that addresses of this scheme do not take;
    :class:`~demail_hw.errors.DeviceNotFound` if ``?reader=`` names another one; what the driver raises.
    """
    parsed = Address.parse(address) if isinstance(address, str) else address
    driver = driver_of(parsed)
    if parsed.share == ShareMode.SHARED.value and not driver.can_share:
        raise ConfigurationError(
            f"A card behind {parsed.scheme}: cannot be shared with other programs.",
            remedy="Leave ?share=shared out: the card is then ours alone.",
        )
    reader = driver.open(parsed, timeouts=timeouts or Timeouts())
    if parsed.reader in (None, reader.serial):
        return reader
    serial = reader.serial
    reader.close()
    raise _another_reader(serial, parsed.reader)


def find_readers(address: Address | str, *, timeouts: Timeouts | None = None) -> tuple[ReaderInfo, ...]:
    """The readers that an address can mean. Errors: as :func:`open_reader`."""
    parsed = Address.parse(address) if isinstance(address, str) else address
    return tuple(driver_of(parsed).find(parsed, timeouts=timeouts or Timeouts()))


def driver_of(address: Address) -> ReaderDriver:
    """Its driver, which takes every parameter of it.

    Errors: as :func:`reader_driver`; :class:`~demail_hw.errors.ConfigurationError` for a parameter that it does not
    take.
    """
    driver = reader_driver(address.scheme)
    for name in sorted(_FOR.keys() - driver.parameters):
        if getattr(address, name) is not None:
            raise ConfigurationError(f"An address of {address.scheme}: takes no ?{name}=.", remedy=_FOR[name])
    return driver


def _another_reader(serial: str | None, demanded: str | None) -> DeviceNotFound:
    if serial is None:
        return DeviceNotFound(
            f"The reader tells no serial number, and {demanded!r} was asked for.",
            remedy="Another program may have it in use: end that. If its driver never tells one, leave ?reader= out.",
            transient=False,
        )
    return DeviceNotFound(
        f"The reader has the serial number {serial!r}, not {demanded!r}.",
        remedy="Mend ?reader= in the address, or plug in the right reader.",
        transient=False,
    )
