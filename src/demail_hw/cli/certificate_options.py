"""Arguments and options that several of the ``certs`` commands share."""

from typing import Final

import click

from demail_hw.cli.options import ADDRESS
from demail_hw.identity import KeyRole

__all__ = ["FILE_HELP", "address_argument", "file_option", "need_one", "role_option"]

FILE_HELP: Final = "The file on the card, as certs list names it: 4331, or NKS/4331."

address_argument = click.argument("address", metavar="URI", type=ADDRESS)
role_option = click.option(
    "--key", "role", type=click.Choice([role.value for role in KeyRole]), help="The key whose certificate it is."
)
file_option = click.option("--file", "name", metavar="FILE", help=FILE_HELP)


def need_one(role: str | None, name: str | None) -> None:
    """A certificate is named in one of two ways."""
    if (role is None) is (name is None):
        raise click.UsageError("name the certificate by --key or by --file")
