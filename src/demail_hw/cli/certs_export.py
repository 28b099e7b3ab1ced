"""``demail-hw certs export``."""

import logging
from typing import Final

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.address import Address
from demail_hw.card_manager.certificates import CardCertificates
from demail_hw.cli.card_access import manage
from demail_hw.cli.certificate_options import address_argument, file_option, need_one, role_option
from demail_hw.cli.certificate_text import certificate_facts, subject_of
from demail_hw.cli.file_access import MODE, OWNER, FileAccess
from demail_hw.cli.options import output_option
from demail_hw.cli.output import JsonValue, Report, deliver, json_option
from demail_hw.identity import KeyRole
from demail_hw.keys.certificate_chain import missing_issuer

__all__ = ["export_command"]

_LOG = logging.getLogger(__name__)
_ENCODINGS: Final = {"pem": Encoding.PEM, "der": Encoding.DER}


@click.command("export")
@address_argument
@role_option
@file_option
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
    need_one(role, name)
    access = FileAccess(mode, owner)
    access.need_file(output)
    if chain and encoding == "der":
        raise click.UsageError("--chain takes PEM: DER holds one certificate")
    with manage(address) as manager:
        exported = _chosen(manager.certificates, role, name, chain=chain)
    content = b"".join(each.public_bytes(_ENCODINGS[encoding]) for each in exported)
    facts: dict[str, JsonValue] = {"certificates": len(exported), **certificate_facts(exported[0])}
    deliver(report, output, content, facts, f", {subject_of(exported[0])}", access=access)


def _chosen(
    certificates: CardCertificates, role: str | None, name: str | None, *, chain: bool
) -> tuple[x509.Certificate, ...]:
    if name is not None:
        certificate = certificates.certificate(certificates.file(name))
    else:
        certificate = certificates.certificate_of(KeyRole(role))
    if not chain:
        return (certificate,)
    issuers = certificates.chain(certificate)
    whole = (certificate, *issuers)
    if missing_issuer(certificate, issuers) is not None:
        _LOG.warning(
            "The card does not hold the issuer of %s: the chain ends there, and whoever needs the rest gets it from "
            "that issuer.",
            subject_of(whole[-1]),
        )
    return whole
