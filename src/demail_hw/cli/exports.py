"""What ``demail-hw serve`` can export, by the scheme of its address."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import click

from demail_hw.address import Address
from demail_hw.cli.card_options import CardOptions, open_simulated_card, simulated_profile
from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import ExportedDevice

__all__ = ["check_export", "open_export"]

_FIRST_SERIAL: Final = 53692013000000
_DEMANDS: Final = frozenset({"ca", "capture", "card", "cert", "interface", "key", "profile", "reader", "share"})


def open_export(address: Address, number: int) -> ExportedDevice:
    """The device at an address. ``number``: its place among the exports, from 0 on; of simulated readers each has a
    serial number by it.

    Errors: :class:`~demail_hw.errors.ConfigurationError`; what the driver raises.
    """
    return _exporter_of(address).make(address, number)


def check_export(address: Address) -> None:
    """Can it be exported, as far as its address tells? Nothing is opened.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    _exporter_of(address).check(address)


def _simulated(address: Address, number: int) -> ExportedDevice:
    from demail_hw_simulators.ccid_device import SimulatedUsbReader
    from demail_hw_simulators.sim_reader import DEFAULT_PERSONALITY

    card = open_simulated_card(CardOptions(address.selector or DEFAULT_PERSONALITY))
    serial = str(_FIRST_SERIAL + number)
    return SimulatedUsbReader(card, serial=serial, profile=simulated_profile(address.profile))


def _check_simulated(address: Address) -> None:
    _simulated(address, 0)


def _local(address: Address, _number: int) -> ExportedDevice:
    from demail_hw_drivers.libusb import claim

    device = claim(address)
    click.get_current_context().call_on_close(device.close)
    return device


def _check_local(address: Address) -> None:
    from demail_hw_drivers.libusb import check_address

    check_address(address)


class _Exporter(NamedTuple):
    """What makes a device of an address and a number, what looks at the address alone, and which parameters are
    heeded."""

    make: Callable[[Address, int], ExportedDevice]
    check: Callable[[Address], None]
    parameters: frozenset[str] = frozenset()


_EXPORTERS: Final[Mapping[str, _Exporter]] = {
    "libusb": _Exporter(_local, _check_local),
    "sim": _Exporter(_simulated, _check_simulated, frozenset({"profile"})),
}


def _exporter_of(address: Address) -> _Exporter:
    exporter = _EXPORTERS.get(address.scheme)
    if exporter is None:
        known = ", ".join(f"{scheme}:" for scheme in sorted(_EXPORTERS))
        raise ConfigurationError(
            f"{address.scheme}: is nothing that can be exported.", remedy=f"These can be: {known}."
        )
    for name in sorted(_DEMANDS - exporter.parameters):
        if getattr(address, name) is not None:
            raise ConfigurationError(
                f"A reader that is exported as {address.scheme}: takes no ?{name}=.", remedy="Leave it out."
            )
    return exporter
