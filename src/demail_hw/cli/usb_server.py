"""``demail-hw usb-server``: W&T USB-Servers, who is there, what answers, and a reset."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from demail_hw.cli.consent import ask, is_typed, need_somebody
from demail_hw.cli.output import JsonValue, Report, json_option, printable
from demail_hw.cli.wut_ports import control_port_option, inventory_port_option, port_options
from demail_hw.errors import DeviceNotFound
from demail_hw.pin_sources import SOURCES, PromptPinSource, parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.wut.inventory import Inventory, PortEntry
from demail_hw.wut.ports import Ports

if TYPE_CHECKING:
    from demail_hw_drivers.wut import FoundServer, Reachability, ServerStatus

__all__ = ["usb_server_command"]

_EVERYBODY: Final = "broadcast"
_NOBODY: Final = (
    "no device answered. A broadcast stays in its own network: name a device elsewhere by --address HOST, scan "
    "longer with --seconds, and see that no firewall holds up UDP"
)
_DEAD: Final = "Check power and cable, the address (a DHCP server knows its lease by the MAC address on the sticker)."
_RESET_SECONDS: Final = 10.0
_OPEN: Final = "open"


def _seconds_option(default: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=True,
        metavar="S",
        help="How long to wait for answers.",
    )


@click.group("usb-server")
def usb_server_command() -> None:
    """W&T USB-Servers: who is there, what answers, and a reset. That is what is published of them; the rest is done
    by hand, in their web pages and with the manufacturer's programs."""


@usb_server_command.command("discover")
@click.option(
    "--address",
    metavar="HOST|broadcast",
    default=_EVERYBODY,
    show_default=True,
    help="Whom to ask: every device in this network, a broadcast address, or a host.",
)
@_seconds_option(3.0)
@inventory_port_option
@json_option
def discover_command(address: str, seconds: float, inventory_port: int, report: Report) -> None:
    """List the W&T devices that answer. The question is repeated until the time is over. What a device says of itself
    is shown as it came where its layout is not clear; anybody in the network can answer anything."""
    from demail_hw_drivers.wut import BROADCAST, discover

    target = BROADCAST if address == _EVERYBODY else address
    found = discover(target, deadline=time.monotonic() + seconds, port=inventory_port)
    text = "\n".join(map(_found_text, found)) or _NOBODY
    report.show({"servers": [_found_facts(server) for server in found]}, text)


@usb_server_command.command("status")
@click.argument("host")
@_seconds_option(6.0)
@port_options
@json_option
def status_command(host: str, seconds: float, ports: Ports, report: Report) -> None:
    """Tell what answers at HOST: the inventory, the web pages, the USB port. The control port is never connected to:
    without a password that resets the device."""
    from demail_hw_drivers.wut import status

    found = status(host, deadline=time.monotonic() + seconds, ports=ports)
    if not found.answers:
        raise DeviceNotFound(f"Nothing answers at {host}.", remedy=_DEAD)
    report.show(_status_facts(found), _status_text(found, ports))


@usb_server_command.command("reset")
@click.argument("host")
@click.option(
    "--password-from",
    "source",
    metavar="SOURCE",
    help=f"Where its system password comes from, if it has one: {SOURCES}. It travels unencrypted.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@control_port_option
@json_option
def reset_command(host: str, source: str | None, dry_run: bool, yes: bool, control_port: int, report: Report) -> None:
    """Restart the USB-Server at HOST. Whoever uses a reader on it loses it."""
    from demail_hw_drivers.wut import reset

    password = None if source is None else _password(source, host)
    facts: dict[str, JsonValue] = {"host": host, "port": control_port, "password": password is not None}
    if dry_run:
        report.show({**facts, "done": False}, f"{host} would be restarted, by its port {control_port}")
        return
    need_somebody(yes=yes)
    ask(f"{host} is restarted, and whoever uses a reader on it loses it. Go on?", yes=yes)
    reset(host, password, deadline=time.monotonic() + _RESET_SECONDS, port=control_port)
    report.show(
        {**facts, "done": True},
        f"{host} hung up, as it does when it restarts. See demail-hw usb-server status {host}",
    )


def _password(source: str, host: str) -> PinSource:
    if is_typed(source):
        return PromptPinSource(f"System password of {printable(host)}: ")
    return parse_pin_source(source, secret="password")  # noqa: S106  what it is called


def _found_facts(server: "FoundServer") -> JsonValue:
    return {"host": server.host, **_inventory_facts(server.inventory)}


def _found_text(server: "FoundServer") -> str:
    return f"{server.host}  {_inventory_text(server.inventory)}"


def _inventory_facts(inventory: Inventory) -> dict[str, JsonValue]:
    header = inventory.header
    known: dict[str, JsonValue] = {}
    if header is not None:
        known = {
            "mac": header.mac_text,
            "ip": str(header.ip),
            "gateway": str(header.gateway),
            "mask": str(header.mask),
            "mtu": header.mtu,
            "software": f"{header.software:#06x}",
            "hardware": header.hardware_text,
            "ports": [_port_facts(port) for port in inventory.ports],
        }
    return {**known, "remarks": [*inventory.remarks], "raw": inventory.raw.hex()}


def _port_facts(port: PortEntry) -> JsonValue:
    return {
        "type": port.type_text,
        "state": port.state_text,
        "mode": port.mode,
        "remote": f"{port.remote_ip}:{port.remote_port}" if port.remote_port else None,
    }


def _inventory_text(inventory: Inventory) -> str:
    header = inventory.header
    if header is None:
        lines = [f"says {inventory.raw.hex(' ')}"]
    else:
        lines = [
            f"{header.mac_text}  {header.hardware_text}, software {header.software:#06x}",
            f"  address {header.ip}, mask {header.mask}, gateway {header.gateway}, MTU {header.mtu}",
            *(f"  port {number}: {_port_text(port)}" for number, port in enumerate(inventory.ports, start=1)),
        ]
    return "\n".join((*lines, *(f"  {remark}" for remark in inventory.remarks)))


def _port_text(port: PortEntry) -> str:
    by = f" by {port.remote_ip}:{port.remote_port}" if port.remote_port else ""
    return f"{port.type_text}, {port.state_text}{by}"


def _status_facts(found: "ServerStatus") -> dict[str, JsonValue]:
    inventory = found.inventory
    return {
        "host": found.host,
        "inventory": None if inventory is None else _inventory_facts(inventory),
        "web": found.web.value,
        "usb": found.usb.value,
        "next_steps": [*_next_steps(found)],
    }


def _status_text(found: "ServerStatus", ports: Ports) -> str:
    said = "no answer" if found.inventory is None else _inventory_text(found.inventory)
    lines = (
        f"{printable(found.host)}  {said}",
        f"  web pages (TCP {ports.web}): {found.web.value}",
        f"  USB (TCP {ports.usb}): {found.usb.value}",
        f"  reset (TCP {ports.control}): not tried, since that resets it",
        *(f"  {step}" for step in _next_steps(found)),
    )
    return "\n".join(lines)


def _next_steps(found: "ServerStatus") -> list[str]:
    """What a person can do about each thing that does not answer."""
    checks: tuple[tuple[bool, str], ...] = (
        (found.inventory is None, "No inventory: see that no firewall holds up UDP on the way."),
        (_is_shut(found.web), "No web pages: see that they were not moved to another port or switched off."),
        (_is_shut(found.usb), "No USB port: readers cannot be had; see UsbServerPort in the web pages, or reset it."),
    )
    return [step for wanted, step in checks if wanted]


def _is_shut(port: "Reachability") -> bool:
    return port.value != _OPEN
