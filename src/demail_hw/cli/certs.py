"""``demail-hw certs``: the certificates on a card."""

import logging
from collections.abc import Callable
from typing import BinaryIO, Final, TypeVar

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.address import Address
from demail_hw.card_manager.certificate_input import LONGEST_INPUT, parse_certificate
from demail_hw.card_manager.certificates import CardCertificates, CertificateEntry, WritePlan
from demail_hw.card_manager.file_writing import Write
from demail_hw.cli.card_access import manage
from demail_hw.cli.consent import ask, is_typed, need_somebody
from demail_hw.cli.file_access import MODE, OWNER, FileAccess
from demail_hw.cli.options import ADDRESS, output_option, pin_option, which_option
from demail_hw.cli.output import JsonValue, Report, deliver, json_option, printable
from demail_hw.cli.progress import progress
from demail_hw.identity import KeyRole
from demail_hw.pin_sources import parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName, StorageForm

__all__ = ["certs_command"]

_LOG = logging.getLogger(__name__)
_Command = TypeVar("_Command", bound=Callable[..., object])
_ENCODINGS: Final = {"pem": Encoding.PEM, "der": Encoding.DER}
_READ_BACK: Final = 2  # times

_address = click.argument("address", metavar="URI", type=ADDRESS)
_role = click.option(
    "--key", "role", type=click.Choice([role.value for role in KeyRole]), help="The key whose certificate it is."
)
_file_help: Final = "The file on the card, as certs list names it: 4331, or NKS/4331."
_file = click.option("--file", "name", metavar="FILE", help=_file_help)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
_yes = click.option("--yes", is_flag=True, help="Do not ask whether to write; needed where there is no terminal.")


@click.group("certs")
def certs_command() -> None:
    """The certificates on a card."""


# --- list


@certs_command.command("list")
@_address
@json_option
def list_command(address: Address, report: Report) -> None:
    """List every certificate file of the card, and what is in it. Asks for no PIN and spends no try."""
    with manage(address) as manager:
        entries = manager.certificates.entries()
    report.show({"certificates": [_facts(entry) for entry in entries]}, "\n".join(map(_line, entries)))


def _facts(entry: CertificateEntry) -> JsonValue:
    file, key = entry.file, entry.key
    return {
        "file": file.name,
        "kind": file.kind.value,
        "writable": file.writable,
        "state": entry.state.value,
        "form": entry.form.value if entry.form else None,
        "key": f"{key.reference:02X}" if key else None,
        "role": key.role.value if key else None,
        "problem": entry.problem or None,
        **_certificate_facts(entry.certificate),
    }


def _certificate_facts(certificate: x509.Certificate | None) -> dict[str, JsonValue]:
    if certificate is None:
        return {}
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial_number": f"{certificate.serial_number:X}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


def _line(entry: CertificateEntry) -> str:
    file, certificate = entry.file, entry.certificate
    kind = f"{file.kind.value}{', writable' if file.writable else ''}"
    problem = f": {entry.problem}" if entry.problem else ""
    if certificate is None:
        return f"{file.name:11}{kind:28}{entry.state.value}{problem}"
    key = f"{entry.key.label}: " if entry.key else ""
    until = certificate.not_valid_after_utc.date().isoformat()
    return f"{file.name:11}{kind:28}{key}{_subject(certificate)}, until {until}{problem}"


# --- export


@certs_command.command("export")
@_address
@_role
@_file
@output_option
@click.option("--format", "encoding", type=click.Choice(list(_ENCODINGS)), default="pem", show_default=True)
@click.option("--chain", is_flag=True, help="Its issuers after it, as far as the card has them (PEM).")
@click.option("--owner", type=OWNER, metavar="USER[:GROUP]", help="Whose the file OUT is.")
@click.option("--mode", type=MODE, metavar="MODE", help="The mode of the file OUT, such as 0640.")
@json_option
def export_command(
    address: Address,
    role: str | None,
    name: str | None,
    output: str,
    encoding: str,
    chain: bool,
    owner: tuple[int, int] | None,
    mode: int | None,
    report: Report,
) -> None:
    """Write a certificate of the card to a file. Asks for no PIN.

    OUT appears whole or not at all, with owner and mode already set: other software may read it at any time.
    """
    _need_one(role, name)
    access = FileAccess(mode, owner)
    access.need_file(output)
    if chain and encoding == "der":
        raise click.UsageError("--chain takes PEM: DER holds one certificate")
    with manage(address) as manager:
        exported = _chosen(manager.certificates, role, name, chain=chain)
    content = b"".join(each.public_bytes(_ENCODINGS[encoding]) for each in exported)
    facts: dict[str, JsonValue] = {"certificates": len(exported), **_certificate_facts(exported[0])}
    deliver(report, output, content, facts, f", {_subject(exported[0])}", access=access)


def _chosen(
    certificates: CardCertificates, role: str | None, name: str | None, *, chain: bool
) -> tuple[x509.Certificate, ...]:
    if name is not None:
        certificate = certificates.certificate(certificates.file(name))
    else:
        certificate = certificates.certificate_of(KeyRole(role))
    if not chain:
        return (certificate,)
    whole = (certificate, *certificates.chain(certificate))
    if whole[-1].issuer != whole[-1].subject:
        _LOG.warning("the card does not hold the issuer of %s", _subject(whole[-1]))
    return whole


def _need_one(role: str | None, name: str | None) -> None:
    if (role is None) is (name is None):
        raise click.UsageError("name the certificate by --key or by --file")


# --- import, erase


@certs_command.command("import")
@_address
@click.argument("source", metavar="IN", type=click.File("rb"))
@_role
@_file
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

    Whatever interrupts it, the file then is as it was, or empty, or holds the whole certificate.
    """
    _need_one(role, name)
    pin_source = parse_pin_source(pin)
    certificate = parse_certificate(source.read(LONGEST_INPUT + 1))
    _need_leave(dry_run=dry_run, yes=yes)
    with manage(address, attended=is_typed(pin)) as manager:
        certificates = manager.certificates
        file = certificates.file(name) if name is not None else certificates.file_for(KeyRole(role))
        plan = certificates.plan_import(
            certificate, file, form=StorageForm(form) if form else None, unchecked=unchecked
        )
        _carry_out(certificates, plan, pin_source, PinName(which), report, dry_run=dry_run, yes=yes)


@certs_command.command("erase")
@_address
@click.option("--file", "name", metavar="FILE", required=True, help=_file_help)
@pin_option
@which_option
@_dry_run
@_yes
@json_option
def erase_command(
    address: Address, name: str, pin: str, which: str, dry_run: bool, yes: bool, report: Report
) -> None:
    """Make a certificate file of the card empty."""
    pin_source = parse_pin_source(pin)
    _need_leave(dry_run=dry_run, yes=yes)
    with manage(address, attended=is_typed(pin)) as manager:
        plan = manager.certificates.plan_erase(manager.certificates.file(name))
        _carry_out(manager.certificates, plan, pin_source, PinName(which), report, dry_run=dry_run, yes=yes)


def _need_leave(*, dry_run: bool, yes: bool) -> None:
    if not dry_run:
        need_somebody(yes=yes)


def _carry_out(
    certificates: CardCertificates,
    plan: WritePlan,
    source: PinSource,
    which: PinName,
    report: Report,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    for warning in plan.warnings:
        _LOG.warning("%s", warning)
    facts = _plan_facts(plan)
    if dry_run:
        certificates.check(plan, which=which)
        report.show({**facts, "done": False, "writes": [_write_facts(write) for write in plan.writes]}, _would(plan))
        return
    if plan.writes:
        ask(f"{_intention(plan)} Go on?", yes=yes)
        with progress(plan.file.name, _work(plan)) as step:
            certificates.carry_out(plan, source, which=which, progress=step)
    report.show({**facts, "done": bool(plan.writes)}, _done(plan))


def _plan_facts(plan: WritePlan) -> dict[str, JsonValue]:
    return {
        "file": plan.file.name,
        "size": plan.size,
        "before": _facts(plan.before),
        "form": plan.form.value if plan.form else None,
        "bytes": plan.length,
        **_certificate_facts(plan.certificate),
    }


def _write_facts(write: Write) -> JsonValue:
    return {"offset": write.offset, "bytes": len(write.data)}


def _work(plan: WritePlan) -> int:
    """In bytes: written, and read back."""
    times = 1 if plan.certificate is None else _READ_BACK
    return sum(len(write.data) for write in plan.writes) + times * plan.size


def _intention(plan: WritePlan) -> str:
    there = _subject(plan.before.certificate) or plan.before.state.value
    if plan.certificate is None or plan.form is None:
        return f"{plan.file.name} becomes empty; now it holds: {there}."
    return (
        f"{plan.file.name} gets the certificate {_subject(plan.certificate)} ({plan.form.value}, {plan.length} of "
        f"{plan.size} bytes); now it holds: {there}."
    )


def _would(plan: WritePlan) -> str:
    if not plan.writes:
        return _done(plan)
    writes = "\n".join(f"  UPDATE BINARY at {write.offset}: {len(write.data)} bytes" for write in plan.writes)
    return f"{_intention(plan)}\n{writes}\nNothing was written."


def _done(plan: WritePlan) -> str:
    if not plan.writes:
        return f"{plan.file.name} {'is empty' if plan.certificate is None else 'holds this certificate'} already."
    if plan.certificate is None:
        return f"{plan.file.name} is empty now."
    return f"{plan.file.name} holds the certificate {_subject(plan.certificate)} now; it was read back."


def _subject(certificate: x509.Certificate | None) -> str:
    """For a terminal."""
    return "" if certificate is None else printable(certificate.subject.rfc4514_string())
