"""``demail-hw decrypt``."""

from typing import BinaryIO

import click

from demail_hw import cms
from demail_hw.address import Address
from demail_hw.cli.card_access import open_keys
from demail_hw.cli.options import ADDRESS, input_argument, output_option, pin_option, which_option
from demail_hw.cli.output import Report, deliver, json_option
from demail_hw.identity import KeyRole

__all__ = ["decrypt_command"]


@click.command("decrypt")
@click.argument("address", metavar="URI", type=ADDRESS)
@input_argument
@pin_option
@which_option
@output_option
@json_option
def decrypt_command(address: Address, source: BinaryIO, pin: str, which: str, output: str, report: Report) -> None:
    """Decrypt IN (S/MIME, PEM or DER) with the encryption key of the card at URI."""
    message = source.read()
    with open_keys(address, pin, which) as provider:
        content = cms.decrypt(message, provider.identity(KeyRole.ENCRYPTION))
    deliver(report, output, content, {}, "", private=True)
