"""Who may have what ``demail-hw serve`` exports."""

import click
import pytest

from demail_hw.address import Address
from demail_hw.cli.serve_settings import Grant, ServeOptions, settings_of
from demail_hw.config.loading import LoadedConfiguration, parse_configuration
from demail_hw.usbip.access import ANY_CERTIFICATE, AccessRule

RULE = AccessRule.parse("san:gateway.example")
CONFIGURATION = """
[server.tls]
certificate = "server.pem"
key = "server.key"
ca = "clients.pem"
[[server.exports]]
device = "libusb:04e6:5710"
"""
RESTRICTED = f'{CONFIGURATION}allow = ["san:gateway.example"]\n'


def allowed(text: str, reader: str, *grants: Grant) -> list[AccessRule]:
    loaded = LoadedConfiguration(parse_configuration(text))
    found = settings_of(ServeOptions([Address.parse(reader)], grants=grants), loaded).allowed
    assert found is not None
    return [*found["1-1"]]


def test_a_reader_that_is_named_keeps_its_rules() -> None:
    assert allowed(RESTRICTED, "libusb:04e6:5710") == [RULE]


@pytest.mark.parametrize("reader", ["libusb:", "libusb:serial=53692013000000", "sim:netkey3"])
def test_where_there_are_rules_no_other_address_goes_round_them(reader: str) -> None:
    with pytest.raises(click.UsageError, match="--allow"):
        allowed(RESTRICTED, reader)
    assert allowed(RESTRICTED, reader, (None, ANY_CERTIFICATE)) == [ANY_CERTIFICATE]
    assert allowed(CONFIGURATION, reader) == [ANY_CERTIFICATE]
