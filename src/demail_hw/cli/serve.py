"""``demail-hw serve``: readers of this machine on the network, by USB/IP, plain or through TLS."""

import contextlib
import functools
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from demail_hw.address import Address, netloc
from demail_hw.cli.exports import open_export
from demail_hw.cli.options import ADDRESS, ENDPOINT
from demail_hw.cli.output import JsonValue, Report, json_option, os_errors_of
from demail_hw.cli.serve_settings import Grant, ServeOptions, ServeSettings, renewed, settings_of
from demail_hw.cli.serving import has_terminal, is_loopback, stop_signals, wait_for_stop
from demail_hw.cli.systemd_notify import READY, STOPPING, notify, reloading, watchdog
from demail_hw.config.loading import read_configuration
from demail_hw.errors import HardwareError
from demail_hw.interfaces import ExportedDevice
from demail_hw.traces.output_file import Mark, open_to_append
from demail_hw.usbip.access import ANY_CERTIFICATE, AccessRule

if TYPE_CHECKING:
    from demail_hw_drivers.usbip_server import UsbIpServer
    from demail_hw_drivers.usbip_server_audit import AuditLine

__all__ = ["serve_command"]

_LOG = logging.getLogger(__name__)

_AUDIT: Final = Mark("audit", re.compile(rb'\{"time": "'), private=False)  # logrotate gives it to a group
_STANDARD_ERROR: Final = 2
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
    "--crl",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A list of the certificates that an authority of --ca has revoked (PEM). May be repeated.",
)
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
    crl: Sequence[str],
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
    options = ServeOptions(readers, listen, cert, key, ca, crl, grants, audit, capture)
    _serve(settings_of(options, read_configuration()), report, until_eof=until_eof)


def _serve(settings: ServeSettings, report: Report, *, until_eof: bool) -> None:
    """Until it is told to stop."""
    on_hangup = None if has_terminal() else functools.partial(_renew, settings, report)
    with _audit_file(settings.audit) as sink, stop_signals(signal.SIGHUP) as numbers:
        _warn_of_plain(settings)
        with _server(settings, sink) as server:
            _show_ready(report, settings, server)
            notify(READY)
            wait_for_stop(
                numbers,
                until_eof=until_eof,
                on_hangup=on_hangup and functools.partial(on_hangup, server),
                beat=functools.partial(_beat, server, watchdog()),
            )
            notify(STOPPING)
        _tell_end(report, server)


def _server(settings: ServeSettings, sink: "Callable[[AuditLine], None]") -> "UsbIpServer":
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
        limits=settings.limits,
        audit=sink,
        capture=None if settings.capture is None else CaptureFile(settings.capture),
    )


def _show_ready(report: Report, settings: ServeSettings, server: "UsbIpServer") -> None:
    secured = settings.files is not None
    address = f"{'usbips' if secured else 'usbip'}://{netloc(settings.host, server.port)}/"
    means = _meaning(settings)
    facts: dict[str, JsonValue] = {
        "ready": "serve",
        "address": address,
        "port": server.port,
        "bus_ids": [*server.bus_ids],
        "meaning": means,
    }
    report.show(facts, f"serve ready: {address} ({', '.join(server.bus_ids)}). {means}")


def _beat(server: "UsbIpServer", tell: Callable[[], None]) -> None:
    """A server that takes nobody any more is started anew: systemd does not hear of it."""
    if server.takes_connections:
        tell()


def _renew(settings: ServeSettings, report: Report, server: "UsbIpServer") -> None:
    """What was before holds on if anything is wrong."""
    notify(reloading())
    try:
        after = renewed(settings, read_configuration())
        server.renew(context=after.context(), allowed=after.allowed)
    except (HardwareError, click.UsageError) as error:
        _LOG.error("certificates and rules stay as they were: %s", error)
    except Exception as error:  # noqa: BLE001  a fault in it ends no session that is under way
        _LOG.exception("certificates and rules could not be read again: %s", type(error).__name__)
    else:
        report.note("certificates and rules were read again")
    notify(READY)


def _warn_of_plain(settings: ServeSettings) -> None:
    if settings.files is None and not is_loopback(settings.host):
        _LOG.warning("%s", _PLAIN.format(where=netloc(settings.host, settings.port)))


_PLAIN: Final = (
    "USB/IP has no password and no encryption: whoever reaches {where} has the readers, and whoever listens sees the "
    "PINs. Give it a certificate (--cert, --key, --ca, or [server.tls]), or use it where nobody else is on the "
    "network."
)
_PLAIN_MEANS: Final = {
    True: "Plain USB/IP: every user of this machine can take a reader, and no other machine.",
    False: "Plain USB/IP: whoever reaches the port can take a reader and read along.",
}
_ANYBODY: Final = (ANY_CERTIFICATE,)


def _meaning(settings: ServeSettings) -> str:
    """Who can take a reader."""
    here = is_loopback(settings.host)
    if settings.files is None:
        return _PLAIN_MEANS[here]
    open_to_all = all(tuple(rules) == _ANYBODY for rules in (settings.allowed or {}).values())
    return f"TLS: {_WITH_RULES[not open_to_all]} can take a reader{', from this machine' if here else ''}."


_WITH_RULES: Final = {
    True: "who has a certificate that is allowed",
    False: "whoever has a certificate of its authorities",
}


def _tell_end(report: Report, server: "UsbIpServer") -> None:
    """What it did, for whoever keeps the log."""
    counters = server.counters._asdict()
    did = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counters.items() if count)
    report.note(f"the server stopped: {did or 'nobody came'}", counters={**counters})


def _device(settings: ServeSettings, number: int) -> ExportedDevice:
    """The device with this number, from 0 on."""
    address = [*settings.devices.values()][number]
    with settings.blamed(number):
        return open_export(address, number)


@contextlib.contextmanager
def _audit_file(path: str) -> "Iterator[Callable[[AuditLine], None]]":
    """Appends lines, each in one write: they stay whole, whoever else appends. A file that holds other things is
    left as it is."""
    with contextlib.ExitStack() as stack:
        descriptor = _STANDARD_ERROR
        if path != "-":
            with os_errors_of(path):
                descriptor = open_to_append(Path(path), _AUDIT)
            stack.callback(os.close, descriptor)

        def write(line: "AuditLine") -> None:
            os.write(descriptor, f"{line.as_json()}\n".encode())

        yield write
