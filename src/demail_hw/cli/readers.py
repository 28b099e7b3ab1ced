"""``demail-hw readers``: which readers there are."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Final

import click

from demail_hw.address import Address
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.cli.simulator_process import ended_by_signals
from demail_hw.errors import ConfigurationError, HardwareError
from demail_hw.foreign_text import printable
from demail_hw.interfaces import ReaderInfo
from demail_hw.reader_watch import ReaderEvent, watch_readers
from demail_hw.registry import find_readers

__all__ = ["readers_command"]

_LOG = logging.getLogger(__name__)
_HERE: Final = (
    Address("usbip", host="127.0.0.1"),
    Address("libusb"),
    Address("pcsc"),
    Address("serial"),
    Address("sim"),
)
_BINDINGS: Final = Address("binding")
_CARD = {True: "card", False: "no card", None: "card not asked (card info asks it)"}
_SEE_BINDINGS: Final = "See what it says: demail-hw binding status."
_NONE: Final = "no reader"
_NONE_FREE: Final = "no free reader; a USB server does not list one that somebody uses"
_OF_SERVERS: Final = frozenset({"usbip", "usbips"})
_USE = {True: "in use", False: "free", None: "use not known"}


@click.command("readers")
@click.argument("addresses", metavar="[URI]...", type=ADDRESS, nargs=-1)
@click.option(
    "--watch",
    is_flag=True,
    help="Go on, until Ctrl-C, with a line for whatever comes or goes; looked at every second. A reader of a USB "
    "server is held meanwhile.",
)
@json_option
def readers_command(addresses: tuple[Address, ...], watch: bool, report: Report) -> None:
    """List the readers at the addresses (pcsc: for all of PC/SC, usbip://HOST/ for all of a USB server).

    Without an address: the bindings of the configuration (not with --watch), the readers of a USB server on this
    machine, of its USB, of PC/SC, the serial ports, which are not asked whether a reader is there, and the simulated
    ones. What is not there is a warning, not an error.
    """
    if watch:
        _watch(addresses, report)
        return
    if addresses:
        found = [info for address in addresses for info in find_readers(address)]
    else:
        found = [info for address in (_BINDINGS, *_HERE) for info in _if_there(address)]
    report.show({"readers": [_facts(info) for info in found]}, "\n".join(map(_line, found)) or _none_at(addresses))


def _none_at(addresses: Sequence[Address]) -> str:
    return _NONE_FREE if any(address.scheme in _OF_SERVERS for address in addresses or _HERE) else _NONE


def _if_there(address: Address) -> tuple[ReaderInfo, ...]:
    try:
        return find_readers(address)
    except HardwareError as error:
        _LOG.warning("nothing from %s (%s)", address, error.message.rstrip("."))
        return ()


def _watch(addresses: Sequence[Address], report: Report) -> None:
    named = [each for address in addresses for each in _one_by_one(address)]
    watch = watch_readers(named or _HERE, complain=_refuse_or_warn if named else _warn)
    with ended_by_signals(), watch as events, contextlib.suppress(KeyboardInterrupt):
        for event in events:
            report.show(_event_facts(event), _event_line(event))


def _one_by_one(address: Address) -> Sequence[Address]:
    """What stands for all bindings is each of them: so it is known of each whether it is there."""
    if address != _BINDINGS:
        return (address,)
    found = [Address.parse(info.address) for info in find_readers(address)]
    if not found:
        raise ConfigurationError("The configuration has no bindings that can be watched.", remedy=_SEE_BINDINGS)
    return found


def _warn(address: str, error: HardwareError) -> None:
    _LOG.warning("%s: %s", address, error.message)


def _refuse_or_warn(address: str, error: HardwareError) -> None:
    """What no time mends ends the watch."""
    if isinstance(error, ConfigurationError):
        raise error
    _warn(address, error)


def _event_facts(event: ReaderEvent) -> dict[str, JsonValue]:
    info = event.reader
    return {
        "event": event.event.value,
        "address": info.address,
        "name": info.name,
        "serial": info.serial,
        "at": event.at.isoformat(),
    }


def _event_line(event: ReaderEvent) -> str:
    at = event.at.astimezone().isoformat(" ", "seconds")
    return f"{at}  {event.event.value}  {printable(event.reader.address)}  {printable(event.reader.name)}"


def _facts(info: ReaderInfo) -> JsonValue:
    return {
        "address": info.address,
        "name": info.name,
        "serial": info.serial,
        "card": info.card,
        "in_use": info.in_use,
    }


def _line(info: ReaderInfo) -> str:
    return f"{printable(info.address)}  {printable(info.name)}  {_CARD[info.card]}, {_USE[info.in_use]}"
