"""``demail-hw sign``."""

import logging
from typing import BinaryIO

import click
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import cms
from demail_hw.address import Address
from demail_hw.cli.card_access import open_keys
from demail_hw.cli.options import ADDRESS, input_argument, key_option, output_option, pin_option, which_option
from demail_hw.cli.output import Report, deliver, json_option
from demail_hw.errors import AlgorithmNotSupported
from demail_hw.foreign_text import printable
from demail_hw.identity import Identity, KeyRole

__all__ = ["sign_command"]

_LOG = logging.getLogger(__name__)


@click.command("sign")
@click.argument("address", metavar="URI", type=ADDRESS)
@input_argument
@key_option
@pin_option
@which_option
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["cms", "raw"]),
    default="cms",
    show_default=True,
    help="cms: S/MIME; raw: the bare signature of an RSA key, PKCS#1 v1.5 with SHA-256.",
)
@click.option("--opaque", is_flag=True, help="Put the message inside the signature instead of beside it.")
@click.option(
    "--outform",
    type=click.Choice(["smime", "der"]),
    default="smime",
    show_default=True,
    help="smime: a message; der: the bare CMS structure, detached unless --opaque (openssl cms -verify -binary "
    "-inform DER -content IN).",
)
@output_option
@json_option
def sign_command(
    address: Address,
    source: BinaryIO,
    role: str,
    pin: str,
    which: str,
    format_name: str,
    opaque: bool,
    outform: str,
    output: str,
    report: Report,
) -> None:
    """Sign IN with a key of the card at URI."""
    if format_name == "raw" and (opaque or outform != "smime"):
        raise click.UsageError("--opaque and --outform belong to --format cms")
    if format_name == "cms" and role != KeyRole.SIGNATURE.value:
        _LOG.warning("the certificate of the %s key is not one for signing messages", role)
    data = source.read()
    with open_keys(address, pin, which) as provider:
        identity = provider.identity(KeyRole(role))
        signed = (
            _raw(identity, data) if format_name == "raw" else _cms(identity, data, opaque=opaque, outform=outform)
        )
    subject = identity.certificate.subject.rfc4514_string()
    deliver(report, output, signed, {"key": role, "signer": subject}, f", signed by {printable(subject)}")


def _raw(identity: Identity, data: bytes) -> bytes:
    if not isinstance(identity.private_key, RSAPrivateKey):
        raise AlgorithmNotSupported("The raw format is for RSA keys.", remedy="Leave --format raw out.")
    return identity.private_key.sign(data, PKCS1v15(), SHA256())


def _cms(identity: Identity, data: bytes, *, opaque: bool, outform: str) -> bytes:
    if outform == "der":
        return cms.sign(data, identity, form=cms.SignedForm.DER, detached=not opaque)
    try:
        return cms.sign(data, identity, form=cms.SignedForm.OPAQUE if opaque else cms.SignedForm.MULTIPART)
    except ValueError as error:  # the message cannot travel in this form
        raise click.UsageError(f"{error} (try --opaque or --outform der)") from error
