"""A recorded card holds the contracts of Reader and CardConnection, as far as a record can.

Each test of the two suites runs twice: with a simulated card, whose exchanges are recorded, and then with the record
in the place of the card.
"""

import contextlib
import inspect
import itertools
import pathlib
import runpy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demail_hw.interfaces import Buffers, CardConnection, Deadline, Reader, ShareMode
from demail_hw.iso7816.trace import CardPowered, ReaderOpened, Recorder, Trace, TraceEntry
from demail_hw.traces.replay import ReplayReader

HERE = pathlib.Path(__file__).parent
SUITES = ("test_card_connection", "test_reader")
CONFTEST = runpy.run_path(str(HERE / "conftest.py"))

NOT_RECORDED = {
    # Nobody can take the card out of a trace, or put one in.
    "test_removed_card_is_lost_for_good",
    "test_lost_connection_says_the_same_each_time[remove]",
    "test_lost_connection_says_the_same_each_time[unplug]",
    "test_card_that_was_swapped_unseen_gets_no_command",
    "test_new_connection_after_a_removal",
    "test_card_is_present_while_it_is_in",
    "test_waiting_for_what_is_so_returns_at_once[False]",
    "test_waiting_ends_with_the_change[True]",
    "test_waiting_ends_with_the_change[False]",
    "test_waiting_in_vain_ends_at_the_deadline[True]",
    "test_connecting_without_a_card_is_no_card",
    "test_connection_to_a_card_that_was_taken_out_is_in_nobodys_way",
    # The PIN is masked, so the command that came cannot be compared with it.
    "test_command_is_a_gather_list_of_any_buffers",
}


class RecordingReader:
    """A simulated reader whose connections are recorded."""

    def __init__(self, reader: Reader, recorder: Recorder) -> None:
        self._reader = reader
        self._recorder = recorder

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> "RecordingConnection":
        return RecordingConnection(self._reader.connect(share, deadline=deadline), self._recorder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class RecordingConnection:
    """Only what reached the card is recorded: what was refused before is refused again by the recorded card."""

    def __init__(self, connection: CardConnection, recorder: Recorder) -> None:
        self._connection = connection
        self._recorder = recorder
        self._epoch = connection.epoch
        recorder.trace(CardPowered(connection.atr))

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        answer = self._connection.transmit(command, deadline=deadline)
        if self._connection.epoch != self._epoch:
            self._epoch = self._connection.epoch
            self._recorder.trace(CardPowered(self._connection.atr))
        self._recorder.trace(TraceEntry.record(command, answer))
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class RecordedCard:
    """What the suites ask of the card, as the replay tells it."""

    def __init__(self, reader: ReplayReader) -> None:
        self._reader = reader

    @property
    def powered(self) -> bool:
        connection = self._reader._connection
        return connection is not None and connection.alive

    @property
    def resets(self) -> int:
        return self._reader._playback.epoch + 1 if self.powered else 0

    @property
    def commands(self) -> list[bytes]:
        playback = self._reader._playback
        return [bytes.fromhex(entry.command) for entry in playback.trace.entries[: playback.position]]


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[Any]:
    with CONFTEST["in_process"]() as bench:
        recorder.trace(ReaderOpened(bench.reader.name, bench.reader.serial))
        recorder.trace(CardPowered(bench.card.atr))
        bench.reader = RecordingReader(bench.reader, recorder)
        yield bench


@contextlib.contextmanager
def replaying(trace: Trace) -> Iterator[Any]:
    reader = ReplayReader(trace)
    yield CONFTEST["Bench"](reader, None, RecordedCard(reader))
    reader.close()


def cases() -> Iterator[tuple[str, Callable[..., None], dict[str, object]]]:
    """The name of each test of the suites with its parameters, the test, and these."""
    for suite in SUITES:
        for name, test in runpy.run_path(str(HERE / f"{suite}.py")).items():
            if name.startswith("test_"):
                for arguments in parameters(test):
                    brackets = f"[{'-'.join(map(str, arguments.values()))}]" if arguments else ""
                    yield name + brackets, test, arguments


def parameters(test: Any) -> Iterator[dict[str, object]]:
    marks = [mark.args for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    names = [name for name, _ in marks]
    for values in itertools.product(*(list(values) for _, values in marks)):
        yield dict(zip(names, values, strict=True))


def run(test: Callable[..., None], bench: Any, arguments: dict[str, object]) -> None:
    fixtures = {"bench": lambda: bench, "connection": lambda: bench.reader.connect(deadline=bench.soon())}
    wanted = [name for name in inspect.signature(test).parameters if name not in arguments]
    test(**{name: fixtures[name]() for name in wanted}, **arguments)


CASES = {name: (test, arguments) for name, test, arguments in cases()}


def test_the_suites_are_there() -> None:
    assert len(CASES) > 50
    assert set(CASES) >= NOT_RECORDED


@pytest.mark.parametrize("name", sorted(CASES.keys() - NOT_RECORDED))
def test_contract(name: str) -> None:
    test, arguments = CASES[name]
    recorder = Recorder()
    with recording(recorder) as bench:
        run(test, bench, arguments)
    with replaying(Trace.parse(recorder.recorded().format())) as bench:
        run(test, bench, arguments)
