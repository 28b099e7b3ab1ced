"""``demail-hw serve`` as a process: what it says, whom it lets in, how it stops."""

import contextlib
import json
import pathlib
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from demail_hw.address import Address
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.errors import DeviceNotFound
from demail_hw.interfaces import Timeouts
from demail_hw_drivers.usbip_client import UsbIpReaders
from tls_files import TlsAuthority

SECONDS = 60
PROGRAM = (sys.executable, "-m", "demail_hw.cli", "serve")


@contextlib.contextmanager
def serving(*words: str, environment: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The process, and what it has said."""
    command = [*PROGRAM, *words, "--until-eof", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def test_a_plain_server_is_for_this_machine_and_says_so() -> None:
    with serving("sim:", "sim:netkey3", "--listen", "127.0.0.1:0") as (_, said):
        assert said["bus_ids"] == ["1-1", "1-2"]
        assert "every user of this machine" in said["meaning"]
        with contextlib.closing(
            UsbIpReaders().open(Address.parse(said["address"] + "1-2"), timeouts=Timeouts())
        ) as two:
            assert two.serial == "53692013000001"


def test_a_plain_server_for_others_warns() -> None:
    with serving("sim:", "--listen", "0.0.0.0:0") as (process, said):
        assert "whoever reaches the port" in said["meaning"]
        process.terminate()
        _, told = process.communicate(timeout=SECONDS)
    assert "no password and no encryption" in json.loads(told.splitlines()[0])["warning"]


def test_a_tls_server_lets_in_who_is_on_the_list(tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    own = authority.issue("server", ip="127.0.0.1")
    friend, other = authority.issue("friend"), authority.issue("other")
    audit = tmp_path / "audit.jsonl"
    tls = ("--cert", own.certificate, "--key", str(own.key), "--ca", str(own.ca), "--listen", "127.0.0.1:0")
    rules = ("--allow", "1-1=subject:CN=friend", "--allow", "1-2=any")
    with serving("sim:", "sim:", *tls, *rules, "--audit", str(audit)) as (process, said):
        address = Address.parse(said["address"])
        assert address.scheme == "usbips"
        for files, seen in ((friend, 2), (other, 1)):
            there = Address("usbips", address.host, address.port, cert=files.certificate, key=files.key, ca=files.ca)
            assert len(UsbIpReaders().find(there, timeouts=Timeouts())) == seen
        refused = Address(
            "usbips", address.host, address.port, "1-1", cert=other.certificate, key=other.key, ca=own.ca
        )
        with pytest.raises(DeviceNotFound):
            UsbIpReaders().open(refused, timeouts=Timeouts())
        process.terminate()
        assert process.wait(SECONDS) == 0
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["action"], line["subject"], line["result"]) for line in lines] == [
        ("import", "CN=other", "not allowed")
    ]
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_it_tells_systemd_and_stops_cleanly(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        with serving("sim:", "--listen", "127.0.0.1:0") as (process, said):
            assert listener.recv(64) == b"READY=1"
            opened = UsbIpReaders().open(Address.parse(said["address"]), timeouts=Timeouts())
            process.send_signal(signal.SIGTERM)
            assert listener.recv(64) == b"STOPPING=1"
            _, told = process.communicate(timeout=SECONDS)
            opened.close()
        assert process.returncode == 0
    granted, released = map(json.loads, told.splitlines())
    assert (granted["result"], released["result"]) == ("granted", "server stopped")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("sim:", "--allow", "any"), ExitCode.USAGE, "needs --cert and --ca"),
        (("sim:", "--cert", "nothing.pem"), ExitCode.USAGE, "needs --cert and --ca"),
        (("sim:", "--cert", "nothing.pem", "--ca", "nothing.pem"), ExitCode.CONFIGURATION, "nothing.pem"),
        (("sim:", "--allow", "everybody"), ExitCode.USAGE, "is no rule"),
        (("pcsc:",), ExitCode.USAGE, "known: "),
        (("sim:nothing",), ExitCode.CONFIGURATION, "no simulated card"),
        ((), ExitCode.USAGE, "READER"),
        (("sim:", "--audit", "/nowhere/at/all"), ExitCode.USAGE, "/nowhere/at/all"),
    ],
)
def test_what_makes_no_sense(words: tuple[str, ...], code: ExitCode, told: str) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_a_rule_for_a_device_that_is_not_there(tmp_path: pathlib.Path) -> None:
    own = TlsAuthority(tmp_path).issue("server")
    tls = ("--cert", own.certificate, "--key", str(own.key), "--ca", str(own.ca))
    done = subprocess.run(
        [*PROGRAM, "sim:", *tls, "--allow", "1-2=any"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, "there are only 1-1" in done.stderr) == (ExitCode.USAGE, True), done.stderr
