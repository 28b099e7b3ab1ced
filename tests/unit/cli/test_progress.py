"""Progress is shown to a person who waits, and to nobody else."""

import io
import sys

import pytest

from demail_hw.cli import progress as module
from demail_hw.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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
