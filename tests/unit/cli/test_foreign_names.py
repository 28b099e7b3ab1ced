"""Names that strangers chose reach the terminal without control characters, and in one line."""

import datetime
import json
import logging
from typing import Final

import click
import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.output import LogHandler, usage_report
from demail_hw.cli.readers import _event_line, _line
from demail_hw.interfaces import ReaderInfo
from demail_hw.reader_watch import ReaderEvent, WatchEvent

EVIL: Final = "a\x1b]0;b\x07\u202ec\x9bd\ne"
SHOWN: Final = r"a\x1b]0;b\x07\u202ec\x9bd\ne"
READER: Final = ReaderInfo(f"pcsc:{EVIL}", EVIL, EVIL, card=True, in_use=False)


def test_readers_that_are_listed() -> None:
    shown = _line(READER)
    assert shown.isprintable()
    assert shown.count(SHOWN) == 2


def test_readers_that_are_watched() -> None:
    shown = _event_line(ReaderEvent(WatchEvent.READER_ARRIVED, READER, datetime.datetime.now(datetime.UTC)))
    assert shown.isprintable()
    assert shown.count(SHOWN) == 2


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_logged(level: int, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    LogHandler(as_json=as_json).emit(logging.LogRecord("demail_hw", level, "", 0, "reader %s", (EVIL,), None))
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    assert shown[:-1].isprintable()
    if as_json:
        assert f"reader {EVIL}" in json.loads(shown).values()
    else:
        assert SHOWN in shown


@pytest.mark.parametrize("as_json", [True, False])
def test_usage_errors(as_json: bool) -> None:
    shown = usage_report(click.UsageError(f"there is no {EVIL}"), ExitCode.USAGE, as_json=as_json)
    assert all(line.isprintable() for line in shown.split("\n"))
    if as_json:
        assert json.loads(shown)["error"]["message"] == f"there is no {EVIL}."
    else:
        assert r"a\x1b]0;b\x07\u202ec\x9bd" in shown


def test_the_lines_in_which_choices_are_listed_stay() -> None:
    shown = usage_report(click.UsageError("Choose from:\n\tone,\n\ttwo"), ExitCode.USAGE, as_json=False)
    assert "Choose from:\n\tone,\n\ttwo." in shown
