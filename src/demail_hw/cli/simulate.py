"""``demail-hw simulate``: the other end of every wire, to develop and test without hardware."""

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import click

from demail_hw.address import netloc
from demail_hw.cli.card_options import (
    USUAL_PROFILE,
    CardOptions,
    card_options,
    open_simulated_card,
    simulated_profile,
)
from demail_hw.cli.options import ENDPOINT
from demail_hw.cli.output import JsonValue, Report, json_option, os_errors_of
from demail_hw.cli.serving import is_loopback, stop_signals, wait_for_stop
from demail_hw.cli.wut_ports import port_options
from demail_hw.errors import TransportError
from demail_hw.wut.ports import Ports

__all__ = ["simulate_command"]

_LOG = logging.getLogger(__name__)
_GATEWAY_MODES = ("1.2", "1.3")


_until_eof_option = click.option(
    "--until-eof", is_flag=True, help="Also stop when standard input ends: for a parent that may be killed."
)


@click.group("simulate")
def simulate_command() -> None:
    """The other end of every wire, to develop and test without hardware. All keys and PINs in it are test ones."""


@simulate_command.command("usb-server")
@click.option("--listen", type=ENDPOINT, default="127.0.0.1:3240", show_default=True, metavar="HOST:PORT")
@click.option("--profile", metavar="NAME", default=USUAL_PROFILE, show_default=True, help="What reader it is.")
@card_options
@_until_eof_option
@json_option
def usb_server_command(
    listen: tuple[str, int], profile: str, card: CardOptions, until_eof: bool, report: Report
) -> None:
    """A USB/IP server with a reader, a uTrust 2700 F unless told otherwise, and a card in it. Port 0 takes a free
    one. USB/IP knows no password: whoever reaches the port has the card."""
    from demail_hw_drivers.usbip_server import UsbIpServer
    from demail_hw_simulators.ccid_device import SimulatedUsbReader

    host, port = listen
    reader = SimulatedUsbReader(open_simulated_card(card), profile=simulated_profile(profile))
    if not is_loopback(host):
        _LOG.warning(
            "USB/IP has no password and no encryption: whoever reaches %s has the card, and whoever listens sees its "
            "PIN. Use it where nobody else is on the network.",
            netloc(host, port),
        )
    with stop_signals() as numbers, UsbIpServer([reader], host=host, port=port) as server:
        address = f"usbip://{netloc(host, server.port)}/"
        _ready(report, "usb-server", address, {"port": server.port, "personality": card.personality})
        wait_for_stop(numbers, until_eof=until_eof)


@simulate_command.command("vpcd")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where pcscd runs with vpcd.")
@click.option("--port", type=click.IntRange(1, 65535), default=35963, show_default=True, help="Of vpcd's slot.")
@card_options
@_until_eof_option
@json_option
def vpcd_command(host: str, port: int, card: CardOptions, until_eof: bool, report: Report) -> None:
    """A card for any PC/SC program, in the virtual reader of pcscd (Debian: vsmartcard-vpcd). It is ready when vpcd
    has asked for it. It waits for vpcd, and for whatever else is in the slot to go, and comes back when pcscd was
    restarted."""
    from demail_hw_simulators.vpcd import VpcdSlot, connect_to

    simulated = open_simulated_card(card)
    address = netloc(host, port)

    def ready() -> None:
        _ready(report, "vpcd", address, {"port": port, "personality": card.personality})

    news = _SlotNews(address, connect_to(host, port), ready)
    slot = VpcdSlot(news.connect, simulated, on_seen=news.seen, on_silence=news.not_asked)
    with stop_signals() as numbers, slot:
        wait_for_stop(numbers, until_eof=until_eof)


class _SlotNews:
    """Says, each once: nobody listens, the slot has something else in it, the card is there."""

    def __init__(self, address: str, connect: Callable[[], socket.socket], ready: Callable[[], None]) -> None:
        self._address = address
        self._connect = connect
        self._ready = ready
        self._said: set[str] = set()

    def connect(self) -> socket.socket:
        """A connection. ``OSError`` if there is none."""
        try:
            return self._connect()
        except TimeoutError:  # so does vpcd's queue when it is full
            self.not_asked()
            raise
        except OSError as error:
            if self._is_new("missing"):
                _LOG.warning(
                    "No vpcd listens on %s yet (%s). See that vsmartcard-vpcd is installed and that pcscd runs.",
                    self._address,
                    error.strerror or error,
                )
            raise

    def not_asked(self) -> None:
        """vpcd lets the card wait."""
        if self._is_new("not asked"):
            _LOG.warning(
                "vpcd on %s does not ask for this card: another one is in the slot, or it is no vpcd. Take the other "
                "card out, or give this one another slot (--port).",
                self._address,
            )

    def seen(self) -> None:
        """vpcd has the card."""
        if self._is_new("ready"):
            self._ready()

    def _is_new(self, what: str) -> bool:
        new = what not in self._said
        self._said.add(what)
        return new


@simulate_command.command("gateway")
@click.option("--listen", type=ENDPOINT, default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT")
@click.option(
    "--tls", type=click.Choice(_GATEWAY_MODES), default="1.2", show_default=True, help="The one TLS version."
)
@_until_eof_option
@json_option
def gateway_command(listen: tuple[str, int], tls: str, until_eof: bool, report: Report) -> None:
    """A De-Mail gateway: HTTPS, client certificate required, GET /domains. Its interface is ours; the real
    gateway's is not public."""
    from demail_hw_simulators.gateway import SimulatedGateway, TlsMode

    host, port = listen
    mode = TlsMode.TLS13 if tls == "1.3" else TlsMode.TLS12
    server = SimulatedGateway(host=host, port=port, mode=mode)
    with stop_signals() as numbers, contextlib.closing(server):
        try:
            server.start()
        except OSError as error:
            raise TransportError(
                f"The gateway cannot listen on {netloc(host, port)}: {error.strerror}.",
                transient=False,
                remedy="Choose another address or port, or stop the server that has it.",
            ) from error
        _ready(report, "gateway", f"https://{netloc(host, server.port)}", {"port": server.port, "tls": tls})
        wait_for_stop(numbers, until_eof=until_eof)


@simulate_command.command("wut")
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="An IPv4 address of this machine."
)
@port_options
@click.option("--password", metavar="TEXT", default="", help="Its system password, a test one; else it has none.")
@click.option(
    "--away", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Seconds that a restart takes."
)
@_until_eof_option
@json_option
def wut_command(host: str, ports: Ports, password: str, away: float, until_eof: bool, report: Report) -> None:
    """What is published of a W&T USB-Server: inventory by UDP, a web page, the reset port with its password. Its USB
    port takes connections without a word. Port 0 takes a free one."""
    from demail_hw_simulators.wut import SimulatedWutServer

    with stop_signals() as numbers:
        try:
            server = SimulatedWutServer(host=host, ports=ports, password=password.encode(), restart_seconds=away)
        except OSError as error:
            raise TransportError(
                f"The simulated USB-Server cannot listen on {host}: {error.strerror}.",
                transient=False,
                remedy="Choose other ports, or stop the program that has one of them.",
            ) from error
        with server:
            numbered = dataclasses.asdict(server.ports)
            facts: dict[str, JsonValue] = {"ports": numbered, "password": bool(password)}
            _ready(report, "wut", host, facts, ", ".join(f"{name} {port}" for name, port in numbered.items()))
            wait_for_stop(numbers, until_eof=until_eof)


@simulate_command.command("ca")
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@json_option
def ca_command(output: Path, report: Report) -> None:
    """Write the simulated authorities: telesec-root.pem, telesec-chain.pem, gateway-ca.pem."""
    from demail_hw_simulators.ca import write_trust

    with os_errors_of(output):
        names = [str(path) for path in write_trust(output)]
    report.show({"files": list(names)}, "\n".join(names))


def _ready(report: Report, what: str, address: str, facts: dict[str, JsonValue], ports: str = "") -> None:
    more = f" ({ports})" if ports else ""
    report.show({"ready": what, "address": address, **facts}, f"{what} ready: {address}{more}")
