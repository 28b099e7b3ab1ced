"""Whose a file is and who may read it: options of commands that write files for other software."""

import dataclasses
import grp
import os
import pwd
from typing import Final

import click

__all__ = ["MODE", "OWNER", "FileAccess"]

_KEEP: Final = -1  # of chown(2)
_ALL_BITS: Final = 0o777
_OCTAL: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class FileAccess:
    """``mode``: of the file, or None for the usual one. ``owner``: user and group id, -1 for the usual one."""

    mode: int | None = None
    owner: tuple[int, int] | None = None

    @property
    def usual(self) -> bool:
        """True if nothing was said."""
        return self.mode is None and self.owner is None

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
            return _user(user), _group(group) if colon else _KEEP
        except KeyError:
            self.fail(f"{value!r} is not USER[:GROUP] of this machine", param, ctx)


def _user(name: str) -> int:
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


MODE: Final = _ModeType()
OWNER: Final = _OwnerType()
