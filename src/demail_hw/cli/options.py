"""Options and argument types that several commands share."""

from collections.abc import Callable
from typing import TypeVar

import click

from demail_hw.address import Address
from demail_hw.cli.output import check_output
from demail_hw.identity import KeyRole
from demail_hw.pin_sources import SOURCES
from demail_hw.tcos.layout import PinName

__all__ = ["ADDRESS", "ENDPOINT", "input_argument", "key_option", "output_option", "pin_option", "which_option"]

_Command = TypeVar("_Command", bound=Callable[..., object])
_MAX_PORT = 0xFFFF


class _AddressType(click.ParamType[Address]):
    name = "uri"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _EndpointType(click.ParamType[tuple[str, int]]):
    name = "host:port"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > _MAX_PORT:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.strip("[]"), int(port)


ADDRESS = _AddressType()
ENDPOINT = _EndpointType()


def pin_option(function: _Command) -> _Command:
    """``--pin SOURCE``."""
    return click.option(
        "--pin",
        required=True,
        metavar="SOURCE",
        help=f"{SOURCES}.",
    )(function)


def which_option(function: _Command) -> _Command:
    """``--which PIN``."""
    names = [name.value for name in PinName]
    return click.option(
        "--which",
        type=click.Choice(names),
        default=PinName.GLOBAL.value,
        show_default=True,
        help="The PIN to verify; sigg-1 and sigg-2 open the SigG signature key, the others the NetKey keys.",
    )(function)


def key_option(function: _Command) -> _Command:
    """``--key ROLE``."""
    return click.option(
        "--key",
        "role",
        type=click.Choice([role.value for role in KeyRole]),
        required=True,
        help="The key to use.",
    )(function)


def input_argument(function: _Command) -> _Command:
    """``IN``: a file, or ``-``."""
    return click.argument("source", metavar="IN", type=click.File("rb"))(function)


def output_option(function: _Command) -> _Command:
    """``-o OUT``: looked at before the card is used, so that no PIN and no signature is spent for nothing."""
    return click.option(
        "-o",
        "--output",
        metavar="OUT",
        default="-",
        show_default=True,
        callback=_checked,
        help="Where to write; - is standard output.",
    )(function)


def _checked(context: click.Context, parameter: click.Parameter, path: str) -> str:  # noqa: ARG001  click's signature
    check_output(path)
    return path
