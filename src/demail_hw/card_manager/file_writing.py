"""Writing an EF so that no interruption leaves half a content that looks whole.

A reader takes a file that begins with FF for empty. So the first byte is made FF before anything else, and gets its
own value last, when everything after it was written and read back. One byte is written or it is not.
"""

import dataclasses
import enum
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

from demail_hw.errors import (
    CertificateError,
    DeadlineExceeded,
    HardwareError,
    Outcome,
    ReaderError,
    TransportError,
)
from demail_hw.interfaces import Deadline
from demail_hw.tcos.open_file import LONGEST_UPDATE, OpenFile

__all__ = [
    "ERASED",
    "FileFate",
    "FileState",
    "FileWriter",
    "Progress",
    "Write",
    "erasure",
    "read_all",
    "replacement",
]

ERASED: Final = b"\xff"
"""What every byte of an empty EF is."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that were written or read back since the last call."""

_LOG = logging.getLogger(__name__)
_CUT_OFF: Final = (TransportError, ReaderError, DeadlineExceeded)
_IF_IT_STAYS_SO: Final = "if it stays so, the card or the way to it is broken."
_GET_IT_BACK: Final = "See that the reader, its card and the way to them are there."


class FileState(enum.Enum):
    """What an EF holds, in words that follow its name."""

    BEFORE = "is as it was"
    EMPTY = "is empty"
    WRITTEN = "holds the new content"


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """One UPDATE BINARY, and what the EF holds ``before`` and ``after`` it."""

    offset: int
    data: bytes
    before: FileState
    after: FileState


def replacement(content: bytes, size: int) -> tuple[Write, ...]:
    """How ``content`` gets into an EF of ``size`` bytes, filled up with FF. ``ValueError`` if it does not fit."""
    if not 0 < len(content) <= size:
        raise ValueError(f"{len(content)} bytes do not fit into {size}")
    return (*erasure(content.ljust(size, ERASED)), Write(0, content[:1], FileState.EMPTY, FileState.WRITTEN))


def erasure(rest: bytes) -> tuple[Write, ...]:
    """How an EF becomes empty: FF at its beginning, and then ``rest`` from its second byte on, all FF or not."""
    starts = range(1, len(rest), LONGEST_UPDATE)
    following = (Write(at, rest[at : at + LONGEST_UPDATE], FileState.EMPTY, FileState.EMPTY) for at in starts)
    return (Write(0, ERASED, FileState.BEFORE, FileState.EMPTY), *following)


def read_all(file: OpenFile, *, deadline: Deadline, progress: Progress | None = None) -> bytes:
    """The whole of an EF, as far as the card gives it."""
    content = bytearray()
    while len(content) < file.size:
        piece = file.read(len(content), file.size - len(content), deadline=deadline)
        if not piece:
            break
        content += piece
        if progress:
            progress(len(piece))
    return bytes(content)


class FileFate:
    """What an EF may hold by now, for whoever is told of an interruption.

    ``name``: what it is called. ``deed``: what is to be done again then, as an imperative.
    """

    def __init__(self, name: str, deed: str) -> None:
        self.name = name
        self.possible: tuple[FileState, ...] = (FileState.BEFORE,)
        self._deed = deed

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Every error that leaves the block, of whatever layer, says what the EF holds, and what to do then."""
        try:
            yield
        except HardwareError as error:
            error.message = f"{error.message} {self._sentence()}"
            error.remedy = self._remedy(error)
            raise
        except BaseException:  # a person's Ctrl-C
            _LOG.warning("%s To go on, %s again.", self._sentence(), self._deed)
            raise

    def _sentence(self) -> str:
        return f"{self.name} now {' or '.join(state.value for state in self.possible)}."

    def _remedy(self, error: HardwareError) -> str:
        if isinstance(error, CertificateError):  # that of a comparison says it
            return error.remedy
        if isinstance(error, _CUT_OFF):  # theirs are for programs, which have something to open again
            return f"{_GET_IT_BACK} Then {self._deed} again. {self._sentence()}"
        if self.possible == (FileState.BEFORE,):
            return error.remedy
        if error.remedy:
            return f"{error.remedy} Then {self._deed} again. {self._sentence()}"
        return f"{self._deed[0].upper()}{self._deed[1:]} again; {_IF_IT_STAYS_SO} {self._sentence()}"


class FileWriter:
    """Writes one EF, and keeps up to date what is known of it; errors leave it as :meth:`FileFate.telling` says."""

    def __init__(self, file: OpenFile, fate: FileFate, progress: Progress | None = None) -> None:
        self._file = file
        self._fate = fate
        self._progress = progress

    def run(self, writes: Sequence[Write], *, deadline: Deadline) -> None:
        """Do them in order. The EF is read back and compared before the one that makes its content count, and at
        the end.

        Errors: :class:`~demail_hw.errors.CertificateError` if it reads differently; it is empty then.
        """
        expected = bytearray(ERASED * self._file.size)
        with self._fate.telling():
            for write in writes:
                if write.after is FileState.WRITTEN:
                    self._compare(expected, deadline)
                self._update(write, deadline)
                expected[write.offset : write.offset + len(write.data)] = write.data
            self._compare(expected, deadline)

    def _update(self, write: Write, deadline: Deadline) -> None:
        self._fate.possible = tuple(dict.fromkeys((write.before, write.after)))
        try:
            self._file.update(write.offset, write.data, deadline=deadline)
        except HardwareError as error:
            if error.outcome is not Outcome.UNKNOWN:
                self._fate.possible = (write.before,)
            raise
        self._fate.possible = (write.after,)
        if self._progress:
            self._progress(len(write.data))

    def _compare(self, expected: bytearray, deadline: Deadline) -> None:
        found = read_all(self._file, deadline=deadline, progress=self._progress)
        if found == expected:
            return
        if self._fate.possible == (FileState.WRITTEN,):
            self._update(Write(0, ERASED, FileState.WRITTEN, FileState.EMPTY), deadline)
        raise CertificateError(
            f"{self._fate.name} reads differently from what was written.",
            remedy=f"Try it again; {_IF_IT_STAYS_SO}",
            outcome=Outcome.UNKNOWN,
        )
