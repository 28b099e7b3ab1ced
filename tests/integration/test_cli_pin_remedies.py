"""What ``demail-hw pin`` advises, typed as it stands: each piece of advice leads out of the state it is given for."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from terminal import at_terminal

OLD, NEW, WRONG = "123456", "864209", "975310"
ICCSN = "89490173510080407136"


@pytest.fixture
def card(request: pytest.FixtureRequest) -> SimulatedTcosCard:
    return open_card(getattr(request, "param", "netkey3"))


@pytest.fixture
def uri(card: SimulatedTcosCard) -> Iterator[str]:
    with UsbIpServer([SimulatedUsbReader(card)], host="127.0.0.1", port=0) as server:
        yield f"usbip://127.0.0.1:{server.port}/"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demail_hw.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pin_file(folder: Path, pin: str) -> str:
    path = folder / f"pin-{pin}"
    path.touch(0o600)
    path.write_text(pin)
    return f"file:{path}"


def typed(advice: str, *dialog: tuple[str, str]) -> tuple[int, str]:
    """The command in a piece of advice, typed in a shell."""
    words = shlex.split(advice[advice.index("demail-hw ") :].partition(". ")[0].rstrip(".\n"))
    return at_terminal([sys.executable, "-m", "demail_hw.cli", *words[1:]], dialog)


def remedy(*arguments: str) -> str:
    done = run(*arguments, "--json")
    assert done.returncode == ExitCode.PIN, done
    text: str = json.loads(done.stderr)["error"]["remedy"]
    return text


def test_advice_from_a_service_works_in_a_shell_without_its_environment(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advice = remedy("pin", "verify", uri, "--pin", pin_file(tmp_path, WRONG))
    assert remedy("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD)) == advice
    with monkeypatch.context() as shell:
        shell.setenv("STATE_DIRECTORY", str(tmp_path / "another"))
        code, shown = typed(advice, ("(2 tries left): ", OLD))
    assert code == 0, shown
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD)).returncode == 0


@pytest.mark.parametrize("card", ["netkey3-fresh"], indirect=True)
def test_a_fresh_puk_gets_its_tries(uri: str, tmp_path: Path) -> None:
    new = pin_file(tmp_path, NEW)
    assert run("pin", "initialize", uri, "--new", new).returncode == 0
    advice = remedy("pin", "unblock", uri, "--puk", new, "--new", new)
    assert advice.startswith("The PIN global is not blocked.")
    assert remedy("pin", "initialize", uri, "--which", "puk", "--new", new).endswith(f"{uri} --which puk.")
    code, shown = typed(
        advice,
        ("which unblocks puk (3 tries left): ", NEW),
        ("New PIN puk: ", "12345678"),
        ("again: ", "12345678"),
    )
    assert code == 0, shown


def test_a_dead_card_is_dead_in_every_command(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    card.file_system.root.pins[0].tries = card.file_system.root.pins[1].tries = 0
    end = "has no tries either: ask the card's issuer."
    assert end in run("pin", "status", uri).stdout
    source = pin_file(tmp_path, OLD)
    assert remedy("pin", "verify", uri, "--pin", source).endswith(end)
    message = tmp_path / "message"
    message.write_bytes(b"text")
    assert remedy("sign", uri, "--key", "signature", str(message), "--pin", source).endswith(end)


def test_the_refusal_that_blocks_a_pin_says_what_the_next_call_says(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, state_dir: Path
) -> None:
    card.file_system.root.pins[0].tries = 1
    code, shown = at_terminal(
        [sys.executable, "-m", "demail_hw.cli", "pin", "verify", uri, "--keep", "0"],
        [("Go on? [y/N]: ", "y"), ("(1 try left): ", WRONG)],
    )
    assert code == ExitCode.PIN
    way = remedy("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD))
    assert way == f"Unblock it with the PIN puk: demail-hw --state-dir {state_dir} pin unblock {uri}."
    assert way in shown


def test_a_typed_refusal_names_the_next_command(card: SimulatedTcosCard, uri: str) -> None:
    card.file_system.root.pins[0].tries = 2
    code, shown = at_terminal(
        [sys.executable, "-m", "demail_hw.cli", "pin", "verify", uri, "--keep", "1"], [("(2 tries left): ", WRONG)]
    )
    assert code == ExitCode.PIN
    assert "source" not in shown
    assert f"pin verify {uri} --keep 0. Another wrong one blocks it" in shown


def test_one_try_that_is_kept_is_one(card: SimulatedTcosCard, uri: str) -> None:
    card.file_system.root.pins[0].tries = 1
    _, shown = at_terminal([sys.executable, "-m", "demail_hw.cli", "pin", "verify", uri, "--keep", "1"], [])
    assert "has 1 try left, and 1 is kept for people" in shown


def test_clear_says_what_still_stops_services(uri: str, tmp_path: Path) -> None:
    run("pin", "verify", uri, "--pin", pin_file(tmp_path, WRONG))
    said = run("pin", "clear", uri).stdout
    assert "The card refused what was sent at" in said
    assert "Now: 2 tries are left. No service spends one of the last 2." in said
    code, shown = typed(said, ("(2 tries left): ", OLD))
    assert code == 0, shown
    assert "Now: 3 tries are left.\n" in run("pin", "clear", uri).stdout


def without_an_end(state_dir: Path, operation: str, left: int) -> Path:
    """As a process leaves it that was killed in the middle."""
    page = state_dir / "pins" / f"{ICCSN}.json"
    page.parent.mkdir(mode=0o700, parents=True)
    note = {"state": "pending", "operation": operation, "at": "2026-01-02T03:04:05+00:00", "retries_left": left}
    page.write_text(json.dumps({"pins": {"global": note}}))
    return page


def test_who_clears_a_change_without_an_end_is_asked(uri: str, state_dir: Path) -> None:
    page = without_an_end(state_dir, "change", 3)
    before = page.read_text()
    assert run("pin", "clear", uri).returncode == ExitCode.USAGE
    clear = [sys.executable, "-m", "demail_hw.cli", "pin", "clear", uri]
    code, shown = at_terminal(clear, [("Forget that? [y/N]: ", "n")])
    assert (code, page.read_text()) == (ExitCode.DECLINED, before)
    assert "attempt to change it at 2026-01-02 03:04:05+00:00 ended is not known" in shown
    assert "Whether the old or the new PIN counts is unknown." in shown
    done = run("pin", "clear", uri, "--yes")
    assert done.returncode == 0
    assert "Whether the old or the new PIN counts is unknown." in done.stdout
    assert json.loads(page.read_text())["pins"]["global"]["state"] == "cleared"
    assert "is unknown" not in run("pin", "clear", uri).stdout


def test_status_after_a_verify_without_an_end_leads_on(card: SimulatedTcosCard, uri: str, state_dir: Path) -> None:
    without_an_end(state_dir, "verify", 3)
    card.file_system.root.pins[0].tries = 2
    line = next(line for line in run("pin", "status", uri).stdout.splitlines() if line.startswith("global"))
    assert "pin status" not in line
    code, shown = typed(line, ("(2 tries left): ", OLD))
    assert code == 0, shown


def test_who_looks_past_a_broken_ledger_is_not_sent_to_look(uri: str, tmp_path: Path, state_dir: Path) -> None:
    without_an_end(state_dir, "verify", 3).write_text("{")
    looked = run("pin", "status", uri)
    assert "pin status" not in looked.stderr
    assert "a refusal that was noted in it is forgotten then" in looked.stderr
    advice = remedy("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD))
    assert f"(demail-hw --state-dir {state_dir} pin status {uri})" in advice
