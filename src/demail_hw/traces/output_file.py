"""The file that a trace is written to: which one may be taken for it, and who may read it."""

import errno
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final, TextIO

from demail_hw.errors import ConfigurationError

__all__ = ["create", "heading"]

_PRIVATE: Final = 0o600
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DISTRIBUTION: Final = "demail-hw"
_HEADING: Final = re.compile(rb"# demail-hw [^\r\n]{1,80}, trace begun [0-9]{4}-")
_HEADING_SIZE: Final = 128
"""In bytes; more than what :data:`_HEADING` takes."""


def heading(version: str, moment: str) -> str:
    """The first line of a trace: by it :func:`create` knows its own again. ``moment``: as in ISO 8601."""
    return f"# {_DISTRIBUTION} {version}, trace begun {moment}"


def create(path: Path) -> TextIO:
    """A new file for its owner alone, or the device or the pipe that is there; each line goes out when it ends.

    A file that is there is replaced only if it is empty or begins with a :func:`heading`: any other is somebody's
    work, and its name was a slip.

    Errors: ``OSError``, :class:`~demail_hw.errors.ConfigurationError` for a file that is no trace of ours.
    """
    descriptor = _open(path)
    try:
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    except BaseException:
        os.close(descriptor)
        raise


def _open(path: Path) -> int:
    there = _lstat(path)
    if there is None:
        return _make(path)
    if not stat.S_ISREG(there.st_mode):
        return _open_special(path, there)
    _require_a_trace(path)
    return _replace(path)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _make(path: Path) -> int:
    """Nobody's file: one that has appeared meanwhile is an error."""
    descriptor = os.open(path, _WRITE, _PRIVATE)
    try:
        os.fchmod(descriptor, _PRIVATE)  # whatever the umask
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _require_a_trace(path: Path) -> None:
    descriptor = os.open(path, _LOOK)
    try:
        head = os.read(descriptor, _HEADING_SIZE)
    finally:
        os.close(descriptor)
    if head and not _HEADING.match(head):
        raise ConfigurationError(
            f"The file {path} is there already and is no trace that was written here; it was left as it is.",
            file=str(path),
            remedy="Name another file for the trace, or delete that one first.",
        )


def _replace(path: Path) -> int:
    """A new file in the place of ``path``: what was there may be open elsewhere, or belong to somebody else."""
    draft = path.with_name(f".demail-hw-{secrets.token_hex(8)}")
    descriptor = _make(draft)
    try:
        draft.replace(path)
    except BaseException:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    return descriptor


def _open_special(path: Path, there: os.stat_result) -> int:
    """A device or a pipe, or a link to one."""
    is_link = stat.S_ISLNK(there.st_mode)
    if (is_link or stat.S_ISFIFO(there.st_mode)) and there.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it is a link or a pipe of another user")
    # Without O_NONBLOCK a pipe that nobody reads would be waited for.
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if is_link else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a link to a file" if is_link else "it has just been replaced")
    return descriptor
