"""The documents hold: every Python block runs, each file in one namespace, in order (what needs PC/SC does in
tests/real); every link leads somewhere; every command line is one that the command understands."""

import pathlib
import re
import shlex

import click
import pytest

from demail_hw.cli.main import _group
from documents import ALL_BLOCKS, DOCUMENTS, PCSC_BLOCKS, PLAIN_BLOCKS, blocks, name, run_blocks

COMMAND = re.compile(r"^\$ demail-hw (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)")


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if any(blocks(path, PLAIN_BLOCKS))], ids=name)
@pytest.mark.filterwarnings("ignore:the PIN comes from the environment:RuntimeWarning")
def test_python_blocks_run(path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMAIL_PIN", "123456")
    run_blocks(path, PLAIN_BLOCKS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_no_python_block_is_left_out(path: pathlib.Path) -> None:
    run_somewhere = [*blocks(path, PLAIN_BLOCKS), *blocks(path, PCSC_BLOCKS)]
    assert sorted(run_somewhere) == sorted(blocks(path, ALL_BLOCKS))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files(path: pathlib.Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def _behind_the_options(command: click.Command, words: list[str]) -> list[str]:
    """What stands behind the options of the whole program, all of which it has to know."""
    options = {name: each for each in command.params if isinstance(each, click.Option) for name in each.opts}
    while words[0].startswith("-"):
        words = words[1 if options[words[0]].is_flag else 2 :]
    return words


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the words that are left for it."""
    command: click.Command = _group
    words = _behind_the_options(_group, words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_command_lines_are_understood(path: pathlib.Path) -> None:
    for line in COMMAND.findall(path.read_text(encoding="utf-8")):
        command, words = resolve(shlex.split(line))
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
