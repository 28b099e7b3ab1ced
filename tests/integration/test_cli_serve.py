"""``demail-hw serve`` as a process: what it says, whom it lets in, how it stops."""

import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from demail_hw.address import Address
from demail_hw.cli import serve
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.output import Report
from demail_hw.cli.serve_settings import ServeOptions, settings_of
from demail_hw.config.loading import LoadedConfiguration, parse_configuration
from demail_hw.errors import DeviceLost, DeviceNotFound, TransportError
from demail_hw.interfaces import Timeouts
from demail_hw.usbip.messages import OpReqDevlist
from demail_hw_drivers.tls_stream import TlsFiles
from demail_hw_drivers.usbip_client import UsbIpReaders
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_server_audit import log_audit
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from tls_files import TlsAuthority

SECONDS = 60
PROGRAM = (sys.executable, "-m", "demail_hw.cli", "serve")


@contextlib.contextmanager
def serving(*words: str, environment: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The process, and what it has said."""
    command = [*PROGRAM, *words, "--until-eof", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
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
        assert said["meaning"] == "TLS: who has a certificate that is allowed can take a reader, from this machine."
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
    granted, released, end = map(json.loads, told.splitlines())
    assert (granted["result"], released["result"]) == ("granted", "server stopped")
    assert (end["counters"]["imports"], end["counters"]["refused"]) == (1, 0)
    assert "imports 1" in end["note"]


def test_the_watchdog_is_told_again_and_again(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000"}
        with serving("sim:", "--listen", "127.0.0.1:0", environment=environment):
            assert [listener.recv(64) for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("sim:", "--allow", "any"), ExitCode.USAGE, "needs --cert and --ca"),
        (("sim:", "--cert", "nothing.pem"), ExitCode.USAGE, "needs --cert and --ca"),
        (("sim:", "--cert", "nothing.pem", "--ca", "nothing.pem"), ExitCode.CONFIGURATION, "nothing.pem"),
        (("sim:", "--allow", "everybody"), ExitCode.USAGE, "is no rule"),
        (("pcsc:",), ExitCode.CONFIGURATION, "These can be: libusb:, sim:"),
        (("sim:?profile=nothing",), ExitCode.CONFIGURATION, "ext_apdu"),
        (("sim:?card=12",), ExitCode.CONFIGURATION, "takes no ?card="),
        (("sim:nothing",), ExitCode.CONFIGURATION, "no simulated card"),
        (("sim:", "--listen", "192.0.2.1:0"), ExitCode.TRANSPORT, "192.0.2.1:0: Cannot assign requested address."),
        ((), ExitCode.USAGE, "READER"),
        (("sim:", "--audit", "/nowhere/at/all"), ExitCode.USAGE, "/nowhere/at/all"),
    ],
)
def test_what_makes_no_sense(words: tuple[str, ...], code: ExitCode, told: str) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_an_audit_is_added_to_no_other_file(tmp_path: pathlib.Path) -> None:
    mail = tmp_path / "mail.eml"
    mail.write_text("important")
    words = [*PROGRAM, "sim:", "--listen", "127.0.0.1:0", "--audit", str(mail)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, mail.read_text()) == (ExitCode.CONFIGURATION, "important")


def test_a_rule_for_a_device_that_is_not_there(tmp_path: pathlib.Path) -> None:
    own = TlsAuthority(tmp_path).issue("server")
    tls = ("--cert", own.certificate, "--key", str(own.key), "--ca", str(own.ca))
    done = subprocess.run(
        [*PROGRAM, "sim:", *tls, "--allow", "1-2=any"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, "there are only 1-1" in done.stderr) == (ExitCode.USAGE, True), done.stderr


# --- From the configuration ------------------------------------------------------------------------------------


def configured(path: pathlib.Path, text: str) -> dict[str, str]:
    """The environment of a program whose configuration this is."""
    file = path / "config.toml"
    file.write_text(text)
    return {**os.environ, "DEMAIL_HW_CONFIG": str(file)}


def through(said: Any, files: TlsFiles, selector: str = "") -> Address:
    address = Address.parse(said["address"])
    return dataclasses.replace(address, selector=selector, cert=files.certificate, key=files.key, ca=files.ca)


def seen(said: Any, files: TlsFiles) -> int:
    return len(UsbIpReaders().find(through(said, files), timeouts=Timeouts()))


SERVER = """
[server]
host = "127.0.0.1"
port = {port}
audit = "audit.jsonl"
capture = "wire.pcapng"
tls = {{ certificate = "server.pem", key = "server.key", ca = "authority.pem", crl = ["revoked.crl"] }}

[[server.exports]]
device = "sim:netkey3?profile=tpdu"
allow = [{rules}]

[[server.exports]]
device = "sim:"
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_everything_of_the_configuration(tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    authority.issue("server", ip="127.0.0.1")
    friend, other, former = (authority.issue(name) for name in ("friend", "other", "former"))
    authority.revoke(former.certificate)
    port = free_port()
    environment = configured(tmp_path, SERVER.format(port=port, rules='"subject:CN=friend"'))
    with serving(environment=environment) as (process, said):
        assert (said["port"], said["bus_ids"]) == (port, ["1-1", "1-2"])
        assert (seen(said, friend), seen(said, other)) == (2, 1)
        with contextlib.closing(UsbIpReaders().open(through(said, friend, "1-1"), timeouts=Timeouts())) as one:
            assert one.serial == "53692013000000"
        with pytest.raises(TransportError, match="certificate revoked"):
            seen(said, former)
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert "granted" in (tmp_path / "audit.jsonl").read_text()
    assert b"demail-hw" in (tmp_path / "wire.pcapng").read_bytes()


def test_arguments_go_before_the_configuration(tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    authority.issue("server", ip="127.0.0.1")
    friend, other = authority.issue("friend"), authority.issue("other")
    authority.revoke()
    environment = configured(tmp_path, SERVER.format(port=1, rules='"subject:CN=friend"'))
    words = ("--listen", "127.0.0.1:0", "--audit", str(tmp_path / "other.jsonl"))
    with serving("sim:netkey3?profile=tpdu", *words, environment=environment) as (_, said):
        assert said["bus_ids"] == ["1-1"]
        assert (seen(said, friend), seen(said, other)) == (1, 0), "its rules hold, whoever names it"
    with serving("sim:", "--allow", "subject:CN=other", *words, environment=environment) as (_, said):
        assert (seen(said, friend), seen(said, other)) == (0, 1)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('[[server.exports]]\ndevice = "sim:"\n[[server.exports]]\ndevice = "pcsc:"', 4, "is nothing that can be"),
        ('[[server.exports]]\ndevice = "sim:nothing"', 2, "no simulated card"),
        ('[[server.exports]]\ndevice = "sim:?profile=nothing"', 2, "no simulated reader"),
        ('[[server.exports]]\ndevice = "sim:?card=12"', 2, "takes no ?card="),
        ('[[server.exports]]\ndevice = "sim:"\nallow = ["all"]', 3, "is no rule"),
        (
            '[server]\nport = 1\ntls = {certificate="a", key="b", ca="c"}\n[[server.exports]]\ndevice = "sim:"',
            3,
            "server.tls: The TLS file",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: pathlib.Path, text: str, line: int, told: str) -> None:
    environment = configured(tmp_path, text)
    done = subprocess.run([*PROGRAM], capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert f"config.toml, line {line}: server." in done.stderr
    assert told in done.stderr


# --- SIGHUP ----------------------------------------------------------------------------------------------------


class Reloading:
    """A server without a terminal, told to read again; whether it did is heard as systemd hears it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authority = TlsAuthority(folder)
        self.authority.issue("server", ip="127.0.0.1")
        self.friend, self.other = self.authority.issue("friend"), self.authority.issue("other")
        self.authority.revoke()
        self.port = free_port()
        self.environment = self.write('"subject:CN=friend"') | {"NOTIFY_SOCKET": str(folder / "notify")}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(str(folder / "notify"))
        self.listener.settimeout(SECONDS)

    def write(self, rules: str, more: str = "") -> dict[str, str]:
        return configured(self.folder, SERVER.format(port=self.port, rules=rules) + more)

    def heard(self) -> bytes:
        return self.listener.recv(256).splitlines()[0]

    def hang_up(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGHUP)
        assert (self.heard(), self.heard()) == (b"RELOADING=1", b"READY=1")


@pytest.fixture
def house(tmp_path: pathlib.Path) -> Iterator[Reloading]:
    house = Reloading(tmp_path)
    with house.listener:
        yield house


def test_rules_are_read_again(house: Reloading) -> None:
    with serving(environment=house.environment) as (process, said):
        assert house.heard() == b"READY=1"
        assert (seen(said, house.friend), seen(said, house.other)) == (2, 1)
        mine = UsbIpReaders().open(through(said, house.friend, "1-1"), timeouts=Timeouts())
        kept = UsbIpReaders().open(through(said, house.friend, "1-2"), timeouts=Timeouts())
        house.write('"subject:CN=other"')
        house.hang_up(process)
        with contextlib.closing(mine), pytest.raises(DeviceLost):
            mine.card_present(deadline=time.monotonic() + SECONDS)
        with contextlib.closing(kept):
            assert kept.card_present(deadline=time.monotonic() + SECONDS)
        end = time.monotonic() + SECONDS
        while (seen(said, house.friend), seen(said, house.other)) != (1, 2):  # they are reset before they are free
            assert time.monotonic() < end
        process.terminate()
        assert process.wait(SECONDS) == 0
    endings = [json.loads(line)["result"] for line in (house.folder / "audit.jsonl").read_text().splitlines()]
    assert "not allowed any more" in endings


def test_certificates_and_authorities_are_read_again(house: Reloading) -> None:
    with serving(environment=house.environment) as (process, said):
        assert house.heard() == b"READY=1"
        before = house.friend._replace(ca=str(house.folder / "before.pem"))
        pathlib.Path(before.ca or "").write_bytes((house.folder / "authority.pem").read_bytes())
        again = TlsAuthority(house.folder)  # in the same files
        again.issue("server", ip="127.0.0.1")
        former = again.issue("former")
        again.revoke(former.certificate)
        house.hang_up(process)
        assert seen(said, again.issue("another")) == 1
        with pytest.raises(TransportError, match="certificate revoked"):
            seen(said, former)
        with pytest.raises(TransportError, match="refused here"):
            seen(said, before)


def test_a_terminal_that_is_closed_stops_it() -> None:
    """There SIGHUP means that nobody is there any more, who would know that the readers are open to all."""
    master, slave = pty.openpty()
    setsid = shutil.which("setsid")  # of util-linux, which is always there
    assert setsid is not None
    words = [setsid, "--ctty", "--wait", *PROGRAM, "sim:", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        assert process.stdout is not None
        assert "serve ready" in process.stdout.readline()
        os.close(master)
        assert process.wait(SECONDS) == 0


def test_files_of_the_command_line_are_read_again(house: Reloading) -> None:
    own = [str(house.folder / name) for name in ("server.pem", "server.key", "authority.pem")]
    words = ("--cert", own[0], "--key", own[1], "--ca", own[2], "--listen", f"127.0.0.1:{house.port}")
    environment = {**os.environ, "NOTIFY_SOCKET": house.environment["NOTIFY_SOCKET"]}
    with serving("sim:", *words, environment=environment) as (process, said):
        assert house.heard() == b"READY=1"
        assert "whoever has a certificate of its authorities" in said["meaning"]
        again = TlsAuthority(house.folder)
        again.issue("server", ip="127.0.0.1")
        house.hang_up(process)
        assert seen(said, again.issue("another")) == 1
        process.terminate()
        _, err = process.communicate(timeout=SECONDS)
    assert "certificates and rules were read again" in json.loads(err.splitlines()[0])["note"]


@pytest.mark.parametrize(
    ("rules", "more", "told"),
    [
        ('"nobody"', "", "is no rule"),
        ('"any"', '[[server.exports]]\ndevice = "sim:"', "only by a restart"),
    ],
)
def test_what_is_wrong_changes_nothing(house: Reloading, rules: str, more: str, told: str) -> None:
    with serving(environment=house.environment) as (process, said):
        assert house.heard() == b"READY=1"
        house.write(rules, more)
        house.hang_up(process)
        assert (seen(said, house.friend), seen(said, house.other)) == (2, 1)
        process.terminate()
        _, err = process.communicate(timeout=SECONDS)
    (error,) = [each["error"] for line in err.splitlines() if "error" in (each := json.loads(line))]
    assert told in error


def test_the_limit_of_the_configuration_counts() -> None:
    loaded = LoadedConfiguration(parse_configuration("[server]\nconnections_per_address = 1"))
    settings = settings_of(ServeOptions([Address.parse("sim:")], ("127.0.0.1", 0)), loaded)
    with serve._server(settings, log_audit) as server, contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS))
            for _ in range(2)
        )
        assert second.recv(1) == b""
        first.sendall(OpReqDevlist().encode())
        assert first.recv(8)


def test_a_fault_in_reading_again_ends_nothing(
    house: Reloading, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> LoadedConfiguration:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setenv("NOTIFY_SOCKET", house.environment["NOTIFY_SOCKET"])
    monkeypatch.setattr(serve, "read_configuration", fail)
    settings = settings_of(ServeOptions([Address.parse("sim:")]), LoadedConfiguration())
    with UsbIpServer([SimulatedUsbReader(None)], port=0) as server:
        serve._renew(settings, Report(as_json=False), server)
        assert (house.heard(), house.heard()) == (b"RELOADING=1", b"READY=1")
        assert server.takes_connections
    assert "RuntimeError" in caplog.text
