"""``demail-hw certs``: the certificates on a card."""

import time

import click

from demail_hw.address import Address
from demail_hw.cli.card_access import manage
from demail_hw.cli.certificate_options import address_argument
from demail_hw.cli.certificate_text import entry_facts, entry_line
from demail_hw.cli.certs_export import export_command
from demail_hw.cli.certs_writing import erase_command, import_command
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.cli.progress import READING, progress

__all__ = ["certs_command"]


@click.group("certs")
def certs_command() -> None:
    """The certificates on a card."""


@certs_command.command("list")
@address_argument
@json_option
def list_command(address: Address, report: Report) -> None:
    """List every certificate file of the card, and what is in it. Asks for no PIN and spends no try."""
    begun = time.monotonic()
    with manage(address) as manager:
        profile = manager.session.card.profile
        with progress(READING, len(profile.keys) + len(profile.certificate_files), since=begun) as step:
            entries = manager.certificates.entries(step)
        steps = [(entry, entry.next_step(manager.certificates.commands)) for entry in entries]
    facts: list[JsonValue] = [{**entry_facts(entry), "next_step": step} for entry, step in steps]
    report.show({"certificates": facts}, "\n".join(entry_line(entry, step) for entry, step in steps))


for _command in (export_command, import_command, erase_command):
    certs_command.add_command(_command)
