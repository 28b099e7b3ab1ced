"""The ledger in files."""

import contextlib
import datetime
import errno
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from demail_hw.errors import PinRefused
from demail_hw.interfaces import Deadline, PinOperation, PinRecord, PinRecordState
from demail_hw.pin_ledger.pages import changed
from demail_hw.pin_ledger.safe_files import (
    Lock,
    locked,
    make_folder,
    open_file,
    open_new_file,
    opened_folder,
    require_locks,
)

__all__ = ["FilePinLedger"]

_FOLDER: Final = "pins"
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


class FilePinLedger:
    """A ledger in a folder, shared by all processes that have the folder. Safe for several threads.

    ``directory``: see :func:`~demail_hw.pin_ledger.state_directory`; it is made when the first PIN is to be sent.
    Every method raises :class:`~demail_hw.errors.PinRefused` if the ledger cannot be read or written, or others could
    change it: no PIN is sent without it; and :class:`~demail_hw.errors.ConfigurationError` on a system without
    flock(2).

    ``found``: the command line finds the folder itself, so that no remedy has to name it (``state_dir``).
    ``uri``: the card's address, for the command that a remedy names.
    """

    def __init__(self, directory: Path, *, found: bool = False, uri: str = "URI") -> None:
        self._folder = directory / _FOLDER
        self.state_dir: Final = None if found else str(directory)
        folder = "" if found else f" --state-dir {shlex.quote(str(directory))}"
        self._look = f"demail-hw{folder} pin status {shlex.quote(uri)}"

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs, by their names; nothing is locked."""
        require_locks()
        path = self._path(card)
        with _refusing(self._folder):
            try:
                with opened_folder(self._folder) as folder:
                    return _read(folder, path, self._look)
            except FileNotFoundError:
                return {}

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator["_FilePage"]:
        """A card's page, for nobody else to the end of the ``with`` block.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` as long as another process has it.
        """
        require_locks()
        path = self._path(card)
        with contextlib.ExitStack() as stack:
            with _refusing(self._folder):
                make_folder(self._folder)
                folder = stack.enter_context(opened_folder(self._folder))
                lock = stack.enter_context(locked(folder, path.with_suffix(".lock"), deadline, guards=path.name))
                page = _FilePage(folder, path, lock, look=self._look)
            yield page

    def _path(self, card: str) -> Path:
        if not card.isalnum():
            raise ValueError(f"{card!r} is no serial number of a card")
        return self._folder / f"{card}.json"


class _FilePage:
    """A :class:`~demail_hw.interfaces.PinPage` on disk. ``look``: the command that looks at the card."""

    def __init__(self, folder: int, path: Path, lock: Lock, *, look: str) -> None:
        self._folder = folder
        self._path = path
        self._lock = lock
        self._records = _read(folder, path, look)
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
        after = changed(self._records, records)
        with _refusing(self._path.parent):
            is_before = any(map(_is_pending, records.values()))
            if is_before:
                self._require_lock()
            _replace(self._folder, self._path, after)
            if is_before:  # until the first page was there, a lock that was deleted let others in
                self._require_lock()
        self._records = after

    def _require_lock(self) -> None:
        """Before a PIN is sent, but not after it: what became of that one is to be noted in any case."""
        if not self._lock.stands():
            raise PinRefused(
                f"Somebody deleted the lock {self._path.with_suffix('.lock')} while it was held; nothing was sent.",
                remedy="Leave the files of the PIN ledger where they are, and try again.",
            )


def _is_pending(record: PinRecord | None) -> bool:
    return record is not None and record.state is PinRecordState.PENDING


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PinRefused(
            f"The PIN ledger in {folder} cannot be used: {error.strerror or error}; no PIN is sent without it.",
            remedy=_REMEDIES.get(error.errno, _LET_IT_WRITE),
        ) from error


def _read(folder: int, path: Path, look: str) -> Mapping[str, PinRecord]:
    try:
        # A pipe without a writer would be waited for; a regular file knows no waiting.
        descriptor = open_file(folder, path.name, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read()
    try:
        return {name: _decode(fields) for name, fields in json.loads(content)["pins"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PinRefused(
            f"The PIN ledger {path} is broken; no PIN is sent without it.",
            remedy=f"See how many tries the card has left ({look}), then delete that file: a refusal that was noted "
            "in it is forgotten then.",
        ) from error


def _replace(folder: int, path: Path, records: Mapping[str, PinRecord]) -> None:
    content = {"pins": {name: _encode(record) for name, record in sorted(records.items())}}
    new = path.with_suffix(".new").name
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)  # of a process that was killed
    descriptor = open_new_file(folder, new, os.O_WRONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(descriptor)
    os.replace(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def _encode(record: PinRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "state": record.state.value,
        "operation": record.operation.value,
        "at": record.at.isoformat(timespec="seconds"),
        "retries_left": record.retries_left,
    }
    if record.unsettled is not None:
        fields["unsettled"] = _encode(record.unsettled)
    return fields if record.at_most is None else {**fields, "at_most": record.at_most}


def _decode(fields: Mapping[str, Any]) -> PinRecord:
    at = datetime.datetime.fromisoformat(fields["at"])
    if at.tzinfo is None:
        raise ValueError("a moment without a time zone")
    unsettled = fields.get("unsettled")
    return PinRecord(
        PinRecordState(fields["state"]),
        PinOperation(fields["operation"]),
        at,
        _decode_tries(fields["retries_left"]),
        None if unsettled is None else _decode(unsettled),
        _decode_tries(fields.get("at_most")),
    )


def _decode_tries(left: Any) -> int | None:
    if left is None or (type(left) is int and 0 <= left <= _MOST_TRIES):
        return left
    raise ValueError("no counter of a card")
