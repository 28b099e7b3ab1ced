"""``demail-hw pin``: the PINs of a card."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from demail_hw.address import Address
from demail_hw.card_manager.manager import CardManager
from demail_hw.card_manager.pin_states import PinReport
from demail_hw.cli.card_access import manage
from demail_hw.cli.new_pin import NewPinPrompt
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.pin_sources import PROMPT, SOURCES, PromptPinSource, parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName

__all__ = ["pin_command"]

_Command = TypeVar("_Command", bound=Callable[..., object])

_address = click.argument("address", metavar="URI", type=ADDRESS)
_which = click.option(
    "--which",
    type=click.Choice([name.value for name in PinName]),
    default=PinName.GLOBAL.value,
    show_default=True,
    help="The PIN that is meant.",
)
_keep = click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=KEPT_TRIES,
    show_default=True,
    metavar="N",
    help="Tries that stay unspent: nothing is sent if the card has no more than these.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")


def _source(name: str, what: str) -> Callable[[_Command], _Command]:
    return click.option(
        name, metavar="SOURCE", default=PROMPT, show_default=True, help=f"Where {what} comes from: {SOURCES}."
    )


@click.group("pin")
def pin_command() -> None:
    """The PINs of a card. Whatever is sent is written down first; nothing is sent twice."""


@pin_command.command("status")
@_address
@json_option
def status_command(address: Address, report: Report) -> None:
    """How each PIN is, and what to do next. Spends no try."""
    with manage(address) as manager:
        reports = manager.pins.report()
    report.show({"pins": [_facts(each) for each in reports]}, "\n".join(map(_line, reports)))


def _facts(report: PinReport) -> JsonValue:
    record = report.record
    return {
        "pin": report.pin.name.value,
        "state": report.status.state.value,
        "retries_left": report.status.retries_left,
        "ledger": None
        if record is None
        else {"state": record.state.value, "operation": record.operation.value, "at": record.at.isoformat()},
        "sentence": report.sentence,
        "next_step": report.next_step,
    }


def _line(report: PinReport) -> str:
    return f"{report.pin.name.value:8}{report.sentence}" + (f" {report.next_step}" if report.next_step else "")


@pin_command.command("verify")
@_address
@_which
@_source("--pin", "the PIN")
@_keep
@json_option
def verify_command(address: Address, which: str, pin: str, keep: int, report: Report) -> None:
    """Verify a PIN. If the card accepts it, its tries are restored and services may send it again."""
    with _managing(address, keep, pin) as manager:
        left = manager.pins.check(PinName(which)).retries_left
        manager.pins.verify(PinName(which), _current(pin, f"PIN {which}", left))
    _done(report, which, "verified", "The card accepted it.")


@pin_command.command("change")
@_address
@_which
@_source("--pin", "the old PIN")
@_source("--new", "the new PIN")
@_keep
@_dry_run
@json_option
def change_command(
    address: Address, which: str, pin: str, new: str, keep: int, dry_run: bool, report: Report
) -> None:
    """Change a PIN."""
    with _managing(address, keep, pin) as manager:
        left = manager.pins.check(PinName(which)).retries_left
        if dry_run:
            return _would(report, which, "VERIFY with the old PIN, CHANGE REFERENCE DATA with it and the new one")
        manager.pins.change(PinName(which), _current(pin, f"old PIN {which}", left), _wanted(new, which))
    return _done(report, which, "changed", "The card has the new one. Change it at every source as well.")


@pin_command.command("unblock")
@_address
@_which
@_source("--puk", "the PUK, the PIN that unblocks this one,")
@_source("--new", "the new PIN")
@_keep
@_dry_run
@json_option
def unblock_command(
    address: Address, which: str, puk: str, new: str, keep: int, dry_run: bool, report: Report
) -> None:
    """Set a new PIN, and all its tries, with the PIN that unblocks it."""
    with _managing(address, keep, puk) as manager:
        keeper, left = manager.pins.check_unblocking(PinName(which))
        if dry_run:
            return _would(
                report, which, f"VERIFY with the PIN {keeper.value}, RESET RETRY COUNTER with it and the new PIN"
            )
        asked = _current(puk, f"PIN {keeper.value}, which unblocks {which}", left)
        manager.pins.unblock(PinName(which), asked, _wanted(new, which))
    text = "The card has the new one, with all its tries. Change it at every source as well."
    return _done(report, which, "unblocked", text)


@pin_command.command("initialize")
@_address
@_which
@_source("--new", "the first PIN")
@_dry_run
@json_option
def initialize_command(address: Address, which: str, new: str, dry_run: bool, report: Report) -> None:
    """Set the first PIN in place of the card's NullPIN."""
    with manage(address, attended=new == PROMPT) as manager:
        if dry_run:
            manager.pins.check_initializing(PinName(which))
            return _would(report, which, "CHANGE REFERENCE DATA with the NullPIN and the first PIN")
        manager.pins.initialize(PinName(which), _wanted(new, which))
    return _done(report, which, "initialized", "The card has its first one.")


@pin_command.command("clear")
@_address
@_which
@json_option
def clear_command(address: Address, which: str, report: Report) -> None:
    """Forget that the card refused a PIN, or that an attempt had no end: you say that its source is right now."""
    with manage(address) as manager:
        record = manager.pins.clear(PinName(which))
    text = "Nothing was noted of it." if record is None else "What was noted of it is forgotten."
    _done(report, which, "cleared", text)


@contextlib.contextmanager
def _managing(address: Address, keep: int, source: str) -> Iterator[CardManager]:
    """The last tries are for people, so that only they can say that fewer are kept."""
    attended = source == PROMPT
    if keep < KEPT_TRIES and not attended:
        raise click.UsageError(f"--keep below {KEPT_TRIES} is for a person at the terminal ({PROMPT})")
    with manage(address, kept=keep, attended=attended) as manager:
        yield manager


def _current(source: str, name: str, left: int | None) -> PinSource:
    if source != PROMPT:
        return parse_pin_source(source)
    if left == 1 and sys.stdin.isatty():
        click.confirm(f"The {name} has its last try left: a wrong one blocks it. Go on?", abort=True)
    return PromptPinSource(name + (": " if left is None else f" ({left} {'try' if left == 1 else 'tries'} left): "))


def _wanted(source: str, which: str) -> PinSource:
    return NewPinPrompt(which) if source == PROMPT else parse_pin_source(source)


def _done(report: Report, which: str, done: str, text: str) -> None:
    report.show({"pin": which, "done": done}, f"PIN {which}: {text}")


def _would(report: Report, which: str, command: str) -> None:
    report.show({"pin": which, "would_send": command}, f"PIN {which}: it would be sent {command}. Nothing was sent.")
