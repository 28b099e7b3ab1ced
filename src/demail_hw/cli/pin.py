"""``demail-hw pin``: the PINs of a card."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from demail_hw.address import Address
from demail_hw.card_manager.manager import CardManager
from demail_hw.card_manager.pin_states import PinReport, leaves_two_pins, remembered
from demail_hw.cli.card_access import forgets, manage, tell_if_it_forgets
from demail_hw.cli.consent import ask, is_typed, need_somebody
from demail_hw.cli.manager_pin import rehearse
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import Report, json_option
from demail_hw.cli.pin_dialog import CardPlace, current_pin, given_source, wanted_pin
from demail_hw.cli.pin_text import pin_facts, pin_line, pin_text
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.pin_sources import PROMPT, SOURCES
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName, PinSlot, Profile

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
_dry_run = click.option(
    "--dry-run", is_flag=True, help="Say what would be sent, read the sources that are no prompt, and send nothing."
)


def _source(name: str, what: str) -> Callable[[_Command], _Command]:
    return click.option(
        name, metavar="SOURCE", default=PROMPT, show_default=True, help=f"Where {what} comes from: {SOURCES}."
    )


@click.group("pin")
def pin_command() -> None:
    """The PINs of a card. Whatever is sent is written down first; nothing is repeated by itself."""


@pin_command.command("status")
@_address
@json_option
def status_command(address: Address, report: Report) -> None:
    """How each PIN is, and what to do next. Spends no try."""
    with manage(address) as manager:
        place, reports = CardPlace.of(manager.session), manager.pins.report()
    lines = "\n".join(map(pin_line, reports))
    report.show({**place.facts, "pins": [pin_facts(each) for each in reports]}, f"The {place}:\n{lines}")


@pin_command.command("verify")
@_address
@_which
@_source("--pin", "the PIN")
@_keep
@_dry_run
@json_option
def verify_command(address: Address, which: str, pin: str, keep: int, dry_run: bool, report: Report) -> None:
    """Verify a PIN. If the card accepts it, its tries are restored and services may send it again."""
    name, given = PinName(which), _given(pin, keep)
    with _managing(address, keep, given) as (manager, deed):
        left = manager.pins.check(name).retries_left
        if dry_run:
            rehearse(manager, (name, given, "PIN"))
            return deed.would(report, which, "VERIFY with the PIN")
        manager.pins.verify(name, current_pin(given, deed.place, deed.pin(name), left))
    return deed.changed(report, which, "verified", "The card accepted it.")


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
    name, old, wanted = PinName(which), _given(pin, keep), given_source(new)
    with _managing(address, keep, old) as (manager, deed):
        left = manager.pins.check_changing(name).retries_left
        if dry_run:
            rehearse(manager, (name, old, "old PIN"), (name, wanted, "new PIN"))
            return deed.would(report, which, "VERIFY with the old PIN, CHANGE REFERENCE DATA with it and the new one")
        asked = current_pin(old, deed.place, deed.pin(name), left, "old PIN")
        manager.pins.change(name, asked, wanted_pin(wanted, deed.place, deed.pin(name)))
    return deed.changed(report, which, "changed", f"The card has the new one. {deed.sources}")


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
    name, key, wanted = PinName(which), _given(puk, keep), given_source(new)
    with _managing(address, keep, key) as (manager, deed):
        keeper, left = manager.pins.check_unblocking(name)
        if dry_run:
            rehearse(manager, (keeper, key, "PIN"), (name, wanted, "new PIN"))
            sent = f"VERIFY with the PIN {keeper.value}, RESET RETRY COUNTER with it and the new PIN"
            return deed.would(report, which, sent)
        asked = current_pin(key, deed.place, deed.pin(keeper), left, use=f", which unblocks {which}")
        manager.pins.unblock(name, asked, wanted_pin(wanted, deed.place, deed.pin(name)))
    return deed.changed(report, which, "unblocked", f"The card has the new one, with all its tries. {deed.sources}")


@pin_command.command("initialize")
@_address
@_which
@_source("--new", "the first PIN")
@_dry_run
@json_option
def initialize_command(address: Address, which: str, new: str, dry_run: bool, report: Report) -> None:
    """Set the first PIN in place of the card's NullPIN."""
    name, wanted = PinName(which), given_source(new)
    with _managing(address, KEPT_TRIES, wanted) as (manager, deed):
        manager.pins.check_initializing(name)
        if dry_run:
            rehearse(manager, (name, wanted, "new PIN"))
            return deed.would(report, which, "CHANGE REFERENCE DATA with the NullPIN and the first PIN")
        manager.pins.initialize(name, wanted_pin(wanted, deed.place, deed.pin(name)))
    return deed.changed(report, which, "initialized", "The card has its first one.")


@pin_command.command("clear")
@_address
@_which
@click.option("--yes", is_flag=True, help="Do not ask before a change or an unblocking without an end is forgotten.")
@json_option
def clear_command(address: Address, which: str, yes: bool, report: Report) -> None:
    """Forget that the card refused a PIN, or that an attempt had no end: you say that its source is right now.

    Where only tries are left that are kept for people, services stay stopped until the PIN is verified.
    """
    name = PinName(which)
    with _managing(address, KEPT_TRIES, None) as (manager, deed):
        _agree_to_forget(_report_of(manager, name), deed.place, yes=yes)
        record = manager.pins.clear(name)
        after = _report_of(manager, name)
    text = "Nothing was noted of it." if record is None else f"What was noted is forgotten: {remembered(record)}"
    now = "" if after is None else f" Now: {pin_text(after)}"
    deed.done(report, which, "cleared", f"{text}{now}")


def _report_of(manager: CardManager, name: PinName) -> PinReport | None:
    return next((each for each in manager.pins.report() if each.pin.name is name), None)


def _agree_to_forget(found: PinReport | None, place: CardPlace, *, yes: bool) -> None:
    """Who forgets a refusal knows the right PIN; who forgets a change has to know which of two it is."""
    if found is None or found.record is None or not leaves_two_pins(found.record):
        return
    need_somebody(yes=yes, look="see pin status first")
    ask(f"The {place}: its PIN {found.pin.name.value}: {remembered(found.record)} Forget that?", yes=yes)


@dataclasses.dataclass(frozen=True, slots=True)
class _Deed:
    """What is done to which card."""

    place: CardPlace
    profile: Profile
    address: Address

    @property
    def sources(self) -> str:
        """What a new PIN means for those who send it."""
        if forgets(self.address):
            return "Leave its sources as they are."
        return "Change it at every source as well."

    def pin(self, name: PinName) -> PinSlot:
        """Of this card, which has it: a check looked."""
        return self.profile.pin(name)

    def changed(self, report: Report, which: str, done: str, text: str) -> None:
        """As :meth:`done`, of what the card is to remember."""
        self.done(report, which, done, text)
        tell_if_it_forgets(self.address)

    def done(self, report: Report, which: str, done: str, text: str) -> None:
        report.show({**self.place.facts, "pin": which, "done": done}, f"PIN {which} of the {self.place}: {text}")

    def would(self, report: Report, which: str, command: str) -> None:
        text = f"PIN {which} of the {self.place}: it would be sent {command}. Nothing was sent."
        report.show({**self.place.facts, "pin": which, "would_send": command}, text)


@contextlib.contextmanager
def _managing(address: Address, keep: int, given: PinSource | None) -> Iterator[tuple[CardManager, _Deed]]:
    with manage(address, kept=keep, attended=given is None) as manager:
        session = manager.session
        yield manager, _Deed(CardPlace.of(session), session.card.profile, address)


def _given(source: str, keep: int) -> PinSource | None:
    """The last tries are for people, so that only they can say that fewer are kept."""
    if keep < KEPT_TRIES and not is_typed(source):
        raise click.UsageError(f"--keep below {KEPT_TRIES} is for a person at the terminal ({PROMPT})")
    return given_source(source)
