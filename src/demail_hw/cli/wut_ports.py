"""The ports of a W&T USB-Server as options."""

import functools
from collections.abc import Callable
from typing import Final

import click

from demail_hw.wut.ports import FACTORY_PORTS, Ports

__all__ = ["control_port_option", "inventory_port_option", "port_options"]

_PORT: Final = click.IntRange(0, 0xFFFF)


def _option(name: str, default: int, meaning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}-port", type=_PORT, default=default, show_default=True, metavar="N", help=meaning)


inventory_port_option: Final = _option("inventory", FACTORY_PORTS.inventory, "UDP: who is there.")
control_port_option: Final = _option("control", FACTORY_PORTS.control, "TCP: resets it.")
_WEB: Final = _option("web", FACTORY_PORTS.web, "TCP: its web pages.")
_USB: Final = _option("usb", FACTORY_PORTS.usb, "TCP: USB, for its own driver.")


def port_options(function: Callable[..., None]) -> Callable[..., None]:
    """All four for a command, which gets :class:`~demail_hw.wut.ports.Ports` named ``ports``."""

    @functools.wraps(function)
    def with_ports(
        *arguments: object, inventory_port: int, web_port: int, usb_port: int, control_port: int, **others: object
    ) -> None:
        function(*arguments, ports=Ports(inventory_port, web_port, usb_port, control_port), **others)

    return inventory_port_option(_WEB(_USB(control_port_option(with_ports))))
