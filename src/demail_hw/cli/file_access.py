"""Whose a file is and who may read it: options of commands that write files for other software."""

import dataclasses
import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

__all__ = ["MODE", "OWNER", "FileAccess"]

_KEEP: Final = -1  # of chown(2)
_ALL_BITS: Final = 0o777
_OCTAL: Final = 8
_LARGEST_ID: Final = 0xFFFF_FFFE  # the next one is -1 to chown(2)


@dataclasses.dataclass(frozen=True, slots=True)
class FileAccess:
    """``mode``: of the file, or None for the usual one. ``owner``: user and group id, -1 for the usual one."""

    mode: int | None = None
    owner: tuple[int, int] | None = None

    @property
    def usual(self) -> bool:
        """True if nothing was said."""
        return self.mode is None and self.owner is None

    def need_file(self, path: str) -> None:
        """``click.UsageError`` if something was said and ``path`` is standard output, a device or a pipe."""
        if not self.usual and (path == "-" or (Path(path).exists() and not Path(path).is_file())):
            raise click.UsageError("--owner and --mode belong to a file (-o)")

    def apply(self, descriptor: int) -> None:
        """Give it to an open file. ``OSError`` if that is not allowed."""
        if self.owner is not None:
            os.fchown(descriptor, *self.owner)
        if self.mode is not None:
            os.fchmod(descriptor, self.mode)


class _ModeType(click.ParamType[int]):
    name = "mode"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        digits = value.removeprefix("0o")
        if not digits.isdecimal() or set(digits) & {"8", "9"} or int(digits, _OCTAL) > _ALL_BITS:
            self.fail(f"{value!r} is no mode such as 0640", param, ctx)
        return int(digits, _OCTAL)


class _OwnerType(click.ParamType[tuple[int, int]]):
    name = "owner"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        user, colon, group = value.partition(":")
        try:
            return (
                _number(user, lambda name: pwd.getpwnam(name).pw_uid),
                _number(group, lambda name: grp.getgrnam(name).gr_gid) if colon else _KEEP,
            )
        except (KeyError, ValueError):  # ValueError: a zero byte in the name, or more digits than Python reads
            self.fail(f"{value!r} is not USER[:GROUP] of this machine", param, ctx)


def _number(name: str, find: Callable[[str], int]) -> int:
    if not name.isdecimal():
        return find(name)
    if int(name) > _LARGEST_ID:
        raise ValueError(name)
    return int(name)


MODE: Final = _ModeType()
OWNER: Final = _OwnerType()
