"""The file that a trace, a capture or an audit is written to: which one may be taken for it, and who may read it."""

import errno
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from demail_hw.errors import ConfigurationError

__all__ = ["Mark", "create", "heading", "open_to_append"]

_PRIVATE: Final = 0o600
_WRITE: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MORE: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MORE_UNREAD: Final = _MORE & ~os.O_RDWR | os.O_WRONLY
_MOST_LINKS: Final = 40
"""As many as Linux follows (path_resolution(7))."""
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DISTRIBUTION: Final = "demail-hw"
_HEADING_SIZE: Final = 128
"""In bytes; more than what any :class:`Mark` takes."""


class Mark(NamedTuple):
    """By what a file of one kind is known: how it begins. ``private``: it is for its owner alone."""

    kind: str
    beginning: re.Pattern[bytes]
    private: bool = True


_TRACE: Final = Mark("trace", re.compile(rb"# demail-hw [^\r\n]{1,80}, trace begun [0-9]{4}-"))


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


def open_to_append(path: Path, mark: Mark) -> int:
    """A descriptor of a file that takes more of its kind: a new one for its owner alone; one that is there, and is
    empty or known by its ``mark``; a device or a pipe. What is private is not added to a file of somebody else, nor
    to one behind a link. What is not may be: links of root and of us are followed, and the mark counts if it may be
    read.

    Errors: as :func:`create`.
    """
    descriptor = _open_or_make(path if mark.private else _followed(path), mark)
    os.set_blocking(descriptor, True)
    return descriptor


def _open_or_make(path: Path, mark: Mark) -> int:
    there = _lstat(path)
    if there is not None:
        return _open_more(path, mark) if stat.S_ISREG(there.st_mode) else _open_special(path, there)
    try:
        return _make(path)
    except FileExistsError:  # another process made it
        return _open_more(path, mark)


def _followed(path: Path) -> Path:
    """Where trusted links lead; a device or a pipe is opened by its link."""
    if path.exists() and not path.is_file():
        return path
    for _ in range(_MOST_LINKS):
        there = _lstat(path)
        if there is None or not stat.S_ISLNK(there.st_mode):
            return path
        _require_trusted(there)
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _open_more(path: Path, mark: Mark) -> int:
    descriptor, readable = _open_there(path, mark)
    try:
        if readable:
            _require_own(path, os.read(descriptor, _HEADING_SIZE), mark)
        there = os.fstat(descriptor)
        if mark.private and there.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user")
        if mark.private and not there.st_size:
            os.fchmod(descriptor, _PRIVATE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_there(path: Path, mark: Mark) -> tuple[int, bool]:
    """A descriptor, and whether it can be read: a service may be allowed to append and no more."""
    try:
        return os.open(path, _MORE), True
    except PermissionError:
        if mark.private:
            raise
        return os.open(path, _MORE_UNREAD), False


def _open(path: Path) -> int:
    there = _lstat(path)
    if there is None:
        return _make(path)
    if not stat.S_ISREG(there.st_mode):
        return _open_special(path, there)
    _require_own(path, _beginning(path), _TRACE)
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


def _beginning(path: Path) -> bytes:
    descriptor = os.open(path, _LOOK)
    try:
        return os.read(descriptor, _HEADING_SIZE)
    finally:
        os.close(descriptor)


def _require_own(path: Path, beginning: bytes, mark: Mark) -> None:
    if beginning and not mark.beginning.match(beginning):
        raise ConfigurationError(
            f"The file {path} is there already and is no {mark.kind} that was written here; it was left as it is.",
            file=str(path),
            remedy=f"Name another file for the {mark.kind}, or delete that one first.",
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


def _require_trusted(there: os.stat_result) -> None:
    if there.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it is a link or a pipe of another user")


def _open_special(path: Path, there: os.stat_result) -> int:
    """A device or a pipe, or a link to one."""
    is_link = stat.S_ISLNK(there.st_mode)
    if is_link or stat.S_ISFIFO(there.st_mode):
        _require_trusted(there)
    # Without O_NONBLOCK a pipe that nobody reads would be waited for.
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if is_link else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a link to a file" if is_link else "it has just been replaced")
    return descriptor
