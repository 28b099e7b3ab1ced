"""``demail-hw csr``."""

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.address import Address
from demail_hw.card_manager.general_names import alternative_names
from demail_hw.card_manager.requests import parse_subject
from demail_hw.cli.card_access import manage
from demail_hw.cli.manager_pin import pin_for
from demail_hw.cli.options import ADDRESS, key_option, output_option, pin_option, which_option
from demail_hw.cli.output import JsonValue, Report, deliver, json_option
from demail_hw.cli.pin_dialog import given_source
from demail_hw.foreign_text import printable
from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import PinName

__all__ = ["csr_command"]


class _SubjectType(click.ParamType[x509.Name]):
    """Looked at before the card is."""

    name = "name"

    def convert(self, value: str | x509.Name, param: click.Parameter | None, ctx: click.Context | None) -> x509.Name:
        if isinstance(value, x509.Name):
            return value
        try:
            return parse_subject(value)
        except ValueError as error:
            self.fail(f"no name in the form of RFC 4514 ({error})", param, ctx)


@click.command("csr")
@click.argument("address", metavar="URI", type=ADDRESS)
@key_option
@click.option(
    "--subject",
    required=True,
    type=_SubjectType(),
    metavar="NAME",
    help="Whom it is for, as in RFC 4514, the most special part first.",
)
@click.option("--dns", multiple=True, metavar="NAME", help="A DNS name beside the subject. May be repeated.")
@click.option("--email", multiple=True, metavar="ADDRESS", help="A mail address beside it. May be repeated.")
@pin_option
@which_option
@output_option
@json_option
def csr_command(
    address: Address,
    role: str,
    subject: x509.Name,
    dns: tuple[str, ...],
    email: tuple[str, ...],
    pin: str,
    which: str,
    output: str,
    report: Report,
) -> None:
    """Request a certificate for a key of the card (PKCS #10, PEM), signed by the key itself.

    The key needs no certificate yet where the card tells its public half.

    \b
    demail-hw csr usbip://HOST/ --key authentication --pin prompt: \\
        --subject 'CN=Poststelle,O=Beispiel GmbH,C=DE' \\
        --dns gateway.example --email poststelle@beispiel.example -o request.pem
    """
    try:
        names = alternative_names(dns, email)
    except ValueError as error:
        raise click.UsageError(f"--dns, --email: {error}") from error
    given, name = given_source(pin), PinName(which)
    with manage(address, attended=given is None) as manager:
        source = pin_for(manager, given, name)
        request = manager.request(KeyRole(role), subject, source, names=names, which=name)
    text = subject.rfc4514_string()
    facts: dict[str, JsonValue] = {"key": role, "subject": text}
    deliver(report, output, request.public_bytes(Encoding.PEM), facts, f", for {printable(text)}")
