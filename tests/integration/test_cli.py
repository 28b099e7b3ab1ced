"""The command line as a user has it: a process, its output, its exit code."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

import demail_hw
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.identity import KeyRole
from demail_hw.registry import reader_schemes
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import PERSONALITIES, open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from terminal import at_terminal

PINS = {"global": "123456", "nks-1": "111111", "nks-2": "222222", "sigg-1": "654321", "sigg-2": "87654321"}
MESSAGE = "From: a@example.org\r\nSubject: Prüfung\r\n\r\nHallo Köln\r\n".encode()


def run(
    *arguments: str | Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "demail_hw.cli", *map(str, arguments)],
        input=stdin,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


@contextmanager
def simulator(*arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "demail_hw.cli", "simulate", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = re.fullmatch(r"\S+ ready: (\S+)\n", process.stdout.readline())
        assert ready, process.stderr and process.stderr.read()
        yield ready[1]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == ""


@pytest.fixture(scope="module")
def usb_server() -> Iterator[str]:
    with simulator("usb-server", "--listen", "127.0.0.1:0") as address:
        yield address


@pytest.fixture
def pin(tmp_path: Path) -> str:
    return pin_source(tmp_path, PINS["global"])


def pin_source(folder: Path, value: str) -> str:
    path = folder / "pin"
    path.touch(0o600)
    path.write_text(value)
    return f"file:{path}"


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(MESSAGE)
    return path


def test_readers_lists_the_server_and_the_simulators(usb_server: str) -> None:
    listed = json.loads(run("readers", usb_server, "sim:", "--json").stdout)["readers"]
    assert "04e6:5710" in listed[0]["name"]
    assert "04e6:5710" in run("readers", usb_server).stdout.decode()
    assert [reader["address"] for reader in listed[1:]] == [f"sim:{name}" for name in PERSONALITIES]
    assert run("card", "info", listed[0]["address"]).returncode == 0


def warnings_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [json.loads(line)["warning"] for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("pyscard", "said"),
    [
        ("raise ImportError", "need pyscard"),
        # As pyscard says it where no PC/SC service runs.
        ("def SCardEstablishContext(scope): return 0x8010001D, 0", "no PC/SC service"),
    ],
    ids=["no pyscard", "no service"],
)
def test_readers_without_an_address_warns_of_what_is_not_there(tmp_path: Path, pyscard: str, said: str) -> None:
    (tmp_path / "smartcard").mkdir()
    (tmp_path / "smartcard" / "__init__.py").touch()
    (tmp_path / "smartcard" / "scard.py").write_text(pyscard)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("readers", "--json", environment=environment)
    assert done.returncode == 0
    listed = [reader["address"] for reader in json.loads(done.stdout)["readers"]]
    assert [address for address in listed if address.startswith("sim:")] == [f"sim:{name}" for name in PERSONALITIES]
    (warning,) = [text for text in warnings_of(done) if text.startswith("nothing from pcsc: ")]
    assert said in warning
    assert f"warning: {warning}\n" in run("readers", environment=environment).stderr.decode()


def test_card_info_needs_no_pin_and_spends_no_try(usb_server: str) -> None:
    for _ in range(2):
        info = json.loads(run("card", "info", usb_server, "--json").stdout)
        states = {entry["pin"]: (entry["state"], entry["retries_left"]) for entry in info["pins"]}
        assert states == dict.fromkeys([*PINS, "puk"], ("ready", 3))
    assert info["card"]["serial"] == "89490173510080407136"
    assert [entry["key"] for entry in info["keys"]] == ["80", "81", "82", "84"]


@pytest.mark.parametrize("role", KeyRole)
def test_sign_raw(usb_server: str, tmp_path: Path, message: Path, pin: str, role: KeyRole) -> None:
    target = tmp_path / "signature"
    done = run("sign", usb_server, message, "--key", role.value, "--pin", pin, "--format", "raw", "-o", target)
    assert done.returncode == 0, done.stderr
    card_public_key(role).verify(target.read_bytes(), MESSAGE, padding.PKCS1v15(), SHA256())


def card_public_key(role: KeyRole, which: str = "global") -> rsa.RSAPublicKey:
    with demail_hw.open_provider("sim:netkey3", which=which) as provider:
        key = provider.identity(role).private_key.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


@pytest.mark.parametrize("which", PINS)
def test_sign_with_each_pin(usb_server: str, tmp_path: Path, message: Path, which: str) -> None:
    target = tmp_path / "signature"
    source = pin_source(tmp_path, PINS[which])
    done = run(
        "sign", usb_server, message, "--key", "signature", "--pin", source, "--which", which,
        "--format", "raw", "-o", target,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    key = card_public_key(KeyRole.SIGNATURE, which)
    key.verify(target.read_bytes(), MESSAGE, padding.PKCS1v15(), SHA256())


def test_who_types_the_pin_is_told_for_which_card(usb_server: str, tmp_path: Path, message: Path) -> None:
    signed = tmp_path / "out"
    words = ["sign", usb_server, str(message), "--key", "signature", "--pin", "prompt:", "-o", str(signed)]
    code, shown = at_terminal([sys.executable, "-m", "demail_hw.cli", *words], [("left): ", PINS["global"])])
    assert code == 0, shown
    assert signed.exists()
    assert "For the card 89490173510080407136 in the reader " in shown
    assert "PIN global (3 tries left): " in shown


def test_who_types_the_pin_is_told_of_the_tries_that_are_known(
    state_dir: Path, message: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transmit = SimulatedTcosCard.transmit

    def hiding(card: SimulatedTcosCard, command: bytes) -> bytes:
        return bytes.fromhex("6d00") if command[1] == 0x20 and len(command) == 4 else transmit(card, command)

    monkeypatch.setattr(SimulatedTcosCard, "transmit", hiding)
    note = {"state": "cleared", "operation": "verify", "at": "2026-01-02T03:04:05+00:00", "retries_left": 5}
    (state_dir / "pins").mkdir(mode=0o700, parents=True)
    (state_dir / "pins" / "89490173510080407136.json").write_text(json.dumps({"pins": {"global": note}}))
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], host="127.0.0.1", port=0) as server:
        words = ["sign", f"usbip://127.0.0.1:{server.port}/", str(message), "--key", "signature", "--pin", "prompt:"]
        program = [sys.executable, "-m", "demail_hw.cli"]
        code, shown = at_terminal([*program, *words], [("PIN global (5 tries left): ", PINS["global"])])
    assert code == 0, shown


def test_sign_to_standard_output_is_the_message_alone(usb_server: str, message: Path, pin: str) -> None:
    done = run("sign", usb_server, message, "--key", "signature", "--pin", pin)
    assert done.returncode == 0
    assert b"multipart/signed" in done.stdout
    assert done.stderr == b""


def test_decrypt_reads_standard_input(usb_server: str, pin: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

    key = card_public_key(KeyRole.ENCRYPTION)
    certificate = telesec_ca().issue_card_certificate(KeyRole.ENCRYPTION, key)
    cipher = (
        PKCS7EnvelopeBuilder()
        .set_data(MESSAGE)
        .add_recipient(certificate)
        .encrypt(Encoding.DER, [PKCS7Options.Binary])
    )
    done = run("decrypt", usb_server, "-", "--pin", pin, stdin=cipher)
    assert (done.returncode, done.stdout) == (0, MESSAGE), done.stderr


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_probe(usb_server: str, tmp_path: Path, pin: str, tls: str) -> None:
    files = run("simulate", "ca", "-o", tmp_path).stdout.decode().split()
    assert {Path(name).name for name in files} == {"telesec-root.pem", "telesec-chain.pem", "gateway-ca.pem"}
    with simulator("gateway", "--listen", "127.0.0.1:0", "--tls", tls) as url:
        done = run("probe", usb_server, "--pin", pin, "--gateway", url, "--ca", tmp_path / "gateway-ca.pem")
        as_json = run(
            "probe", usb_server, "--pin", pin, "--gateway", url, "--ca", tmp_path / "gateway-ca.pem", "--json"
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[-1] == "De-Mail domains: 3"
    assert len(json.loads(as_json.stdout)["domains"]) == 3


def test_demo_tells_the_story_and_ends_with_the_domains() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "De-Mail domains: 3"
    assert "123456" not in done.stdout.decode()


def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demail_hw.cli", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        ready = re.search(r"usbip://127.0.0.1:(\d+)/", process.stdout.readline())
        assert ready
        process.terminate()
        process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(ready[1])))


def test_a_wrong_pin_costs_one_try_and_is_in_no_output(tmp_path: Path, message: Path, state_dir: Path) -> None:
    wrong = "975310"
    source = pin_source(tmp_path, wrong)
    with simulator("usb-server", "--listen", "127.0.0.1:0") as server:
        outputs = []
        for flags in (["--json"], ["-v"]):
            head = ["-v"] if "-v" in flags else []
            tail = [flag for flag in flags if flag != "-v"]
            done = run(*head, "sign", server, message, "--key", "signature", "--pin", source, *tail)
            assert done.returncode == ExitCode.PIN
            told = json.loads(run("card", "info", server, "--json").stdout)["pins"][0]
            assert (told["pin"], told["state"], told["retries_left"]) == ("global", "ready", 2)
            assert f"demail-hw --state-dir {state_dir} pin verify {server} --keep 1" in told["next_step"]
            outputs.append(done)
        kept = run("sign", server, message, "--key", "signature", "--pin", source)
        assert kept.returncode == ExitCode.PIN
        assert b"it is not sent again until a person says so" in kept.stderr
        info = json.loads(run("card", "info", server, "--json").stdout)
        assert info["pins"][0]["retries_left"] == 2
    assert json.loads(outputs[0].stderr)["error"]["type"] == "PinIncorrect"
    for done in [*outputs, kept]:
        text = done.stdout + done.stderr
        assert wrong.encode() not in text
        assert wrong.encode().hex().encode() not in text


def test_exit_codes(usb_server: str, tmp_path: Path, message: Path, pin: str) -> None:
    sign = ("--key", "signature", "--pin", pin)
    cases = [
        (ExitCode.USAGE, ("sign", usb_server, message)),
        (ExitCode.USAGE, ("sign", "nonsense", message, *sign)),
        (ExitCode.USAGE, ("sign", usb_server, tmp_path / "none", *sign)),
        (ExitCode.NOT_FOUND, ("card", "info", f"{usb_server}serial=1")),
        (ExitCode.NOT_FOUND, ("card", "info", "sim:netkey3?reader=1")),
        (ExitCode.CARD, ("card", "info", f"{usb_server}?card=99")),
        (ExitCode.PIN, ("sign", usb_server, message, "--key", "signature", "--pin", f"file:{tmp_path}/none")),
        (ExitCode.TRANSPORT, ("card", "info", "usbip://127.0.0.1:1/")),
        (
            ExitCode.GATEWAY,
            ("probe", usb_server, "--pin", pin, "--gateway", "https://127.0.0.1:1", "--ca", ca(tmp_path)),
        ),
        (ExitCode.KEY, ("decrypt", usb_server, message, "--pin", pin)),
        (ExitCode.CONFIGURATION, ("sign", usb_server, message, "--key", "signature", "--pin", "123456")),
        (ExitCode.CONFIGURATION, ("card", "info", "xyz:1")),
        (ExitCode.CONFIGURATION, ("--config", tmp_path, "config", "check")),
        (ExitCode.CONFIGURATION, ("sign", "sim:none", message, *sign)),
    ]
    for code, arguments in cases:
        done = run(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert done.stdout == b""
        assert b"Traceback" not in done.stderr
        assert b"123456" not in done.stderr


def ca(folder: Path) -> Path:
    run("simulate", "ca", "-o", folder)
    return folder / "gateway-ca.pem"


def test_a_failed_command_leaves_no_file(usb_server: str, tmp_path: Path, message: Path) -> None:
    source = pin_source(tmp_path, "12345")  # too short: refused before the card is asked
    done = run("sign", usb_server, message, "--key", "signature", "--pin", source, "-o", tmp_path / "out")
    assert done.returncode == ExitCode.PIN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["message.eml", "pin"]


def test_environment_pin_is_warned_about(usb_server: str, message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DEMAIL_TEST_PIN", PINS["global"])
    done = run("sign", usb_server, message, "--key", "signature", "--pin", "env:DEMAIL_TEST_PIN")
    assert done.returncode == 0
    assert b"warning" in done.stderr
    assert b"123456" not in done.stderr


def test_the_help_names_every_scheme() -> None:
    said = run("--help").stdout.decode()
    assert [scheme for scheme in reader_schemes() if f" {scheme}:" not in said] == []


def test_version_and_help() -> None:
    assert re.fullmatch(rb"demail-hw, version \S+\n", run("--version").stdout)
    overview = run("--help").stdout.decode()
    for word in ("usbip://", "pcsc:", "sim:", "?card=", "?reader=", "?share=shared"):
        assert word in overview
    for command in ("card", "decrypt", "demo", "probe", "readers", "sign", "simulate"):
        assert re.search(rf"^  {command}\b", overview, re.MULTILINE)
        assert run(command, "--help").returncode == 0


def test_a_simulated_card_can_be_opened_by_name() -> None:
    assert open_card("telesec").power_on() == open_card("netkey3").power_on()
