"""What a command prints: text for people, or one JSON object; files only after all went well."""

import base64
import contextlib
import errno
import json
import logging
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import click

from demail_hw.cli.file_access import FileAccess
from demail_hw.errors import HardwareError
from demail_hw.foreign_text import printable

__all__ = [
    "JSON_OPTION",
    "USUAL",
    "JsonValue",
    "LogHandler",
    "Report",
    "check_output",
    "declined_report",
    "deliver",
    "end_line",
    "error_report",
    "internal_report",
    "interrupted_report",
    "json_option",
    "os_errors_of",
    "printable",
    "usage_report",
    "write_output",
]

JSON_OPTION: Final = "--json"
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o666  # less the umask
_ABSENT: Final = frozenset({errno.ENOENT, errno.ELOOP})  # links in a circle are written over
_FILE_REMEDIES: Final = {
    errno.ENOENT: "Make its folder first, or name another file.",
    errno.ENOSPC: "Make room there, or name another file.",
}
_ANOTHER_FILE: Final = "Name another file, or see what kind of file it is and who may use it."

USUAL: Final = FileAccess()

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


class Report:
    """Prints a command's result, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, result: Mapping[str, JsonValue], text: str) -> None:
        """Print ``result`` as JSON, or ``text``."""
        with os_errors_of("-"):
            click.echo(_json(result) if self.as_json else text)

    def note(self, text: str, **facts: JsonValue) -> None:
        """Tell on standard error what went well meanwhile, if anybody reads there. ``facts``: the same for
        programs."""
        with contextlib.suppress(OSError):  # a terminal that was closed
            click.echo(_json({"note": text, **facts}) if self.as_json else f"demail-hw: {printable(text)}", err=True)


def _json(value: Mapping[str, JsonValue]) -> str:
    """One line of JSON. What is not to be printed can stand in its strings alone."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def error_report(error: HardwareError, code: int, *, as_json: bool) -> str:
    """An error for standard error: one sentence with its layer and remedy, or a JSON object."""
    if not as_json:
        return f"demail-hw: {printable(str(error))}"  # it may quote a reader, a card or a server
    facts: dict[str, JsonValue] = {
        "type": type(error).__name__,
        "message": error.message,
        "layer": error.layer.value,
        "outcome": error.outcome.value,
        "transient": error.transient,
        "remedy": error.remedy,
        "exit_code": code,
    }
    return _json({"error": facts})


def usage_report(error: click.ClickException, code: int, *, as_json: bool) -> str:
    """An error of the command line itself, for standard error: its words, or a file that it names."""
    message, remedy = _usage_message(error), _usage_remedy(error)
    if as_json:
        return _facts_of_another(type(error).__name__, message, remedy, code)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return message  # the help itself
    context = error.ctx if isinstance(error, click.UsageError) else None
    usage = f"{context.get_usage()}\n" if context else ""
    return f"{usage}demail-hw: {_lines(message)}{f' Remedy: {_lines(remedy)}' if remedy else ''}"


def _lines(text: str) -> str:
    """As :func:`printable`, but with the lines and tabs in which click lists the choices."""
    return "".join(each if each in "\n\t" else printable(each) for each in text)


def _usage_message(error: click.ClickException) -> str:
    if isinstance(error, click.FileError):
        what = "Standard output" if error.filename == "-" else f"The file {error.ui_filename!r}"
        return f"{what} cannot be used: {error.message}."
    message = error.format_message()
    return message if message.endswith((".", "?", ")")) else f"{message}."


def _usage_remedy(error: click.ClickException) -> str:
    if isinstance(error, click.FileError):
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return _FILE_REMEDIES.get(number or 0, _ANOTHER_FILE)
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return ""
    root = context.find_root()
    if isinstance(error, click.NoSuchOption) and context is not root and _has_option(root, error.option_name):
        command = context.command_path.removeprefix(f"{root.command_path} ")
        return f"It goes before the command: {root.command_path} {error.option_name} {command} ..."
    return _command_taken_for_a_value(context) or f"See {context.command_path} --help."


def _has_option(context: click.Context, name: str) -> bool:
    return any(name in parameter.opts for parameter in context.command.params)


def _command_taken_for_a_value(context: click.Context) -> str:
    """An option before the command whose value was forgotten took the command for it."""
    group = context.command
    if not isinstance(group, click.Group):
        return ""
    commands = group.list_commands(context)
    for option in group.params:
        value = str(context.params.get(option.name or ""))
        if option.metavar and value in commands:
            said = f"{context.command_path} {option.opts[0]}"
            return (
                f"{option.opts[0]} took {value} for its {option.metavar}: write {said} {option.metavar} {value} ..."
            )
    return ""


def declined_report(error: click.exceptions.Exit, code: int, *, as_json: bool) -> str:
    """A question that was answered with no, for standard error."""
    message = "Nothing was done."
    return _facts_of_another(type(error).__name__, message, "Answer with y to go on.", code) if as_json else message


def interrupted_report(code: int, *, as_json: bool) -> str:
    """Ctrl-C, or the end of the input at a question, for standard error."""
    return _facts_of_another("Interrupted", "Interrupted.", "", code) if as_json else "demail-hw: interrupted"


def end_line() -> None:
    """Where somebody was asked and did not answer, the question stands at the terminal yet."""
    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(err=True)


def internal_report(error: Exception, code: int, *, as_json: bool) -> str:
    """An error that nobody foresaw, for standard error. Its own text is not shown: it may hold anything."""
    kind = type(error).__name__
    message = f"Internal error, please report it: {kind}."
    remedy = "Report it with what demail-hw -v COMMAND prints, which says where it was."
    return _facts_of_another(kind, message, remedy, code) if as_json else f"demail-hw: {message} Remedy: {remedy}"


def _facts_of_another(kind: str, message: str, remedy: str, code: int) -> str:
    facts: dict[str, JsonValue] = {
        "type": kind,
        "message": message,
        "remedy": remedy,
        "exit_code": code,
    }
    return _json({"error": facts})


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """``--json`` for a command, which gets a :class:`Report` named ``report``."""

    def to_report(context: click.Context, parameter: click.Parameter, value: bool) -> Report:  # noqa: ARG001  click's signature
        return Report(as_json=value)

    return click.option(JSON_OPTION, "report", is_flag=True, callback=to_report, help="Print one JSON object.")(
        function
    )


@contextlib.contextmanager
def os_errors_of(path: str | Path) -> Iterator[None]:
    """What the operating system has against a file becomes an error of the command line."""
    try:
        yield
    except BrokenPipeError:  # nobody reads any more: no error of ours
        raise
    except OSError as error:
        raise click.FileError(str(path), error.strerror or "it cannot be used") from error


class LogHandler(logging.Handler):
    """Tells on standard error what is logged: a line each, or a JSON object each."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        level, message = record.levelname.lower(), record.getMessage()
        if self._as_json:
            click.echo(_json({level: message, "logger": record.name}), err=True)
        elif record.levelno >= logging.WARNING:
            click.echo(f"demail-hw: {level}: {printable(message)}", err=True)
        else:
            click.echo(f"{record.name}: {printable(message)}", err=True)


def deliver(
    report: Report,
    path: str,
    content: bytes,
    facts: Mapping[str, JsonValue],
    text: str,
    *,
    private: bool = False,
    access: FileAccess = USUAL,
) -> None:
    """Write a result where it belongs, and report on it.

    What goes to standard output is the result alone; with ``--json`` it is in the object, as ``content`` in Base64.
    """
    result: dict[str, JsonValue] = {"output": path, "bytes": len(content), **facts}
    if path == "-" and report.as_json:
        report.show({**result, "content": base64.b64encode(content).decode()}, "")
        return
    write_output(path, content, private=private, access=access)
    if path != "-":
        report.show(result, f"{path}: {len(content)} bytes{text}")


def check_output(path: str) -> None:
    """Find out whether :func:`write_output` can write there, before anything is done for it. A file that is there
    stays as it is."""
    with os_errors_of(path):
        if path == "-":
            _require_standard_output()
            return
        target = Path(os.path.realpath(path))
        mode = _mode_of(target)
        if mode is None or stat.S_ISREG(mode):
            draft, descriptor = _new_draft(target, _PRIVATE)
            os.close(descriptor)
            draft.unlink()
        elif stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _mode_of(target: Path) -> int | None:
    try:
        return target.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def write_output(path: str, content: bytes, *, private: bool = False, access: FileAccess = USUAL) -> None:
    """Write a result to a file, or to standard output for ``-``.

    The file appears whole or not at all: it is written beside its place and renamed. A file that was there keeps its
    mode, and a link stays one; a new one that is ``private`` is for its owner alone. ``access`` is set before
    there is anything in it to read.
    """
    with os_errors_of(path):
        if path == "-":
            _write_standard_output(content)
            return
        target = Path(os.path.realpath(path))  # Path.resolve() raises a RuntimeError for links in a circle
        if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
            target.write_bytes(content)
        else:
            _replace(target, content, _PRIVATE if private else _PUBLIC, access)


def _require_standard_output() -> None:
    if sys.stdout is None:
        raise click.FileError("-", "standard output is closed")


def _write_standard_output(content: bytes) -> None:
    _require_standard_output()
    # Not through sys.stdout: what it cannot write it keeps, and it fails once more when Python ends.
    with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
        stream.write(content)


def _replace(target: Path, content: bytes, new_mode: int, access: FileAccess) -> None:
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    draft, descriptor = _new_draft(target, new_mode if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if mode is not None:
                os.fchmod(descriptor, mode)
            access.apply(descriptor)
            stream.write(content)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _new_draft(target: Path, mode: int) -> tuple[Path, int]:
    """A new file beside ``target``, and its descriptor."""
    draft = target.with_name(f".demail-hw-{secrets.token_hex(8)}")
    return draft, os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
