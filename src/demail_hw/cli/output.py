"""What a command prints: text for people, or one JSON object; files only after all went well."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import click

from demail_hw.errors import HardwareError

__all__ = ["JsonValue", "Report", "error_report", "json_option", "write_output"]

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


class Report:
    """Prints a command's result, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, result: Mapping[str, JsonValue], text: str) -> None:
        """Print ``result`` as JSON, or ``text``."""
        click.echo(json.dumps(result, ensure_ascii=False) if self.as_json else text)


def error_report(error: HardwareError, code: int, *, as_json: bool) -> str:
    """An error for standard error: one sentence with its layer and remedy, or a JSON object."""
    if not as_json:
        return f"demail-hw: {error}"
    facts = {
        "type": type(error).__name__,
        "message": error.message,
        "layer": error.layer.value,
        "outcome": error.outcome.value,
        "transient": error.transient,
        "remedy": error.remedy,
        "exit_code": code,
    }
    return json.dumps({"error": facts}, ensure_ascii=False)


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """``--json`` for a command, which gets a :class:`Report` named ``report``."""

    def to_report(context: click.Context, parameter: click.Parameter, value: bool) -> Report:  # noqa: ARG001  click's signature
        context.find_root().meta["as_json"] = value
        return Report(as_json=value)

    option = click.option(
        "--json", "report", is_flag=True, is_eager=True, callback=to_report, help="Print one JSON object."
    )
    return option(function)


def write_output(path: str, content: bytes) -> None:
    """Write a result to a file, or to standard output for ``-``.

    The file appears whole or not at all: it is written beside its place and renamed.
    """
    if path == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
        target.write_bytes(content)
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise click.FileError(path, error.strerror or "cannot be written") from error
