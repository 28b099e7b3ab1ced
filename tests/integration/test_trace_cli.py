"""What the command line records, replayed by the command line in the place of the card."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

import demail_hw
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.errors import ProtocolViolation
from demail_hw.identity import KeyRole
from demail_hw.interfaces import KeyProvider
from demail_hw.iso7816.trace import Tracer
from demail_hw.keys.card_session import CardSession
from demail_hw.traces.files import FileTracer, read_trace
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import PERSONALITIES, open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader

PIN = "123456"
WRONG_PIN = "975310"
SIGNATURE_COMMAND = "002a9e9a"


def run(*arguments: str | pathlib.Path, pin: str = PIN, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "demail_hw.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, "DEMAIL_PIN": pin},
        timeout=60,
        check=False,
    )


def sign(address: str) -> tuple[str, ...]:
    """The words of a signature that has no time in it."""
    return ("sign", address, "-", "--key", "signature", "--pin", "env:DEMAIL_PIN", "--format", "raw")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "card.trace"


@pytest.fixture
def usb_server() -> Iterator[str]:
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0) as server:
        yield f"usbip://127.0.0.1:{server.port}/"


@pytest.fixture(params=["sim:netkey3", "usbip:"])
def address(request: pytest.FixtureRequest) -> str:
    given: str = request.param
    return request.getfixturevalue("usb_server") if given == "usbip:" else given


@pytest.fixture
def signed(path: pathlib.Path) -> bytes:
    """A signature that was recorded."""
    done = run("--trace", path, *sign("sim:"), stdin=b"message")
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- Round trips -------------------------------------------------------------------------------------------------


def test_card_info_is_replayed(address: str, path: pathlib.Path) -> None:
    recorded = run("--trace", path, "card", "info", address, "--json")
    replayed = run("card", "info", f"replay:{path}", "--json")
    assert recorded.returncode == 0, recorded.stderr
    assert (replayed.returncode, replayed.stdout, replayed.stderr) == (0, recorded.stdout, b"")


@pytest.mark.parametrize("name", sorted(PERSONALITIES))
def test_every_card_is_replayed(path: pathlib.Path, name: str) -> None:
    recorded = run("--trace", path, "card", "info", f"sim:{name}")
    replayed = run("card", "info", f"replay:{path}")
    assert recorded.returncode == 0, recorded.stderr
    expected = recorded.stdout.replace(f"sim:{name}".encode(), f"replay:{path}".encode())  # in what to do next
    assert (replayed.returncode, replayed.stdout, replayed.stderr) == (0, expected, b"")


def test_a_signature_is_replayed_with_any_pin_of_the_length(address: str, path: pathlib.Path) -> None:
    recorded = run("--trace", path, *sign(address), stdin=b"message")
    assert recorded.returncode == 0, recorded.stderr
    assert len(recorded.stdout) == 256
    replayed = run(*sign(f"replay:{path}"), stdin=b"message", pin=WRONG_PIN)
    assert (replayed.returncode, replayed.stdout) == (0, recorded.stdout), replayed.stderr
    text = path.read_text()
    assert PIN not in text
    assert PIN.encode().hex() not in text
    assert "> 0020000006************\n" in text


def test_a_refused_pin_is_replayed(path: pathlib.Path) -> None:
    recorded = run("--trace", path, *sign("sim:"), stdin=b"message", pin=WRONG_PIN)
    replayed = run(*sign(f"replay:{path}"), stdin=b"message")
    assert recorded.returncode == replayed.returncode == ExitCode.PIN
    assert b"refused" in recorded.stderr
    # What to do next names the address.
    assert recorded.stderr.replace(b" sim: ", f" replay:{path} ".encode()) == replayed.stderr


def encrypted(name: str) -> bytes:
    with demail_hw.open_provider(f"sim:{name}") as provider:
        certificate = provider.identity(KeyRole.ENCRYPTION).certificate
    builder = PKCS7EnvelopeBuilder().set_data(b"Hallo").add_recipient(certificate)
    return builder.encrypt(Encoding.DER, [PKCS7Options.Binary])


def decrypt(address: str) -> tuple[str, ...]:
    return ("decrypt", address, "-", "--pin", "env:DEMAIL_PIN")


@pytest.mark.parametrize("name", ["netkey3", "idkey"])
def test_what_the_card_deciphered_is_replayed_only_if_it_was_recorded(path: pathlib.Path, name: str) -> None:
    message = encrypted(name)
    assert run("--trace", path, *decrypt(f"sim:{name}"), stdin=message).stdout == b"Hallo"
    masked = run(*decrypt(f"replay:{path}"), stdin=message)
    assert masked.returncode == ExitCode.CARD
    assert b"has a masked response" in masked.stderr
    assert b"--trace-decipher" in masked.stderr
    assert run("--trace", path, "--trace-decipher", *decrypt(f"sim:{name}"), stdin=message).stdout == b"Hallo"
    assert run(*decrypt(f"replay:{path}"), stdin=message).stdout == b"Hallo"


def test_a_demo_is_recorded_whole(path: pathlib.Path) -> None:
    done = run("--trace", path, "demo")
    assert done.returncode == 0, done.stderr
    exchanges = json.loads(run("trace", "show", path, "--json").stdout)["exchanges"]
    assert {"COMPUTE DIGITAL SIGNATURE", "DECIPHER"} <= {each["name"] for each in exchanges}
    assert all(set(each["response"]) <= {"*"} for each in exchanges if each["name"] == "DECIPHER")


def test_it_stops_where_the_process_was_killed(path: pathlib.Path, usb_server: str) -> None:
    code = f"""
import os, signal
import demail_hw
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

class Killed(demail_hw.FileTracer):
    def trace(self, event):
        super().trace(event)
        if getattr(event, "command", "").startswith({SIGNATURE_COMMAND!r}):
            os.kill(os.getpid(), signal.SIGKILL)

with demail_hw.open_provider({usb_server!r}, pin=lambda: b"123456", tracer=Killed({str(path)!r})) as provider:
    provider.identity("signature").private_key.sign(b"data", PKCS1v15(), SHA256())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -signal.SIGKILL
    last = read_trace(path).entries[-1]
    assert last.command.startswith(SIGNATURE_COMMAND)
    assert last.response == ""
    assert run("trace", "show", path).returncode == 0


# --- Divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 3, -1])
@pytest.mark.usefixtures("signed")
def test_one_changed_byte_of_a_command_is_told_with_its_line(path: pathlib.Path, which: int) -> None:
    lines = path.read_text().splitlines()
    index = [at for at, line in enumerate(lines) if line.startswith(">") and "*" not in line][which]
    lines[index] = lines[index][:-1] + ("1" if lines[index].endswith("0") else "0")
    path.write_text("\n".join(lines))
    replayed = run(*sign(f"replay:{path}"), "--json", stdin=b"message")
    assert replayed.returncode == ExitCode.CARD
    error = json.loads(replayed.stderr.splitlines()[-1])["error"]
    assert error["message"].startswith(f"Line {index + 1} of the trace has {lines[index][2:10]}")
    assert error["outcome"] == "not sent"


@pytest.mark.usefixtures("signed")
def test_another_input_is_told_with_the_line_of_the_signature(path: pathlib.Path) -> None:
    replayed = run(*sign(f"replay:{path}"), stdin=b"another")
    lines = path.read_text().splitlines()
    number = 1 + next(at for at, line in enumerate(lines) if line.startswith(f"> {SIGNATURE_COMMAND}"))
    assert replayed.returncode == ExitCode.CARD
    said = (
        rf"Line {number} of the trace has {SIGNATURE_COMMAND}[0-9a-f]*\.\.\., and {SIGNATURE_COMMAND}[0-9a-f]*\.\.\."
    )
    assert re.search(said + r" came, with another byte \d+\.", replayed.stderr.decode())


@pytest.mark.usefixtures("signed")
def test_a_changed_signature_is_not_taken(path: pathlib.Path) -> None:
    text = path.read_text()
    at = text.index("\n< ", text.index(f"> {SIGNATURE_COMMAND}")) + len("\n< ")
    path.write_text(text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :])
    assert run(*sign(f"replay:{path}"), stdin=b"message").returncode == ExitCode.KEY


def test_less_than_was_recorded_is_told(path: pathlib.Path, signed: bytes) -> None:
    whole = path.read_text()
    path.write_text(f"{whole}# READ BINARY\n> 00b0000000\n<  9000\n")
    replayed = run(*sign(f"replay:{path}"), stdin=b"message")
    assert (replayed.returncode, replayed.stdout) == (0, signed)
    number = whole.count("\n") + 2
    said = f"warning: The trace goes on at line {number}; of its exchanges 1 were not replayed."
    assert said in replayed.stderr.decode()


# --- Several connections, and resets -----------------------------------------------------------------------------


def certificates(provider: KeyProvider) -> list[int]:
    return [identity.certificate.serial_number for identity in provider.identities()]


def test_a_tracer_follows_a_card_that_is_opened_again(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        for _ in range(2):
            with demail_hw.open_provider("sim:", tracer=tracer) as provider:
                recorded = certificates(provider)
    trace = read_trace(path)
    (again,) = trace.powered
    assert again == (len(trace.entries) // 2, trace.atr)
    with demail_hw.open_provider(f"replay:{path}") as provider:
        assert certificates(provider) == recorded


def use_and_reset(address: str, tracer: Tracer | None = None) -> list[bytes]:
    """Two signatures, with a reset between them: after it the card has to be looked at again, and the PIN is gone."""
    with demail_hw.open_provider(address, pin=lambda: b"123456", tracer=tracer) as provider:
        key = provider.identity(KeyRole.SIGNATURE).private_key
        assert isinstance(key, RSAPrivateKey)
        first = key.sign(b"first", PKCS1v15(), SHA256())
        session = provider.session  # type: ignore[attr-defined]  # of a card's provider
        assert isinstance(session, CardSession)
        session.connection.reset(deadline=session.deadline())
        return [first, key.sign(b"second", PKCS1v15(), SHA256())]


def test_a_recorded_reset_is_replayed(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        recorded = use_and_reset("sim:", tracer)
    trace = read_trace(path)
    assert len(trace.powered) == 1
    assert sum("*" in entry.command for entry in trace.entries) == 2
    assert use_and_reset(f"replay:{path}") == recorded


def sign_twice(address: str) -> None:
    with demail_hw.open_provider(address, pin=lambda: b"123456") as provider:
        key = provider.identity(KeyRole.SIGNATURE).private_key
        assert isinstance(key, RSAPrivateKey)
        key.sign(b"first", PKCS1v15(), SHA256())
        key.sign(b"second", PKCS1v15(), SHA256())


def test_what_hangs_on_a_reset_diverges_without_it(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        use_and_reset("sim:", tracer)
    sign_twice(f"replay:{path}")  # the trace says that the card lost its state
    head, first, again = path.read_text().partition("# connected ATR")
    path.write_text(head + first + re.sub(r"# connected ATR.*\n", "", again))
    with pytest.raises(ProtocolViolation, match=r"^Line \d+ of the trace has 00a4000c023f00, and 002a9e9a"):
        sign_twice(f"replay:{path}")


# --- trace replay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PERSONALITIES))
def test_a_card_is_compared_with_its_own_trace(path: pathlib.Path, name: str) -> None:
    assert run("--trace", path, "card", "info", f"sim:{name}").returncode == 0
    same = run("trace", "replay", path, f"sim:{name}")
    assert (same.returncode, same.stderr) == (0, b"")
    assert b" 0 differences, 0 not sent" in same.stdout


def test_a_card_behind_usbip_is_compared(path: pathlib.Path, usb_server: str) -> None:
    assert run("--trace", path, *sign(usb_server), stdin=b"message").returncode == 0
    done = run("trace", "replay", path, usb_server, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["differences"]) == (0, [])
    assert [each["why"] for each in found["skipped"]] == ["it may carry a PIN", "it uses a key"]
    done = run("trace", "replay", path, usb_server, "--use-keys", "--json")
    assert done.returncode == ExitCode.CARD
    found = json.loads(done.stdout)
    assert [each["why"] for each in found["skipped"]] == ["it may carry a PIN"]
    assert [(each["command"], each["got"]) for each in found["differences"]] == [
        ("COMPUTE DIGITAL SIGNATURE", "6982")  # for the PIN was not sent
    ]


def test_another_kind_of_card_differs(path: pathlib.Path) -> None:
    assert run("--trace", path, "card", "info", "sim:netkey3").returncode == 0
    done = run("trace", "replay", path, "sim:netkey2", "--json")
    assert done.returncode == ExitCode.CARD
    assert json.loads(done.stdout)["differences"][0]["command"] == "answer to reset"
