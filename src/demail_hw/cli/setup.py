"""``demail-hw setup``: rules and units for the system, shown or installed."""

import logging
import stat
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from demail_hw.cli.consent import ask, need_somebody
from demail_hw.cli.output import JsonValue, Report, json_option, os_errors_of, write_output

if TYPE_CHECKING:
    from demail_hw_drivers.system_pieces import SystemPiece

__all__ = ["setup_command"]

_LOG = logging.getLogger(__name__)

_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755
_SAME: Final = "unchanged"
_NEW: Final = "new"
_OTHER: Final = "replaced"
_ROOT: Final = Path("/")
_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108  named, not used
"""What ProtectHome= and PrivateTmp= keep from a unit (systemd.exec(5))."""
_WOULD: Final = {_SAME: "is there already", _NEW: "would be written", _OTHER: "would be replaced: it is another one"}


class _PieceType(click.ParamType["SystemPiece"]):
    name = "name"

    def convert(
        self, value: "str | SystemPiece", param: click.Parameter | None, ctx: click.Context | None
    ) -> "SystemPiece":
        from demail_hw_drivers.system_pieces import PIECES, piece

        if not isinstance(value, str):
            return value
        try:
            return piece(value)
        except KeyError:
            self.fail(f"{value!r} is none of {', '.join(each.name for each in PIECES)}", param, ctx)


def _program(context: click.Context, parameter: click.Parameter, path: str | None) -> str:  # noqa: ARG001  click's signature
    """The program that is to run: this one, where it is not said."""
    from demail_hw_drivers.system_pieces import PROGRAM

    mine = Path(sys.executable).with_name("demail-hw")
    program = path or (str(mine) if mine.exists() else PROGRAM)
    if not program.startswith("/") or not program.isprintable() or set(program) & set(" \t%$\"'\\"):
        raise click.BadParameter(f"{program!r} is no absolute path that a unit can name", param=parameter)
    return program


_program_option = click.option(
    "--program",
    metavar="PATH",
    callback=_program,
    help="Where demail-hw is, for the units.  [default: this one, as an absolute path]",
)


@click.group("setup")
def setup_command() -> None:
    """Rules and units for the system: udev, polkit, systemd. Each is a file, shown or installed; what gives it effect
    is said, and not done."""


@setup_command.command("list")
@json_option
def list_command(report: Report) -> None:
    """List them, and where they belong."""
    from demail_hw_drivers.system_pieces import PIECES

    width = max(len(each.name) for each in PIECES)
    text = "\n".join(f"{each.name:{width}}  {each.target}\n{'':{width}}  {each.what}" for each in PIECES)
    report.show({"pieces": [_facts(each) for each in PIECES]}, text)


@setup_command.command("show")
@click.argument("piece", metavar="NAME", type=_PieceType())
@_program_option
@json_option
def show_command(piece: "SystemPiece", program: str, report: Report) -> None:
    """Print one of them."""
    text = piece.text(program)
    report.show({**_facts(piece), "content": text}, text.rstrip("\n"))


@setup_command.command("install")
@click.argument("pieces", metavar="NAME...", type=_PieceType(), nargs=-1, required=True)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default="/",
    show_default=True,
    help="The file system to install into, such as that of an image.",
)
@_program_option
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a file with other contents is replaced.")
@json_option
def install_command(
    pieces: "Sequence[SystemPiece]", root: Path, program: str, dry_run: bool, yes: bool, report: Report
) -> None:
    """Write them where they belong. What is there already and differs is replaced only after a yes."""
    states = {each: _state(each, root, program) for each in dict.fromkeys(pieces)}
    others = [str(_target(each, root)) for each, state in states.items() if state == _OTHER]
    if others and not dry_run:
        found = f"others are there already: {', '.join(others)}"
        need_somebody(yes=yes, why=found)
        ask(f"{found.capitalize()}. Replace them?", yes=yes)
    for each, state in states.items():
        if state != _SAME and not dry_run:
            _write(_target(each, root), each.text(program))
    facts: list[JsonValue] = [
        {**_facts(each), "path": str(_target(each, root)), "state": state} for each, state in states.items()
    ]
    lines = [_line(each, root, state, dry_run=dry_run) for each, state in states.items()]
    missing = [each.name for each in _needed(states) if _state(each, root, program) == _NEW]
    to_root = "" if root == _ROOT else f" --root {root}"
    hints = [f"Needed too: demail-hw setup install{to_root} {' '.join(missing)}"] if missing else []
    _warn_of_hidden(states, program)
    report.show({"installed": facts, "done": not dry_run, "needed": [*missing]}, "\n".join([*lines, *hints]))


def _facts(piece: "SystemPiece") -> dict[str, JsonValue]:
    return {
        "name": piece.name,
        "target": str(piece.target),
        "what": piece.what,
        "then": piece.then,
        "needs": [*piece.needs],
    }


def _target(piece: "SystemPiece", root: Path) -> Path:
    return root / piece.target.relative_to("/")


def _state(piece: "SystemPiece", root: Path, program: str) -> str:
    target = _target(piece, root)
    with os_errors_of(target):
        try:
            before = target.read_bytes()
        except FileNotFoundError:
            return _NEW
    return _SAME if before == piece.text(program).encode() else _OTHER


def _write(target: Path, text: str) -> None:
    """Whole or not at all, and readable for everybody whatever the umask: udev and polkit run as other users."""
    with os_errors_of(target):
        for folder in (folder for folder in reversed(target.parents) if not folder.exists()):
            folder.mkdir()
            folder.chmod(_FOLDER_MODE)
    new = not target.exists()
    write_output(str(target), text.encode())
    if new and stat.S_IMODE(target.stat().st_mode) != _MODE:
        with os_errors_of(target):
            target.chmod(_MODE)


def _line(piece: "SystemPiece", root: Path, state: str, *, dry_run: bool) -> str:
    path = _target(piece, root)
    if dry_run:
        return f"{path} {_WOULD[state]}"
    where = "" if root == _ROOT else " on that system"
    then = "" if state == _SAME else f". Then{where}: {piece.then}"
    return f"{path}: {state}{then}"


def _needed(pieces: "Collection[SystemPiece]") -> "Sequence[SystemPiece]":
    """What these need and is not among them."""
    from demail_hw_drivers.system_pieces import PIECES

    needs = {need for each in pieces for need in each.needs} - {each.name for each in pieces}
    return [each for each in PIECES if each.name in needs]


def _warn_of_hidden(pieces: "Collection[SystemPiece]", program: str) -> None:
    if not any(Path(program).is_relative_to(folder) for folder in _HIDDEN):
        return
    for each in pieces:
        if each.text(program) != each.text():
            _LOG.warning(
                "%s names %s, which services cannot see: install demail-hw elsewhere, or name it with --program",
                each.target.name,
                program,
            )
