"""``demail-hw certs import`` and ``certs erase``."""

import logging
from typing import BinaryIO, Final

import click

from demail_hw.address import Address
from demail_hw.card_manager.certificate_input import LONGEST_INPUT, parse_certificate
from demail_hw.card_manager.certificates import WritePlan
from demail_hw.card_manager.manager import CardManager
from demail_hw.cli.card_access import manage, tell_if_it_forgets
from demail_hw.cli.certificate_options import FILE_HELP, address_argument, file_option, need_one, role_option
from demail_hw.cli.consent import ask, need_somebody
from demail_hw.cli.manager_pin import pin_for, rehearse
from demail_hw.cli.options import pin_option, which_option
from demail_hw.cli.output import Report, json_option
from demail_hw.cli.pin_dialog import given_source
from demail_hw.cli.progress import progress
from demail_hw.cli.write_plan_text import done_text, intention, plan_facts, would_text, write_facts
from demail_hw.identity import KeyRole
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName, StorageForm

__all__ = ["erase_command", "import_command"]

_LOG = logging.getLogger(__name__)
_READ_BACK: Final = 2  # times

_dry_run = click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be written, read the PIN's source if it is no prompt, and send and write nothing.",
)
_yes = click.option("--yes", is_flag=True, help="Do not ask whether to write; needed where there is no terminal.")


@click.command("import")
@address_argument
@click.argument("source", metavar="IN", type=click.File("rb"))
@role_option
@file_option
@pin_option
@which_option
@click.option(
    "--form",
    type=click.Choice([form.value for form in StorageForm]),
    help="How to store it; else as the card's other certificates are. Debian 12's OpenSC reads the container alone.",
)
@click.option("--unchecked", is_flag=True, help="Take it though nothing on the card tells whose certificate it is.")
@_dry_run
@_yes
@json_option
def import_command(
    address: Address,
    source: BinaryIO,
    role: str | None,
    name: str | None,
    pin: str,
    which: str,
    form: str | None,
    unchecked: bool,
    dry_run: bool,
    yes: bool,
    report: Report,
) -> None:
    """Write the certificate in IN (PEM or DER) to the card, in the file --file or the first empty one of a --key.
    One that a file of the key holds already is not written again.

    Whatever interrupts it, the file then is as it was, or empty, or holds the whole certificate.
    """
    need_one(role, name)
    certificate = parse_certificate(source.read(LONGEST_INPUT + 1))
    _need_leave(dry_run=dry_run, yes=yes)
    given = given_source(pin)
    with manage(address, attended=given is None) as manager:
        certificates = manager.certificates
        wanted = StorageForm(form) if form else None
        if name is not None:
            plan = certificates.plan_import(certificate, certificates.file(name), form=wanted, unchecked=unchecked)
        else:
            plan = certificates.plan_import_for(certificate, KeyRole(role), form=wanted, unchecked=unchecked)
        if _carry_out(manager, plan, given, PinName(which), report, dry_run=dry_run, yes=yes):
            tell_if_it_forgets(address)


@click.command("erase")
@address_argument
@click.option("--file", "name", metavar="FILE", required=True, help=FILE_HELP)
@pin_option
@which_option
@_dry_run
@_yes
@json_option
def erase_command(
    address: Address, name: str, pin: str, which: str, dry_run: bool, yes: bool, report: Report
) -> None:
    """Make a certificate file of the card empty."""
    _need_leave(dry_run=dry_run, yes=yes)
    given = given_source(pin)
    with manage(address, attended=given is None) as manager:
        plan = manager.certificates.plan_erase(manager.certificates.file(name))
        if _carry_out(manager, plan, given, PinName(which), report, dry_run=dry_run, yes=yes):
            tell_if_it_forgets(address)


def _need_leave(*, dry_run: bool, yes: bool) -> None:
    if not dry_run:
        need_somebody(yes=yes)


def _carry_out(
    manager: CardManager,
    plan: WritePlan,
    given: PinSource | None,
    which: PinName,
    report: Report,
    *,
    dry_run: bool,
    yes: bool,
) -> bool:
    """Whether the card was changed."""
    for warning in plan.warnings:
        _LOG.warning("%s", warning)
    facts = plan_facts(plan)
    if dry_run:
        _rehearse(manager, plan, given, which)
        report.show(
            {**facts, "done": False, "writes": [write_facts(write) for write in plan.writes]}, would_text(plan)
        )
        return False
    if plan.writes:
        manager.certificates.check(plan, which=which)  # before anybody is asked for nothing
        ask(f"{intention(plan)}\nGo on?", yes=yes)
        source = pin_for(manager, given, which)
        with progress(plan.file.name, _work(plan)) as step:
            manager.certificates.carry_out(plan, source, which=which, progress=step)
    report.show({**facts, "done": bool(plan.writes)}, done_text(plan))
    return bool(plan.writes)


def _rehearse(manager: CardManager, plan: WritePlan, given: PinSource | None, which: PinName) -> None:
    """Where nothing is to be written, the deed asks for no PIN either."""
    manager.certificates.check(plan, which=which)
    if plan.writes:
        rehearse(manager, (which, given, "PIN"))


def _work(plan: WritePlan) -> int:
    """In bytes: written, and read back."""
    times = 1 if plan.certificate is None else _READ_BACK
    return sum(len(write.data) for write in plan.writes) + times * plan.size
