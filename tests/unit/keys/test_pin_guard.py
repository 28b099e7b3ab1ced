"""What the PIN guard sends, counted by the card itself."""

import time
from collections.abc import Callable

import pytest

from demail_hw.errors import (
    CardRemoved,
    DeadlineExceeded,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
    ReaderBusy,
)
from demail_hw.interfaces import Buffers
from demail_hw.keys.pin_guard import PinGuard
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.card import PinState, TcosCard
from demail_hw.tcos.layout import PinName, PinSlot
from demail_hw.tcos.profiles import NETKEY3
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedConnection, SimulatedReader

GLOBAL = NETKEY3.pin(PinName.GLOBAL)
RIGHT, WRONG = b"123456", b"975310"


class Bench:
    """A card on a table: the guard's view of it, and how many VERIFYs with a PIN it has seen."""

    def __init__(self, card: SimulatedCard | None = None) -> None:
        self.verifies = 0
        self.answer: Callable[[bytes], bytes] | None = None
        self._card = card or open_card("netkey3")
        self.connection: SimulatedConnection = SimulatedReader(self).connect(deadline=self.deadline)
        self.card = TcosCard(self.connection, NETKEY3)

    @property
    def deadline(self) -> float:
        return time.monotonic() + 30

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        if command[1] == 0x20 and len(command) > 5:
            self.verifies += 1
            if self.answer:
                return self.answer(command)
        return self._card.transmit(command)

    def verify(self, guard: PinGuard, pin: PinName = PinName.GLOBAL) -> None:
        attempt(guard, self.card, self.connection, NETKEY3.pin(pin))

    def left(self) -> int | None:
        with self.connection.transaction(deadline=self.deadline):
            return self.card.pin_status(GLOBAL, deadline=self.deadline).retries_left


def attempt(guard: PinGuard, card: TcosCard, connection: SimulatedConnection, pin: PinSlot) -> None:
    """The steps of a provider."""
    deadline = time.monotonic() + 30
    with connection.transaction(deadline=deadline):
        if card.is_verified(pin) or guard.is_open(card, pin, deadline=deadline):
            return
    with guard.ask(pin) as secret, connection.transaction(deadline=deadline):
        guard.verify(card, pin, secret, deadline=deadline)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def guard(pin: bytes) -> PinGuard:
    return PinGuard(CallablePinSource(lambda: pin))


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        (PinName.GLOBAL, b"123456"),
        (PinName.NKS_1, b"111111"),
        (PinName.NKS_2, b"222222"),
        (PinName.SIGG_1, b"654321"),
        (PinName.SIGG_2, b"87654321"),
    ],
)
def test_each_pin_opens_with_one_verify(bench: Bench, name: PinName, pin: bytes) -> None:
    for _ in range(2):
        bench.verify(guard(pin), name)
    assert bench.verifies == 1


def test_a_refused_pin_is_never_sent_again(bench: Bench) -> None:
    keeper = guard(WRONG)
    with pytest.raises(PinIncorrect) as caught:
        bench.verify(keeper)
    assert caught.value.retries_left == 2
    for _ in range(3):
        with pytest.raises(PinRefused, match="not sent again"):
            bench.verify(keeper)
    assert bench.verifies == 1
    assert bench.left() == 2


def test_the_last_try_is_never_spent(bench: Bench) -> None:
    for left in (2, 1):
        with pytest.raises(PinIncorrect):
            bench.verify(guard(WRONG))
        assert bench.left() == left
    with pytest.raises(PinRefused, match="last try") as caught:
        bench.verify(guard(RIGHT))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert bench.verifies == 2
    assert bench.left() == 1


def test_a_blocked_pin_is_not_tried() -> None:
    card = open_card("netkey3")
    card.power_on()
    for _ in range(3):
        card.transmit(bytes.fromhex("0020000006") + WRONG)
    bench = Bench(card)
    with pytest.raises(PinBlocked):
        bench.verify(guard(RIGHT))
    assert bench.verifies == 0


def test_a_null_pin_is_not_tried() -> None:
    bench = Bench(open_card("netkey3-fresh"))
    with pytest.raises(PinNotInitialized):
        bench.verify(guard(RIGHT))
    assert bench.verifies == 0


@pytest.mark.parametrize("status", ["6d00", "6a88", "6700", "6f00"])
def test_an_unreadable_or_missing_counter_sends_nothing(status: str) -> None:
    class Silent(Bench):
        def transmit(self, command: bytes) -> bytes:
            if command[1] == 0x20 and len(command) == 4:
                return bytes.fromhex(status)
            return super().transmit(command)

    bench = Silent()
    with pytest.raises(PinRefused) as caught:
        bench.verify(guard(RIGHT))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert bench.verifies == 0


def test_no_source() -> None:
    bench = Bench()
    with pytest.raises(PinRequired):
        bench.verify(PinGuard(None))
    assert bench.verifies == 0


@pytest.mark.parametrize(
    "pin", [b"", b"12345", b"1" * 17, b"12345\n", b"123 56", "12345ä".encode(), b"\xef\xbb\xbf123"]
)
def test_a_malformed_pin_is_refused_and_not_shown(bench: Bench, pin: bytes) -> None:
    store = bytearray(pin)
    with pytest.raises(PinRefused) as caught:
        bench.verify(PinGuard(CallablePinSource(lambda: store)))
    assert bench.verifies == 0
    assert not any(store)
    assert not pin or pin.decode().strip() not in str(caught.value)


def test_the_source_is_asked_only_when_a_verify_is_due(bench: Bench) -> None:
    asked: list[int] = []

    def source() -> bytes:
        asked.append(1)
        return RIGHT

    keeper = PinGuard(CallablePinSource(source))
    for _ in range(3):
        bench.verify(keeper)
    assert len(asked) == 1


def test_an_attempt_without_an_answer_is_not_repeated(bench: Bench) -> None:
    def mute(command: bytes) -> bytes:
        raise DeadlineExceeded("The card did not answer in time.")

    bench.answer = mute
    keeper = guard(RIGHT)
    with pytest.raises(DeadlineExceeded):
        bench.verify(keeper)
    bench.answer = None
    with pytest.raises(PinRefused):
        bench.verify(keeper)
    assert bench.verifies == 1


def test_what_a_reader_says_of_an_attempt_does_not_make_it_undone(bench: Bench) -> None:
    def busy(command: bytes) -> bytes:
        raise ReaderBusy("The slot is busy, says the reader.", outcome=Outcome.NOT_SENT)

    bench.answer = busy
    keeper = guard(RIGHT)
    with pytest.raises(ReaderBusy):
        bench.verify(keeper)
    bench.answer = None
    with pytest.raises(PinRefused):
        bench.verify(keeper)
    assert bench.verifies == 1


def test_what_never_became_a_command_was_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = guard(b"111111")
    pin = NETKEY3.pin(PinName.NKS_1)
    deadline = bench.deadline
    with keeper.ask(pin) as secret, bench.connection.transaction(deadline=deadline):
        with monkeypatch.context() as patch:
            patch.setattr(TcosCard, "verify", gone)
            with pytest.raises(CardRemoved):
                keeper.verify(bench.card, pin, secret, deadline=deadline)
        keeper.verify(bench.card, pin, secret, deadline=deadline)
    assert bench.verifies == 1


def gone(*_: object, **__: object) -> None:
    raise CardRemoved("The card was gone before.", outcome=Outcome.NOT_SENT)


def test_after_a_reset_the_pin_is_given_again(bench: Bench) -> None:
    keeper = guard(RIGHT)
    bench.verify(keeper)
    with bench.connection.transaction(deadline=bench.deadline):
        bench.connection.reset(deadline=bench.deadline)
    bench.verify(keeper)
    assert bench.verifies == 2


def test_an_open_card_proves_no_pin_and_hides_the_counter(bench: Bench) -> None:
    bench.verify(guard(RIGHT))
    stranger = TcosCard(bench.connection, NETKEY3)
    with bench.connection.transaction(deadline=bench.deadline):
        assert stranger.pin_status(GLOBAL, deadline=bench.deadline).state is PinState.VERIFIED
    with pytest.raises(PinRefused, match="another program"):
        attempt(guard(WRONG), stranger, bench.connection, GLOBAL)
    assert bench.verifies == 1


def test_a_card_that_took_the_pin_before_is_open_as_long_as_it_says_so(bench: Bench) -> None:
    keeper = guard(RIGHT)
    bench.verify(keeper)
    attempt(keeper, TcosCard(bench.connection, NETKEY3), bench.connection, GLOBAL)
    assert bench.verifies == 1


def test_a_card_that_somebody_opens_while_a_person_types_gets_no_pin(bench: Bench) -> None:
    keeper, stranger = guard(WRONG), TcosCard(bench.connection, NETKEY3)
    with bench.connection.transaction(deadline=bench.deadline):
        assert not keeper.is_open(stranger, GLOBAL, deadline=bench.deadline)
    bench.verify(guard(RIGHT))
    with (
        keeper.ask(GLOBAL) as secret,
        bench.connection.transaction(deadline=bench.deadline),
        pytest.raises(PinRefused, match="another program"),
    ):
        keeper.verify(stranger, GLOBAL, secret, deadline=bench.deadline)
    assert bench.verifies == 1


def test_a_card_that_always_says_verified_gets_no_pin() -> None:
    class Flatterer(Bench):
        def transmit(self, command: bytes) -> bytes:
            if command[1] == 0x20 and len(command) == 4:
                return bytes.fromhex("9000")
            return super().transmit(command)

    bench = Flatterer()
    with pytest.raises(PinRefused):
        bench.verify(guard(WRONG))
    assert bench.verifies == 0


def test_nobody_holds_the_card_while_a_person_types(bench: Bench) -> None:
    held: list[bool] = []

    def source() -> bytes:
        with bench.connection.transaction(deadline=time.monotonic()):
            held.append(True)
        return RIGHT

    bench.verify(PinGuard(CallablePinSource(source)))
    assert held == [True]


def test_the_pin_is_wiped_after_use(bench: Bench) -> None:
    store = bytearray(RIGHT)
    bench.verify(PinGuard(CallablePinSource(lambda: store)))
    assert store == bytes(6)


def test_buffers_reach_the_connection_uncopied(bench: Bench) -> None:
    seen: list[Buffers] = []
    transmit = bench.connection.transmit

    class Watching:
        atr, limits = bench.connection.atr, bench.connection.limits

        @property
        def epoch(self) -> int:
            return bench.connection.epoch

        def transmit(self, command: Buffers, *, deadline: float) -> bytes:
            seen.append(command)
            return transmit(command, deadline=deadline)

    store = bytearray(RIGHT)
    attempt(PinGuard(CallablePinSource(lambda: store)), TcosCard(Watching(), NETKEY3), bench.connection, GLOBAL)
    (_, pin) = seen[-1]
    assert isinstance(pin, memoryview)
    assert pin.obj is store
