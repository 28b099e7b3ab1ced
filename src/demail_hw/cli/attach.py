"""``demail-hw attach`` and ``detach``: a reader of a USB server as one of this machine, for every program on it."""

import dataclasses
from typing import TYPE_CHECKING, Final

import click

from demail_hw.address import Address
from demail_hw.cli.attaching import Target, keep_attached
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import Report, json_option
from demail_hw.errors import ConfigurationError, DeviceNotFound

if TYPE_CHECKING:
    from demail_hw_drivers.vhci import Origin, Vhci

__all__ = ["attach_command", "detach_command"]

_BINDING: Final = "binding"


@click.command("attach")
@click.argument("reader", type=ADDRESS, metavar="READER")
@click.option(
    "--attempts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Give up after N failures one after the other; 0 for never.  [default: 0, or as the binding says]",
)
@json_option
def attach_command(reader: Address, attempts: int | None, report: Report) -> None:
    """Attach a reader of a USB server to this kernel, and keep it attached until it is stopped or the reader is
    detached. READER is usbip:, usbips:, or binding:NAME with mode = "kernel" in the configuration.

    It needs root and the module vhci-hcd. Every program finds the reader then as if it were plugged in here, through
    pcsc: too. What the server sends is checked before the kernel sees it. Without a kernel, and without root, the
    usbip: address does the same for this program alone.
    """
    target = _target(reader)
    if attempts is not None:
        target = dataclasses.replace(target, limits=dataclasses.replace(target.limits, attempts=attempts))
    keep_attached(reader, target, report.show)


@click.command("detach")
@click.argument("what", metavar="PORT|READER")
@json_option
def detach_command(what: str, report: Report) -> None:
    """Take a reader off this kernel, by the port that usbip port shows, or by the address that it was attached by.
    The attach that keeps it ends then."""
    from demail_hw_drivers.vhci import Vhci

    vhci = Vhci()
    vhci.check()
    number = int(what) if what.isdecimal() else _port_of(vhci, ADDRESS.convert(what, None, None))
    vhci.detach(number)
    report.show({"detached": number}, f"port {number}: detached")


def _target(reader: Address) -> Target:
    if reader.scheme != _BINDING:
        from demail_hw_drivers.usbips_reader import with_tls_files

        return Target(with_tls_files(reader))
    from demail_hw.config.loading import load_configuration
    from demail_hw.config.schema import BindingMode
    from demail_hw.pin_ledger import state_directory
    from demail_hw_drivers.binding_switch import BindingSwitch

    name = reader.selector
    config = load_configuration().binding(name)
    if config.mode is not BindingMode.KERNEL or not config.enabled:
        raise ConfigurationError(
            f"The binding {name!r} is not one that the kernel attaches.",
            remedy='Write mode = "kernel", and see that it is enabled; or use it as it is, by its address.',
        )
    switch = BindingSwitch(state_directory())
    return Target(config.address_of(name), config.retry, lambda: switch.is_off(name))


def _port_of(vhci: "Vhci", reader: Address) -> int:
    """The port that an attach of this address took; else the only one with a device that it can mean."""
    from demail_hw_drivers.vhci_attach import device_of, server_of

    address = _target(reader).address
    origins = {number: origin for number in vhci.used() if (origin := vhci.origin(number)) is not None}
    found = [number for number, origin in origins.items() if origin.address == device_of(address)] or [
        number for number, origin in origins.items() if _can_mean(address, server_of(address), origin)
    ]
    if len(found) != 1:
        count = f"Ports {', '.join(map(str, found))} have devices" if found else "No port has a device"
        raise DeviceNotFound(f"{count} of {reader}.", remedy="Name the port: usbip port shows them.")
    return found[0]


def _can_mean(address: Address, server: tuple[str, int], origin: "Origin") -> bool:
    """As far as a port file tells: it has no serial numbers."""
    is_there = address.reader is None and address.selector in ("", origin.bus_id)
    return is_there and (origin.host, origin.port) == server
