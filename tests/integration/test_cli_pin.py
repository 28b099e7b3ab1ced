"""``demail-hw pin`` as an operator has it: at a terminal, from a script, and after a refusal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import open_provider
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.errors import PinIncorrect, PinRefused
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from terminal import at_terminal

OLD, NEW, WRONG, PUK, SHORT = "123456", "864209", "975310", "12345678", "12"


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


def place_of(uri: str) -> str:
    """The card and the reader, as they are told."""
    card = json.loads(run("card", "info", uri, "--json").stdout)
    reader = card["reader"]
    return f"card {card['card']['serial']} in the reader {reader['name']} ({reader['serial']})"


def test_status_is_sentences_and_facts(uri: str) -> None:
    text = run("pin", "status", uri)
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.startswith(f"The {place_of(uri)}:\n")
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


@pytest.mark.parametrize(("typed", "which"), [((SHORT,), "old"), ((OLD, SHORT), "new")])
def test_a_pin_of_a_wrong_length_is_refused_before_more_is_typed(
    card: SimulatedTcosCard, uri: str, typed: tuple[str, ...], which: str
) -> None:
    code, shown = at_terminal(
        command("pin", "change", uri),
        list(zip(("old PIN global (3 tries left): ", "New PIN global: "), typed, strict=False)),
    )
    assert (code, tries(card)) == (ExitCode.PIN, 3)
    assert f"The {which} PIN global is 6 to " in shown
    assert "Type it anew." in shown
    assert "source" not in shown
    assert ("New PIN" in shown) is (which == "new")
    assert "The same again" not in shown


def test_the_source_of_a_wrong_length_is_named(uri: str, tmp_path: Path) -> None:
    good, short = pin_file(tmp_path, OLD), pin_file(tmp_path, SHORT)
    for what, words in {
        "old PIN global": ("change", uri, "--pin", short, "--new", good),
        "new PIN global": ("change", uri, "--pin", good, "--new", short),
        "PIN puk": ("unblock", uri, "--puk", short, "--new", good),
    }.items():
        for more in ((), ("--dry-run",)):
            done = run("pin", *words, *more)
            assert f"The {what} is " in done.stderr
            assert "Check the source" in done.stderr


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


def test_a_refusal_stops_scripts_until_it_is_cleared(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, state_dir: Path
) -> None:
    old, wrong = pin_file(tmp_path, OLD), pin_file(tmp_path, WRONG)
    assert run("pin", "verify", uri, "--pin", wrong).returncode == ExitCode.PIN
    refused = run("pin", "verify", uri, "--pin", old, "--json")
    error = json.loads(refused.stderr)["error"]
    assert (error["type"], error["outcome"]) == ("PinRefused", "not sent")
    by_hand = f"demail-hw --state-dir {state_dir} pin verify {uri} --keep 1"
    assert by_hand in error["remedy"]
    assert by_hand in run("pin", "status", uri).stdout
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
    assert (code, tries(card)) == (ExitCode.DECLINED, 1), shown
    assert f"The {place_of(uri)}: its PIN global has its last try left" in shown
    assert shown.endswith("Nothing was done.\n")
    assert "interrupted" not in shown
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
def test_card_info_says_what_to_do_next(uri: str, state_dir: Path) -> None:
    shown = run("card", "info", uri).stdout
    program = f"demail-hw --state-dir {state_dir}"
    first = f"It was never set (NullPIN). Set the first one: {program} pin initialize {uri}."
    assert f"  global  {first}\n" in shown
    assert "  nks-1   3 tries are left.\n" in shown
    told = json.loads(run("card", "info", uri, "--json").stdout)["pins"][0]
    assert (told["state"], f"{told['sentence']} {told['next_step']}") == ("NullPIN", first)


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


@pytest.mark.parametrize("what", ["verify", "change", "unblock"])
def test_a_dry_run_sends_nothing_and_asks_nobody(card: SimulatedTcosCard, uri: str, what: str) -> None:
    code, shown = at_terminal(command("pin", what, uri, "--dry-run"), [])
    assert code == 0, shown
    assert "Nothing was sent." in shown
    assert card.instructions.keys().isdisjoint({0x24, 0x2C})
    card.file_system.root.pins[0].tries = card.file_system.root.pins[1].tries = 1
    assert at_terminal(command("pin", what, uri, "--dry-run"), [])[0] == ExitCode.PIN


DEEDS = {
    "verify": ("--pin",),
    "change": ("--pin", "--new"),
    "unblock": ("--puk", "--new"),
    "initialize": ("--new",),
}
each_source = pytest.mark.parametrize(
    ("card", "what", "option"),
    [
        ("netkey3-fresh" if what == "initialize" else "netkey3", what, option)
        for what, options in DEEDS.items()
        for option in options
    ],
    indirect=["card"],
)


def deed(what: str, uri: str, folder: Path, **others: str) -> tuple[str, ...]:
    """A dry run with good sources but for the others."""
    good = {"--pin": pin_file(folder, OLD), "--puk": pin_file(folder, PUK), "--new": pin_file(folder, NEW)}
    sources = {option: others.get(option, good[option]) for option in DEEDS[what]}
    return ("pin", what, uri, "--dry-run", *(word for pair in sources.items() for word in pair))


@each_source
def test_a_dry_run_finds_what_is_wrong_with_a_source(uri: str, tmp_path: Path, what: str, option: str) -> None:
    assert run(*deed(what, uri, tmp_path)).returncode == 0
    missing, short = f"file:{tmp_path / 'none'}", pin_file(tmp_path, "123")
    loose = pin_file(tmp_path, OLD)
    Path(loose.removeprefix("file:")).chmod(0o644)
    for source, code, said in (
        (missing, ExitCode.PIN, "cannot be read"),
        (short, ExitCode.PIN, "nothing was sent"),
        (loose, ExitCode.CONFIGURATION, "others may read it"),
        ("prompt:", ExitCode.PIN, "no terminal"),
    ):
        done = run(*deed(what, uri, tmp_path, **{option: source}))
        assert done.returncode == code, done
        assert said in done.stderr


@pytest.mark.parametrize(
    ("card", "what"),
    [("netkey3-fresh" if what == "initialize" else "netkey3", what) for what in DEEDS],
    indirect=["card"],
)
def test_a_dry_run_finds_a_ledger_that_cannot_be_written(uri: str, tmp_path: Path, what: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    (tmp_path / "pins").mkdir()
    done = run("--state-dir", str(blocked / "state"), *deed(what, uri, tmp_path / "pins"))
    assert done.returncode == ExitCode.PIN
    assert "no PIN is sent without it" in done.stderr


@each_source
def test_what_is_no_source_costs_no_card_access(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, what: str, option: str
) -> None:
    words = [word for word in deed(what, uri, tmp_path, **{option: "keyring:a"}) if word != "--dry-run"]
    done = run(*words, "--json")
    assert done.returncode == ExitCode.CONFIGURATION
    assert json.loads(done.stderr)["error"]["remedy"]
    assert not card.instructions


def test_prompts_and_results_name_card_and_reader(uri: str) -> None:
    place = place_of(uri)
    code, shown = at_terminal(
        command("pin", "change", uri),
        [
            (f"For the {place}\nold PIN global (3 tries left): ".replace("\n", "\r\n"), OLD),
            (f"For the {place}\nNew PIN global: ".replace("\n", "\r\n"), NEW),
            ("The same again: ", NEW),
        ],
    )
    assert code == 0, shown
    assert f"PIN global of the {place}: The card has the new one." in shown


def test_facts_name_card_and_reader(uri: str, tmp_path: Path) -> None:
    facts = json.loads(run("card", "info", uri, "--json").stdout)
    for words in (("status",), ("verify", "--pin", pin_file(tmp_path, OLD)), ("clear",)):
        said = json.loads(run("pin", words[0], uri, *words[1:], "--json").stdout)
        assert (said["card"], said["reader"]) == (facts["card"]["serial"], facts["reader"])


@pytest.mark.parametrize("what", DEEDS)
def test_a_card_that_ends_with_the_command_says_so(tmp_path: Path, what: str) -> None:
    uri = "sim:netkey3-fresh" if what == "initialize" else "sim:netkey3"
    words = [word for word in deed(what, uri, tmp_path) if word != "--dry-run"]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"The card of {uri} is simulated or recorded, and forgets when this command ends") == 1
    assert "every source" not in done.stdout
    assert ("Leave its sources as they are." in done.stdout) == (what in {"change", "unblock"})
    assert "forgets" in json.loads(run(*words, "--json").stderr)["warning"]
    assert run(*words, "--dry-run").stderr == ""
    assert run("pin", "status", uri).stderr == ""


def test_a_try_that_a_simulated_card_lost_is_not_lost(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("pin", "verify", "sim:netkey3", "--pin", pin_file(tmp_path, WRONG))
        assert done.returncode == ExitCode.PIN
        assert "2 tries are left" in done.stderr
        assert done.stderr.count("forgets when this command ends") == 1
        assert "--keep" not in done.stderr


def test_a_card_that_stays_is_not_said_to_forget(uri: str, tmp_path: Path) -> None:
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, OLD)).stderr == ""


def test_the_next_step_names_the_folder_that_was_said(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (tmp_path / "pins").mkdir()
    wrong = pin_file(tmp_path / "pins", WRONG)
    assert run("--state-dir", str(folder), "pin", "verify", uri, "--pin", wrong).returncode == ExitCode.PIN
    for words in (("status", uri), ("verify", uri, "--pin", wrong)):
        done = run("--state-dir", str(folder), "pin", *words)
        assert f"demail-hw --state-dir {folder} pin verify {uri} --keep 1" in done.stdout + done.stderr


def test_card_info_knows_what_pin_status_knows(
    card: SimulatedTcosCard, uri: str, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = pin_file(tmp_path, WRONG)
    for folder in (state_dir, tmp_path / "own"):
        said = ("--state-dir", str(folder))
        run(*said, "pin", "verify", uri, "--pin", wrong)
        info, status = (
            json.loads(run(*said, *words, uri, "--json").stdout)["pins"]
            for words in (("card", "info"), ("pin", "status"))
        )
        assert info == status
        assert info[0]["ledger"]["state"] == "refused"
        assert f"--state-dir {folder} pin verify {uri} --keep 1" in info[0]["next_step"]
        card.file_system.root.pins[0].tries = 3
    for variable in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert run("card", "info", uri).returncode == 0


def test_the_provider_of_a_service_names_its_folder(uri: str, tmp_path: Path, state_dir: Path) -> None:
    """In its own $STATE_DIRECTORY, which whoever reads its log does not have."""
    wrong = pin_file(tmp_path, WRONG)
    for error in (PinIncorrect, PinRefused):
        with open_provider(uri, wrong) as provider, pytest.raises(error) as caught:
            provider.identity("signature").private_key.sign(b"", PKCS1v15(), SHA256())
    assert f"demail-hw --state-dir {state_dir} pin verify {uri} --keep 1" in caught.value.remedy


def test_two_simulated_cards_of_one_number_share_a_ledger(uri: str, tmp_path: Path) -> None:
    """A card is known by its ICCSN, and these have the same."""
    assert run("pin", "verify", uri, "--pin", pin_file(tmp_path, WRONG)).returncode == ExitCode.PIN
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], host="127.0.0.1", port=0) as other:
        done = run("pin", "verify", f"usbip://127.0.0.1:{other.port}/", "--pin", pin_file(tmp_path, OLD))
    assert done.returncode == ExitCode.PIN
    assert "it is not sent again until a person says so" in done.stderr


@pytest.mark.parametrize(
    ("option", "name"), [("--trace", "FILE"), ("--state-dir", "DIR")], ids=["trace", "state-dir"]
)
def test_an_option_whose_value_was_forgotten_is_named(option: str, name: str) -> None:
    done = run(option, "pin", "status", "sim:netkey3")
    assert done.returncode == ExitCode.USAGE
    assert f"{option} took pin for its {name}: write demail-hw {option} {name} pin ..." in done.stderr


@pytest.mark.parametrize("source", ["keyring:a", "file:/", "credential:a/b", "fd:1"])
def test_every_bad_source_has_a_remedy(source: str) -> None:
    done = run("pin", "verify", "sim:netkey3", "--pin", source, "--json")
    assert done.returncode == ExitCode.CONFIGURATION
    assert json.loads(done.stderr)["error"]["remedy"]


def test_a_state_directory_that_is_none_has_a_remedy(uri: str, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("no folder")
    (tmp_path / "pins").mkdir()
    source = pin_file(tmp_path / "pins", OLD)
    done = run("--state-dir", str(place), "pin", "verify", uri, "--pin", source, "--json")
    assert done.returncode == ExitCode.PIN
    assert "--state-dir" in json.loads(done.stderr)["error"]["remedy"]


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
