"""``demail-hw pin`` as an operator has it: at a terminal, from a script, and after a refusal."""

import json
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

OLD, NEW, WRONG, PUK = "123456", "864209", "975310", "12345678"


@pytest.fixture
def card(request: pytest.FixtureRequest) -> SimulatedTcosCard:
    return open_card(getattr(request, "param", "netkey3"))


@pytest.fixture
def uri(card: SimulatedTcosCard) -> Iterator[str]:
    """The card behind a USB server of this process, which other processes have as they would have a real one."""
    with UsbIpServer([SimulatedUsbReader(card)], host="127.0.0.1", port=0) as server:
        yield f"usbip://127.0.0.1:{server.port}/"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demail_hw.cli", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def pin_file(folder: Path, pin: str) -> str:
    path = folder / f"pin-{len(list(folder.iterdir()))}"
    path.touch(0o600)
    path.write_text(f"{pin}\n")
    return f"file:{path}"


def tries(card: SimulatedTcosCard, reference: int = 0) -> int:
    return card.file_system.root.pins[reference].tries


def test_status_is_sentences_and_facts(uri: str) -> None:
    text = run("pin", "status", uri)
    assert (text.returncode, text.stderr) == (0, "")
    assert "global  3 tries are left.\n" in text.stdout
    facts = json.loads(run("pin", "status", uri, "--json").stdout)["pins"]
    assert facts[0] == {
        "pin": "global",
        "state": "ready",
        "retries_left": 3,
        "ledger": None,
        "sentence": "3 tries are left.",
        "next_step": "",
    }


def test_change_at_a_terminal_asks_for_the_new_one_twice(card: SimulatedTcosCard, uri: str) -> None:
    code, shown = at_terminal(
        command("pin", "change", uri),
        [("old PIN global (3 tries left): ", OLD), ("New PIN global: ", NEW), ("The same again: ", NEW)],
    )
    assert (code, tries(card)) == (0, 3), shown
    assert "The card has the new one." in shown
    assert NEW not in shown
    assert OLD not in shown
    code, shown = at_terminal(command("pin", "verify", uri), [("PIN global (3 tries left): ", NEW)])
    assert code == 0, shown


def test_two_new_pins_that_differ_change_nothing(card: SimulatedTcosCard, uri: str) -> None:
    code, shown = at_terminal(
        command("pin", "change", uri),
        [("old PIN global (3 tries left): ", OLD), ("New PIN global: ", NEW), ("The same again: ", WRONG)],
    )
    assert code == ExitCode.PIN
    assert "not the same" in shown
    assert at_terminal(command("pin", "verify", uri), [("PIN global (3 tries left): ", OLD)])[0] == 0


def test_without_a_terminal_nobody_is_asked(card: SimulatedTcosCard, uri: str) -> None:
    for arguments in (["verify"], ["change"], ["unblock"]):
        done = run("pin", *arguments, uri)
        assert done.returncode == ExitCode.PIN
        assert "no terminal" in done.stderr
    assert tries(card) == 3


def test_a_script_changes_and_unblocks_from_files(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    old, new, puk = (pin_file(tmp_path, pin) for pin in (OLD, NEW, PUK))
    assert run("pin", "change", uri, "--pin", old, "--new", new).returncode == 0
    card.file_system.root.pins[0].tries = 0
    assert run("pin", "verify", uri, "--pin", new).returncode == ExitCode.PIN
    assert run("pin", "unblock", uri, "--puk", puk, "--new", old).returncode == 0
    assert run("pin", "verify", uri, "--pin", old).returncode == 0
    assert tries(card) == 3


def test_a_refusal_stops_scripts_until_it_is_cleared(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    old, wrong = pin_file(tmp_path, OLD), pin_file(tmp_path, WRONG)
    assert run("pin", "verify", uri, "--pin", wrong).returncode == ExitCode.PIN
    refused = run("pin", "verify", uri, "--pin", old, "--json")
    error = json.loads(refused.stderr)["error"]
    assert (error["type"], error["outcome"]) == ("PinRefused", "not sent")
    assert "demail-hw pin verify URI --keep 1" in error["remedy"]
    assert "demail-hw pin verify URI --keep 1" in run("pin", "status", uri).stdout
    assert tries(card) == 2
    card.file_system.root.pins[0].tries = 3  # somebody else verified it
    assert run("pin", "verify", uri, "--pin", old).returncode == ExitCode.PIN
    assert "is forgotten" in run("pin", "clear", uri).stdout
    assert run("pin", "verify", uri, "--pin", old).returncode == 0
    assert tries(card) == 3


def test_only_a_person_spends_the_last_tries_and_the_last_one_after_a_question(
    card: SimulatedTcosCard, uri: str, tmp_path: Path
) -> None:
    script = run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD), "--keep", "1")
    assert script.returncode == ExitCode.USAGE
    assert "person at the terminal" in script.stderr
    card.file_system.root.pins[0].tries = 1
    code, shown = at_terminal(command("pin", "verify", uri, "--keep", "0"), [("Go on? [y/N]: ", "n")])
    assert (code, tries(card)) == (130, 1), shown
    assert "last try" in shown
    dialog = [("Go on? [y/N]: ", "y"), ("PIN global (1 try left): ", OLD)]
    code, shown = at_terminal(command("pin", "verify", uri, "--keep", "0"), dialog)
    assert (code, tries(card)) == (0, 3), shown


def test_what_unblocks_a_pin_is_asked_for_by_its_name(card: SimulatedTcosCard, uri: str) -> None:
    card.file_system.root.child(0xDF02).pins[0x81].tries = 0
    code, shown = at_terminal(
        command("pin", "unblock", uri, "--which", "nks-1"),
        [
            ("PIN global, which unblocks nks-1 (3 tries left): ", OLD),
            ("New PIN nks-1: ", NEW),
            ("The same again: ", NEW),
        ],
    )
    assert code == 0, shown


def test_one_key_too_many_in_the_old_pin_changes_nothing(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    long, new, old = (pin_file(tmp_path, pin) for pin in (OLD + "7", NEW, OLD))
    assert run("pin", "change", uri, "--pin", long, "--new", new).returncode == ExitCode.PIN
    assert tries(card) == 2
    run("pin", "clear", uri)
    card.file_system.root.pins[0].tries = 3
    assert run("pin", "verify", uri, "--pin", old).returncode == 0


def test_a_person_goes_on_after_a_refusal(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, WRONG)).returncode == ExitCode.PIN
    code, shown = at_terminal(command("pin", "verify", uri), [])
    assert code == ExitCode.PIN, "the last two tries are kept from people too, unless they say otherwise"
    assert "2 are kept" in shown
    code, shown = at_terminal(command("pin", "verify", uri, "--keep", "1"), [("PIN global (2 tries left): ", OLD)])
    assert (code, tries(card)) == (0, 3), shown
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD)).returncode == 0


@pytest.mark.parametrize("card", ["netkey3-fresh"], indirect=True)
def test_a_first_pin(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    assert "pin initialize" in run("pin", "status", uri).stdout
    code, shown = at_terminal(
        command("pin", "initialize", uri), [("New PIN global: ", NEW), ("The same again: ", NEW)]
    )
    assert code == 0, shown
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, NEW)).returncode == 0
    again = run("pin", "initialize", uri, "--new", pin_file(tmp_path, NEW))
    assert again.returncode == ExitCode.PIN
    assert "not the NullPIN" in again.stderr


@pytest.mark.parametrize("what", ["change", "unblock"])
def test_a_dry_run_sends_nothing_and_asks_nobody(card: SimulatedTcosCard, uri: str, what: str) -> None:
    done = run("pin", what, uri, "--dry-run")
    assert done.returncode == 0
    assert "Nothing was sent." in done.stdout
    card.file_system.root.pins[0].tries = card.file_system.root.pins[1].tries = 1
    assert run("pin", what, uri, "--dry-run").returncode == ExitCode.PIN


def test_the_state_dir_can_be_said(uri: str, tmp_path: Path, state_dir: Path) -> None:
    other = tmp_path / "other"
    done = run("--state-dir", str(other), "pin", "verify", uri, "--pin", pin_file(tmp_path, OLD))
    assert done.returncode == 0
    assert [path.name for path in (other / "pins").glob("*.json")] == ["89490173510080407136.json"]
    assert not state_dir.exists()


def test_no_writable_ledger_no_verify(card: SimulatedTcosCard, uri: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    before = dict(card.instructions)
    done = run("--state-dir", str(blocked / "state"), "pin", "verify", uri, "--pin", pin_file(tmp_path, OLD))
    assert done.returncode == ExitCode.PIN
    assert "no PIN is sent without it" in done.stderr
    assert card.instructions[0x20] == before.get(0x20, 0)


def test_a_broken_ledger_stops_a_verify_and_not_a_look(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, state_dir: Path
) -> None:
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD)).returncode == 0
    (state_dir / "pins" / "89490173510080407136.json").write_text("{")
    refused = run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD))
    assert refused.returncode == ExitCode.PIN
    assert "is broken; no PIN is sent without it" in refused.stderr
    looked = run("pin", "status", uri)
    assert looked.returncode == 0
    assert "3 tries are left." in looked.stdout
    assert "is broken" in looked.stderr
