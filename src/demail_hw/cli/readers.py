"""``demail-hw readers``: which readers there are."""

import logging
from typing import Final

import click

from demail_hw.address import Address
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.errors import HardwareError
from demail_hw.interfaces import ReaderInfo
from demail_hw.registry import find_readers

__all__ = ["readers_command"]

_LOG = logging.getLogger(__name__)
_EVERYWHERE: Final = (Address("usbip", host="127.0.0.1"), Address("pcsc"), Address("sim"))
_CARD = {True: "card", False: "no card", None: "card not asked"}
_NONE: Final = "no free reader; a USB server does not list one that somebody uses"
_USE = {True: "in use", False: "free", None: "use not known"}


@click.command("readers")
@click.argument("addresses", metavar="[URI]...", type=ADDRESS, nargs=-1)
@json_option
def readers_command(addresses: tuple[Address, ...], report: Report) -> None:
    """List the readers at the addresses (pcsc: for all of PC/SC, usbip://HOST/ for all of a USB server).

    Without an address: those of a USB server on this machine, of PC/SC, and the simulated ones. What is not there
    is a warning, not an error.
    """
    if addresses:
        found = [info for address in addresses for info in find_readers(address)]
    else:
        found = [info for address in _EVERYWHERE for info in _if_there(address)]
    report.show({"readers": [_facts(info) for info in found]}, "\n".join(map(_line, found)) or _NONE)


def _if_there(address: Address) -> tuple[ReaderInfo, ...]:
    try:
        return find_readers(address)
    except HardwareError as error:
        _LOG.warning("nothing from %s (%s)", address, error.message.rstrip("."))
        return ()


def _facts(info: ReaderInfo) -> JsonValue:
    return {
        "address": info.address,
        "name": info.name,
        "serial": info.serial,
        "card": info.card,
        "in_use": info.in_use,
    }


def _line(info: ReaderInfo) -> str:
    return f"{info.address}  {info.name}  {_CARD[info.card]}, {_USE[info.in_use]}"
