"""``demail-hw serve``: readers of this machine on the network, by USB/IP, plain or through TLS."""

import contextlib
import functools
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from demail_hw.address import Address
from demail_hw.cli.card_options import CardOptions, open_simulated_card, simulated_profile
from demail_hw.cli.options import ADDRESS, ENDPOINT
from demail_hw.cli.output import JsonValue, Report, json_option, os_errors_of
from demail_hw.cli.serve_settings import Grant, ServeOptions, ServeSettings, renewed, settings_of
from demail_hw.cli.serving import has_terminal, is_loopback, netloc, stop_signals, wait_for_stop
from demail_hw.cli.systemd_notify import READY, STOPPING, notify, reloading
from demail_hw.config.loading import read_configuration
from demail_hw.errors import ConfigurationError, HardwareError
from demail_hw.interfaces import ExportedDevice
from demail_hw.usbip.access import AccessRule

if TYPE_CHECKING:
    from demail_hw_drivers.usbip_server import UsbIpServer
    from demail_hw_drivers.usbip_server_audit import AuditLine

__all__ = ["serve_command"]

_LOG = logging.getLogger(__name__)

_PRIVATE: Final = 0o600
_STANDARD_ERROR: Final = 2
_FIRST_SERIAL: Final = 53692013000000
_FOR_BUS_ID: Final = re.compile(r"([0-9]+-[0-9]+(?:\.[0-9]+)*)=(.+)")


class _GrantType(click.ParamType[Grant]):
    """A rule, perhaps with the bus id before it that it is for."""

    name = "rule"

    def convert(self, value: str | Grant, param: click.Parameter | None, ctx: click.Context | None) -> Grant:
        if isinstance(value, tuple):
            return value
        match = _FOR_BUS_ID.fullmatch(value)
        bus_id, text = (match[1], match[2]) if match else (None, value)
        try:
            return bus_id, AccessRule.parse(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FILE: Final = click.Path(dir_okay=False)


@click.command("serve")
@click.argument("readers", nargs=-1, type=ADDRESS, metavar="[READER]...")
@click.option(
    "--listen",
    type=ENDPOINT,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.  [default: 127.0.0.1:3240, with TLS 127.0.0.1:3241]",
)
@click.option(
    "--cert", type=_FILE, metavar="FILE", help="Speak TLS 1.3, with this certificate (PEM, with its chain)."
)
@click.option("--key", type=_FILE, metavar="FILE", help="Its key, if it is not in the same file.")
@click.option("--ca", type=_FILE, metavar="FILE", help="The authorities that issue the clients' certificates (PEM).")
@click.option(
    "--allow",
    "grants",
    type=_GrantType(),
    multiple=True,
    metavar="[BUSID=]RULE",
    help="Who may have the readers, or the one at a bus id: sha256:FINGERPRINT, subject:NAME, san:NAME, or any. May "
    "be repeated; without it, whoever has a certificate of --ca.",
)
@click.option(
    "--audit",
    metavar="FILE",
    help="Where a line of JSON goes for each import and release; - is standard error.  [default: -]",
)
@click.option(
    "--capture",
    type=_FILE,
    metavar="FILE",
    help="Write what is carried to this file, as pcapng for Wireshark; PINs are masked.",
)
@click.option(
    "--until-eof", is_flag=True, help="Also stop when standard input ends: for a parent that may be killed."
)
@json_option
def serve_command(
    readers: Sequence[Address],
    listen: tuple[str, int] | None,
    cert: str | None,
    key: str | None,
    ca: str | None,
    grants: Sequence[Grant],
    audit: str | None,
    capture: str | None,
    until_eof: bool,
    report: Report,
) -> None:
    """Export readers to other machines by USB/IP. READER is libusb:, libusb:serial=... or libusb:VID:PID, one that is
    plugged in here, or sim:NAME, a simulated card in a simulated reader. They have the bus ids 1-1, 1-2, ... in this
    order. Without a READER those of [[server.exports]] in the configuration; every option goes before what
    [server] says there.

    With --cert and --ca every client needs a certificate, and all is encrypted. Without, whoever reaches the port has
    the readers, and whoever listens sees the PINs: so it is this machine alone unless --listen says otherwise.

    SIGHUP has certificates, authorities and rules read again, where no terminal is that may have been closed.
    """
    settings = settings_of(ServeOptions(readers, listen, cert, key, ca, grants, audit), read_configuration())
    on_hangup = None if has_terminal() else functools.partial(_renew, settings)
    with _audit_file(settings.audit) as sink, stop_signals(signal.SIGHUP) as numbers:
        _warn_of_plain(settings)
        with _server(settings, sink, capture) as server:
            _show_ready(report, settings, server)
            notify(READY)
            wait_for_stop(numbers, until_eof=until_eof, on_hangup=on_hangup and functools.partial(on_hangup, server))
            notify(STOPPING)


def _server(settings: ServeSettings, sink: "Callable[[AuditLine], None]", capture: str | None) -> "UsbIpServer":
    from demail_hw_drivers.usbip_capture import CaptureFile
    from demail_hw_drivers.usbip_server import UsbIpServer

    context = settings.context()
    devices = {bus_id: _device(settings, number) for number, bus_id in enumerate(settings.devices)}
    return UsbIpServer(
        devices,
        host=settings.host,
        port=settings.port,
        context=context,
        allowed=settings.allowed,
        audit=sink,
        capture=None if capture is None else CaptureFile(capture),
    )


def _show_ready(report: Report, settings: ServeSettings, server: "UsbIpServer") -> None:
    secured = settings.files is not None
    address = f"{'usbips' if secured else 'usbip'}://{netloc(settings.host, server.port)}/"
    means = _MEANS[secured, is_loopback(settings.host)]
    facts: dict[str, JsonValue] = {
        "ready": "serve",
        "address": address,
        "port": server.port,
        "bus_ids": [*server.bus_ids],
        "meaning": means,
    }
    report.show(facts, f"serve ready: {address} ({', '.join(server.bus_ids)}). {means}")


def _renew(settings: ServeSettings, server: "UsbIpServer") -> None:
    """What was before holds on if anything is wrong."""
    notify(reloading())
    try:
        after = renewed(settings, read_configuration())
        server.renew(context=after.context(), allowed=after.allowed)
    except (HardwareError, click.UsageError) as error:
        _LOG.error("certificates and rules stay as they were: %s", error)
    else:
        _LOG.info("certificates and rules were read again")
    notify(READY)


def _warn_of_plain(settings: ServeSettings) -> None:
    if settings.files is None and not is_loopback(settings.host):
        _LOG.warning("%s", _PLAIN.format(where=netloc(settings.host, settings.port)))


_PLAIN: Final = (
    "USB/IP has no password and no encryption: whoever reaches {where} has the readers, and whoever listens sees the "
    "PINs. Give it a certificate (--cert, --key, --ca, or [server.tls]), or use it where nobody else is on the "
    "network."
)
_MEANS: Final = {
    (False, True): "Plain USB/IP: every user of this machine can take a reader, and no other machine.",
    (False, False): "Plain USB/IP: whoever reaches the port can take a reader and read along.",
    (True, True): "TLS: who has a certificate that is allowed can take a reader, from this machine.",
    (True, False): "TLS: who has a certificate that is allowed can take a reader.",
}


def _simulated(address: Address, number: int) -> ExportedDevice:
    from demail_hw_simulators.ccid_device import SimulatedUsbReader
    from demail_hw_simulators.sim_reader import DEFAULT_PERSONALITY

    card = open_simulated_card(CardOptions(address.selector or DEFAULT_PERSONALITY))
    serial = str(_FIRST_SERIAL + number)
    return SimulatedUsbReader(card, serial=serial, profile=simulated_profile(address.profile))


def _local(address: Address, _number: int) -> ExportedDevice:
    from demail_hw_drivers.libusb import claim

    device = claim(address)
    click.get_current_context().call_on_close(device.close)
    return device


class _Exporter(NamedTuple):
    """What makes a device of an address and a number, and which parameters it heeds."""

    make: Callable[[Address, int], ExportedDevice]
    parameters: frozenset[str] = frozenset()


_EXPORTERS: Final[Mapping[str, _Exporter]] = {
    "libusb": _Exporter(_local),
    "sim": _Exporter(_simulated, frozenset({"profile"})),
}
"""By the scheme of the address."""


def _device(settings: ServeSettings, number: int) -> ExportedDevice:
    """The device with this number, from 0 on."""
    address = [*settings.devices.values()][number]
    with settings.blamed(number):
        exporter = _EXPORTERS.get(address.scheme)
        if exporter is None:
            known = ", ".join(f"{scheme}:" for scheme in sorted(_EXPORTERS))
            raise ConfigurationError(
                f"{address.scheme}: is nothing that can be exported.", remedy=f"These can be: {known}."
            )
        for name in sorted(_DEMANDS - exporter.parameters):
            if getattr(address, name) is not None:
                raise ConfigurationError(
                    f"A reader that is exported as {address.scheme}: takes no ?{name}=.", remedy="Leave it out."
                )
        return exporter.make(address, number)


_DEMANDS: Final = frozenset({"ca", "capture", "card", "cert", "key", "profile", "reader", "share"})


@contextlib.contextmanager
def _audit_file(path: str) -> "Iterator[Callable[[AuditLine], None]]":
    """Appends lines, each in one write: they stay whole, whoever else appends."""
    with contextlib.ExitStack() as stack:
        descriptor = _STANDARD_ERROR
        if path != "-":
            with os_errors_of(path):
                descriptor = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE)
            stack.callback(os.close, descriptor)

        def write(line: "AuditLine") -> None:
            os.write(descriptor, f"{line.as_json()}\n".encode())

        yield write
