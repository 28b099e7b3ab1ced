"""One contract for every PinLedger."""

import dataclasses
import datetime
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demail_hw.errors import DeadlineExceeded, Outcome
from demail_hw.interfaces import Deadline, PinLedger, PinOperation, PinRecord, PinRecordState
from demail_hw.pin_ledger import FilePinLedger, MemoryPinLedger

CARD, OTHER = "89490173510080407136", "89490173510080407144"
NOON = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)
SECONDS = 20


def in_files(folder: Path) -> PinLedger:
    return FilePinLedger(folder)


def in_memory(folder: Path) -> PinLedger:
    return MemoryPinLedger()


@pytest.fixture(params=[in_files, in_memory], ids=lambda opener: opener.__name__)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> PinLedger:
    """Every implementation of PinLedger, one after the other."""
    opener: Callable[[Path], PinLedger] = request.param
    return opener(tmp_path)


def soon() -> Deadline:
    """A deadline that is not missed."""
    return time.monotonic() + SECONDS


def note(
    state: PinRecordState = PinRecordState.PENDING,
    operation: PinOperation = PinOperation.VERIFY,
    left: int | None = 3,
    at: datetime.datetime = NOON,
) -> PinRecord:
    return PinRecord(state, operation, at, left)


def write(ledger: PinLedger, card: str = CARD, **records: PinRecord | None) -> None:
    with ledger.page(card, deadline=soon()) as page:
        page.write(records)


def test_nothing_is_known_of_a_new_card(ledger: PinLedger) -> None:
    assert ledger.records(CARD) == {}
    with ledger.page(CARD, deadline=soon()) as page:
        assert page.records == {}
    assert ledger.records(CARD) == {}


@pytest.mark.parametrize(
    "record",
    [
        *itertools.starmap(note, itertools.product(PinRecordState, PinOperation)),
        *(note(left=left) for left in (None, 0, 1, 15)),
        dataclasses.replace(note(left=None), at_most=2),
        dataclasses.replace(note(), unsettled=dataclasses.replace(note(), unsettled=note(left=1))),
        note(at=datetime.datetime(2026, 7, 1, 9, 5, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))),
    ],
    ids=lambda record: (
        f"{record.state.value}-{record.operation.value}-{record.retries_left}-{record.at:%H%z}"
        f"{'' if record.at_most is None else '-at-most'}{'' if record.unsettled is None else '-unsettled'}"
    ),
)
def test_what_was_written_is_read(ledger: PinLedger, record: PinRecord) -> None:
    with ledger.page(CARD, deadline=soon()) as page:
        page.write({"global": record})
        assert page.records == {"global": record}
        assert ledger.records(CARD) == {"global": record}
    with ledger.page(CARD, deadline=soon()) as page:
        assert page.records == {"global": record}
    assert ledger.records(CARD)["global"].at.tzinfo is not None


def test_other_pins_are_left_as_they_are(ledger: PinLedger) -> None:
    write(ledger, **{"global": note(), "puk": note(left=2)})
    write(ledger, puk=note(PinRecordState.REFUSED))
    assert ledger.records(CARD) == {"global": note(), "puk": note(PinRecordState.REFUSED)}


def test_none_forgets(ledger: PinLedger) -> None:
    write(ledger, **{"global": note(), "puk": note()})
    write(ledger, **{"global": None, "nks-1": None})
    assert ledger.records(CARD) == {"puk": note()}


def test_each_card_has_a_page_of_its_own(ledger: PinLedger) -> None:
    write(ledger, **{"global": note()})
    assert ledger.records(OTHER) == {}
    write(ledger, OTHER, **{"global": note(PinRecordState.REFUSED)})
    assert ledger.records(CARD) == {"global": note()}


def test_what_was_handed_out_does_not_change(ledger: PinLedger) -> None:
    write(ledger, **{"global": note()})
    before = ledger.records(CARD)
    with ledger.page(CARD, deadline=soon()) as page:
        seen = page.records
        page.write({"global": note(PinRecordState.REFUSED)})
    assert before == seen == {"global": note()}


def test_a_page_is_for_one_thread(ledger: PinLedger) -> None:
    caught: list[DeadlineExceeded] = []

    def want() -> None:
        with pytest.raises(DeadlineExceeded) as error, ledger.page(CARD, deadline=time.monotonic() + 0.05):
            pass
        caught.append(error.value)

    with ledger.page(CARD, deadline=soon()) as page:
        page.write({"global": note()})
        thread = threading.Thread(target=want)
        thread.start()
        thread.join(SECONDS)
        assert ledger.records(CARD) == {"global": note()}  # whoever only looks does not wait
    assert [(error.outcome, error.transient) for error in caught] == [(Outcome.NOT_SENT, True)]


def test_who_has_a_page_waits_for_it_no_longer_than_anybody(ledger: PinLedger) -> None:
    again = ledger.page(CARD, deadline=time.monotonic())
    with ledger.page(CARD, deadline=soon()), pytest.raises(DeadlineExceeded):
        again.__enter__()


def test_the_page_of_another_card_is_free(ledger: PinLedger) -> None:
    with ledger.page(CARD, deadline=soon()), ledger.page(OTHER, deadline=time.monotonic()) as page:
        page.write({"global": note()})
    assert ledger.records(OTHER) == {"global": note()}


def test_a_free_page_is_had_whatever_the_deadline(ledger: PinLedger) -> None:
    with ledger.page(CARD, deadline=time.monotonic() - 1) as page:
        page.write({"global": note()})
    assert ledger.records(CARD) == {"global": note()}


@pytest.mark.parametrize("kind", [ValueError, OSError, KeyboardInterrupt])
def test_a_failure_gives_the_page_back_and_is_not_changed(ledger: PinLedger, kind: type[BaseException]) -> None:
    failure = kind("of the caller")

    def fail() -> None:
        with ledger.page(CARD, deadline=soon()) as page:
            page.write({"global": note()})
            raise failure

    with pytest.raises(kind) as caught:
        fail()
    assert caught.value is failure
    with ledger.page(CARD, deadline=time.monotonic()) as page:
        assert page.records == {"global": note()}


def test_no_word_of_many_threads_is_lost(ledger: PinLedger) -> None:
    start = threading.Barrier(10)

    def count() -> None:
        start.wait(SECONDS)
        with ledger.page(CARD, deadline=soon()) as page:
            record = page.records.get("global")
            page.write({"global": note(left=(record.retries_left or 0) + 1 if record else 1)})

    threads = [threading.Thread(target=count) for _ in range(start.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert ledger.records(CARD)["global"].retries_left == start.parties
