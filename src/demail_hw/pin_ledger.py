"""The ledgers of the PIN guard (:class:`~demail_hw.interfaces.PinLedger`): on disk, or in memory for simulated cards.

On disk there are two files for a card, both only for their owner: ``CARD.json`` with what is known of each of its
PINs, and ``CARD.lock``, which whoever reads the counter and sends a PIN holds locked (flock(2): the kernel lets it go
with the process). The first is written anew each time, synchronised with the disk, and then put in the place of the
old one.

Nothing in them tells a PIN, or lets one be guessed.
"""

import contextlib
import datetime
import errno
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeadlineExceeded, Layer, Outcome, PinRefused
from demail_hw.interfaces import Deadline, PinLedger, PinOperation, PinRecord, PinRecordState
from demail_hw.registry import reader_driver

try:
    # Not where it is used: a process that can open no more files could not import it then.
    import fcntl
except ImportError:  # there is no Windows that has it
    fcntl = None  # type: ignore[assignment]

__all__ = ["FilePinLedger", "MemoryPinLedger", "ledger_for", "state_directory"]

_FOLDER: Final = "pins"
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_POLL_SECONDS: Final = 0.02
"""flock(2) knows no deadline; whoever holds the lock does so for one PIN command."""
_APPLICATION: Final = "demail-hw"
_MOST_TRIES: Final = 15
"""What fits into the status word 63Cx (ISO 7816-4, 5.6)."""
_LET_IT_WRITE: Final = "Let this user write there, or name another folder with --state-dir."
_MAKE_ROOM: Final = "Make room there, or name another folder with --state-dir."
_MORE_FILES: Final = "Let this process open more files (LimitNOFILE= of a systemd unit)."
_REMEDIES: Final[Mapping[int | None, str]] = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: _MAKE_ROOM,
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
}


def state_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where what must outlive a process is kept: ``$STATE_DIRECTORY`` of a systemd unit (systemd.exec(5),
    StateDirectory=), else ``demail-hw`` in ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory, 3).

    Errors: :class:`~demail_hw.errors.ConfigurationError` where there is no home either.
    """
    variables = os.environ if environment is None else environment
    given = variables.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = Path(variables.get("XDG_STATE_HOME", ""))
    if base.is_absolute():  # "paths must be absolute", else they are to be ignored
        return base / _APPLICATION
    home = variables.get("HOME", "")
    if not home:
        raise ConfigurationError(
            "There is no folder for what must outlive this process: neither STATE_DIRECTORY nor HOME is set.",
            remedy="Add StateDirectory= to the systemd unit, or name a folder with --state-dir.",
        )
    return Path(home) / ".local" / "state" / _APPLICATION


def ledger_for(address: Address, *, directory: Path | None = None) -> PinLedger:
    """The ledger of the card that an address means: files in ``directory`` or :func:`state_directory`, but in memory
    if the card ends with this process.

    Errors: as for :func:`state_directory`.
    """
    if reader_driver(address.scheme).in_process:
        return MemoryPinLedger()
    return FilePinLedger(directory or state_directory())


class FilePinLedger:
    """A ledger in a folder, shared by all processes that have the folder. Safe for several threads.

    ``directory``: see :func:`state_directory`; it is made when the first PIN is to be sent. Every method raises
    :class:`~demail_hw.errors.PinRefused` if the ledger cannot be read or written: no PIN is sent without it; and
    :class:`~demail_hw.errors.ConfigurationError` on a system without flock(2).
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / _FOLDER

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names; nothing is locked."""
        _require_locks()
        with self._refusing():
            return _read(self._path(card))

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_FilePage"]:
        """A card's page, for nobody else to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another process has it.
        """
        _require_locks()
        with contextlib.ExitStack() as stack:
            with self._refusing():
                _make_private(self._folder)
                stack.enter_context(_locked(self._path(card).with_suffix(".lock"), deadline))
                page = _FilePage(self, card, _read(self._path(card)))
            yield page

    def replace(self, card: str, records: Mapping[str, PinRecord]) -> None:
        """Put this in the place of what is known of a card; it is on the disk when this returns."""
        with self._refusing():
            _replace(self._path(card), records)

    def _path(self, card: str) -> Path:
        if not card.isalnum():
            raise ValueError(f"{card!r} is no serial number of a card")
        return self._folder / f"{card}.json"

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PinRefused(
                f"The PIN ledger in {self._folder} cannot be used: {error.strerror or error}; no PIN is sent without "
                "it.",
                remedy=_REMEDIES.get(error.errno, _LET_IT_WRITE),
            ) from error


class _FilePage:
    """A :class:`~demail_hw.interfaces.PinPage` on disk."""

    def __init__(self, ledger: FilePinLedger, card: str, records: Mapping[str, PinRecord]) -> None:
        self._ledger = ledger
        self._card = card
        self._records = records
        self._process = os.getpid()

    @property
    def records(self) -> Mapping[str, PinRecord]:
        """By the PINs' names."""
        return self._records

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        """Note these, and forget those that are None. Not for a child that was forked meanwhile."""
        if os.getpid() != self._process:
            raise PinRefused(
                "A page of the PIN ledger belongs to the process that opened it; nothing was sent.",
                remedy="Open the provider in the process that uses it.",
            )
        changed = _changed(self._records, records)
        self._ledger.replace(self._card, changed)
        self._records = changed


def _changed(before: Mapping[str, PinRecord], changes: Mapping[str, PinRecord | None]) -> Mapping[str, PinRecord]:
    merged = {**before, **changes}
    return {name: record for name, record in merged.items() if record is not None}


def _require_locks() -> None:
    if fcntl is None:
        raise ConfigurationError(
            "The PIN ledger needs flock(2), which this system does not have; no PIN is sent without it.",
            remedy="Use a Unix, or give open_provider() a ledger of your own (ledger=).",
        )


@contextlib.contextmanager
def _locked(path: Path, deadline: Deadline) -> Iterator[None]:
    process = os.getpid()
    descriptor = _open_lock(path)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise _busy("process")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        # A child that was forked meanwhile has the lock too: closing alone would leave it to the child.
        if os.getpid() == process:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, flags: int) -> int:
    """No link is followed: who owns the folder must not send root to other files."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)


def _open_new(path: Path, flags: int) -> int:
    """``FileExistsError`` if it is there. What is there may be anybody's, and is not given to anybody."""
    descriptor = _open(path, flags | os.O_CREAT | os.O_EXCL)
    try:
        _own(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_lock(path: Path) -> int:
    try:
        return _open_new(path, os.O_RDWR)
    except FileExistsError:
        return _open(path, os.O_RDWR)


def _own(descriptor: int, folder: Path) -> None:
    """What root makes in the folder of a service's user is for that user to read and write."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _make_private(folder: Path) -> None:
    """Make the folder, and those above it; where it is there already, nobody else may write in it."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            _make_folder(each)
    if folder.stat().st_mode & _FOREIGN_WRITE:
        raise PinRefused(
            f"Others may write in {folder}, where the PIN ledger is; no PIN is sent.",
            remedy=f"See that nobody changed it, then: chmod go-w {folder}",
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER)
    except FileExistsError:  # another process was quicker
        return
    with _opened_folder(folder, os.O_NOFOLLOW) as descriptor:
        _own(descriptor, folder.parent)
    _synchronise(folder.parent)


@contextlib.contextmanager
def _opened_folder(folder: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _synchronise(folder: Path) -> None:
    with _opened_folder(folder) as descriptor:
        os.fsync(descriptor)


def _read(path: Path) -> Mapping[str, PinRecord]:
    try:
        # A pipe without a writer would be waited for; a regular file knows no waiting.
        descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read()
    try:
        return {name: _decode(fields) for name, fields in json.loads(content)["pins"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PinRefused(
            f"The PIN ledger {path} is broken; no PIN is sent without it.",
            remedy="See how many tries the card has left (demail-hw pin status), then delete that file.",
        ) from error


def _replace(path: Path, records: Mapping[str, PinRecord]) -> None:
    content = {"pins": {name: _encode(record) for name, record in sorted(records.items())}}
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # of a process that was killed
    descriptor = _open_new(new, os.O_WRONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(descriptor)
    new.replace(path)
    _synchronise(path.parent)


def _encode(record: PinRecord) -> dict[str, Any]:
    return {
        "state": record.state.value,
        "operation": record.operation.value,
        "at": record.at.isoformat(timespec="seconds"),
        "retries_left": record.retries_left,
    }


def _decode(fields: Mapping[str, Any]) -> PinRecord:
    at = datetime.datetime.fromisoformat(fields["at"])
    if at.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return PinRecord(
        PinRecordState(fields["state"]), PinOperation(fields["operation"]), at, _decode_tries(fields["retries_left"])
    )


def _decode_tries(left: Any) -> int | None:
    if left is None or (type(left) is int and 0 <= left <= _MOST_TRIES):
        return left
    raise ValueError("no counter of a card")


class MemoryPinLedger:
    """A ledger that ends with the process: for cards that do so too. Safe for several threads."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._pages: dict[str, _MemoryPage] = {}

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names."""
        return self._page(card).records

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_MemoryPage"]:
        """A card's page, for no other thread to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another thread has it.
        """
        lock = self._locks.setdefault(card, threading.Lock())
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _busy("thread")
        try:
            yield self._page(card)
        finally:
            lock.release()

    def _page(self, card: str) -> "_MemoryPage":
        return self._pages.setdefault(card, _MemoryPage())


class _MemoryPage:
    """A :class:`~demail_hw.interfaces.PinPage` in memory."""

    def __init__(self) -> None:
        self._records: Mapping[str, PinRecord] = {}

    @property
    def records(self) -> Mapping[str, PinRecord]:
        """By the PINs' names."""
        return self._records

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        """Note these, and forget those that are None."""
        self._records = _changed(self._records, records)


def _busy(who: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"Another {who} was busy with the PINs of this card until the deadline.",
        layer=Layer.KEYS,
        outcome=Outcome.NOT_SENT,
        transient=True,
    )
