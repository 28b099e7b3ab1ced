"""What in a configuration cannot work though it is written right: nothing is opened and nobody is asked."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from demail_hw.address import Address
from demail_hw.cli.exports import check_export
from demail_hw.cli.serve_settings import tls_files
from demail_hw.config.loading import LoadedConfiguration, Problem
from demail_hw.config.positions import KeyPath
from demail_hw.config.schema import Configuration, ServerConfig, ServerTlsConfig, TlsConfig
from demail_hw.errors import ConfigurationError, HardwareError
from demail_hw.pin_sources import FilePinSource
from demail_hw.registry import driver_of, find_readers

__all__ = ["mistakes_in", "warnings_about"]

_Check: TypeAlias = tuple[KeyPath, Callable[[], object]]
_ON_SERVERS: Final = frozenset({"usbip", "usbips"})
_ASK_NOBODY: Final = frozenset({"binding", "sim"})
_FILE: Final = "file:"
_CREDENTIAL: Final = "credential:"


def mistakes_in(loaded: LoadedConfiguration) -> Sequence[Problem]:
    """Addresses that mean nothing here."""
    return _failing(loaded, _address_checks(loaded.configuration))


def warnings_about(loaded: LoadedConfiguration) -> Sequence[Problem]:
    """Files for TLS and PINs that this user cannot use; the one who is to use them may be another."""
    return _failing(loaded, _file_checks(loaded.configuration))


def _failing(loaded: LoadedConfiguration, checks: Iterator[_Check]) -> Sequence[Problem]:
    found: list[Problem] = []
    for key, check in checks:
        try:
            check()
        except HardwareError as error:
            found.append(loaded.problem(key, error))
    return sorted(found, key=lambda problem: problem.line or 0)


def _address_checks(configuration: Configuration) -> Iterator[_Check]:
    for name, card in configuration.cards.items():
        yield ("cards", name, "reader"), partial(_check_reader, card.address)
    exports = (configuration.server or ServerConfig()).exports
    for number, export in enumerate(exports):
        address = Address.parse(export.device)
        earlier = [Address.parse(each.device) for each in exports[:number]]
        yield ("server", "exports", number, "device"), partial(_check_export, address, earlier)


def _check_reader(address: Address) -> None:
    """Drivers that ask nobody find their readers at once."""
    driver_of(address)
    if address.scheme in _ASK_NOBODY:
        find_readers(address)
    elif address.scheme in _ON_SERVERS:
        from demail_hw_drivers.usbip_client import check_address

        check_address(address)


def _check_export(address: Address, earlier: Sequence[Address]) -> None:
    check_export(address)
    if address.scheme != "sim" and address in earlier:
        raise ConfigurationError(f"{address} is exported already.", remedy="Name each reader by its serial number.")


def _file_checks(configuration: Configuration) -> Iterator[_Check]:
    for name, binding in configuration.bindings.items():
        yield ("bindings", name, "tls"), partial(_check_client, binding.tls)
    yield ("tls",), partial(_check_client, configuration.tls)
    yield ("server", "tls"), partial(_check_server, (configuration.server or ServerConfig()).tls)
    for name, card in configuration.cards.items():
        yield ("cards", name, "pin"), partial(_check_pin, card.pin)


def _check_client(tls: TlsConfig | None) -> None:
    from demail_hw_drivers.tls_stream import client_context

    if tls is not None and _can_be_seen(tls.certificate, tls.key, tls.ca):
        client_context(tls_files(tls))


def _check_server(tls: ServerTlsConfig | None) -> None:
    from demail_hw_drivers.tls_stream import server_context

    if tls is not None and _can_be_seen(tls.certificate, tls.key, tls.ca, *tls.crl):
        server_context(tls_files(tls))


def _can_be_seen(*paths: Path) -> bool:
    """Credentials are there for the service alone."""
    return "CREDENTIALS_DIRECTORY" in os.environ or not any(str(path).startswith(_CREDENTIAL) for path in paths)


def _check_pin(pin: str | None) -> None:
    if pin is not None and pin.startswith(_FILE):
        FilePinSource(Path(pin.removeprefix(_FILE))).check()
