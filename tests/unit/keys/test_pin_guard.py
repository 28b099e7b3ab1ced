"""What the PIN guard sends, counted by the card itself."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from demail_hw.errors import (
    CardRemoved,
    DeadlineExceeded,
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
    ReaderBusy,
)
from demail_hw.interfaces import Buffer, Buffers, PinLedger, PinOperation, PinRecord, PinRecordState
from demail_hw.keys.pin_guard import PinGuard
from demail_hw.pin_ledger import MemoryPinLedger
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
        self.simulated = card or open_card("netkey3")
        self.connection: SimulatedConnection = SimulatedReader(self).connect(deadline=self.deadline)
        self.card = TcosCard(self.connection, NETKEY3)

    @property
    def deadline(self) -> float:
        return time.monotonic() + 30

    def power_on(self) -> bytes:
        return self.simulated.power_on()

    def power_off(self) -> None:
        self.simulated.power_off()

    def transmit(self, command: bytes) -> bytes:
        if command[1] == 0x20 and len(command) > 5:
            self.verifies += 1
            if self.answer:
                return self.answer(command)
        return self.simulated.transmit(command)

    def verify(self, guard: PinGuard, pin: PinName = PinName.GLOBAL) -> None:
        attempt(guard, self.card, self.connection, NETKEY3.pin(pin))

    def restore_tries(self) -> None:
        """As after a VERIFY with the right PIN by somebody else."""
        with self.connection.transaction(deadline=self.deadline):
            self.simulated.transmit(bytes.fromhex("0020000006") + RIGHT)
            self.connection.reset(deadline=self.deadline)

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


CARD = "89490173510080407136"


def guard(pin: bytes | Callable[[], Buffer] | None, ledger: PinLedger | None = None, **options: Any) -> PinGuard:
    given = (lambda: pin) if isinstance(pin, bytes) else pin
    source = None if given is None else CallablePinSource(given)
    return PinGuard(source, serial=CARD, ledger=ledger or MemoryPinLedger(), **options)


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


def test_a_refusal_counts_for_every_guard_of_the_ledger(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    bench.restore_tries()
    with pytest.raises(PinRefused, match="not sent again"):
        bench.verify(guard(RIGHT, ledger))
    assert bench.verifies == 1


def test_a_refusal_is_of_one_pin_of_one_card(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    bench.verify(guard(b"111111", ledger), PinName.NKS_1)
    bench.restore_tries()
    bench.verify(PinGuard(CallablePinSource(lambda: RIGHT), serial="0815", ledger=ledger))
    assert bench.verifies == 3


def test_a_person_clears_a_refusal(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    bench.restore_tries()
    keeper = guard(RIGHT, ledger)
    cleared = keeper.clear(GLOBAL, deadline=bench.deadline)
    assert cleared is not None
    assert cleared.state is PinRecordState.REFUSED
    bench.verify(keeper)
    assert bench.verifies == 2


def test_who_types_the_pin_may_go_on_after_a_refusal_and_that_clears_it(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    assert ledger.records(CARD)["global"].state is PinRecordState.ACCEPTED
    bench.connection.reset(deadline=bench.deadline)
    bench.verify(guard(RIGHT, ledger))
    assert bench.verifies == 3


@pytest.mark.parametrize(("kept", "left"), [(2, 2), (1, 1), (0, 0)])
def test_the_last_tries_are_kept(bench: Bench, kept: int, left: int) -> None:
    for _ in range(3 - kept):
        with pytest.raises((PinIncorrect, PinBlocked)):
            bench.verify(guard(WRONG, kept=kept))
    with pytest.raises((PinRefused, PinBlocked)) as caught:
        bench.verify(guard(RIGHT, kept=kept))
    assert caught.value.outcome is Outcome.NOT_SENT or kept == 0
    assert bench.verifies == 3 - kept
    assert bench.left() == left


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


class Silent(Bench):
    """Its card does not tell the counter."""

    status = "6d00"

    def transmit(self, command: bytes) -> bytes:
        if command[1] == 0x20 and len(command) == 4:
            return bytes.fromhex(self.status)
        return super().transmit(command)


@pytest.mark.parametrize("status", ["6d00", "6700", "6f00", "9000"])
def test_a_hidden_counter_gets_one_attempt_a_record(status: str) -> None:
    bench = Silent()
    bench.status = status
    ledger = MemoryPinLedger()
    for _ in range(2):
        bench.connection.reset(deadline=bench.deadline)
        bench.verify(guard(RIGHT, ledger))
    bench.connection.reset(deadline=bench.deadline)
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    for _ in range(2):
        with pytest.raises(PinRefused, match="not sent again") as caught:
            bench.verify(guard(RIGHT, ledger))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert bench.verifies == 3


def test_a_hidden_counter_proves_nothing_of_an_attempt_without_an_end() -> None:
    bench = Silent()
    bench.answer = mute
    ledger = MemoryPinLedger()
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(RIGHT, ledger))
    with pytest.raises(PinRefused, match="not known"):
        bench.verify(guard(RIGHT, ledger))
    assert bench.verifies == 1


def test_a_pin_that_the_card_does_not_have_is_not_sent() -> None:
    bench = Silent()
    bench.status = "6a88"
    with pytest.raises(PinRefused, match="no PIN"):
        bench.verify(guard(RIGHT))
    assert bench.verifies == 0


def mute(command: bytes) -> bytes:
    raise DeadlineExceeded("The card did not answer in time.")


def test_no_source() -> None:
    bench = Bench()
    with pytest.raises(PinRequired):
        bench.verify(guard(None))
    assert bench.verifies == 0


@pytest.mark.parametrize(
    "pin", [b"", b"12345", b"1" * 17, b"12345\n", b"123 56", "12345ä".encode(), b"\xef\xbb\xbf123"]
)
def test_a_malformed_pin_is_refused_and_not_shown(bench: Bench, pin: bytes) -> None:
    with pytest.raises(PinRefused) as caught:
        bench.verify(guard(pin))
    assert bench.verifies == 0
    assert not pin or pin.decode().strip() not in str(caught.value)


def test_the_source_is_asked_only_when_a_verify_is_due(bench: Bench) -> None:
    asked: list[int] = []

    def source() -> bytes:
        asked.append(1)
        return RIGHT

    keeper = guard(source)
    for _ in range(3):
        bench.verify(keeper)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "failure",
    [
        DeadlineExceeded("The card did not answer in time."),
        ReaderBusy("The slot is busy, says the reader.", outcome=Outcome.NOT_SENT),
    ],
    ids=["mute", "busy"],
)
def test_an_attempt_without_an_answer_that_cost_a_try_is_not_repeated(bench: Bench, failure: HardwareError) -> None:
    def count_and_fail(command: bytes) -> bytes:
        bench.simulated.transmit(command)
        raise failure

    bench.answer = count_and_fail
    ledger = MemoryPinLedger()
    with pytest.raises(type(failure)):
        bench.verify(guard(WRONG, ledger))
    bench.answer = None
    for _ in range(2):
        with pytest.raises(PinRefused, match="not known") as caught:
            bench.verify(guard(WRONG, ledger, kept=0))
    assert "pin status" in caught.value.remedy
    assert bench.verifies == 1


def test_an_attempt_without_an_answer_is_good_again_if_the_counter_proves_it(bench: Bench) -> None:
    bench.answer = mute
    ledger = MemoryPinLedger()
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(RIGHT, ledger))
    assert ledger.records(CARD)["global"].state is PinRecordState.PENDING
    bench.answer = None
    bench.verify(guard(RIGHT, ledger))
    assert ledger.records(CARD)["global"].state is PinRecordState.ACCEPTED


def test_the_attempt_is_noted_before_the_command_leaves(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    seen: list[PinRecord] = []

    def look(command: bytes) -> bytes:
        seen.append(ledger.records(CARD)["global"])
        return bench.simulated.transmit(command)

    bench.answer = look
    bench.verify(guard(RIGHT, ledger))
    (record,) = seen
    assert (record.state, record.operation, record.retries_left) == (PinRecordState.PENDING, PinOperation.VERIFY, 3)


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


def test_an_open_card_proves_no_pin(bench: Bench) -> None:
    bench.verify(guard(RIGHT))
    stranger = TcosCard(bench.connection, NETKEY3)
    with bench.connection.transaction(deadline=bench.deadline):
        assert stranger.pin_status(GLOBAL, deadline=bench.deadline).state is PinState.VERIFIED
    with pytest.raises(PinIncorrect):
        attempt(guard(WRONG), stranger, bench.connection, GLOBAL)
    assert bench.verifies == 2
    assert not stranger.is_verified(GLOBAL)


def test_a_card_that_took_the_pin_before_is_open_as_long_as_it_says_so(bench: Bench) -> None:
    keeper = guard(RIGHT)
    bench.verify(keeper)
    attempt(keeper, TcosCard(bench.connection, NETKEY3), bench.connection, GLOBAL)
    assert bench.verifies == 1


def test_nobody_holds_the_card_while_a_person_types(bench: Bench) -> None:
    held: list[bool] = []

    def source() -> bytes:
        with bench.connection.transaction(deadline=time.monotonic()):
            held.append(True)
        return RIGHT

    bench.verify(guard(source))
    assert held == [True]


def test_the_pin_is_wiped_after_use(bench: Bench) -> None:
    store = bytearray(RIGHT)
    bench.verify(guard(lambda: store))
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
    attempt(guard(lambda: store), TcosCard(Watching(), NETKEY3), bench.connection, GLOBAL)
    (_, pin) = seen[-1]
    assert isinstance(pin, memoryview)
    assert pin.obj is store
