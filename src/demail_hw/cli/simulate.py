"""``demail-hw simulate``: the other end of every wire, to develop and test without hardware."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from demail_hw.cli.options import ENDPOINT
from demail_hw.cli.output import JsonValue, Report, json_option

__all__ = ["simulate_command"]

_GATEWAY_MODES = ("1.2", "1.3")


@click.group("simulate")
def simulate_command() -> None:
    """The other end of every wire, to develop and test without hardware. All keys and PINs in it are test ones."""


@simulate_command.command("usb-server")
@click.option("--listen", type=ENDPOINT, default="127.0.0.1:3240", show_default=True, metavar="HOST:PORT")
@click.option("--personality", default="netkey3", show_default=True, help="What card is in the reader.")
@json_option
def usb_server_command(listen: tuple[str, int], personality: str, report: Report) -> None:
    """A USB/IP server with a uTrust 2700 F and a card in it. Port 0 takes a free one. USB/IP knows no password:
    whoever reaches the port has the card."""
    from demail_hw_drivers.usbip_server import UsbIpServer
    from demail_hw_simulators.card.personalities import open_card
    from demail_hw_simulators.ccid_device import SimulatedUsbReader

    host, port = listen
    reader = SimulatedUsbReader(open_card(personality))
    with _until_stopped() as stopped, UsbIpServer([reader], host=host, port=port) as server:
        address = f"usbip://{_netloc(host, server.port)}/"
        _ready(report, "usb-server", address, {"port": server.port, "personality": personality})
        stopped.wait()


@simulate_command.command("gateway")
@click.option("--listen", type=ENDPOINT, default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT")
@click.option(
    "--tls", type=click.Choice(_GATEWAY_MODES), default="1.2", show_default=True, help="The one TLS version."
)
@json_option
def gateway_command(listen: tuple[str, int], tls: str, report: Report) -> None:
    """A De-Mail gateway: HTTPS, client certificate required, GET /domains. Its interface is ours; the real
    gateway's is not public."""
    from demail_hw_simulators.gateway import SimulatedGateway, TlsMode

    host, port = listen
    mode = TlsMode.TLS13 if tls == "1.3" else TlsMode.TLS12
    with _until_stopped() as stopped, SimulatedGateway(host=host, port=port, mode=mode) as server:
        _ready(report, "gateway", f"https://{_netloc(host, server.port)}", {"port": server.port, "tls": tls})
        stopped.wait()


@simulate_command.command("ca")
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@json_option
def ca_command(output: Path, report: Report) -> None:
    """Write the simulated authorities: telesec-root.pem, telesec-chain.pem, gateway-ca.pem."""
    from demail_hw_simulators.ca import write_trust

    output.mkdir(parents=True, exist_ok=True)
    names = [str(path) for path in write_trust(output)]
    report.show({"files": list(names)}, "\n".join(names))


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ready(report: Report, what: str, address: str, facts: dict[str, JsonValue]) -> None:
    report.show({"ready": what, "address": address, **facts}, f"{what} ready: {address}")


@contextlib.contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature of a signal handler
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
