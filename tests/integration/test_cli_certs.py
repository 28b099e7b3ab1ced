"""``demail-hw certs``, ``csr`` and ``readers --watch`` as an operator has them; imports that a reader cuts off."""

import base64
import contextlib
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from certificate_bench import DER, IMPORTED, carry_out, ef, public_key, put
from demail_hw.card_manager.certificates import CardCertificates
from demail_hw.ccid.code_points import IccStatus
from demail_hw.ccid.reader import CcidReader
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.errors import CardRemoved
from demail_hw.interfaces import ExportedDevice, Reader, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificate_file import unwrap, wrap
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.polling import pause
from demail_hw.registry import open_reader
from demail_hw.tcos.layout import StorageForm
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ca import load_test_key, pem, pem_key, telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import load_card_key, netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.faults import FaultyReader, SlotFailure
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.proxy import Proxy
from issued import issue
from terminal import at_terminal

PIN, WRONG = "123456", "975310"
VERIFY, UPDATE, PSO = 0x20, 0xD6, 0x2A
PROMPT = "PIN global (3 tries left): "
WRITES = 11
"""UPDATE BINARY of an import into 2048 bytes: FF, nine for the rest, and the first byte."""


@pytest.fixture
def card() -> SimulatedTcosCard:
    return netkey3()


@pytest.fixture
def uri(card: SimulatedTcosCard) -> Iterator[str]:
    with UsbIpServer([SimulatedUsbReader(card)], host="127.0.0.1", port=0) as server:
        yield f"usbip://127.0.0.1:{server.port}/"


@pytest.fixture
def pin(tmp_path: Path) -> str:
    return pin_file(tmp_path, PIN)


def pin_file(folder: Path, value: str) -> str:
    path = folder / f"pin-{value}"
    path.touch(0o600)
    path.write_text(value)
    return f"file:{path}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_bytes(pem(IMPORTED))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "demail_hw.cli", *map(str, arguments)]


def run(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), input=stdin or b"", capture_output=True, timeout=60, check=False)


def good(*arguments: str | Path) -> Any:
    """What a command says as JSON that must end well."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- list


def test_list(card: SimulatedTcosCard, uri: str, state_dir: Path) -> None:
    put(card, b"garbage", 0x4332)
    done = run("certs", "list", uri)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "NKS/4331   user certificate, writable  empty"
    assert lines[1].startswith("NKS/4332   user certificate, writable  broken: ")
    assert lines[2].startswith("NKS/C000   card certificate            NetKey signature key: CN=Beispiel GmbH (TEST)")
    assert lines[2].endswith(", until 2049-12-31, in use")
    found = {entry["file"]: entry for entry in good("certs", "list", uri)["certificates"]}
    program = f"demail-hw --state-dir {state_dir}"
    step = f"Import a certificate into it, or erase it: {program} certs erase {uri} --file NKS/4332."
    assert (found["NKS/4332"]["next_step"], found["NKS/4331"]["next_step"]) == (step, "")
    assert lines[1].endswith(f". {step}")
    assert f"Remedy: {step}" in run("certs", "export", uri, "--file", "4332").stderr.decode()
    assert found["NKS/C500"]["role"] == "authentication"
    assert found["NKS/C500"]["key"] == "82"
    assert found["NKS/C500"]["form"] == "container"
    assert found["NKS/C500"]["not_after"] == "2049-12-31T23:59:59+00:00"
    assert found["NKS/4331"] == {
        "file": "NKS/4331", "kind": "user certificate", "writable": True, "state": "empty",
        "form": None, "key": None, "role": None, "in_use": False, "validity": None, "problem": None,
        "next_step": "",
    }  # fmt: skip
    assert found["NKS/4332"]["problem"]
    assert card.instructions[VERIFY] == 0


def test_list_tells_what_is_valid_and_which_of_two_is_in_use(card: SimulatedTcosCard, uri: str) -> None:
    put(card, issue(public_key(), first_day=-2, last_day=-1).public_bytes(Encoding.DER), 0x4331)
    put(card, issue(public_key(), first_day=1, last_day=2).public_bytes(Encoding.DER), 0x4332)
    lines = run("certs", "list", uri).stdout.decode().splitlines()
    assert re.search(r"CN=imported, expired \d{4}-\d\d-\d\d, in use\. Request a new one \(demail-hw csr\)", lines[0])
    assert re.search(r"CN=imported, not valid before \d{4}-\d\d-\d\d, until \d{4}-\d\d-\d\d$", lines[1])
    assert lines[2].endswith(", until 2049-12-31")
    found = {entry["file"]: entry for entry in good("certs", "list", uri)["certificates"]}
    told = [(found[name]["validity"], found[name]["in_use"]) for name in ("NKS/4331", "NKS/4332", "NKS/C000")]
    assert told == [("expired", True), ("not yet valid", False), ("valid", False)]


def test_a_warning_names_the_command_with_the_address(
    card: SimulatedTcosCard, uri: str, certificate: Path, pin: str, state_dir: Path
) -> None:
    put(card, issue(public_key(), first_day=-2, last_day=-1).public_bytes(Encoding.DER), 0x4331)
    done = run("certs", "import", uri, certificate, "--file", "4332", "--pin", pin, "--dry-run")
    assert (
        f"erase the old: demail-hw --state-dir {state_dir} certs erase {uri} --file NKS/4331." in done.stderr.decode()
    )


# --- export


def test_export_by_key_and_by_file(uri: str, tmp_path: Path) -> None:
    by_key = run("certs", "export", uri, "--key", "authentication").stdout
    assert by_key == run("certs", "export", uri, "--file", "NKS/C500").stdout
    assert x509.load_pem_x509_certificate(by_key).public_key() == public_key("nks-82")
    der = run("certs", "export", uri, "--file", "c500", "--format", "der").stdout
    assert x509.load_der_x509_certificate(der) == x509.load_pem_x509_certificate(by_key)
    facts = good("certs", "export", uri, "--file", "c500")
    assert base64.b64decode(facts["content"]) == by_key
    assert facts["certificates"] == 1


def test_export_for_other_software(uri: str, tmp_path: Path) -> None:
    target = tmp_path / "chain.pem"
    target.write_text("what was there")
    target.chmod(0o666)
    # Only root can give a file away, but everybody can give one to themselves.
    uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
    arguments = ("certs", "export", uri, "--key", "authentication", "--chain", "-o", target)
    done = run(*arguments, "--mode", "0640", "--owner", f"{uid}:{os.getegid()}")
    assert done.returncode == 0, done.stderr
    chain = x509.load_pem_x509_certificates(target.read_bytes())
    assert tuple(chain[1:]) == telesec_ca().chain
    status = target.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, uid, os.getegid())
    assert run(*arguments, "--owner", str(os.geteuid()), "--mode", "600").returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["chain.pem"]


def test_export_of_a_chain_that_the_card_does_not_have(card: SimulatedTcosCard, uri: str) -> None:
    put(card, wrap(DER, StorageForm.CONTAINER))
    done = run("certs", "export", uri, "--file", "4331", "--chain")
    assert x509.load_pem_x509_certificates(done.stdout) == [IMPORTED]
    assert b"does not hold the issuer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--key", "signature", "--file", "4331"), ExitCode.USAGE),
        ((), ExitCode.USAGE),
        (("--file", "C000"), ExitCode.NOT_FOUND),
        (("--file", "4331"), ExitCode.NOT_FOUND),
        (("--file", "nonsense"), ExitCode.NOT_FOUND),
        (("--file", "c500", "--chain", "--format", "der"), ExitCode.USAGE),
        (("--file", "c500", "--mode", "640"), ExitCode.USAGE),
        (("--file", "c500", "--mode", "0999", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--mode", "4755", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "no-such-user", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "0:no-such-group", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "99999999999", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "4294967295", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "0:99999999999", "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "9" * 5000, "-o", "out"), ExitCode.USAGE),
        (("--file", "c500", "--mode", "640", "-o", "/dev/null"), ExitCode.USAGE),
        (("--file", "c500", "--owner", "0", "-o", "pipe"), ExitCode.USAGE),
        (("--file", "c500", "-o", "/nowhere/out"), ExitCode.USAGE),
    ],
)
def test_export_refused(tmp_path: Path, arguments: tuple[str, ...], code: ExitCode) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run(
        command("certs", "export", "sim:netkey3", *arguments),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# --- import and erase


@pytest.mark.parametrize("form", [None, "bare", "container"])
def test_import_and_erase(card: SimulatedTcosCard, uri: str, certificate: Path, pin: str, form: str | None) -> None:
    options = ("--form", form) if form else ()
    done = run("certs", "import", uri, certificate, "--key", "signature", "--pin", pin, "--yes", *options)
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode().splitlines()
    assert told[0] == "NKS/4331 holds the certificate CN=imported now; it was read back."
    assert told[1].startswith("The NetKey signature key is used with CN=imported (serial number 1267, until ")
    assert "from now on; before with CN=Beispiel GmbH (TEST) signature," in told[1]
    assert done.stderr.startswith(b"demail-hw: warning: The card does not hold the certificate of the issuer CN=some")
    assert len(done.stderr.splitlines()) == 1
    assert ef(card).content.startswith(wrap(DER, StorageForm(form or "container")))
    assert run("certs", "export", uri, "--file", "4331").stdout == pem(IMPORTED)
    again = good("certs", "import", uri, certificate, "--file", "4331", "--pin", pin, "--yes", *options)
    assert again["done"] is False
    erased = good("certs", "erase", uri, "--file", "4331", "--pin", pin, "--yes")
    assert erased["done"] is True
    assert erased["before"]["subject"] == "CN=imported"
    assert erased["identity"]["before"]["subject"] == "CN=imported"
    assert erased["identity"]["after"]["subject"].startswith("CN=Beispiel GmbH (TEST) signature,")
    assert set(ef(card).content) == {0xFF}
    assert card.instructions[UPDATE] == WRITES + WRITES - 1


def nothing_was_sent(uri: str) -> bool:
    """No PIN, as the ledger has it; the counter is asked with VERIFY too."""
    return all(each["ledger"] is None for each in good("pin", "status", uri)["pins"])


def test_a_dry_run_says_what_would_be_written_and_sends_nothing(
    card: SimulatedTcosCard, uri: str, certificate: Path, pin: str
) -> None:
    arguments = ("certs", "import", uri, certificate, "--key", "signature", "--pin", pin, "--dry-run")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    length = len(wrap(DER, StorageForm.CONTAINER))
    assert lines[0] == (
        f"NKS/4331 gets the certificate CN=imported (container, {length} of 2048 bytes); now it holds: empty."
    )
    assert "CN=imported (serial number 1267, until " in lines[1]
    assert "from then on; before with CN=Beispiel GmbH (TEST) signature," in lines[1]
    assert b"does not hold the certificate of the issuer CN=somebody else" in done.stderr
    del lines[1]
    assert lines[1:4] == [
        "  UPDATE BINARY at 0: 1 bytes", "  UPDATE BINARY at 1: 255 bytes", "  UPDATE BINARY at 256: 255 bytes",
    ]  # fmt: skip
    assert lines[-2:] == ["  UPDATE BINARY at 0: 1 bytes", "Nothing was written."]
    facts = good(*arguments)
    assert facts["done"] is False
    assert len(facts["writes"]) == len(lines) - 2 == WRITES
    erase = good("certs", "erase", uri, "--file", "4331", "--pin", "file:/nowhere", "--dry-run")
    assert erase["writes"] == []  # so that its PIN is needed for nothing
    assert nothing_was_sent(uri)
    assert card.instructions[UPDATE] == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--pin", PIN), ExitCode.CONFIGURATION),
        (("--pin", "file:/nowhere", "--which", "puk"), ExitCode.PIN),
        (("--pin", "file:/nowhere", "--which", "sigg-1"), ExitCode.PIN),
    ],
)
@pytest.mark.parametrize("action", ["import", "erase"])
def test_a_dry_run_refuses_what_the_deed_would(
    card: SimulatedTcosCard, uri: str, certificate: Path, action: str, options: tuple[str, ...], code: ExitCode
) -> None:
    words = [action, uri, *((certificate,) if action == "import" else ()), "--file", "4331", *options]
    done = run("certs", *words, "--dry-run")
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert PIN.encode() not in done.stderr
    assert card.instructions[VERIFY] == card.instructions[UPDATE] == 0


@pytest.mark.parametrize("action", ["import", "erase"])
def test_a_dry_run_finds_what_is_wrong_with_the_pin_source(
    card: SimulatedTcosCard, uri: str, certificate: Path, tmp_path: Path, pin: str, action: str
) -> None:
    put(card, wrap(DER, StorageForm.CONTAINER), 0x4332)
    words = ["certs", action, uri, *((certificate,) if action == "import" else ()), "--dry-run", "--file"]
    words.append("4331" if action == "import" else "4332")
    loose = pin_file(tmp_path, "864209")
    Path(loose.removeprefix("file:")).chmod(0o644)
    for source, code, said in (
        ("file:/nowhere", ExitCode.PIN, b"cannot be read"),
        (pin_file(tmp_path, "123"), ExitCode.PIN, b"nothing was sent"),
        (loose, ExitCode.CONFIGURATION, b"others may read it"),
    ):
        done = run(*words, "--pin", source)
        assert (done.returncode, done.stdout) == (code, b""), done.stderr
        assert said in done.stderr
    blocked = tmp_path / "blocked"
    blocked.touch()
    done = run("--state-dir", blocked / "state", *words, "--pin", pin)
    assert (done.returncode, done.stdout) == (ExitCode.PIN, b"")
    assert b"no PIN is sent without it" in done.stderr
    assert run(*words, "--pin", pin).returncode == 0
    assert nothing_was_sent(uri)
    assert card.instructions[UPDATE] == 0


def test_a_dry_run_looks_at_the_tries(card: SimulatedTcosCard, uri: str, certificate: Path, pin: str) -> None:
    card.file_system.root.pins[0].tries = 2
    words = ("certs", "import", uri, certificate, "--file", "4331", "--pin", pin, "--dry-run")
    done = run(*words)
    assert done.returncode == ExitCode.PIN
    assert b"has 2 tries left" in done.stderr
    assert card.file_system.root.pins[0].tries == 2


def test_a_card_that_ends_with_the_command_says_so(certificate: Path, pin: str) -> None:
    words = ("certs", "import", "sim:netkey3", certificate, "--key", "signature", "--pin", pin)
    assert b"forgets" not in run(*words, "--dry-run").stderr
    done = run(*words, "--yes")
    assert done.returncode == 0
    assert done.stderr.count(b"The card of sim:netkey3 is simulated or recorded, and forgets when this command") == 1


def test_nothing_in_a_subject_controls_the_terminal(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, pin: str
) -> None:
    evil = issue(public_key(), name="a\x1b]0;b\x07\u202ec\x9bd\ne")
    path = tmp_path / "evil.pem"
    path.write_bytes(pem(evil))
    words = ("certs", "import", uri, path, "--file", "4331", "--pin", pin)
    planned = run(*words, "--dry-run")
    assert r"CN=a\x1b]0\;b\x07\u202ec\x9bd\ne" in planned.stdout.decode()
    out = tmp_path / "out.pem"
    told = [
        planned,
        run(*words, "--yes"),
        run("certs", "list", uri),
        run("certs", "export", uri, "--file", "4331", "--chain", "-o", out),
        run("card", "info", uri),
        run("csr", uri, "--key", "signature", "--subject", "CN=a\x1bb", "--pin", pin, "-o", out),
    ]
    for done in told:
        assert done.returncode == 0, done.stderr
        shown = (done.stdout + done.stderr).decode()
        assert r"a\x1b" in shown
        assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize("words", [("import", "{certificate}", "--key", "signature"), ("erase", "--file", "4331")])
def test_without_a_terminal_nothing_is_written_unasked(
    card: SimulatedTcosCard, uri: str, certificate: Path, pin: str, words: tuple[str, ...]
) -> None:
    action, *more = (word.format(certificate=certificate) for word in words)
    done = run("certs", action, uri, *more, "--pin", pin)
    assert done.returncode == ExitCode.USAGE
    assert b"--yes" in done.stderr
    assert card.instructions.total() == 0


@pytest.mark.parametrize("more", [(), ("--yes",), ("--dry-run",)])
@pytest.mark.parametrize(
    "words", [("certs", "import", "{certificate}", "--key", "signature"), ("certs", "erase", "--file", "4331")]
)
def test_without_a_terminal_no_card_is_opened_for_a_pin_that_nobody_can_type(
    card: SimulatedTcosCard, uri: str, certificate: Path, words: tuple[str, ...], more: tuple[str, ...]
) -> None:
    group, action, *others = (word.format(certificate=certificate) for word in words)
    done = run(group, action, uri, *others, "--pin", "prompt:", *more)
    assert done.returncode == (ExitCode.PIN if more else ExitCode.USAGE), done.stderr
    assert b"no terminal" in done.stderr
    assert card.instructions.total() == 0


@pytest.mark.parametrize("action", ["import", "erase"])
def test_a_question_that_was_answered_with_no_is_told_in_json(
    card: SimulatedTcosCard, uri: str, certificate: Path, action: str
) -> None:
    put(card, wrap(DER, StorageForm.CONTAINER))
    more = (certificate, "--file", "4332") if action == "import" else ("--file", "4331")
    words = command("certs", action, uri, *more, "--pin", "prompt:", "--json")
    code, shown = at_terminal(words, [("Go on? [y/N]: ", "n")])
    assert code == ExitCode.DECLINED
    error = json.loads(shown.splitlines()[-1])["error"]
    assert error == {
        "type": "Declined", "message": "Nothing was done.", "remedy": "Answer with y to go on.", "exit_code": code,
    }  # fmt: skip
    assert nothing_was_sent(uri)
    assert card.instructions[UPDATE] == 0


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_who_interrupts_a_question_is_told_in_json(
    card: SimulatedTcosCard, uri: str, certificate: Path, key: str
) -> None:
    words = command("certs", "import", uri, certificate, "--file", "4331", "--pin", "prompt:")
    code, shown = at_terminal([*words, "--json"], [("Go on? [y/N]: ", key)])
    assert (code, json.loads(shown.splitlines()[-1])["error"]) == (
        130, {"type": "Interrupted", "message": "Interrupted.", "remedy": "", "exit_code": 130},
    )  # fmt: skip
    code, shown = at_terminal(words, [("Go on? [y/N]: ", key)])
    assert (code, shown.splitlines()[-1]) == (130, "demail-hw: interrupted")
    assert card.instructions[UPDATE] == 0


@pytest.mark.parametrize("more", [(), ("--yes",)])
def test_nobody_is_asked_whether_to_write_what_no_pin_opens(
    card: SimulatedTcosCard, uri: str, certificate: Path, more: tuple[str, ...]
) -> None:
    card.file_system.root.pins[0].tries = 2
    words = command("certs", "import", uri, certificate, "--file", "4331", "--pin", "prompt:", *more)
    code, shown = at_terminal(words, [])
    assert code == ExitCode.PIN
    assert "has 2 tries left" in shown
    assert "Go on?" not in shown


@pytest.mark.parametrize(("key", "told"), [("\x03", ("Interrupted", 130)), ("\x04", ("PinRequired", ExitCode.PIN))])
def test_who_interrupts_the_prompt_for_a_pin_is_told_in_json(
    card: SimulatedTcosCard, uri: str, key: str, told: tuple[str, int]
) -> None:
    words = command("csr", uri, "--key", "signature", "--subject", "CN=a", "--pin", "prompt:", "--json")
    code, shown = at_terminal(words, [(PROMPT, key)])
    assert (json.loads(shown.splitlines()[-1])["error"]["type"], code) == told
    assert card.instructions[PSO] == 0


def test_at_a_terminal_it_asks(card: SimulatedTcosCard, uri: str, certificate: Path) -> None:
    words = command("certs", "import", uri, certificate, "--key", "signature", "--pin", "prompt:")
    code, shown = at_terminal(words, [("Go on? [y/N]: ", "n")])
    assert code == ExitCode.DECLINED
    assert "Nothing was done." in shown
    assert nothing_was_sent(uri)
    code, shown = at_terminal(words, [("Go on? [y/N]: ", "y"), (PROMPT, PIN)])
    assert code == 0, shown
    assert "now it holds: empty" in shown
    assert unwrap(bytes(ef(card).content)) == DER


def test_a_wrong_pin_costs_one_verify(card: SimulatedTcosCard, uri: str, certificate: Path, tmp_path: Path) -> None:
    arguments = ("certs", "import", uri, certificate, "--key", "signature", "--yes")
    for _ in range(2):
        done = run(*arguments, "--pin", pin_file(tmp_path, WRONG), "--json")
        assert done.returncode == ExitCode.PIN
        assert WRONG.encode() not in done.stderr
    assert card.file_system.root.pins[0].tries == 2
    assert card.instructions[UPDATE] == 0


def garbage() -> dict[str, tuple[bytes, str]]:
    key = load_card_key("nks-80")
    request = x509.CertificateSigningRequestBuilder().subject_name(IMPORTED.subject)
    return {
        "empty": (b"", "empty"),
        "garbage": (b"\x30\x82garbage", "no certificate"),
        "request": (request.sign(key, SHA256()).public_bytes(Encoding.PEM), "certificate request"),
        "private key": (pem_key(load_test_key("other-ca")), "private key"),
        "PKCS#7": (pkcs7.serialize_certificates([IMPORTED], Encoding.DER), "PKCS#7"),
        "two": (pem(IMPORTED) * 2, "2 PEM blocks"),
        "another key's": (pem(issue(public_key("nks-81"))), "belongs to the NetKey encryption key"),
        "too long": (pem(issue(public_key(), filling=3000)), "and NKS/4331 has 2048"),
    }


@pytest.mark.parametrize("what", garbage())
def test_bad_input_is_refused_before_a_byte_is_written(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, pin: str, what: str
) -> None:
    content, told = garbage()[what]
    path = tmp_path / "input"
    path.write_bytes(content)
    done = run("certs", "import", uri, path, "--file", "4331", "--pin", pin, "--yes", "--json")
    assert (done.returncode, done.stdout) == (ExitCode.KEY, b"")
    error = json.loads(done.stderr)["error"]
    assert error["type"] == "CertificateError"
    assert told in error["message"]
    assert card.instructions[VERIFY] == card.instructions[UPDATE] == 0


def test_an_expired_certificate_is_taken_with_a_warning(uri: str, tmp_path: Path, pin: str) -> None:
    path = tmp_path / "expired.pem"
    path.write_bytes(pem(issue(public_key(), first_day=-2, last_day=-1)))
    done = run("certs", "import", uri, path, "--key", "signature", "--pin", pin, "--yes")
    assert done.returncode == 0
    assert done.stderr.startswith(b"demail-hw: warning: The certificate expired at ")


def test_other_refusals(uri: str, certificate: Path, pin: str) -> None:
    cases = [
        (ExitCode.KEY, ("import", uri, certificate, "--file", "NKS/C000", "--pin", pin, "--yes")),
        (ExitCode.KEY, ("erase", uri, "--file", "NKS/C000", "--pin", pin, "--yes")),
        (ExitCode.PIN, ("import", uri, certificate, "--file", "4331", "--pin", pin, "--which", "puk", "--yes")),
        (ExitCode.CONFIGURATION, ("import", uri, certificate, "--file", "4331", "--pin", PIN, "--yes")),
        (ExitCode.USAGE, ("import", uri, certificate, "--pin", pin, "--yes")),
        (ExitCode.USAGE, ("import", uri, "/nowhere", "--file", "4331", "--pin", pin, "--yes")),
        (ExitCode.USAGE, ("import", uri, certificate, "--file", "4331", "--pin", pin, "--yes", "--form", "x")),
        (ExitCode.NOT_FOUND, ("erase", uri, "--file", "4399", "--pin", pin, "--yes")),
    ]
    for code, arguments in cases:
        done = run("certs", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert b"Traceback" not in done.stderr
        assert PIN.encode() not in done.stderr


def test_a_certificate_is_not_taken_twice(card: SimulatedTcosCard, uri: str, certificate: Path, pin: str) -> None:
    put(card, wrap(DER, StorageForm.CONTAINER), 0x4332)
    arguments = ("certs", "import", uri, certificate, "--key", "signature", "--pin", pin)
    for option in ("--yes", "--dry-run"):
        done = run(*arguments, option)
        assert (done.returncode, done.stdout.decode().splitlines()[0]) == (
            0,
            "NKS/4332 holds this certificate already; nothing was written.",
        )
    assert card.instructions[UPDATE] == card.instructions[VERIFY] == 0


def test_signing_with_an_expired_certificate_warns(
    card: SimulatedTcosCard, uri: str, pin: str, tmp_path: Path
) -> None:
    expired = issue(public_key(), first_day=-2, last_day=-1, name="a\x1bb")
    put(card, expired.public_bytes(Encoding.DER))
    message = tmp_path / "message"
    message.write_bytes(b"a message\r\n")
    for options in (("--format", "raw"), ("--opaque",), ("--outform", "der")):
        done = run("sign", uri, message, "--key", "signature", "--pin", pin, "-o", tmp_path / "signed", *options)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(b"The certificate of the NetKey signature key expired at ") == 1
        assert rb"signed by CN=a\x1bb" in done.stdout


def test_a_key_without_a_certificate_is_told_of_once(
    card: SimulatedTcosCard, uri: str, pin: str, certificate: Path
) -> None:
    put(card, b"", 0xC000)
    done = run("sign", uri, certificate, "--key", "signature", "--pin", pin)
    assert done.returncode == ExitCode.NOT_FOUND
    assert done.stderr.count(b"certificate") == 1, done.stderr


# --- csr


def test_csr(card: SimulatedTcosCard, uri: str, tmp_path: Path, pin: str) -> None:
    put(card, b"", 0xC500)  # its key has no certificate yet
    target = tmp_path / "request.pem"
    names = ("--dns", "gateway.example", "--email", "a@example.org")
    subject = "CN=Poststelle,O=Beispiel GmbH"
    done = run(
        "csr", uri, "--key", "authentication", "--subject", subject, "--pin", pin, *names, "-o", target
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    request = x509.load_pem_x509_csr(target.read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == public_key("nks-82")
    assert request.subject.rfc4514_string() == subject
    general = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in general] == ["gateway.example", "a@example.org"]
    assert (card.instructions[PSO], card.instructions[UPDATE]) == (1, 0)


@pytest.mark.parametrize(
    "options",
    [
        ("--subject", "Poststelle"),
        ("--subject", ""),
        ("--subject", "CN=a", "--dns", "köln.example"),
        ("--subject", "CN=a", "--email", "a b@c"),
        (),
    ],
)
def test_csr_refused_before_the_card_is_asked(options: tuple[str, ...]) -> None:
    done = run("csr", "usbip://127.0.0.1:1/", "--key", "signature", "--pin", "prompt:", *options)
    assert done.returncode == ExitCode.USAGE, done.stderr


CSR = ("--key", "signature", "--subject", "CN=a", "--pin", "prompt:")


def test_csr_without_a_terminal_opens_no_card_for_a_pin_that_nobody_can_type(
    card: SimulatedTcosCard, uri: str
) -> None:
    done = run("csr", uri, *CSR)
    assert (done.returncode, done.stdout) == (ExitCode.PIN, b"")
    assert b"no terminal" in done.stderr
    assert card.instructions.total() == 0


def test_csr_tells_whoever_types_for_which_card(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    target = tmp_path / "request.pem"
    code, shown = at_terminal(command("csr", uri, *CSR, "-o", target), [(PROMPT, PIN)])
    assert code == 0, shown
    assert f"For the card {good('card', 'info', uri)['card']['serial']} in the reader " in shown
    assert x509.load_pem_x509_csr(target.read_bytes()).is_signature_valid


def test_csr_asks_nobody_for_a_pin_that_may_not_be_sent(card: SimulatedTcosCard, uri: str) -> None:
    card.file_system.root.pins[0].tries = 2
    code, shown = at_terminal(command("csr", uri, *CSR), [])
    assert code == ExitCode.PIN
    assert "PIN global (" not in shown
    assert card.file_system.root.pins[0].tries == 2


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("Poststelle", "'Poststelle'"),
        ("CN=a\\", r"'CN=a\\': no such type or form"),
        ("CN=a\\,b,O=c\\", r"'O=c\\': no such type or form"),
        ("CN=a,XYZ=b", "'XYZ=b'"),
        ("CN=a,C=Germany", "'C=Germany': Attribute's length"),
        ("CN=a,,O=b", "between two commas is empty"),
        ("", "empty"),
    ],
)
def test_what_is_wrong_with_a_subject_is_said(subject: str, told: str) -> None:
    done = run("csr", "usbip://127.0.0.1:1/", "--key", "signature", "--pin", "prompt:", "--subject", subject)
    assert told in done.stderr.decode()
    assert b"()" not in done.stderr


def test_the_help_of_csr_has_an_example() -> None:
    shown = run("csr", "--help").stdout.decode()
    assert "--subject 'CN=Poststelle,O=Beispiel GmbH,C=DE'" in shown
    assert "RFC 4514" in shown


# --- the reader cuts it off


Opener: TypeAlias = Callable[[ExportedDevice], contextlib.AbstractContextManager[Reader]]


@contextlib.contextmanager
def loopback(device: ExportedDevice) -> Iterator[Reader]:
    reader = CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=lambda: 1e12, pause=pause)
    with contextlib.closing(reader):
        yield reader


@contextlib.contextmanager
def usbip(device: ExportedDevice) -> Iterator[Reader]:
    with (
        UsbIpServer([device], port=0) as server,
        contextlib.closing(open_reader(f"usbip://127.0.0.1:{server.port}/", timeouts=Timeouts(connect=20))) as reader,
    ):
        yield reader


def perform(reader: Reader, action: str) -> None:
    session = CardSession(reader, reader.connect(deadline=1e12), timeouts=Timeouts(command=60))
    certificates = CardCertificates(session, MemoryPinLedger())
    file = certificates.file("4331")
    plan = certificates.plan_erase(file) if action == "erase" else certificates.plan_import(IMPORTED, file)
    carry_out(certificates, plan)


@pytest.mark.parametrize("action", ["import", "erase"])
@pytest.mark.parametrize("opener", [loopback, usbip], ids=lambda opener: opener.__name__)
def test_a_card_that_is_pulled_at_any_command(opener: Opener, action: str) -> None:
    """The card has acted; its answer was lost with it."""
    first = bytes(ef(in_use()).content)
    number, lost = 0, pulled_at(opener, action, 0)
    while lost is not None:
        content, message = lost
        if content != first:
            assert content[0] == 0xFF or unwrap(content) == DER
            assert ("is empty" if content[0] == 0xFF else "holds the new content") in message
        number += 1
        lost = pulled_at(opener, action, number)
    assert number > WRITES


class WithCut:
    """A card whose third UPDATE BINARY is the last one that the way to it carries."""

    def __init__(self, card: SimulatedTcosCard) -> None:
        self._card = card
        self.atr = card.atr
        self.proxy: Proxy | None = None

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        if self.proxy and command[1] == UPDATE and self._card.instructions[UPDATE] == 2:
            self.proxy.cut_after(0)
        return self._card.transmit(command)


def test_a_reader_that_is_lost_in_the_middle_leaves_a_next_step(
    card: SimulatedTcosCard, certificate: Path, pin: str
) -> None:
    cutting = WithCut(card)
    with (
        UsbIpServer([SimulatedUsbReader(cutting)], host="127.0.0.1", port=0) as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        cutting.proxy = proxy
        words = ("certs", "import", f"usbip://127.0.0.1:{proxy.address[1]}/", certificate, "--file", "4331")
        done = run(*words, "--pin", pin, "--yes", "--json")
    assert done.returncode == ExitCode.TRANSPORT
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["remedy"] == (
        "See that the reader, its card and the way to them are there. Then import the certificate again. "
        "NKS/4331 now is empty."
    )
    assert ef(card).content[0] == 0xFF


def pulled_at(opener: Opener, action: str, number: int) -> tuple[bytes, str] | None:
    """What the file holds then, and what the error said; None if there are fewer commands."""
    card = in_use()
    device = FaultyReader(SimulatedUsbReader(card), SlotFailure(icc=IccStatus.ABSENT), after=number, times=1)
    with opener(device) as reader:
        try:
            perform(reader, action)
        except CardRemoved as error:
            return bytes(ef(card).content), error.message
    return None


def in_use() -> SimulatedTcosCard:
    card = netkey3()
    longer = issue(public_key(), filling=700).public_bytes(Encoding.DER)
    put(card, wrap(longer, StorageForm.CONTAINER))
    return card


# --- readers --watch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_until_it_is_ended(number: signal.Signals) -> None:
    device = SimulatedUsbReader(netkey3())
    with UsbIpServer([device], port=0) as server:
        words = command("readers", "--watch", f"usbip://127.0.0.1:{server.port}/", "--json")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            said = [json.loads(process.stdout.readline())["event"] for _ in range(2)]
            device.remove()
            said.append(json.loads(process.stdout.readline())["event"])
            device.insert(netkey3())
            said.append(json.loads(process.stdout.readline())["event"])
            process.send_signal(number)
            errors = process.stderr.read()
        assert said == ["reader arrived", "card inserted", "card removed", "card inserted"]
        assert process.returncode == (0 if number == signal.SIGINT else 128 + number)
        assert errors == ""
        assert run("card", "info", f"usbip://127.0.0.1:{server.port}/").returncode == 0
