"""`demail-hw usb-server` and `simulate wut`: what they print, what they ask, how they end."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.wut.ports import Ports
from demail_hw_simulators.wut import SimulatedWutServer

HOST = "127.0.0.1"
FREE = Ports(0, 0, 0, 0)
PASSWORD = "geheim"


def soon() -> float:
    return time.monotonic() + 30


@pytest.fixture
def locked() -> Iterator[SimulatedWutServer]:
    with SimulatedWutServer(ports=FREE, password=PASSWORD.encode(), restart_seconds=0) as running:
        yield running


@pytest.fixture
def password_file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(f"{PASSWORD}\n")
    return f"file:{path}"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(["usb-server", *words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr()
    assert PASSWORD not in told.out + told.err
    return code, told.out, told.err


def ports_of(device: SimulatedWutServer) -> list[str]:
    ports = device.ports
    return [
        *("--inventory-port", str(ports.inventory), "--web-port", str(ports.web)),
        *("--usb-port", str(ports.usb), "--control-port", str(ports.control)),
    ]


def test_discover(locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("discover", "--address", HOST, "--seconds", "0.6", "--inventory-port", str(locked.ports.inventory))
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.splitlines() == [
        "127.0.0.1  00:C0:3D:00:08:15  6.0 Industry, software 0x1501",
        "  address 172.17.2.3, mask 255.255.255.0, gateway 172.17.2.1, MTU 1500",
        "  port 1: uart, free",
        "  port 2: uart, free",
    ]
    _, out, _ = run(capsys, *words, "--json")
    (server,) = json.loads(out)["servers"]
    assert (server["mac"], server["ip"], server["remarks"]) == ("00:C0:3D:00:08:15", "172.17.2.3", [])


def test_discover_shows_what_it_does_not_know_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with SimulatedWutServer(ports=FREE, packet=b"\x20\x00" + b"\x1b[2J" * 9) as device:
        _, out, _ = run(
            capsys, "discover", "--address", HOST, "--seconds", "0.6", "--inventory-port", str(device.ports.inventory)
        )
    first, second = out.splitlines()
    assert first.startswith("127.0.0.1  says 20 00 1b 5b")
    assert "version 0x0020, which is not published" in second


def test_discover_of_nobody_tells_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "discover", "--address", HOST, "--seconds", "0.05", "--inventory-port", "9")
    assert code == 0
    assert "--address HOST" in out


def test_status(locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", HOST, *ports_of(locked), "--json")
    found = json.loads(out)
    assert (code, found["web"], found["usb"], found["next_steps"]) == (0, "open", "open", [])
    assert locked.restarts == 0


def test_status_tells_what_does_not_answer(locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--inventory-port", "9", "--web-port", str(locked.ports.web), "--usb-port", "1")
    code, out, _ = run(capsys, "status", HOST, *words, "--seconds", "0.3")
    assert code == 0
    assert "USB (TCP 1): refused" in out
    assert "No inventory:" in out
    assert "No USB port:" in out
    assert "reset (TCP 8888): not tried" in out


def test_status_of_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from demail_hw_drivers import wut

    monkeypatch.setattr(wut, "_reach", lambda host, port, *, deadline: wut.Reachability.SILENT)
    code, _, err = run(capsys, "status", HOST, "--inventory-port", "9", "--seconds", "0.1")
    assert code == ExitCode.NOT_FOUND
    assert "Check power and cable" in err


def test_reset(locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str], password_file: str) -> None:
    words = ("reset", HOST, "--control-port", str(locked.ports.control), "--password-from", password_file)
    code, out, _ = run(capsys, *words, "--dry-run")
    assert (code, locked.restarts) == (0, 0)
    assert "would be restarted" in out
    code, out, _ = run(capsys, *words, "--yes", "--json")
    assert (code, json.loads(out)["done"]) == (0, True)
    locked.wait_until_back(1, deadline=soon())


def test_reset_asks_before(locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "reset", HOST, "--control-port", str(locked.ports.control))
    assert code == ExitCode.USAGE
    assert "--yes" in err
    assert locked.restarts == 0


def test_reset_with_a_wrong_password(
    locked: SimulatedWutServer, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("falsch")
    words = ("--control-port", str(locked.ports.control), "--password-from", f"file:{wrong}", "--yes")
    code, out, err = run(capsys, "reset", HOST, *words)
    assert code == ExitCode.TRANSPORT
    assert "did not take the system password" in err
    assert "falsch" not in out + err


def test_a_password_on_the_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "reset", HOST, "--password-from", PASSWORD, "--yes")
    assert code == ExitCode.CONFIGURATION
    assert "This is no password source." in err
    assert "never the password itself" in err


def test_simulate_wut_names_its_ports() -> None:
    free = [f"--{name}-port=0" for name in ("inventory", "web", "usb", "control")]
    command = [sys.executable, "-m", "demail_hw.cli", "simulate", "wut", *free, "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.communicate(timeout=60)
    assert re.fullmatch(r"wut ready: 127\.0\.0\.1 \(inventory \d+, web \d+, usb \d+, control \d+\)\n", said)


def test_simulate_wut_is_found_and_reset(tmp_path: pathlib.Path, password_file: str) -> None:
    free = [f"--{name}-port=0" for name in ("inventory", "web", "usb", "control")]
    command = [sys.executable, "-m", "demail_hw.cli"]
    simulator = [*command, "simulate", "wut", *free, "--password", PASSWORD, "--away", "0", "--until-eof", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(simulator, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        said: Any = json.loads(process.stdout.readline())
        reset = [*command, "usb-server", "reset", HOST, "--control-port", str(said["ports"]["control"])]
        done = subprocess.run(
            [*reset, "--password-from", password_file, "--yes"], timeout=60, env={**os.environ}, check=False
        )
        process.communicate(timeout=60)  # the end of its input ends it
    assert (done.returncode, process.returncode) == (0, 0)
    assert said["password"] is True
