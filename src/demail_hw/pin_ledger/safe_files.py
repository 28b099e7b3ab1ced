"""Folders, files and locks that nobody else can put something in the place of: no link is followed where another user
could make one, and a folder is opened once and used by its descriptor.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError, PinRefused
from demail_hw.interfaces import Deadline
from demail_hw.pin_ledger.pages import busy

try:
    # Not where it is used: a process that can open no more files could not import it then.
    import fcntl
except ImportError:  # there is no Windows that has it
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lock", "locked", "make_folder", "open_file", "open_new_file", "opened_folder", "require_locks"]

_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_SEARCH: Final[int] = getattr(os, "O_PATH", os.O_RDONLY)
"""A folder that is only gone through need not be readable, where the system knows that difference."""
_POLL_SECONDS: Final = 0.02
"""flock(2) knows no deadline; whoever holds the lock does so for one PIN command."""


def require_locks() -> None:
    """:class:`~demail_hw.errors.ConfigurationError` on a system without flock(2)."""
    if fcntl is None:
        raise ConfigurationError(
            "The PIN ledger needs flock(2), which this system does not have; no PIN is sent without it.",
            remedy="Use a Unix, or give open_provider() a ledger of your own (ledger=).",
        )


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A folder's descriptor, to the end of the ``with`` block. Links may lead to the folder above it, but it is none.

    Errors: ``OSError``, and :class:`~demail_hw.errors.PinRefused` if anybody else could change it or replace it.
    """
    with (
        _opened(folder.parent, _SEARCH) as parent,
        _opened(folder.name, os.O_RDONLY | os.O_NOFOLLOW, parent) as descriptor,
    ):
        above = os.fstat(parent)
        _check_mode(folder, os.fstat(descriptor).st_mode)
        if not above.st_mode & stat.S_ISVTX:  # where it is set, nobody renames what belongs to another
            _check_mode(folder.parent, above.st_mode)
        _check_owner(folder, os.fstat(descriptor).st_uid, above.st_uid)
        yield descriptor


@contextlib.contextmanager
def _opened(folder: Path | str, flags: int, parent: int | None = None) -> Iterator[int]:
    descriptor = os.open(folder, flags | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_mode(folder: Path, mode: int) -> None:
    if mode & _FOREIGN_WRITE:
        raise PinRefused(
            f"Others may write in {folder}, where the PIN ledger is; no PIN is sent.",
            remedy=f"See that nobody changed it, then: chmod go-w {folder}",
        )


def _check_owner(folder: Path, owner: int, owner_above: int) -> None:
    """Root may use the folder of the service whose folder it stands in, and that it made for that service."""
    user = os.geteuid()
    if owner != user and not (user == 0 and owner == owner_above):
        raise PinRefused(
            f"The folder of the PIN ledger, {folder}, belongs to another user (uid {owner}); no PIN is sent.",
            remedy="Run this as that user, or name another folder with --state-dir.",
        )


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, and those above it. Nothing is done where it is there."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            _make_one(each)


def _make_one(folder: Path) -> None:
    with _opened(folder.parent, os.O_RDONLY) as parent:
        try:
            os.mkdir(folder.name, _PRIVATE_FOLDER, dir_fd=parent)
        except FileExistsError:  # another process was quicker
            return
        with _opened(folder.name, os.O_RDONLY | os.O_NOFOLLOW, parent) as made:
            _own(made, parent)
        os.fsync(parent)


def _own(descriptor: int, folder: int) -> None:
    """What root makes in the folder of a service's user is for that user to read and write."""
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_file(folder: int, name: str, flags: int) -> int:
    """The descriptor of a file. No link is followed: who owns the folder must not send root to other files."""
    return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE, dir_fd=folder)


def open_new_file(folder: int, name: str, flags: int) -> int:
    """``FileExistsError`` if it is there. What is there may be anybody's, and is not given to anybody."""
    descriptor = open_file(folder, name, flags | os.O_CREAT | os.O_EXCL)
    try:
        _own(descriptor, folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Lock:
    """A file that this process has locked, and its folder with it: shared, against whoever would make the file anew
    (see :func:`locked`)."""

    def __init__(self, folder: int, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        self._descriptor = descriptor

    def stands(self) -> bool:
        """Whether the file is still there. If somebody replaced it, others lock another one of its name."""
        try:
            there = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def acquire(self) -> bool:
        """Whether it could be had at once."""
        return (
            _had(self._descriptor, fcntl.LOCK_EX)  # first: who waits for it keeps nobody from making another
            and _had(self._folder, fcntl.LOCK_SH)
            and self.stands()
        )

    def release(self) -> None:
        """A child that was forked meanwhile has the locks too: closing alone would leave them to the child."""
        for descriptor in (self._folder, self._descriptor):
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _had(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(folder: int, path: Path, deadline: Deadline, *, guards: str) -> Iterator[Lock]:
    """The lock that is the file ``path`` in ``folder``, to the end of the ``with`` block; tried once at the least.

    ``guards``: the file that nobody changes without the lock. Where it is there and its lock is not, somebody deleted
    the lock, which another process may hold all the same: it is made anew only when nobody holds any lock of the
    folder.

    Errors: ``OSError``; :class:`~demail_hw.errors.DeadlineExceeded` as long as another process has it.
    """
    process = os.getpid()
    lock = _wait(folder, path, deadline, guards)
    try:
        yield lock
    finally:
        if os.getpid() == process:
            lock.release()
        lock.close()


def _wait(folder: int, path: Path, deadline: Deadline, guards: str) -> Lock:
    while (lock := _try_lock(folder, path.name, guards)) is None:
        if time.monotonic() >= deadline:
            raise busy(
                "process",
                remedy=f"Another process, or a child of one that was killed, holds {path}: wait for it or end it "
                f"(fuser {path} names it), and do not delete that file.",
            )
        time.sleep(_POLL_SECONDS)
    return lock


def _try_lock(folder: int, name: str, guards: str) -> Lock | None:
    """Each time it is opened anew: a file that was deleted meanwhile locks nobody out."""
    descriptor = _open_lock(folder, name, guards)
    if descriptor is None:
        return None
    lock = Lock(folder, name, descriptor)
    try:
        if lock.acquire():
            return lock
        lock.release()
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _open_lock(folder: int, name: str, guards: str) -> int | None:
    """``None`` while it was deleted and may be held."""
    with contextlib.suppress(FileNotFoundError):
        return open_file(folder, name, os.O_RDWR)
    if not _is_there(folder, guards):
        return _make_lock(folder, name)
    if not _had(folder, fcntl.LOCK_EX):
        return None
    try:
        return _make_lock(folder, name)
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make_lock(folder: int, name: str) -> int:
    try:
        return open_new_file(folder, name, os.O_RDWR)
    except FileExistsError:  # another process was quicker
        return open_file(folder, name, os.O_RDWR)
