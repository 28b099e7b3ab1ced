"""Traces in files: a tracer that writes one as it happens, and the function that reads one."""

import contextlib
import datetime
import importlib.metadata
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from demail_hw.errors import ConfigurationError
from demail_hw.iso7816.command_names import answer_meaning, command_name
from demail_hw.iso7816.status import StatusWord
from demail_hw.iso7816.trace import (
    BadTrace,
    CardPowered,
    CommandSent,
    DecipherMask,
    ReaderOpened,
    Trace,
    TraceEntry,
    TraceEvent,
)
from demail_hw.traces.output_file import create, heading

__all__ = ["MAX_TRACE_FILE", "FileTracer", "read_trace"]

MAX_TRACE_FILE: Final = 64 << 20
"""The greatest file that is read as a trace, in bytes."""

_LOG = logging.getLogger(__name__)
_DISTRIBUTION: Final = "demail-hw"


class FileTracer:
    """A tracer that writes a trace to a file, for its owner alone, line by line: whatever ends the process, the file
    holds all that happened before, and the command that was under way.

    The file is made anew when this object is made. An older trace of ours, or an empty file, gives it its place,
    whoever had that open or owned it; any other file that is there is left as it is. No link is followed but one of
    root or our own to a device or a pipe, such as ``/dev/stderr``.
    ``deciphered``: show what a DECIPHER returns too; else it is masked, for it may be the key of a message.

    One tracer is for one card after the other, not for two at the same time. If the file cannot be written any more,
    the trace ends with a warning, and the card's work goes on. A context manager.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if the file cannot be made, or is there and no trace.
    """

    def __init__(self, path: str | Path, *, deciphered: bool = False) -> None:
        self._path = Path(path)
        self.deciphered: Final = deciphered
        self._mask = None if deciphered else DecipherMask()
        self._lock = threading.Lock()
        self._under_way = ""
        try:
            self._stream: TextIO | None = create(self._path)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise ConfigurationError(
                f"The trace {self._path} cannot be written: {_reason(error)}.",
                file=str(self._path),
                remedy="Name a file in a folder that is there and that this user may write to.",
            ) from error
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._write(heading(_version(), now))

    @property
    def enabled(self) -> bool:
        """False after :meth:`close`, and after the file could not be written."""
        return self._stream is not None

    def trace(self, event: TraceEvent) -> None:
        """Write it down."""
        with self._lock:
            for line in self._lines(event):
                self._write(line)

    def _lines(self, event: TraceEvent) -> Iterator[str]:
        match event:
            case ReaderOpened():
                yield from event.lines()
            case CardPowered():
                yield event.line()
            case CommandSent(command):
                yield from self._begin(command)
            case TraceEntry():
                yield from self._end(event)

    def _begin(self, command: str) -> Iterator[str]:
        self._under_way = command
        yield f"# {command_name(command)}"
        yield f"> {command}"

    def _end(self, entry: TraceEntry) -> Iterator[str]:
        if entry.command != self._under_way:
            yield from self._begin(entry.command)
        self._under_way = ""
        yield from (self._mask.hide(entry) if self._mask else entry).answer_lines()
        if entry.status is not None and entry.status != StatusWord.NORMAL_PROCESSING:
            yield f"# {answer_meaning(entry.command, entry.status)}"

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{line}\n")
        except OSError as error:
            self.close()
            _LOG.warning("The trace %s ends here: %s.", self._path, error.strerror or error)

    def close(self) -> None:
        """End the trace. Never raises; closing twice is allowed."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # what could not be written is still in its buffer
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # taken into another program's tree
        return "(version unknown)"


def read_trace(path: str | Path) -> Trace:
    """Read a trace from a file, whoever wrote it; what may be a PIN is masked.

    Errors: :class:`~demail_hw.errors.ConfigurationError` with the line that is wrong, or if it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_TRACE_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ConfigurationError(
            f"The trace {path} cannot be read: {_reason(error)}.",
            file=str(path),
            remedy="Name a file that --trace wrote, and that this user may read.",
        ) from error
    if len(content) > MAX_TRACE_FILE:
        raise ConfigurationError(f"The trace {path} is longer than {MAX_TRACE_FILE >> 20} MiB.", file=str(path))
    try:
        # Comments are anybody's, in any encoding; the rest is ASCII.
        return Trace.parse(content.decode("utf-8-sig", errors="replace"))
    except BadTrace as error:
        raise ConfigurationError(
            f"{path}: {error.message}",
            file=str(path),
            line=error.line,
            remedy="Name a file that --trace wrote; what was changed in it must keep the form of its lines.",
        ) from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
