"""Watching the readers of somebody else's driver, whose listing does not tell what is in them."""

import contextlib
import math
import time
from collections.abc import Iterator

import pytest

from demail_hw import registry
from demail_hw.address import Address
from demail_hw.errors import DeviceBusy, DeviceLost, HardwareError
from demail_hw.interfaces import Deadline, ReaderInfo, Timeouts
from demail_hw.reader_watch import Complain, ReaderWatch, watch_readers


class ForeignReader:
    """``trouble``: what is raised instead of an answer."""

    name, serial = "A reader", "0001"

    def __init__(self) -> None:
        self.card = True
        self.trouble: BaseException | None = None
        self.deadlines: list[Deadline] = []
        self.waited: list[bool] = []
        self.open = False

    def card_present(self, *, deadline: Deadline) -> bool:
        self.deadlines.append(deadline)
        if self.trouble:
            raise self.trouble
        return self.card

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        self.waited.append(present)

    def close(self) -> None:
        self.open = False


class ForeignReaders:
    """A driver with one reader. ``in_use``: as its listing says; ``busy`` and ``down``: what is raised instead of
    the reader and of the listing."""

    def __init__(self) -> None:
        self.reader = ForeignReader()
        self.in_use: bool | None = False
        self.busy: HardwareError | None = None
        self.down: HardwareError | None = None
        self.given: list[Timeouts] = []

    can_share = in_process = False
    parameters = frozenset[str]()

    def open(self, address: Address, *, timeouts: Timeouts) -> ForeignReader:
        self.given.append(timeouts)
        if self.busy:
            raise self.busy
        assert not self.reader.open, "it was never let go"
        self.reader.open = True
        return self.reader

    def find(self, address: Address, *, timeouts: Timeouts) -> list[ReaderInfo]:
        self.given.append(timeouts)
        if self.down:
            raise self.down
        listed = Address("odd", selector=address.selector or "1")
        return [ReaderInfo(str(listed), "A slot", None, card=None, in_use=self.in_use)]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ForeignReaders:
    installed = ForeignReaders()
    monkeypatch.setattr(registry, "reader_driver", lambda scheme: installed)
    return installed


class Heard:
    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, address: str, error: HardwareError) -> None:
        self.words.append(f"{address} {error.message}")


@contextlib.contextmanager
def watching(complain: Complain, selector: str = "1") -> Iterator[ReaderWatch]:
    with ReaderWatch([Address("odd", selector=selector)], complain) as watch:
        yield watch


def events(watch: ReaderWatch, deadline: Deadline = math.inf) -> list[str]:
    return [each.event.value for each in watch.look(deadline)]


# --- who is opened


@pytest.mark.parametrize(("in_use", "selector"), [(True, "1"), (True, ""), (None, "")])
def test_a_reader_that_somebody_has_is_opened_when_it_is_free(
    driver: ForeignReaders, in_use: bool | None, selector: str
) -> None:
    driver.in_use, heard = in_use, Heard()
    with watching(heard, selector) as watch:
        assert events(watch) == ["reader arrived"]
        assert not driver.reader.open
        driver.in_use = False
        assert events(watch) == ["card inserted"]
        assert driver.reader.open
        driver.reader.card = False
        assert events(watch) == ["card removed"]
    assert not driver.reader.open
    assert heard.words == []


def test_a_reader_that_may_be_there_arrives_when_it_was_named_and_is_there(driver: ForeignReaders) -> None:
    driver.in_use, driver.busy, heard = None, DeviceLost("It is not there."), Heard()
    with watching(heard) as watch:
        assert events(watch) == []
        driver.busy = None
        assert events(watch) == ["reader arrived", "card inserted"]
    assert heard.words == ["odd:1 It is not there."]


def test_how_often_it_was_tried_is_no_news(driver: ForeignReaders) -> None:
    heard = Heard()
    with watching(heard) as watch:
        for times in (1, 2):
            driver.busy = DeviceLost(f"It was tried {times} times.")
            driver.busy.__cause__ = DeviceLost("It is down.")
            assert events(watch) == []
    assert heard.words == ["odd:1 It was tried 1 times."]


def test_a_reader_that_is_known_and_cannot_be_opened_has_not_left(driver: ForeignReaders) -> None:
    driver.in_use, heard = True, Heard()
    with watching(heard) as watch:
        assert events(watch) == ["reader arrived"]
        driver.in_use, driver.busy = False, DeviceBusy("Somebody was faster.")
        assert events(watch) == events(watch) == []
        driver.busy = None
        assert events(watch) == ["card inserted"]
    assert heard.words == ["odd:1 Somebody was faster."]


def test_a_new_reader_arrives_when_it_can_be_opened(driver: ForeignReaders) -> None:
    driver.busy, heard = DeviceBusy("Somebody was faster."), Heard()
    with watching(heard) as watch:
        assert events(watch) == events(watch) == []
        driver.busy = None
        arrived, inserted = watch.look()
        assert [arrived.event.value, inserted.event.value] == ["reader arrived", "card inserted"]
        assert (arrived.reader.name, arrived.reader.serial) == ("A reader", "0001")
    assert heard.words == ["odd:1 Somebody was faster."]


# --- what is in the way


def test_a_listing_that_fails_again_is_told_again(driver: ForeignReaders) -> None:
    heard, down = Heard(), DeviceLost("It is down.")
    with watching(heard) as watch:
        for driver.down in (down, down, None, down):
            events(watch)
    assert heard.words == ["odd:1 It is down."] * 2


def test_a_reader_that_fails_again_is_told_again(driver: ForeignReaders) -> None:
    heard, silent = Heard(), DeviceBusy("It says nothing.")
    with watching(heard) as watch:
        for driver.busy in (silent, silent, None):
            events(watch)
        driver.reader.trouble = silent
        assert events(watch) == ["reader left"]
        driver.busy = silent
        assert events(watch) == []
    assert heard.words == ["odd:1 It says nothing."] * 2


def test_a_reader_that_is_lost_while_it_is_held_arrives_again(driver: ForeignReaders) -> None:
    with watching(Heard()) as watch:
        assert events(watch) == ["reader arrived", "card inserted"]
        driver.reader.trouble = DeviceLost("It fell off.")
        assert events(watch) == ["reader left"]
        assert not driver.reader.open
        driver.reader.trouble = None
        assert events(watch) == ["reader arrived", "card inserted"]


# --- a look that an exception ends


class Enough(Exception):
    pass


def stop(*_: object) -> None:
    raise Enough


def test_a_complaint_that_ends_a_look_does_not_end_the_watch(driver: ForeignReaders) -> None:
    with watching(stop) as watch:
        driver.reader.trouble = DeviceLost("It fell off.")
        with pytest.raises(Enough):
            watch.look()
        assert not driver.reader.open
        driver.reader.trouble = None
        assert events(watch) == ["reader arrived", "card inserted"]
        driver.reader.trouble = DeviceLost("It fell off once more.")
        with pytest.raises(Enough):
            watch.look()
        driver.reader.trouble, driver.reader.card = None, False
        assert events(watch) == ["card removed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Enough])
def test_a_look_that_is_interrupted_after_a_reader_was_opened(
    driver: ForeignReaders, error: type[BaseException]
) -> None:
    with watching(Heard()) as watch:
        driver.reader.trouble = error()
        with pytest.raises(error):
            watch.look()
        assert driver.reader.open
        watch.pause(3600)
        assert driver.reader.waited == [True]  # nothing is known of its card: one that comes ends the pause
        driver.reader.trouble = None
        assert events(watch) == ["reader arrived", "card inserted"]
        assert events(watch) == []
    assert not driver.reader.open


# --- the deadline


def test_the_deadline_goes_down_to_the_driver(driver: ForeignReaders) -> None:
    begin = time.monotonic()
    with watch_readers(["odd:1"], deadline=begin + 1) as found:
        assert [next(found).event.value for _ in range(2)] == ["reader arrived", "card inserted"]
    assert len(driver.given) == 2
    assert all(0 < given.connect <= 1 and 0 < given.command <= 1 for given in driver.given)
    assert driver.reader.deadlines == [begin + 1]


def test_without_a_deadline_the_driver_has_the_usual_time(driver: ForeignReaders) -> None:
    with watch_readers(["odd:1"]) as found:
        next(found)
    assert driver.given == [Timeouts(), Timeouts()]
    assert all(math.isfinite(each) for each in driver.reader.deadlines)


def test_a_deadline_that_is_past_leaves_no_time_at_all(driver: ForeignReaders) -> None:
    with watch_readers(["odd:1"], deadline=time.monotonic() - 1) as found:
        assert [each.event.value for each in found] == ["reader arrived", "card inserted"]
    assert driver.given == [Timeouts(0, 0), Timeouts(0, 0)]


def test_a_look_that_the_deadline_cuts_off_says_of_nobody_that_he_left(driver: ForeignReaders) -> None:
    heard = Heard()
    with watching(heard) as watch:
        assert events(watch) == ["reader arrived", "card inserted"]
        driver.reader.trouble = DeviceLost("There was no time.")
        assert events(watch, time.monotonic() - 1) == []
        driver.reader.trouble, driver.reader.card = None, False
        assert events(watch) == ["card removed"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_no_look_begins_at_the_deadline(driver: ForeignReaders, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.in_use = True
    monkeypatch.setattr("demail_hw.reader_watch.watch.time", Clock())
    with watch_readers(["odd:1"], deadline=10.0, interval=3.0) as found:
        assert [each.event.value for each in found] == ["reader arrived"]
    assert [given.connect for given in driver.given] == [5.0, 5.0, 4.0, 1.0]
