"""``demail-hw card``: what is in the reader."""

import time

import click

from demail_hw.address import Address
from demail_hw.card_manager.manager import CardManager
from demail_hw.cli.card_access import look_at
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.cli.pin_text import pin_facts
from demail_hw.cli.progress import READING, counted, progress
from demail_hw.errors import CertificateError, KeyNotFound
from demail_hw.foreign_text import printable
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificates import read_key_certificate
from demail_hw.tcos.layout import KeySlot

__all__ = ["card_command"]


@click.group("card")
def card_command() -> None:
    """What is in the reader."""


@card_command.command("info")
@click.argument("address", metavar="URI", type=ADDRESS)
@json_option
def info_command(address: Address, report: Report) -> None:
    """Show reader, card, PIN states and certificates. Asks for no PIN and spends no try."""
    begun = time.monotonic()
    with look_at(address) as manager:
        result = _facts(manager, since=begun)
    report.show(result, _text(result))


def _facts(manager: CardManager, *, since: float) -> dict[str, JsonValue]:
    session = manager.session
    profile = session.card.profile
    with progress(READING, len(profile.pins) + len(profile.keys), since=since) as step:
        return {
            "reader": {"name": session.reader.name, "serial": session.reader.serial},
            "card": {
                "kind": profile.name,
                "serial": session.serial,
                "atr": session.connection.atr.hex().upper(),
            },
            "pins": [pin_facts(report) for report in counted(manager.pins.report(), step)],
            "keys": [_key(session, key) for key in counted(profile.keys, step)],
        }


def _key(session: CardSession, key: KeySlot) -> JsonValue:
    facts: dict[str, JsonValue] = {
        "key": f"{key.reference:02X}",
        "application": key.application.name,
        "role": key.role.value,
        "operation": key.operation.name,
    }
    try:
        with session.transaction() as deadline:
            certificate = read_key_certificate(session.card, key, deadline=deadline).certificate
    except (KeyNotFound, CertificateError) as error:
        return {**facts, "problem": f"{error.message} {error.remedy}".rstrip()}
    return {
        **facts,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial_number": f"{certificate.serial_number:X}",
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


def _text(result: dict[str, JsonValue]) -> str:
    sections = []
    for title, content in result.items():
        rows = content if isinstance(content, list) else [content]
        sections.append(f"{title}:")
        sections += [f"  {_row(row)}" for row in rows]
    return "\n".join(sections)


def _row(row: JsonValue) -> str:
    if not isinstance(row, dict):
        return str(row)
    if "sentence" in row:
        return printable(f"{row['pin']!s:8}{row['sentence']} {row['next_step']}".rstrip())
    return "  ".join(f"{name}={printable(str(value))}" for name, value in row.items() if value is not None)
