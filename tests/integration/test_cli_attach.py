"""`demail-hw attach` and `detach`: what they print, what systemd hears, and how they end."""

import json
import os
import pathlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.cli.systemd_notify import watchdog
from demail_hw_drivers import vhci, vhci_attach
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_drivers.vhci import Origin
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from own_kernel import OwnKernel

SECONDS = 20.0
STATUS = (
    "hub port sta spd dev      sockfd local_busid\n"
    "hs  0004 006 002 00010002 000007 1-1\n"
    "hs  0005 006 002 00010002 000007 1-2\n"
    "hs  0006 004 000 00000000 000000 0-0\n"
)


@pytest.fixture
def kernel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> OwnKernel:
    kernel = OwnKernel(tmp_path)
    for module in (vhci, vhci_attach):
        monkeypatch.setattr(module, "Vhci", lambda: kernel)
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "detach").touch()
    return kernel


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    with UsbIpServer([SimulatedUsbReader(None)], port=0) as running:
        yield running


@pytest.fixture
def systemd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def while_it_runs(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def address(server: UsbIpServer) -> str:
    return f"usbip://127.0.0.1:{server.port}/"


def states(text: str) -> list[str]:
    return [line.get("state", line.get("end")) for line in map(json.loads, text.splitlines())]


def test_it_ends_when_the_reader_is_detached(
    kernel: OwnKernel, server: UsbIpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    detaching = while_it_runs(lambda: kernel.transport().close())
    main(["attach", address(server), "--json"])
    detaching.join(SECONDS)

    assert states(capsys.readouterr().out) == ["connecting", "attached", "detached"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_well(
    kernel: OwnKernel,
    server: UsbIpServer,
    systemd: socket.socket,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)

    held: list[UsbIpTransport] = []

    def stop() -> None:
        held.append(kernel.transport())
        os.kill(os.getpid(), number)

    stopping = while_it_runs(stop)
    main(["attach", address(server)])
    stopping.join(SECONDS)
    held[0].close()

    assert capsys.readouterr().out.splitlines()[-1] == f"{address(server)}: stopped"
    said = [systemd.recv(1024).decode() for _ in range(3)]
    assert said == ["STATUS=connecting", "READY=1\nSTATUS=attached: It is at port 4 of this kernel.", "STOPPING=1"]
    assert signal.getsignal(number) is before


def test_it_gives_up_as_it_is_told(kernel: OwnKernel, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(SystemExit) as ended:
        main(["attach", f"usbip://127.0.0.1:{port}/", "--attempts", "1", "--json"])

    assert ended.value.code == ExitCode.TRANSPORT
    printed = capsys.readouterr()
    assert states(printed.out) == ["connecting", "off"]
    assert "There is no USB server" in json.loads(printed.err)["error"]["message"]


def test_a_binding_of_the_configuration(
    kernel: OwnKernel,
    server: UsbIpServer,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text(
        f'[bindings.office]\nhost = "127.0.0.1"\nport = {server.port}\nmode = "kernel"\n'
        f'[bindings.own]\nhost = "127.0.0.1"\nport = {server.port}\n'
    )
    monkeypatch.setenv("DEMAIL_HW_CONFIG", str(configuration))
    detaching = while_it_runs(lambda: kernel.transport().close())
    main(["attach", "binding:office", "--json"])
    detaching.join(SECONDS)
    assert states(capsys.readouterr().out) == ["connecting", "attached", "detached"]

    with pytest.raises(SystemExit) as ended:
        main(["attach", "binding:own"])
    assert ended.value.code == ExitCode.CONFIGURATION
    assert 'mode = "kernel"' in capsys.readouterr().err


SERVER = "usbip://usb-server:3240/"
ORIGINS = {
    4: Origin("usb-server", 3240, "1-1", f"{SERVER}serial=A"),
    5: Origin("usb-server", 3240, "1-2", f"{SERVER}04e6:5710"),
    6: Origin("usb-server", 3240, "1-3", f"{SERVER}serial=A"),  # left behind: the port is free
}


def remember(kernel: OwnKernel, origins: Mapping[int, Origin]) -> None:
    for number, origin in origins.items():
        kernel.remember(number, origin)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("4", 4),
        ("usbip://usb-server/serial=A", 4),
        ("usbip://usb-server/1-1", 4),
        ("usbip://usb-server:3240/1-2", 5),
        ("usbip://usb-server/04E6:5710", 5),
        ("binding:office", 5),
    ],
)
def test_detach(
    kernel: OwnKernel,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    number: int,
) -> None:
    (tmp_path / "config.toml").write_text('[bindings.office]\nhost = "usb-server"\nmode = "kernel"\nbus_id = "1-2"\n')
    monkeypatch.setenv("DEMAIL_HW_CONFIG", str(tmp_path / "config.toml"))
    remember(kernel, ORIGINS)

    main(["detach", what, "--json"])

    assert json.loads(capsys.readouterr().out) == {"detached": number}
    assert (tmp_path / "detach").read_text() == str(number)
    assert kernel.origin(number) is None


def test_detach_knows_which_of_two_was_attached_by_this_address(kernel: OwnKernel, tmp_path: pathlib.Path) -> None:
    remember(kernel, {**ORIGINS, 5: ORIGINS[5]._replace(address=SERVER)})

    main(["detach", SERVER])

    assert (tmp_path / "detach").read_text() == "5"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("usbip://usb-server/", "Ports 4, 5"),
        ("usbip://usb-server/serial=B", "No port"),
        ("usbip://usb-server/1-1?reader=B", "No port"),
        ("usbip://usb-server/1-3", "No port"),
        ("usbip://another/", "No port"),
        ("usbips://usb-server/", "No port"),
        ("7", "ports in use: 4, 5"),
    ],
)
def test_detach_does_not_guess(
    kernel: OwnKernel, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], what: str, why: str
) -> None:
    remember(kernel, ORIGINS)

    with pytest.raises(SystemExit) as ended:
        main(["detach", what])

    assert ended.value.code == ExitCode.NOT_FOUND
    assert why in capsys.readouterr().err
    assert (tmp_path / "detach").read_text() == ""


def test_the_watchdog_is_told_once_in_half_of_its_time(systemd: socket.socket, tmp_path: pathlib.Path) -> None:
    beat = watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3600000000"})
    beat()
    beat()
    systemd.setblocking(False)

    assert systemd.recv(64) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        systemd.recv(64)


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
def test_no_watchdog_of_this_process(systemd: socket.socket, tmp_path: pathlib.Path, more: dict[str, str]) -> None:
    watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), **more})()
    systemd.setblocking(False)

    with pytest.raises(BlockingIOError):
        systemd.recv(64)
