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

from demail_hw.errors import CertificateError, HardwareError, Outcome
from demail_hw.interfaces import Deadline
from demail_hw.tcos.open_file import LONGEST_UPDATE, OpenFile

__all__ = ["ERASED", "FileState", "FileWriter", "Progress", "Write", "erasure", "read_all", "replacement"]

ERASED: Final = b"\xff"
"""What every byte of an empty EF is."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that were written or read back since the last call."""

_LOG = logging.getLogger(__name__)


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


class FileWriter:
    """Writes one EF. ``name``: what errors call it.

    Every error that leaves it, of whatever layer, says in its text what the EF holds then.
    """

    def __init__(self, file: OpenFile, name: str, progress: Progress | None = None) -> None:
        self._file = file
        self._name = name
        self._progress = progress
        self._possible: tuple[FileState, ...] = (FileState.BEFORE,)

    def run(self, writes: Sequence[Write], *, deadline: Deadline) -> None:
        """Do them in order. The EF is read back and compared before the one that makes its content count, and at
        the end.

        Errors: :class:`~demail_hw.errors.CertificateError` if it reads differently; it is empty then.
        """
        expected = bytearray(ERASED * self._file.size)
        with self._telling():
            for write in writes:
                if write.after is FileState.WRITTEN:
                    self._compare(expected, deadline)
                self._update(write, deadline)
                expected[write.offset : write.offset + len(write.data)] = write.data
            self._compare(expected, deadline)

    def _update(self, write: Write, deadline: Deadline) -> None:
        self._possible = tuple(dict.fromkeys((write.before, write.after)))
        try:
            self._file.update(write.offset, write.data, deadline=deadline)
        except HardwareError as error:
            if error.outcome is not Outcome.UNKNOWN:
                self._possible = (write.before,)
            raise
        self._possible = (write.after,)
        if self._progress:
            self._progress(len(write.data))

    def _compare(self, expected: bytearray, deadline: Deadline) -> None:
        found = read_all(self._file, deadline=deadline, progress=self._progress)
        if found == expected:
            return
        if self._possible == (FileState.WRITTEN,):
            self._update(Write(0, ERASED, FileState.WRITTEN, FileState.EMPTY), deadline)
        raise CertificateError(
            f"{self._name} reads differently from what was written.",
            remedy="Try it again; if it stays so, the card or the way to it is broken.",
            outcome=Outcome.UNKNOWN,
        )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except HardwareError as error:
            error.message = f"{error.message} {self._sentence()}"
            raise
        except BaseException:  # a person's Ctrl-C
            _LOG.warning("%s", self._sentence())
            raise

    def _sentence(self) -> str:
        return f"{self._name} now {' or '.join(state.value for state in self._possible)}."
