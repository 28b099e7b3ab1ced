"""The ledgers of the PIN guard (:class:`~demail_hw.interfaces.PinLedger`): on disk, or in memory for simulated cards.

On disk there are two files for a card, both only for their owner: ``CARD.json`` with what is known of each of its
PINs, and ``CARD.lock``, which whoever reads the counter and sends a PIN holds locked (flock(2): the kernel lets it go
with the process). The first is written anew each time, synchronised with the disk, and then put in the place of the
old one.

Nothing in them tells a PIN, or lets one be guessed.
"""

import contextlib
import datetime
import fcntl
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

__all__ = ["FilePinLedger", "MemoryPinLedger", "ledger_for", "state_directory"]

_FOLDER: Final = "pins"
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_POLL_SECONDS: Final = 0.02
"""flock(2) knows no deadline; whoever holds the lock does so for one PIN command."""
_APPLICATION: Final = "demail-hw"


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
    :class:`~demail_hw.errors.PinRefused` if the ledger cannot be read or written: no PIN is sent without it.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / _FOLDER

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names; nothing is locked."""
        with self._refusing(card):
            return _read(self._path(card))

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_FilePage"]:
        """A card's page, for nobody else to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another process has it.
        """
        with contextlib.ExitStack() as stack:
            with self._refusing(card):
                self._make_folder()
                stack.enter_context(_locked(self._path(card).with_suffix(".lock"), deadline))
                page = _FilePage(self, card, _read(self._path(card)))
            yield page

    def replace(self, card: str, records: Mapping[str, PinRecord]) -> None:
        """Put this in the place of what is known of a card; it is on the disk when this returns."""
        with self._refusing(card):
            _replace(self._path(card), records)

    def _path(self, card: str) -> Path:
        if not card.isalnum():
            raise ValueError(f"{card!r} is no serial number of a card")
        return self._folder / f"{card}.json"

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        status = self._folder.stat()
        if status.st_mode & _FOREIGN_WRITE:
            raise PermissionError(None, "others may write there")

    @contextlib.contextmanager
    def _refusing(self, card: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PinRefused(
                f"The PIN ledger in {self._folder} cannot be used: {error.strerror or error}; no PIN is sent without "
                "it.",
                remedy="Let this user write there, or name another folder with --state-dir.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise PinRefused(
                f"The PIN ledger {self._path(card)} is broken; no PIN is sent without it.",
                remedy="See how many tries the card has left (demail-hw pin status), then delete that file.",
            ) from error


class _FilePage:
    """A :class:`~demail_hw.interfaces.PinPage` on disk."""

    def __init__(self, ledger: FilePinLedger, card: str, records: Mapping[str, PinRecord]) -> None:
        self._ledger = ledger
        self._card = card
        self._records = records

    @property
    def records(self) -> Mapping[str, PinRecord]:
        """By the PINs' names."""
        return self._records

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        """Note these, and forget those that are None."""
        changed = _changed(self._records, records)
        self._ledger.replace(self._card, changed)
        self._records = changed


def _changed(before: Mapping[str, PinRecord], changes: Mapping[str, PinRecord | None]) -> Mapping[str, PinRecord]:
    merged = {**before, **changes}
    return {name: record for name, record in merged.items() if record is not None}


@contextlib.contextmanager
def _locked(path: Path, deadline: Deadline) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        _own(descriptor, path.parent)
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise _busy("process")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _own(descriptor: int, folder: Path) -> None:
    """What root makes in the folder of a service's user is for that user to read and write."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _read(path: Path) -> Mapping[str, PinRecord]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {name: _decode(fields) for name, fields in content["pins"].items()}


def _replace(path: Path, records: Mapping[str, PinRecord]) -> None:
    content = {"pins": {name: _encode(record) for name, record in sorted(records.items())}}
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        _own(descriptor, path.parent)
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(descriptor)
    new.replace(path)
    _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(record: PinRecord) -> dict[str, Any]:
    return {
        "state": record.state.value,
        "operation": record.operation.value,
        "at": record.at.isoformat(timespec="seconds"),
        "retries_left": record.retries_left,
    }


def _decode(fields: Mapping[str, Any]) -> PinRecord:
    left = fields["retries_left"]
    if not (left is None or isinstance(left, int)):
        raise TypeError("retries_left is a number")
    return PinRecord(
        PinRecordState(fields["state"]),
        PinOperation(fields["operation"]),
        datetime.datetime.fromisoformat(fields["at"]),
        left,
    )


class MemoryPinLedger:
    """A ledger that ends with the process: for cards that do so too. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[str, _MemoryPage] = {}

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names."""
        return self._page(card).records

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_MemoryPage"]:
        """A card's page, for no other thread to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another thread has one.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _busy("thread")
        try:
            yield self._page(card)
        finally:
            self._lock.release()

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
