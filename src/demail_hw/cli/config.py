"""``demail-hw config``: which configuration counts, and whether it is right."""

import dataclasses
import enum
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from demail_hw.cli.config_checks import mistakes_in, warnings_about
from demail_hw.cli.output import JsonValue, Report, json_option, printable
from demail_hw.config.loading import (
    Problem,
    configuration_schema,
    load_configuration,
    problems_in,
    read_configuration,
    read_text,
)
from demail_hw.config.place import find_configuration, search_path
from demail_hw.errors import ConfigurationError

__all__ = ["config_command"]

_NONE: Final = "no configuration: none of these files is there"


@click.group("config")
def config_command() -> None:
    """Which configuration counts, and whether it is right. Another file: demail-hw --config FILE config ..."""


@config_command.command("path")
@json_option
def path_command(report: Report) -> None:
    """Where the configuration is looked for; the first file that is there counts."""
    found = find_configuration()
    places = search_path()
    lines = [f"{'*' if place == found else ' '} {place}" for place in places]
    facts: dict[str, JsonValue] = {
        "path": None if found is None else str(found),
        "searched": [str(place) for place in places],
    }
    report.show(facts, "\n".join(lines if found else [_NONE, *lines]))


@config_command.command("check")
@json_option
def check_command(report: Report) -> None:
    """Tell what is wrong in it, with the lines; exit code 9 then. Nobody is asked, and no device is looked for.

    A file for TLS or PINs that this user cannot use is a warning. What a value means is looked at once nothing is
    written wrong: mend what is told, and check again.
    """
    found = find_configuration()
    problems, warnings = ((), ()) if found is None else _findings(found)
    facts: dict[str, JsonValue] = {
        "path": None if found is None else str(found),
        "problems": [problem._asdict() for problem in problems],
        "warnings": [warning._asdict() for warning in warnings],
    }
    report.show(facts, _verdict(found, problems, warnings))
    if problems:
        raise ConfigurationError(
            f"The configuration {found} is not right.",
            file=str(found),
            line=problems[0].line,
            remedy="Mend what is told above and check again: more may be behind it.",
        )


def _findings(path: Path) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """What is wrong, and what is only a warning."""
    problems = problems_in(read_text(path))
    if problems:
        return problems, ()
    loaded = read_configuration(path)
    return mistakes_in(loaded), warnings_about(loaded)


@config_command.command("show")
@json_option
def show_command(report: Report) -> None:
    """Show what it says, with what holds where it says nothing."""
    facts = _plain(dataclasses.asdict(load_configuration()))
    assert isinstance(facts, dict)
    report.show(facts, json.dumps(facts, indent=2, ensure_ascii=False))


@config_command.command("schema")
@json_option
def schema_command(report: Report) -> None:
    """Print its JSON schema, which an editor can check with."""
    schema = configuration_schema()
    report.show(schema, json.dumps(schema, indent=2))


def _verdict(found: Path | None, problems: Sequence[Problem], warnings: Sequence[Problem]) -> str:
    if found is None:
        return _NONE
    told = [_line(found, problem) for problem in problems] or [f"{found}: all right"]
    return "\n".join([*told, *(_line(found, each, "warning, as this user sees it: ") for each in warnings)])


def _line(path: Path, problem: Problem, kind: str = "") -> str:
    where = f"{path}:{problem.line}" if problem.line else str(path)
    key = f"{problem.key}: " if problem.key else ""
    remedy = f". {problem.remedy}" if problem.remedy else ""
    return printable(f"{where}: {kind}{key}{problem.message}{remedy}")


def _plain(value: object) -> JsonValue:
    match value:
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case enum.Enum():
            return str(value.value)
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)
