"""A reader whose card takes its time: time extensions until the answer is due, and a reader that lives meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import DeadlineExceeded, Outcome
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.card.personalities import NETKEY3, netkey3
from demail_hw_simulators.card.personality import TimingSpec
from demail_hw_simulators.card.timing import TimedCard, TimingModel, Wire, waiting_time
from demail_hw_simulators.ccid_device import SimulatedUsbReader, start_timer
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.loopback import LoopbackTransport

HALF = waiting_time(NETKEY3.atr) / 2
SECONDS = 20.0
FOR_EVER = 3600.0

POWER_ON = "62000000000000000000"
SELECT = "6f07000000000100000000a4000c023f00"
ANSWER = "800200000000010000009000"
EXTENSION = "80000000000001800100"
ABORT_REQUEST = bytes.fromhex("2101000100000000")
ABORT = "72000000000001000000"


class Clock:
    """Time that passes when it is told to. ``waits``: what a reader wanted to wait for, with what it does then."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, Callable[[], None]]] = []
        self.stopped = 0

    def later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        self.waits.append((seconds, function))
        return self.stop

    def stop(self) -> None:
        self.stopped += 1

    def pass_on(self) -> float:
        """The oldest wait is over; how long it was."""
        seconds, function = self.waits.pop(0)
        function()
        return seconds


class Bench:
    """A host's controller and a reader with a card of which each command takes so long."""

    def __init__(self, seconds: float) -> None:
        self.clock = Clock()
        self.device = SimulatedUsbReader(slow_card(seconds), later=self.clock.later)
        assert self.exchange(POWER_ON)[20:] == NETKEY3.atr.hex()

    def send(self, message: str) -> None:
        self.submit(0x01, data=bytes.fromhex(message))

    def submit(self, endpoint: int, *, data: bytes = b"", setup: bytes = b"") -> list[TransferResult]:
        results: list[TransferResult] = []
        length = 0 if endpoint in (0x00, 0x01) else 1088
        self.device.submit(Transfer(endpoint, length, setup=setup, data=data), results.append)
        return results

    def receive(self) -> list[TransferResult]:
        """A transfer that the answer comes in, as soon as there is one."""
        return self.submit(0x82)

    def exchange(self, message: str) -> str:
        self.send(message)
        return said(self.receive())


def said(results: list[TransferResult]) -> str:
    (result,) = results
    assert result.status == 0
    return result.data.hex()


def slow_card(seconds: float, card: SimulatedCard | None = None) -> TimedCard:
    """SELECT of seven bytes takes so long."""
    own = seconds - Wire.of(NETKEY3.atr).seconds(7, 2)
    spec = TimingSpec(commands={0xA4: own}, other=own, operations=(), spread=0.0)
    return TimedCard(netkey3() if card is None else card, TimingModel(spec, atr=NETKEY3.atr, seed=0), sleep=never)


def never(seconds: float) -> None:
    raise AssertionError("the reader must not wait inside a card")


def test_an_answer_comes_when_it_is_due() -> None:
    bench = Bench(0.25)
    bench.send(SELECT)
    answer = bench.receive()
    assert not answer
    assert bench.clock.pass_on() == pytest.approx(0.25)
    assert said(answer) == ANSWER
    assert not bench.clock.waits


@pytest.mark.parametrize("halves", [1.0, 1.5, 3.25])
def test_a_card_that_works_longer_asks_for_time(halves: float) -> None:
    bench = Bench(HALF * halves + 1e-6)
    bench.send(SELECT)
    for _ in range(int(halves)):
        assert bench.clock.pass_on() == pytest.approx(HALF)
        assert said(bench.receive()) == EXTENSION
    assert bench.clock.pass_on() == pytest.approx(HALF * (halves - int(halves)), abs=1e-5)
    assert said(bench.receive()) == ANSWER
    assert not bench.clock.waits


def test_meanwhile_the_slot_is_busy_and_the_rest_of_the_reader_is_not() -> None:
    bench = Bench(0.25)
    bench.send(SELECT)
    assert bench.exchange("65000000000002000000") == "8100000000000240e000"  # CMD_SLOT_BUSY
    assert said(bench.submit(0x80, setup=bytes.fromhex("8006000100001200"))).startswith("1201")
    assert not bench.clock.stopped
    bench.clock.pass_on()
    assert said(bench.receive()) == ANSWER


@pytest.mark.parametrize("request_first", [True, False])
def test_an_abort_ends_the_wait(request_first: bool) -> None:
    bench = Bench(0.25)
    bench.send(SELECT)
    steps: list[Callable[[], object]] = [lambda: bench.submit(0x00, setup=ABORT_REQUEST), lambda: bench.send(ABORT)]
    for step in steps if request_first else reversed(steps):
        assert not bench.clock.stopped
        step()
    assert bench.clock.stopped == 1
    assert said(bench.receive()) == "81000000000001000000"
    late = bench.receive()
    bench.clock.pass_on()
    assert not late
    # The next command is answered with its own answer.
    bench.send(SELECT.replace("0001", "0002", 1))
    bench.clock.pass_on()
    assert said(late) == ANSWER.replace("0001", "0002", 1)


def test_a_card_that_is_taken_out_answers_no_more() -> None:
    bench = Bench(0.25)
    bench.send(SELECT)
    bench.device.remove()
    assert bench.clock.stopped == 1
    assert said(bench.receive()) == "8000000000000142fe00"  # ICC_MUTE, no card
    bench.clock.pass_on()
    assert not bench.receive()


def test_a_reset_ends_the_wait() -> None:
    bench = Bench(0.25)
    bench.send(SELECT)
    bench.device.reset()
    assert bench.clock.stopped == 1
    answer = bench.receive()
    bench.clock.pass_on()
    assert not answer


class OtherAtr:
    """A card of which the reader learns nothing but that it is one."""

    def __init__(self) -> None:
        self.card = netkey3()

    def power_on(self) -> bytes:
        self.card.power_on()
        return b"\x3b\x00"

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        return self.card.transmit(command)


def test_the_atr_says_how_often_the_card_asks() -> None:
    clock = Clock()
    device = SimulatedUsbReader(slow_card(0.5, OtherAtr()), later=clock.later)
    for message in (POWER_ON, SELECT):
        device.submit(Transfer(0x01, data=bytes.fromhex(message)), lambda result: None)
    assert clock.pass_on() == pytest.approx(960 * 10 * 372 / 4_800_000 / 2)


# --- With a host, and with real time


def soon() -> float:
    return time.monotonic() + SECONDS


def reader_of(device: SimulatedUsbReader) -> CcidReader:
    return CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=soon, pause=pause)


def test_a_host_waits_for_a_slow_card() -> None:
    def at_once(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        function()
        return lambda: None

    device = SimulatedUsbReader(slow_card(HALF * 9.5), later=at_once)
    with contextlib.closing(reader_of(device)) as reader:
        connection = reader.connect(deadline=soon())
        before = device.messages.sent
        with connection.transaction(deadline=soon()):
            assert connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=soon()) == b"\x90\x00"
        assert device.messages.sent - before == 10  # nine extensions and the answer


def test_a_host_that_waits_no_longer_takes_the_wait_back() -> None:
    clock = Clock()
    device = SimulatedUsbReader(slow_card(FOR_EVER), later=clock.later)
    with contextlib.closing(reader_of(device)) as reader:
        connection = reader.connect(deadline=soon())
        with connection.transaction(deadline=soon()):
            with pytest.raises(DeadlineExceeded) as caught:
                connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=time.monotonic() + 0.05)
            assert caught.value.outcome is Outcome.UNKNOWN
        assert clock.stopped == 0
        reader.connect(deadline=soon())
        assert clock.stopped == 1


def test_a_card_takes_real_time_too() -> None:
    device = SimulatedUsbReader(slow_card(0.01))
    with contextlib.closing(reader_of(device)) as reader:
        connection = reader.connect(deadline=soon())
        with connection.transaction(deadline=soon()):
            assert connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=soon()) == b"\x90\x00"


def test_a_timer_calls_once_and_can_be_taken_back() -> None:
    called = threading.Event()
    before = set(threading.enumerate())
    start_timer(0.0, called.set)
    assert called.wait(SECONDS)
    start_timer(FOR_EVER, called.clear)()
    for thread in set(threading.enumerate()) - before:
        thread.join(SECONDS)
    assert set(threading.enumerate()) <= before
    assert called.is_set()
