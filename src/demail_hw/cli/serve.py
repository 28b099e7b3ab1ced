"""``demail-hw serve``: readers of this machine on the network, by USB/IP, plain or through TLS."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from demail_hw.address import Address
from demail_hw.cli.card_options import CardOptions, open_simulated_card
from demail_hw.cli.options import ADDRESS, ENDPOINT
from demail_hw.cli.output import Report, json_option, os_errors_of
from demail_hw.cli.serving import is_loopback, netloc, stop_signals, wait_for_stop
from demail_hw.cli.systemd_notify import READY, STOPPING, notify
from demail_hw.interfaces import ExportedDevice
from demail_hw.usbip.messages import DEFAULT_PORT

if TYPE_CHECKING:
    import ssl

    from demail_hw_drivers.usbip_server_access import AccessRule, AllowList
    from demail_hw_drivers.usbip_server_audit import AuditLine

__all__ = ["serve_command"]

_LOG = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_PRIVATE: Final = 0o600
_STANDARD_ERROR: Final = 2
_FIRST_SERIAL: Final = 53692013000000
_FOR_BUS_ID: Final = re.compile(r"([0-9]+-[0-9]+(?:\.[0-9]+)*)=(.+)")

_Grant: TypeAlias = "tuple[str | None, AccessRule]"


class _GrantType(click.ParamType["_Grant"]):
    """A rule, perhaps with the bus id before it that it is for."""

    name = "rule"

    def convert(self, value: "str | _Grant", param: click.Parameter | None, ctx: click.Context | None) -> "_Grant":
        from demail_hw_drivers.usbip_server_access import AccessRule

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
@click.argument("readers", nargs=-1, required=True, type=ADDRESS, metavar="READER...")
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
    default="-",
    metavar="FILE",
    show_default=True,
    help="Where a line of JSON goes for each import and release; - is standard error.",
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
    grants: "Sequence[_Grant]",
    audit: str,
    until_eof: bool,
    report: Report,
) -> None:
    """Export readers to other machines by USB/IP; READER is sim:NAME, a simulated card in a simulated reader. They
    have the bus ids 1-1, 1-2, ... in this order.

    With --cert and --ca every client needs a certificate, and all is encrypted. Without, whoever reaches the port has
    the readers, and whoever listens sees the PINs: so it is this machine alone unless --listen says otherwise.
    """
    from demail_hw_drivers.tls_stream import TLS_PORT
    from demail_hw_drivers.usbip_server import UsbIpServer

    context = _tls(cert, key, ca)
    host, port = listen or (_LOOPBACK, TLS_PORT if context else DEFAULT_PORT)
    devices = {f"1-{number}": _device(reader, number) for number, reader in enumerate(readers, start=1)}
    allowed = _allow_list(devices, grants, secured=context is not None)
    if context is None and not is_loopback(host):
        _LOG.warning("%s", _PLAIN.format(where=netloc(host, port)))
    with (
        _audit_file(audit) as sink,
        stop_signals() as numbers,
        UsbIpServer(devices, host=host, port=port, context=context, allowed=allowed, audit=sink) as server,
    ):
        address = f"{'usbips' if context else 'usbip'}://{netloc(host, server.port)}/"
        means = _MEANS[context is not None, is_loopback(host)]
        report.show(
            {
                "ready": "serve",
                "address": address,
                "port": server.port,
                "bus_ids": [*server.bus_ids],
                "meaning": means,
            },
            f"serve ready: {address} ({', '.join(server.bus_ids)}). {means}",
        )
        notify(READY)
        wait_for_stop(numbers, until_eof=until_eof)
        notify(STOPPING)


_PLAIN: Final = (
    "USB/IP has no password and no encryption: whoever reaches {where} has the readers, and whoever listens sees the "
    "PINs. Give it a certificate (--cert, --key, --ca), or use it where nobody else is on the network."
)
_MEANS: Final = {
    (False, True): "Plain USB/IP: every user of this machine can take a reader, and no other machine.",
    (False, False): "Plain USB/IP: whoever reaches the port can take a reader and read along.",
    (True, True): "TLS: who has a certificate that is allowed can take a reader, from this machine.",
    (True, False): "TLS: who has a certificate that is allowed can take a reader.",
}


def _tls(cert: str | None, key: str | None, ca: str | None) -> "ssl.SSLContext | None":
    from demail_hw_drivers.tls_stream import TlsFiles, server_context

    if cert is None and key is None and ca is None:
        return None
    if cert is None or ca is None:
        raise click.UsageError("TLS needs --cert and --ca: who the server is, and whom it lets in")
    return server_context(TlsFiles(cert, key, ca))


def _allow_list(bus_ids: Mapping[str, object], grants: "Sequence[_Grant]", *, secured: bool) -> "AllowList | None":
    if not grants:
        return None
    if not secured:
        raise click.UsageError("--allow needs --cert and --ca: plain USB/IP does not know who comes")
    unknown = {bus_id for bus_id, _ in grants if bus_id is not None} - bus_ids.keys()
    if unknown:
        raise click.UsageError(f"--allow names {min(unknown)}, and there are only {', '.join(bus_ids)}")
    return {each: [rule for bus_id, rule in grants if bus_id in (None, each)] for each in bus_ids}


def _simulated(address: Address, number: int) -> ExportedDevice:
    from demail_hw_simulators.ccid_device import SimulatedUsbReader
    from demail_hw_simulators.sim_reader import DEFAULT_PERSONALITY

    card = open_simulated_card(CardOptions(address.selector or DEFAULT_PERSONALITY))
    return SimulatedUsbReader(card, serial=str(_FIRST_SERIAL + number - 1))


_EXPORTERS: Final[Mapping[str, Callable[[Address, int], ExportedDevice]]] = {"sim": _simulated}
"""Scheme of an address -> what makes a device of it; its number is that of the bus id."""


def _device(address: Address, number: int) -> ExportedDevice:
    exporter = _EXPORTERS.get(address.scheme)
    if exporter is None:
        known = ", ".join(f"{scheme}:" for scheme in sorted(_EXPORTERS))
        raise click.UsageError(f"{address.scheme}: is nothing that can be exported; known: {known}")
    return exporter(address, number)


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
