"""``demail-hw probe``."""

import dataclasses
from pathlib import Path

import click

from demail_hw import gateway
from demail_hw.address import Address
from demail_hw.cli.card_access import open_keys
from demail_hw.cli.options import ADDRESS, pin_option, which_option
from demail_hw.cli.output import JsonValue, Report, json_option
from demail_hw.foreign_text import printable
from demail_hw.gateway.connector import parse_url
from demail_hw.identity import KeyRole

__all__ = ["probe_command", "probe_facts"]


class _UrlType(click.ParamType[str]):
    """Looked at before the card is."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_url(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return value


def probe_facts(result: gateway.ProbeResult) -> dict[str, JsonValue]:
    """What a probe saw, for JSON."""
    return {**dataclasses.asdict(result), "domains": list(result.domains)}


@click.command("probe")
@click.argument("address", metavar="URI", type=ADDRESS)
@pin_option
@which_option
@click.option(
    "--gateway",
    "url",
    required=True,
    metavar="URL",
    type=_UrlType(),
    help="The De-Mail gateway, https://HOST[:PORT][/PATH].",
)
@click.option(
    "--ca",
    required=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates (PEM) that the gateway's own is checked against.",
)
@json_option
def probe_command(address: Address, pin: str, which: str, url: str, ca: Path, report: Report) -> None:
    """Prove that all works: mutual TLS to the gateway with the authentication key, and its number of domains."""
    with open_keys(address, pin, which) as provider:
        result = gateway.probe(provider.identity(KeyRole.AUTHENTICATION), url, cafile=ca)
    facts = probe_facts(result)
    lines = [
        f"{name}: {printable(str(value))}" for name, value in facts.items() if name != "domains" and value is not None
    ]
    report.show(
        facts, "\n".join([*lines, *map(printable, result.domains), f"De-Mail domains: {len(result.domains)}"])
    )
