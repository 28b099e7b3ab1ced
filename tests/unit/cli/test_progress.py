"""Progress is shown to a person who waits, and to nobody else."""

import io
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from certificate_bench import IMPORTED, PIN, managing
from demail_hw.cli import progress as module
from demail_hw.cli.card import card_command
from demail_hw.cli.certs import certs_command
from demail_hw.cli.csr import csr_command
from demail_hw.cli.pin import pin_command
from demail_hw.cli.progress import READING, asking, counted, progress, waiting
from demail_hw.cli.sign import sign_command
from demail_hw.interfaces import CardConnection, ShareMode
from demail_hw_simulators.ca import pem
from demail_hw_simulators.card.personalities import PERSONALITIES, open_card
from demail_hw_simulators.sim_reader import SimulatedReader

SECONDS = 30.0


class Terminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.used = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        count = super().write(text)
        self.used.set()
        return count


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None, *, patience: float) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", patience)
    with progress("NKS/4331", 100) as step:
        for count in (30, 30, 40):
            step(count)
    return stream.getvalue() if stream else ""


def test_at_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, Terminal(), patience=0.0)
    assert "NKS/4331" in said
    assert "30%" in said
    assert "100%" in said


def test_what_is_fast_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), patience=3600.0) == ""


@pytest.mark.parametrize("stream", [io.StringIO(), None], ids=["a file", "closed"])
def test_without_a_terminal_it_shows_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    assert shown(monkeypatch, stream, patience=0.0) == ""


HOUR = 3600.0


def test_what_somebody_waited_before_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the card was opened, such as."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress("short", 2) as step:
        step(1)
    assert terminal.getvalue() == ""
    with progress("long", 2, since=time.monotonic() - HOUR) as step:
        step(1)
    assert "long" in terminal.getvalue()
    assert "50%" in terminal.getvalue()


def test_who_types_a_pin_first_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a beginning of its own, it begins with the first step."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(module, "time", clock := Clock())
    with progress("written", 4) as step:
        clock.now += HOUR
        step(1)
        assert terminal.getvalue() == ""
        clock.now += HOUR
        step(1)
    assert "50%" in terminal.getvalue()


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_an_item_is_done_when_the_next_one_is_asked_for() -> None:
    done: list[int] = []
    assert [(item, sum(done)) for item in counted("abc", done.append)] == [("a", 0), ("b", 1), ("c", 2)]
    assert sum(done) == 3


COMMANDS: Sequence[tuple[click.Group, Sequence[str]]] = [
    (card_command, ["info", "sim:netkey3"]),
    (certs_command, ["list", "sim:netkey3"]),
]


def run(monkeypatch: pytest.MonkeyPatch, group: click.Group, words: Sequence[str], *, patience: float) -> str:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", patience)
    group.main(list(words), standalone_mode=False)
    return terminal.getvalue()


@pytest.mark.parametrize(
    ("group", "words"), COMMANDS, ids=lambda each: each.name if isinstance(each, click.Group) else None
)
def test_commands_that_read_the_whole_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], group: click.Group, words: Sequence[str]
) -> None:
    shown = run(monkeypatch, group, words, patience=0.0)
    assert READING in shown
    assert "100%" in shown
    assert shown.endswith("\n")  # the result begins a line of its own
    slow = capsys.readouterr().out
    assert run(monkeypatch, group, words, patience=HOUR) == ""
    assert capsys.readouterr().out == slow != ""


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_listing_the_certificates_tells_of_every_key_and_file(personality: str) -> None:
    """So the bar reaches its end, whatever the card does not have."""
    done: list[int] = []
    with managing(open_card(personality)) as certificates:
        certificates.entries(done.append)
        profile = certificates._profile
    assert sum(done) == len(profile.keys) + len(profile.certificate_files)


# --- what nobody can count

A_MOMENT = "This takes a moment ...\n"
WAITING: Sequence[tuple[click.Command, str]] = [
    (card_command, "info {uri}"),
    (certs_command, "list {uri}"),
    (certs_command, "export {uri} --key signature -o {folder}/out"),
    (certs_command, "import {uri} {folder}/certificate --key signature --pin file:{folder}/pin --dry-run"),
    (csr_command, "{uri} --key signature --subject CN=a --pin file:{folder}/pin -o {folder}/out"),
    (pin_command, "status {uri}"),
    (pin_command, "verify {uri} --pin file:{folder}/pin"),
    (pin_command, "change {uri} --pin file:{folder}/pin --new file:{folder}/pin"),
    (sign_command, "{uri} {folder}/pin --key signature --pin file:{folder}/pin -o {folder}/out"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "certificate").write_bytes(pem(IMPORTED))
    (tmp_path / "pin").touch(0o600)
    (tmp_path / "pin").write_bytes(PIN)
    return tmp_path


@pytest.mark.parametrize(("command", "words"), WAITING, ids=[f"{each.name} {words[:7]}" for each, words in WAITING])
def test_a_command_that_a_slow_reader_keeps_waiting_says_so_once(
    monkeypatch: pytest.MonkeyPatch, folder: Path, command: click.Command, words: str
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    connect = SimulatedReader.connect

    def slow(self: SimulatedReader, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: float) -> CardConnection:
        assert terminal.used.wait(SECONDS), "nothing was shown"
        return connect(self, share, deadline=deadline)

    arguments = words.format(uri="sim:netkey3", folder=folder).split()
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", HOUR)
    command.main(arguments, standalone_mode=False)
    assert terminal.getvalue() == "", "what is fast shows nothing"
    monkeypatch.setattr(SimulatedReader, "connect", slow)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    command.main(arguments, standalone_mode=False)
    assert terminal.getvalue().startswith(A_MOMENT)
    assert terminal.getvalue().count(A_MOMENT) == 1


def test_nothing_is_said_while_a_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    before = threading.active_count()
    with click.Context(click.Command("any")):
        monkeypatch.setattr(module, "_PATIENCE_SECONDS", HOUR)
        with waiting(), waiting():
            assert threading.active_count() == before + 1
            for quiet in (asking(), progress("a bar of its own", 1)):
                with quiet:
                    assert threading.active_count() == before
                    with asking():
                        pass
                    assert threading.active_count() == before, "it goes on inside the question, or the bar"
                assert threading.active_count() == before + 1
            monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
            with asking():
                pass
            assert terminal.used.wait(SECONDS)
        assert threading.active_count() == before
    assert terminal.getvalue() == A_MOMENT


def test_without_a_terminal_nobody_is_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", HOUR)
    before = threading.active_count()
    with click.Context(click.Command("any")), waiting():
        assert threading.active_count() == before
