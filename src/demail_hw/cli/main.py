"""The command ``demail-hw``: its subcommands are loaded when they are asked for."""

import contextlib
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import click

from demail_hw.cli.exit_codes import SIGNALLED, ExitCode, exit_code_of
from demail_hw.cli.output import (
    JSON_OPTION,
    LogHandler,
    end_line,
    error_report,
    internal_report,
    interrupted_report,
    usage_report,
)
from demail_hw.errors import HardwareError

__all__ = ["main"]

# command -> module: attribute is the command's name with an underscore
_COMMANDS: Final = {
    "attach": "demail_hw.cli.attach",
    "binding": "demail_hw.cli.binding",
    "card": "demail_hw.cli.card",
    "certs": "demail_hw.cli.certs",
    "config": "demail_hw.cli.config",
    "csr": "demail_hw.cli.csr",
    "decrypt": "demail_hw.cli.decrypt",
    "demo": "demail_hw.cli.demo",
    "detach": "demail_hw.cli.attach",
    "pin": "demail_hw.cli.pin",
    "probe": "demail_hw.cli.probe",
    "readers": "demail_hw.cli.readers",
    "serve": "demail_hw.cli.serve",
    "setup": "demail_hw.cli.setup",
    "sign": "demail_hw.cli.sign",
    "simulate": "demail_hw.cli.simulate",
    "trace": "demail_hw.cli.trace",
    "usb-server": "demail_hw.cli.usb_server",
}


class _LazyGroup(click.Group):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  as above
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), _attribute(cmd_name))
        return command


def _attribute(command: str) -> str:
    return f"{command.replace('-', '_')}_command"


_HELP: Final = """\
A key on a smartcard, wherever the card is.

A card is named by its reader's address; quote one with * ? & or blanks for the shell:

\b
usbip://HOST/         the only reader of a USB server; one of several by
                      serial=NUMBER, 04e6:5710 or 1-1 after the last slash
                      (a bus id such as 1-1 names a socket, not a reader)
usbips://HOST/        the same through TLS; its files: ?cert=FILE&key=FILE&ca=FILE,
                      or those of [tls] in the configuration
pcsc:                 the only reader of PC/SC, or the only one with a card
pcsc:'Identiv*'       by name or pattern
libusb:               the only reader on this machine's USB, without PC/SC
serial:/dev/ttyUSB0   a reader on a serial line; also serial:socket://HOST:PORT
sim:netkey3           a simulated card
replay:FILE           a recorded card
binding:NAME          a reader of a USB server that the configuration names

After it ?card=ICCSN and ?reader=SERIAL choose among several and refuse any other; pcsc:?share=shared lets other
programs use the card beside this one. usbip://HOST/?capture=FILE writes what is carried, PINs masked.

\b
Exit codes: 0 done, 1 internal, 2 usage, 3 not found, 4 card or reader, 5 PIN,
6 transport, 7 gateway or TLS, 8 key or message, 9 configuration,
10 a question was answered with no.
"""


@click.command(cls=_LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("demail-hw"), prog_name="demail-hw")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, the card's commands included, PINs masked.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(readable=False, path_type=Path),  # what is wrong with it the configuration says, with a remedy
    help="The configuration; else $DEMAIL_HW_CONFIG, else demail-hw/config.toml in the user's or in /etc.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),  # what is wrong with it the ledger says, and what to do
    help="Where the PIN ledger is, and the switches of bindings; else $STATE_DIRECTORY, else demail-hw in the user's "
    "state folder.",
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Record every exchange with the card there, PINs and what it deciphers masked.",
)
@click.option("--trace-decipher", "deciphered", is_flag=True, help="Record what it deciphers too: keys of messages.")
@click.pass_context
def _group(
    context: click.Context,
    verbose: bool,
    config: Path | None,
    state_dir: Path | None,
    trace: Path | None,
    deciphered: bool,
) -> None:
    from demail_hw.cli.card_access import Settings
    from demail_hw.config.place import CONFIG_VARIABLE
    from demail_hw.pin_ledger import STATE_VARIABLE

    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    if config is not None:
        context.with_resource(_variable(CONFIG_VARIABLE, config))
    if state_dir is not None:
        context.with_resource(_variable(STATE_VARIABLE, state_dir))
    context.obj = Settings(state_dir=state_dir, trace=trace, deciphered=deciphered)


@contextlib.contextmanager
def _variable(name: str, path: Path) -> Iterator[None]:
    """To the end of the command. Drivers look there as in every program, and so do programs that are started."""
    before = os.environ.get(name)
    os.environ[name] = str(path.absolute())
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _warn(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001  the signature of warnings.showwarning
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """In the place of warnings.showwarning: for a user, where in our code it came from says nothing."""
    logging.getLogger("demail_hw").warning("%s", message)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    warnings.showwarning = _warn
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Asked here and not of click: an error in the words themselves is told in JSON too.
    as_json = JSON_OPTION in words
    logging.basicConfig(level=logging.WARNING, handlers=[LogHandler(as_json=as_json)])
    try:
        with _group.make_context("demail-hw", list(words)) as context:
            _group.invoke(context)
    except HardwareError as error:
        code = exit_code_of(error)
        click.echo(error_report(error, code, as_json=as_json), err=True)
        sys.exit(code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        click.echo(usage_report(error, ExitCode.USAGE, as_json=as_json), err=True)
        sys.exit(ExitCode.USAGE)
    except BrokenPipeError:
        _drop_standard_output()
        sys.exit(SIGNALLED + signal.SIGPIPE)
    except (click.Abort, KeyboardInterrupt):
        end_line()
        interrupted = SIGNALLED + signal.SIGINT
        click.echo(interrupted_report(interrupted, as_json=as_json), err=True)
        sys.exit(interrupted)
    except Exception as error:  # noqa: BLE001  the last place that can tell of it
        _log_where(error)
        click.echo(internal_report(error, ExitCode.INTERNAL, as_json=as_json), err=True)
        sys.exit(ExitCode.INTERNAL)


def _log_where(error: Exception) -> None:
    """Without the error's text and without variables: either may hold a PIN."""
    log = logging.getLogger("demail_hw")
    log.debug("%s at", type(error).__name__)
    for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
        log.debug("%s", line)  # a line each: a line end inside a message is shown as its escape


def _drop_standard_output() -> None:
    """Whoever read it has seen enough; what is still buffered would fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
