"""What the PIN guard sends, counted by the card itself."""

import contextlib
import dataclasses
import datetime
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demail_hw.errors import (
    CardError,
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
from demail_hw.keys.pin_remedies import PinRemedies
from demail_hw.pin_ledger import FilePinLedger, MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.secrets import Pin
from demail_hw.tcos.card import PinState, TcosCard
from demail_hw.tcos.layout import PinName, PinSlot
from demail_hw.tcos.profiles import NETKEY3
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedConnection, SimulatedReader

GLOBAL = NETKEY3.pin(PinName.GLOBAL)
RIGHT, WRONG = b"123456", b"975310"
VERIFY, CHANGE, RESET = 0x20, 0x24, 0x2C


class Bench:
    """A card on a table: the guard's view of it, how many VERIFYs with a PIN it has seen, and its PIN commands.

    ``answer``: what it says to a VERIFY, ``other_answer``: to the other PIN commands.
    """

    def __init__(self, card: SimulatedCard | None = None) -> None:
        self.verifies = 0
        self.sent: list[int] = []
        self.other_answer: Callable[[bytes], bytes] | None = None
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
        if command[1] in {CHANGE, RESET}:
            self.sent.append(command[1])
            if self.other_answer:
                return self.other_answer(command)
        if command[1] == 0x20 and len(command) > 5:
            self.verifies += 1
            self.sent.append(command[1])
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
        guard.open(card, pin, secret, deadline=deadline)


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


def refuse(bench: Bench, ledger: PinLedger, times: int = 1) -> None:
    """A person typed it wrong."""
    for _ in range(times):
        with pytest.raises(PinIncorrect):
            bench.verify(guard(WRONG, ledger, attended=True, kept=0))


@pytest.mark.parametrize("status", ["6d00", "9000"])
def test_a_check_tells_what_the_card_said_last_where_it_hides_its_counter(status: str) -> None:
    bench, ledger = Silent(), MemoryPinLedger()
    bench.status = status
    refuse(bench, ledger, times=2)
    with bench.connection.transaction(deadline=bench.deadline):
        found = guard(None, ledger, attended=True, kept=0).check(bench.card, GLOBAL, deadline=bench.deadline)
    assert found.retries_left == 1


@pytest.mark.parametrize(("refused", "left"), [(1, 1), (2, 1)])
def test_an_attempt_without_an_end_may_have_cost_one_of_the_hidden_tries(refused: int, left: int) -> None:
    """But the last one may be left; and the right PIN makes that past."""
    bench, ledger = Silent(), MemoryPinLedger()
    refuse(bench, ledger, refused)
    for _ in range(2):
        bench.answer = mute
        with pytest.raises(DeadlineExceeded):
            bench.verify(guard(RIGHT, ledger, attended=True, kept=0))
        bench.answer = None
        assert ledger.records(CARD)["global"].retries_left is None
        with pytest.raises(PinRefused, match=f"{left} try left as far as is known") as caught:
            bench.verify(guard(RIGHT, ledger, attended=True, kept=left))
        assert "--keep 0" in caught.value.remedy
    bench.verify(guard(RIGHT, ledger, attended=True, kept=0))
    bench.connection.reset(deadline=bench.deadline)
    bench.verify(guard(RIGHT, ledger))


def test_an_unblocking_without_an_end_may_have_left_the_hidden_tries_as_they_were() -> None:
    bench, ledger = Silent(), MemoryPinLedger()
    refuse(bench, ledger, times=2)
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded):
        unblock(guard(None, ledger), bench)
    with pytest.raises(PinRefused, match="1 try left as far as is known"):
        bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    bench.verify(guard(RIGHT, ledger, attended=True, kept=0))


def test_a_pin_that_was_blocked_may_have_tries_after_an_unblocking_without_an_end() -> None:
    bench, ledger = Silent(), MemoryPinLedger()
    with ledger.page(CARD, deadline=bench.deadline) as page:
        page.write({"global": PinRecord(PENDING, PinOperation.UNBLOCK, datetime.datetime.now(datetime.UTC), 0)})
    bench.verify(guard(RIGHT, ledger, attended=True))
    assert bench.verifies == 1


def test_a_refusal_for_another_reason_does_not_forget_the_hidden_tries() -> None:
    bench, ledger = Silent(), MemoryPinLedger()
    refuse(bench, ledger)
    bench.answer = lambda command: bytes.fromhex("6a80")
    with pytest.raises(CardError):
        bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    with pytest.raises(PinRefused, match="2 tries left"):
        bench.verify(guard(RIGHT, ledger, attended=True))


@pytest.mark.parametrize("status", ["6f00", "6300", "6200", "6581"])
def test_an_answer_that_proves_nothing_may_have_cost_one_of_the_hidden_tries(status: str) -> None:
    bench, ledger = Silent(), MemoryPinLedger()
    refuse(bench, ledger)

    def lose(command: bytes) -> bytes:
        bench.simulated.transmit(command)
        return bytes.fromhex(status)

    bench.answer = lose
    with pytest.raises(CardError):
        bench.verify(guard(WRONG, ledger, attended=True, kept=1))
    with pytest.raises(PinRefused, match="1 try left as far as is known"):
        bench.verify(guard(WRONG, ledger, attended=True, kept=1))
    assert bench.verifies == 2


def clear(ledger: PinLedger, bench: Bench, pin: PinSlot = GLOBAL) -> PinRecord | None:
    return guard(None, ledger).clear(pin, deadline=bench.deadline)


def test_to_clear_a_refusal_does_not_forget_the_hidden_tries() -> None:
    """Else a service with a wrong PIN and a person who clears it each time would block it."""
    bench, ledger = Silent(), MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    for again in (False, True):
        assert (clear(ledger, bench) is None) is again, "there is something to forget once"
        with pytest.raises(PinRefused, match="2 tries left as far as is known") as caught:
            bench.verify(guard(WRONG, ledger))
        assert "pin verify URI --keep 1" in caught.value.remedy
    assert bench.verifies == 1
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    bench.answer = None
    clear(ledger, bench)
    with pytest.raises(PinRefused, match="1 try left as far as is known"):
        bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    bench.verify(guard(RIGHT, ledger, attended=True, kept=0))
    bench.connection.reset(deadline=bench.deadline)
    bench.verify(guard(RIGHT, ledger))


def test_what_is_cleared_lets_a_counter_prove_again_that_nothing_was_lost(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    refuse(bench, ledger)
    bench.restore_tries()
    clear(ledger, bench)
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(RIGHT, ledger))
    bench.answer = None
    bench.verify(guard(RIGHT, ledger))


def test_the_command_that_is_named_where_the_tries_are_hidden_is_let_through() -> None:
    """Of a VERIFY and of an unblocking without an end, after a refusal."""
    for act, way in ((send, "--keep 0."), (unblock, "--keep 1;")):
        bench, ledger = Silent(), MemoryPinLedger()
        refuse(bench, ledger)
        bench.answer = mute if act is send else None
        bench.other_answer = mute
        with pytest.raises(DeadlineExceeded):
            act(guard(None, ledger, attended=True, kept=0), bench)
        with pytest.raises(PinRefused, match="not known") as caught:
            act(guard(None, ledger, kept=0), bench)
        assert f"pin verify URI {way}" in caught.value.remedy


class Spent(Bench):
    """Somebody else spends tries while a person types."""

    def spend(self, count: int, ledger: PinLedger) -> None:
        for _ in range(count):
            with self.connection.transaction(deadline=self.deadline):
                self.simulated.transmit(bytes.fromhex("0020000006") + WRONG)


class SpentInSecret(Silent):
    """The same through the guard, with a card that hides its counter."""

    def spend(self, count: int, ledger: PinLedger) -> None:
        refuse(self, ledger, count)
        self.sent.clear()


def send(keeper: PinGuard, bench: Bench) -> None:
    with bench.connection.transaction(deadline=bench.deadline), Pin(RIGHT) as secret:
        keeper.verify(bench.card, GLOBAL, secret, deadline=bench.deadline)


@pytest.mark.parametrize("bench_of", [Spent, SpentInSecret])
@pytest.mark.parametrize("again", ["verify", "open", "change", "check"])
def test_the_last_try_is_not_spent_by_who_was_told_of_more(bench_of: type[Spent | SpentInSecret], again: str) -> None:
    """It is said once; who is told of it then may spend it."""
    bench, ledger = bench_of(), MemoryPinLedger()
    keeper = guard(RIGHT, ledger, attended=True, kept=0)

    def check(*, again: bool = False) -> int | None:
        with bench.connection.transaction(deadline=bench.deadline):
            return keeper.check(bench.card, GLOBAL, deadline=bench.deadline, again=again).retries_left

    def open_card() -> None:
        with keeper.ask(GLOBAL) as secret, bench.connection.transaction(deadline=bench.deadline):
            keeper.open(bench.card, GLOBAL, secret, deadline=bench.deadline)

    acts = {
        "verify": lambda: send(keeper, bench),
        "open": open_card,
        "change": lambda: change(keeper, bench),
        "check": lambda: check(again=True),
    }
    assert check() != 1
    bench.spend(2, ledger)
    with pytest.raises(PinRefused, match="only the last try is left by now") as caught:
        acts[again]()
    assert caught.value.remedy.startswith("Verify it at the terminal")
    assert "--keep 0" in caught.value.remedy
    assert bench.sent == []
    assert check() == 1
    send(keeper, bench)
    assert bench.sent == [VERIFY]


def test_who_is_told_each_time_comes_to_the_last_try(bench: Bench) -> None:
    keeper = guard(None, attended=True, kept=0)
    for left in (3, 2, 1):
        with bench.connection.transaction(deadline=bench.deadline):
            for again in (False, True):
                found = keeper.check(bench.card, GLOBAL, deadline=bench.deadline, again=again)
                assert found.retries_left == left
            with Pin(WRONG) as secret, pytest.raises((PinIncorrect, PinBlocked)):
                keeper.verify(bench.card, GLOBAL, secret, deadline=bench.deadline)
    assert bench.verifies == 3


@pytest.mark.parametrize("spent", [0, 1])
def test_who_was_told_of_the_tries_and_has_more_than_one_goes_on(bench: Bench, spent: int) -> None:
    keeper = guard(None, attended=True, kept=0)
    with bench.connection.transaction(deadline=bench.deadline):
        keeper.check(bench.card, GLOBAL, deadline=bench.deadline)
        for _ in range(spent):
            bench.simulated.transmit(bytes.fromhex("0020000006") + WRONG)
    send(keeper, bench)
    assert bench.sent == [VERIFY]


def test_the_last_try_of_a_puk_is_not_spent_by_who_was_told_of_more() -> None:
    card = blocked_card()
    bench, keeper = Bench(card), guard(None, attended=True, kept=0)
    with bench.connection.transaction(deadline=bench.deadline):
        keeper.check_unblocking(bench.card, GLOBAL, deadline=bench.deadline)
    card.file_system.root.pins[PUK.reference].tries = 1
    with pytest.raises(PinRefused, match="PIN puk only the last try"):
        unblock(keeper, bench)
    assert bench.sent == []
    unblock(keeper, bench)
    assert bench.sent == [VERIFY, RESET]


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
    store = bytearray(pin)
    with pytest.raises(PinRefused) as caught:
        bench.verify(guard(lambda: store))
    assert bench.verifies == 0
    assert not any(store)
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
    with pytest.raises(type(failure)) as lost:
        bench.verify(guard(WRONG, ledger, uri="usbip://server/"))
    asks_the_card = "demail-hw pin status usbip://server/." in lost.value.remedy
    assert asks_the_card is (failure.outcome is Outcome.UNKNOWN)
    bench.answer = None
    for _ in range(2):
        with pytest.raises(PinRefused, match="not known") as caught:
            bench.verify(guard(WRONG, ledger, kept=0))
    assert "demail-hw pin verify URI --keep 1" in caught.value.remedy
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


def test_a_persons_attempt_without_an_end_does_not_cover_up_a_refusal(bench: Bench) -> None:
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger))
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(RIGHT, ledger, attended=True, kept=1))
    bench.answer = None
    with pytest.raises(PinRefused, match="not known"):
        bench.verify(guard(WRONG, ledger, kept=0))
    assert bench.verifies == 2


def test_a_counter_that_somebody_restores_proves_one_attempt_and_no_second(bench: Bench) -> None:
    def count_and_fail(command: bytes) -> bytes:
        bench.simulated.transmit(command)
        raise DeadlineExceeded("The card did not answer in time.")

    ledger = MemoryPinLedger()
    for _ in range(2):
        bench.answer = count_and_fail
        with pytest.raises(DeadlineExceeded):
            bench.verify(guard(WRONG, ledger))
        bench.answer = None
        bench.restore_tries()
    with pytest.raises(PinRefused, match="not known"):
        bench.verify(guard(WRONG, ledger))
    assert bench.verifies == 2


def test_an_explicit_verify_is_sent_to_an_open_card_too(bench: Bench) -> None:
    keeper = guard(RIGHT)
    bench.verify(keeper)
    with bench.connection.transaction(deadline=bench.deadline):
        with Pin(WRONG) as wrong, pytest.raises(PinIncorrect):
            keeper.verify(bench.card, GLOBAL, wrong, deadline=bench.deadline)
        assert not bench.card.is_verified(GLOBAL)
    assert bench.verifies == 2


def test_the_floor_holds_where_the_card_hides_its_counter_after_a_refusal() -> None:
    bench = Silent()
    bench.status = "9000"
    ledger = MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger, attended=True))
    with pytest.raises(PinRefused, match="2 tries left"):
        bench.verify(guard(WRONG, ledger, attended=True))
    assert bench.verifies == 1


@pytest.mark.parametrize(("status", "error"), [("6a88", PinRefused), ("6985", PinNotInitialized)])
def test_no_puk_goes_to_a_pin_that_it_cannot_unblock(status: str, error: type[HardwareError]) -> None:
    class WithoutTarget(Bench):
        def transmit(self, command: bytes) -> bytes:
            return bytes.fromhex(status) if command == bytes.fromhex("00200081") else super().transmit(command)

    bench, ledger = WithoutTarget(), MemoryPinLedger()
    target = NETKEY3.pin(PinName.NKS_1)
    with (
        Pin(RIGHT) as puk,
        Pin(NEW) as new,
        bench.connection.transaction(deadline=bench.deadline),
        pytest.raises(error),
    ):
        guard(None, ledger).unblock(bench.card, target, puk, new, deadline=bench.deadline)
    assert ledger.records(CARD) == {}


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


# --- change, unblock, initialize

PUK = NETKEY3.pin(PinName.PUK)
NEW, RIGHT_PUK, WRONG_PUK = b"864209", b"12345678", b"99999999"
PENDING, REFUSED, ACCEPTED = PinRecordState.PENDING, PinRecordState.REFUSED, PinRecordState.ACCEPTED
DECLINED = PinRecordState.DECLINED


def blocked_card() -> SimulatedTcosCard:
    card = open_card("netkey3")
    card.power_on()
    for _ in range(3):
        card.transmit(bytes.fromhex("0020000006") + WRONG)
    return card


def blocked_through_the_guard() -> tuple[Bench, PinLedger]:
    """By a person who typed it wrong: so the ledger knows of a refusal too."""
    bench, ledger = Bench(), MemoryPinLedger()
    for _ in range(3):
        with pytest.raises((PinIncorrect, PinBlocked)):
            bench.verify(guard(WRONG, ledger, kept=0, attended=True))
    assert noted(ledger) == {"global": (REFUSED, PinOperation.VERIFY, 0)}
    bench.sent.clear()
    return bench, ledger


def change(keeper: PinGuard, bench: Bench, old: bytes = RIGHT, new: bytes = NEW) -> None:
    deadline = bench.deadline
    with bench.connection.transaction(deadline=deadline), Pin(old) as first, Pin(new) as second:
        keeper.change(bench.card, GLOBAL, first, second, deadline=deadline)


def unblock(keeper: PinGuard, bench: Bench, puk: bytes = RIGHT_PUK, new: bytes = NEW) -> None:
    deadline = bench.deadline
    with bench.connection.transaction(deadline=deadline), Pin(puk) as first, Pin(new) as second:
        keeper.unblock(bench.card, GLOBAL, first, second, deadline=deadline)


def initialize(keeper: PinGuard, bench: Bench, null_pin: bytes = bytes(6), new: bytes = NEW) -> None:
    bench.card.profile = dataclasses.replace(NETKEY3, null_pin=null_pin)
    deadline = bench.deadline
    with bench.connection.transaction(deadline=deadline), Pin(new) as second:
        keeper.initialize(bench.card, GLOBAL, second, deadline=deadline)


@dataclasses.dataclass(frozen=True)
class Use:
    """What is done to which card. ``sent``: its PIN commands, if the card takes each. ``asked``: the PIN that the
    card compares, and ``before`` its tries. ``noted``: those in the ledger at the end, with the tries before the last
    command, which this card does not tell of a PIN that is verified.
    """

    act: Callable[..., None]
    card: Callable[[], SimulatedTcosCard]
    operation: PinOperation
    sent: list[int]
    asked: str
    before: int | None
    wrong: bytes
    noted: dict[str, int | None]

    @property
    def first(self) -> PinOperation:
        """What a wrong PIN ends at."""
        return PinOperation.VERIFY if self.sent[0] == VERIFY else self.operation

    def noted_as(self, name: str) -> PinOperation:
        """What its last command is called in the record of this PIN."""
        another = self.operation is PinOperation.UNBLOCK and name == self.asked
        return PinOperation.UNBLOCK_ANOTHER if another else self.operation

    @property
    def way_back(self) -> str:
        """After its last command, if nobody knows how that ended."""
        now = datetime.datetime.now(datetime.UTC)
        return PinRemedies().way_back(GLOBAL, PinRecord(PENDING, self.operation, now, self.noted["global"]))


USES = {
    "change": Use(
        change,
        lambda: open_card("netkey3"),
        PinOperation.CHANGE,
        [VERIFY, CHANGE],
        "global",
        3,
        WRONG,
        {"global": None},
    ),
    "unblock": Use(
        unblock,
        blocked_card,
        PinOperation.UNBLOCK,
        [VERIFY, RESET],
        "puk",
        3,
        WRONG_PUK,
        {"global": 0, "puk": None},
    ),
    "initialize": Use(
        initialize,
        lambda: open_card("netkey3-fresh"),
        PinOperation.INITIALIZE,
        [CHANGE],
        "global",
        None,
        b"000000",
        {"global": None},
    ),
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)
each_of_two_steps = pytest.mark.parametrize("use", [USES["change"], USES["unblock"]], ids=["change", "unblock"])


def noted(ledger: PinLedger) -> dict[str, tuple[PinRecordState, PinOperation, int | None]]:
    return {
        name: (record.state, record.operation, record.retries_left) for name, record in ledger.records(CARD).items()
    }


def accepts(bench: Bench, pin: bytes) -> bool:
    """Would the card take it? Asked past the guard, and powered anew."""
    with bench.connection.transaction(deadline=bench.deadline):
        bench.connection.reset(deadline=bench.deadline)
        answer = bench.simulated.transmit(bytes((0x00, VERIFY, 0x00, 0x00, len(pin))) + pin)
        bench.connection.reset(deadline=bench.deadline)
    return answer == b"\x90\x00"


@each_use
def test_accepted(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    use.act(guard(None, ledger), bench)
    assert bench.sent == use.sent
    assert noted(ledger) == {name: (ACCEPTED, use.noted_as(name), left) for name, left in use.noted.items()}
    assert accepts(bench, NEW)
    bench.verify(guard(NEW, ledger))


@each_use
def test_it_is_noted_before_it_leaves(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    seen: list[object] = []

    def look(command: bytes) -> bytes:
        seen.append(noted(ledger))
        return bench.simulated.transmit(command)

    bench.answer = bench.other_answer = look
    use.act(guard(None, ledger), bench)
    verify = {use.asked: (PENDING, PinOperation.VERIFY, use.before)}
    last = {name: (PENDING, use.noted_as(name), left) for name, left in use.noted.items()}
    assert seen == ([verify, last] if VERIFY in use.sent else [last])


@each_use
def test_refused_once_and_not_sent_again(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    with pytest.raises(PinIncorrect) as caught:
        use.act(guard(None, ledger), bench, use.wrong)
    assert caught.value.retries_left == 2
    assert noted(ledger) == {use.asked: (REFUSED, use.first, 2)}
    for _ in range(2):
        with pytest.raises(PinRefused, match=f"refused the PIN {use.asked} at .* not sent again"):
            use.act(guard(None, ledger, kept=0), bench)
    assert bench.sent == use.sent[:1]
    guard(None, ledger).clear(NETKEY3.pin(PinName(use.asked)), deadline=bench.deadline)
    use.act(guard(None, ledger, kept=1), bench)
    assert bench.sent == use.sent[:1] + use.sent
    assert accepts(bench, NEW)


@each_use
def test_a_person_may_go_on_after_a_refusal(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    with pytest.raises(PinIncorrect):
        use.act(guard(None, ledger), bench, use.wrong)
    use.act(guard(None, ledger, attended=True, kept=1), bench)
    assert accepts(bench, NEW)


OTHER_REASONS = pytest.mark.parametrize("status", ["6a80", "6700", "6982", "6985"])


@OTHER_REASONS
def test_a_verify_that_is_refused_for_another_reason_stops_too(bench: Bench, status: str) -> None:
    bench.answer = lambda command: bytes.fromhex(status)
    ledger = MemoryPinLedger()
    with pytest.raises(CardError):
        bench.verify(guard(RIGHT, ledger))
    assert noted(ledger) == {"global": (REFUSED, PinOperation.VERIFY, 3)}
    with pytest.raises(PinRefused, match="not sent again"):
        bench.verify(guard(RIGHT, ledger))


@OTHER_REASONS
def test_a_first_pin_that_is_refused_for_another_reason_is_not_sent_again(status: str) -> None:
    """No VERIFY has shown before that it is the NullPIN which the card takes."""
    use, ledger = USES["initialize"], MemoryPinLedger()
    bench = Bench(use.card())
    bench.other_answer = lambda command: bytes.fromhex(status)
    with pytest.raises(CardError):
        use.act(guard(None, ledger), bench)
    assert noted(ledger) == {"global": (REFUSED, PinOperation.INITIALIZE, None)}
    with pytest.raises(PinRefused, match="not sent again"):
        use.act(guard(None, ledger), bench)


@each_of_two_steps
@pytest.mark.parametrize("status", ["6a80", "6700", "6982", "6984", "6985", "6400", "6c02"])
def test_what_the_card_refuses_after_the_right_pin_stops_nobody_who_has_that(use: Use, status: str) -> None:
    """It has accepted the old one, or the PUK, just before, and says that it has changed nothing. Only some status
    words say that it is the new one."""
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = lambda command: bytes.fromhex(status)
    for attended in (False, True):
        with pytest.raises(CardError) as caught:
            use.act(guard(None, ledger, attended=attended), bench)
        assert caught.value.outcome is Outcome.REFUSED
        assert not isinstance(caught.value, PinNotInitialized)
        assert caught.value.remedy.startswith(f"The PIN {use.asked} is right")
        assert ("choose another new PIN" in caught.value.remedy) is (status in {"6a80", "6700"})
        assert f"demail-hw pin {use.operation.value} URI" in caught.value.remedy
        assert ("pin clear URI" in caught.value.remedy) is not attended
        assert noted(ledger) == {use.asked: (DECLINED, use.noted_as(use.asked), None)}
    assert bench.sent == use.sent * 2
    right = RIGHT if use.asked == "global" else RIGHT_PUK
    bench.connection.reset(deadline=bench.deadline)
    bench.verify(guard(right, ledger), PinName(use.asked))


@each_of_two_steps
def test_what_the_card_refuses_after_the_right_pin_is_not_begun_again_unattended(use: Use) -> None:
    """A card may count the uses of a PIN too."""
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = lambda command: bytes.fromhex("6985")
    keeper = guard(None, ledger)

    def check() -> None:
        look = keeper.check_changing if use.asked == "global" else keeper.check_unblocking
        with bench.connection.transaction(deadline=bench.deadline):
            look(bench.card, GLOBAL, deadline=bench.deadline)

    with pytest.raises(CardError):
        use.act(keeper, bench)
    bench.connection.reset(deadline=bench.deadline)
    for act in (check, functools.partial(use.act, keeper, bench)):
        with pytest.raises(PinRefused, match=f"accepted the PIN {use.asked} at .* not tried again") as caught:
            act()
        assert f"at the terminal: demail-hw pin {use.operation.value} URI" in caught.value.remedy
    assert bench.sent == use.sent
    bench.other_answer = None
    clear(ledger, bench, NETKEY3.pin(PinName(use.asked)))
    use.act(keeper, bench)
    assert accepts(bench, NEW)


@each_of_two_steps
def test_a_pin_that_the_card_refuses_with_the_second_command_stops_as_any_other(use: Use) -> None:
    """Though it has accepted it just before: what it compared last counts."""
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = lambda command: bytes.fromhex("63c2")
    with pytest.raises(PinIncorrect):
        use.act(guard(None, ledger), bench)
    assert noted(ledger) == {use.asked: (REFUSED, use.noted_as(use.asked), 2)}
    bench.connection.reset(deadline=bench.deadline)
    right = RIGHT if use.asked == "global" else RIGHT_PUK
    with pytest.raises(PinRefused, match="not sent again"):
        bench.verify(guard(right, ledger, kept=0), PinName(use.asked))
    assert bench.sent == use.sent


def test_a_new_pin_that_the_card_does_not_take_leaves_what_was_noted_of_the_blocked_one() -> None:
    bench, ledger = blocked_through_the_guard()
    before = ledger.records(CARD)["global"]
    bench.other_answer = lambda command: bytes.fromhex("6a80")
    with pytest.raises(CardError):
        unblock(guard(None, ledger), bench)
    assert ledger.records(CARD)["global"] == before


@each_of_two_steps
def test_where_it_cannot_be_noted_that_the_card_refused_only_the_rest_what_is_noted_is_to_be_cleared(
    use: Use,
) -> None:
    bench, ledger = Bench(use.card()), Unwritable()
    ledger.notes = 3  # both of VERIFY, and the first of the other
    bench.other_answer = lambda command: bytes.fromhex("6a80")
    with pytest.raises(CardError) as caught:
        use.act(guard(None, ledger), bench)
    assert caught.value.remedy.startswith(f"The PIN {use.asked} is right, and nothing was changed, but the ledger")
    ledger.notes = 5
    for name, (state, *_) in noted(ledger).items():
        assert state is PENDING
        assert f"demail-hw pin clear URI{' --which puk' if name == 'puk' else ''}" in caught.value.remedy
        clear(ledger, bench, NETKEY3.pin(PinName(name)))
    ledger.notes, bench.other_answer = 4, None
    use.act(guard(None, ledger), bench)
    assert accepts(bench, NEW)


class Telling(Bench):
    """Its card tells the counter of a PIN that is verified, too, as not every card does."""

    def transmit(self, command: bytes) -> bytes:
        if command[1] == VERIFY and len(command) == 4:
            assert isinstance(self.simulated, SimulatedTcosCard)
            return self.simulated.file_system.root.pins[command[3]].status.to_bytes(2)
        return super().transmit(command)


@pytest.mark.parametrize(
    ("use", "way"),
    [
        (USES["change"], "Unblock it with the PIN puk: demail-hw pin unblock URI."),
        (USES["unblock"], "The PIN global, which unblocks it, has no tries either: ask the card's issuer."),
    ],
    ids=["change", "unblock"],
)
def test_what_is_blocked_by_the_second_command_says_how_to_unblock_it(use: Use, way: str) -> None:
    """Though the card has accepted it just before."""
    card, ledger = use.card(), MemoryPinLedger()
    asked = card.file_system.root.pins[NETKEY3.pin(PinName(use.asked)).reference]
    bench = Telling(card)

    def block(command: bytes) -> bytes:
        asked.tries = 0
        return bytes.fromhex("6983")

    bench.other_answer = block
    with pytest.raises(PinBlocked) as caught:
        use.act(guard(None, ledger), bench)
    assert noted(ledger) == {use.asked: (REFUSED, use.noted_as(use.asked), 0)}
    assert caught.value.remedy == way
    assert bench.sent == use.sent


@each_use
@pytest.mark.parametrize("status", ["6581", "6600", "6f00", "6100"])
def test_a_status_word_that_proves_nothing_leaves_it_open(use: Use, status: str) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = lambda command: bytes.fromhex(status)
    with pytest.raises(CardError) as caught:
        use.act(guard(None, ledger), bench)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.remedy == use.way_back
    assert noted(ledger) == {name: (PENDING, use.noted_as(name), left) for name, left in use.noted.items()}


@each_use
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
def test_no_answer_stops_everything_unattended_and_says_the_way_back(use: Use, committed: bool) -> None:
    """Before and after the card's commit: nobody can tell which."""
    bench, ledger = Bench(use.card()), MemoryPinLedger()

    def say_nothing(command: bytes) -> bytes:
        if committed:
            bench.simulated.transmit(command)
        return mute(command)

    bench.other_answer = say_nothing
    with pytest.raises(DeadlineExceeded) as caught:
        use.act(guard(None, ledger), bench)
    assert caught.value.remedy == use.way_back
    bench.other_answer = None
    assert noted(ledger) == {name: (PENDING, use.noted_as(name), left) for name, left in use.noted.items()}
    for pin in (RIGHT, NEW):
        with pytest.raises((PinRefused, PinBlocked, PinNotInitialized)) as stopped:
            bench.verify(guard(pin, ledger, kept=0))
        if isinstance(stopped.value, PinRefused):
            assert f"attempt to {use.operation.value} the PIN global" in stopped.value.message
            was_set = committed and use.operation is PinOperation.INITIALIZE
            way = PinRemedies().new_one_counts(GLOBAL, 3) if was_set else use.way_back
            assert stopped.value.remedy == way
    assert bench.sent == use.sent
    assert accepts(bench, NEW) is committed


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["change", "unblock"])
def test_what_has_no_end_is_not_begun_again_unattended(name: str, committed: bool) -> None:
    use = USES[name]
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = lambda command: mute(bench.simulated.transmit(command) if committed else command)
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench)
    bench.other_answer = None
    with pytest.raises(PinRefused, match="not known") as caught:
        use.act(guard(None, ledger), bench)
    assert caught.value.remedy == use.way_back
    assert bench.sent == use.sent


@pytest.mark.parametrize("name", ["change", "unblock"])
@pytest.mark.parametrize("refused_since", [False, True])
def test_after_no_end_no_unblocking_goes_unattended_whatever_was_refused_since(
    name: str, refused_since: bool
) -> None:
    use, ledger = USES[name], MemoryPinLedger()
    bench = Bench(open_card("netkey3"))
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench)
    bench.other_answer = None
    with bench.connection.transaction(deadline=bench.deadline):
        bench.connection.reset(deadline=bench.deadline)  # so that the PUK shows its counter, which stops nothing
    if refused_since:
        with Pin(WRONG) as wrong, bench.connection.transaction(deadline=bench.deadline), pytest.raises(PinIncorrect):
            guard(None, ledger, attended=True).verify(bench.card, GLOBAL, wrong, deadline=bench.deadline)
    bench.sent.clear()
    with pytest.raises(PinRefused, match=r"the PIN global at .* not known"):
        unblock(guard(None, ledger), bench)
    assert bench.sent == []


def test_an_initialization_without_an_end_is_begun_again_if_the_card_says_it_never_was_set() -> None:
    bench, ledger = Bench(open_card("netkey3-fresh")), MemoryPinLedger()
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded):
        initialize(guard(None, ledger), bench)
    bench.other_answer = None
    initialize(guard(None, ledger), bench)
    assert accepts(bench, NEW)
    with pytest.raises(PinRefused, match="not the NullPIN"):
        initialize(guard(None, ledger), bench)
    assert bench.sent == [CHANGE] * 2


@pytest.mark.parametrize("committed", [False, True], ids=["old PIN counts", "new PIN counts"])
def test_the_way_back_of_a_person_after_a_change_without_an_end(committed: bool) -> None:
    bench, ledger = Bench(), MemoryPinLedger()
    bench.other_answer = lambda command: mute(bench.simulated.transmit(command) if committed else command)
    with pytest.raises(DeadlineExceeded):
        change(guard(None, ledger), bench)
    if not committed:
        with pytest.raises(PinIncorrect):
            bench.verify(guard(NEW, ledger, attended=True))
    counts = NEW if committed else RIGHT
    bench.verify(guard(counts, ledger, attended=True, kept=1))
    bench.connection.reset(deadline=bench.deadline)
    bench.verify(guard(counts, ledger))


@each_use
def test_what_never_became_one_of_these_was_none(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    before = PinRecord(ACCEPTED, PinOperation.VERIFY, datetime.datetime.now(datetime.UTC), 3)
    with ledger.page(CARD, deadline=bench.deadline) as page:
        page.write(dict.fromkeys(use.noted, before))
    with monkeypatch.context() as patch:
        for name in ("change", "unblock"):
            patch.setattr(TcosCard, name, gone)
        with pytest.raises(CardRemoved):
            use.act(guard(None, ledger), bench)
    assert bench.sent == use.sent[:-1]
    if VERIFY in use.sent:
        assert noted(ledger)[use.asked] == (ACCEPTED, PinOperation.VERIFY, use.before)
    untouched = use.noted.keys() - ({use.asked} if VERIFY in use.sent else set())
    records = ledger.records(CARD)
    assert records.keys() == use.noted.keys()
    assert {name: records[name] for name in untouched} == dict.fromkeys(untouched, before)
    use.act(guard(None, ledger), bench)
    assert bench.sent == use.sent[:-1] + use.sent


@pytest.mark.parametrize("bad", [b"", b"12345", b"1" * 17, b"12345\n", b"123 56", "12345ä".encode()])
@pytest.mark.parametrize(
    ("name", "which"),
    [("change", "current"), ("change", "new"), ("unblock", "current"), ("unblock", "new"), ("initialize", "new")],
)
def test_a_malformed_one_is_not_sent(name: str, which: str, bad: bytes) -> None:
    use = USES[name]
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    act = functools.partial(use.act, guard(None, ledger), bench)
    with pytest.raises(PinRefused, match="nothing was sent"):
        act(bad) if which == "current" else act(new=bad)
    assert bench.sent == []
    assert noted(ledger) == {}


def test_a_null_pin_is_neither_changed_nor_does_it_unblock() -> None:
    bench = Bench(open_card("netkey3-fresh"))
    with pytest.raises(PinNotInitialized):
        change(guard(None), bench)
    null_puk = Bench(blocked_card())
    assert isinstance(null_puk.simulated, SimulatedTcosCard)
    null_puk.simulated.file_system.root.pins[PUK.reference]._value = None
    with pytest.raises(PinNotInitialized):
        unblock(guard(None), null_puk)
    assert bench.sent == null_puk.sent == []


def test_a_blocked_pin_is_not_changed() -> None:
    bench = Bench(blocked_card())
    with pytest.raises(PinBlocked):
        change(guard(None), bench)
    assert bench.sent == []


def test_what_is_set_is_not_initialized(bench: Bench) -> None:
    with pytest.raises(PinRefused, match="not the NullPIN"):
        initialize(guard(None), bench)
    assert bench.sent == []


@each_of_two_steps
@pytest.mark.parametrize(("left", "kept", "goes"), [(2, 2, False), (1, 2, False), (2, 1, True), (1, 0, True)])
def test_the_last_tries_of_what_is_compared_are_kept(use: Use, left: int, kept: int, goes: bool) -> None:
    card, ledger = use.card(), MemoryPinLedger()
    card.file_system.root.pins[NETKEY3.pin(PinName(use.asked)).reference].tries = left
    bench = Bench(card)
    if goes:
        use.act(guard(None, ledger, kept=kept), bench)
        assert noted(ledger)[use.asked] == (ACCEPTED, use.noted_as(use.asked), None)
    else:
        with pytest.raises(PinRefused, match=f"PIN {use.asked} has .* kept for people"):
            use.act(guard(None, ledger, kept=kept), bench)
        assert noted(ledger) == {}
    assert bench.sent == (use.sent if goes else [])


TOO_MUCH = pytest.mark.parametrize(
    ("use", "typed"), [(USES["change"], RIGHT + b"7"), (USES["unblock"], RIGHT_PUK + b"9")], ids=["change", "unblock"]
)


@TOO_MUCH
def test_one_key_too_many_sets_no_pin(use: Use, typed: bytes) -> None:
    """The PIN that is unblocked here is not blocked: so it can be seen whether it still counts."""
    bench, ledger = Bench(), MemoryPinLedger()
    with pytest.raises(PinIncorrect) as caught:
        use.act(guard(None, ledger), bench, typed)
    assert caught.value.retries_left == 2
    assert bench.sent == [VERIFY]
    assert noted(ledger) == {use.asked: (REFUSED, PinOperation.VERIFY, 2)}
    assert accepts(bench, RIGHT)
    assert not accepts(bench, NEW)
    assert not accepts(bench, typed[-1:] + NEW)


@TOO_MUCH
def test_the_card_would_make_one_key_too_many_part_of_the_new_pin(use: Use, typed: bytes) -> None:
    """Why the old one is sent alone before: the card sees no border between the two."""
    bench = Bench()
    both = typed + NEW
    with bench.connection.transaction(deadline=bench.deadline):
        answer = bench.simulated.transmit(bytes((0x00, use.sent[-1], 0x00, 0x00, len(both))) + both)
    assert answer == b"\x90\x00"
    assert accepts(bench, typed[-1:] + NEW)


@each_of_two_steps
@pytest.mark.parametrize("reached", [False, True], ids=["before", "after"])
def test_a_verify_step_without_an_end_is_a_verify_without_an_end(use: Use, reached: bool) -> None:
    """Before and after the card compared the PIN. The right one costs no try, as the counter proves: it goes on."""
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.answer = lambda command: mute(bench.simulated.transmit(command) if reached else command)
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench)
    assert bench.sent == [VERIFY]
    assert noted(ledger) == {use.asked: (PENDING, PinOperation.VERIFY, 3)}
    bench.answer = None
    bench.connection.reset(deadline=bench.deadline)
    use.act(guard(None, ledger), bench)
    assert bench.sent == [VERIFY, *use.sent]
    assert accepts(bench, NEW)


@each_of_two_steps
def test_a_verify_step_without_an_end_that_cost_a_try_is_not_repeated(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.answer = lambda command: mute(bench.simulated.transmit(command))
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench, use.wrong)
    bench.answer = None
    with pytest.raises(PinRefused, match=f"attempt to verify the PIN {use.asked} at .* not known") as caught:
        use.act(guard(None, ledger, kept=0), bench)
    assert caught.value.remedy == PinRemedies().verify_by_hand(NETKEY3.pin(PinName(use.asked)), 2)
    assert bench.sent == [VERIFY]
    assert noted(ledger) == {use.asked: (PENDING, PinOperation.VERIFY, 3)}


def test_a_puk_without_tries_is_not_sent() -> None:
    card = blocked_card()
    card.file_system.root.pins[PUK.reference].tries = 0
    bench = Bench(card)
    with pytest.raises(PinBlocked, match="PIN puk"):
        unblock(guard(None, kept=0), bench)
    assert bench.sent == []


def test_a_refusal_of_the_pin_does_not_stop_its_puk() -> None:
    """That is what it is for."""
    bench, ledger = blocked_through_the_guard()
    unblock(guard(None, ledger), bench)
    bench.verify(guard(NEW, ledger))


@each_use
def test_clear_forgets_one_pin_and_gives_what_was_known(use: Use) -> None:
    bench, ledger = Bench(use.card()), MemoryPinLedger()
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench)
    keeper = guard(None, ledger)
    for name in use.noted:
        cleared = keeper.clear(NETKEY3.pin(PinName(name)), deadline=bench.deadline)
        assert cleared is not None
        assert (cleared.state, cleared.operation) == (PENDING, use.noted_as(name))
        assert name not in noted(ledger)
        assert keeper.clear(NETKEY3.pin(PinName(name)), deadline=bench.deadline) is None
    bench.other_answer = None
    use.act(keeper, bench)
    assert accepts(bench, NEW)


class Unwritable(MemoryPinLedger):
    """Takes so many notes, and then none."""

    notes = 0

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: float) -> Iterator[Any]:
        with super().page(card, deadline=deadline) as page:
            write = page.write

            def note(records: Any) -> None:
                if not self.notes:
                    raise PinRefused("The ledger is full.")
                self.notes -= 1
                write(records)

            page.write = note
            try:
                yield page
            finally:
                page.write = write


@each_use
def test_without_a_note_nothing_is_sent(use: Use) -> None:
    bench = Bench(use.card())
    with pytest.raises(PinRefused, match="full"):
        use.act(guard(None, Unwritable()), bench)
    assert bench.sent == []


@each_use
@pytest.mark.parametrize("refused", [False, True])
def test_an_end_that_cannot_be_noted_leaves_the_note_before(
    use: Use, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench, ledger = Bench(use.card()), Unwritable()
    if refused:
        ledger.notes = 1
        with pytest.raises(PinIncorrect):
            use.act(guard(None, ledger), bench, use.wrong)
        assert noted(ledger).keys() == (use.noted.keys() if use.first is use.operation else {use.asked})
    else:
        ledger.notes = 2 * len(use.sent) - 1  # two a command, but the last
        use.act(guard(None, ledger), bench)
        assert noted(ledger).keys() == use.noted.keys()
    expected = {name: (PENDING, use.first if refused else use.noted_as(name)) for name in noted(ledger)}
    assert {name: note[:2] for name, note in noted(ledger).items()} == expected
    assert "could not be noted: The ledger is full." in caplog.text


@each_of_two_steps
@pytest.mark.parametrize(("notes", "state"), [(1, PENDING), (2, ACCEPTED)])
def test_without_a_note_of_its_own_the_second_command_is_not_sent(
    use: Use, notes: int, state: PinRecordState
) -> None:
    bench, ledger = Bench(use.card()), Unwritable()
    ledger.notes = notes
    with pytest.raises(PinRefused, match="full"):
        use.act(guard(None, ledger), bench)
    assert bench.sent == [VERIFY]
    assert noted(ledger) == {use.asked: (state, PinOperation.VERIFY, 3)}


# --- what is not settled, and what a counter proves of it


class OpenAlways(Silent):
    """Its card says to everybody that the PIN is verified, as it does where another program verified it."""

    status = "9000"


@each_of_two_steps
def test_after_a_new_pin_the_guard_does_not_count_the_card_as_open(use: Use) -> None:
    """The PINs that it had accepted before are past, whatever the card says."""
    bench = OpenAlways()
    keeper = guard(RIGHT)
    asked = NETKEY3.pin(PinName(use.asked))
    with bench.connection.transaction(deadline=bench.deadline):
        for pin, secret in {GLOBAL: RIGHT, PUK: RIGHT_PUK}.items():
            with Pin(secret) as given:
                keeper.verify(bench.card, pin, given, deadline=bench.deadline)
            assert keeper.is_open(bench.card, pin, deadline=bench.deadline)
    use.act(keeper, bench)
    with bench.connection.transaction(deadline=bench.deadline):
        assert not keeper.is_open(bench.card, GLOBAL, deadline=bench.deadline)
        assert not keeper.is_open(bench.card, asked, deadline=bench.deadline)


def without_an_end(use: Use, ledger: PinLedger, bench: Bench, *, committed: bool) -> None:
    bench.other_answer = lambda command: mute(bench.simulated.transmit(command) if committed else command)
    with pytest.raises(DeadlineExceeded):
        use.act(guard(None, ledger), bench)
    bench.other_answer = None
    bench.connection.reset(deadline=bench.deadline)


def test_a_refusal_after_a_change_without_an_end_keeps_both() -> None:
    bench, ledger = Bench(), MemoryPinLedger()
    without_an_end(USES["change"], ledger, bench, committed=False)
    open_end = ledger.records(CARD)["global"]
    with pytest.raises(PinIncorrect) as caught:
        bench.verify(guard(NEW, ledger, attended=True))
    assert "If that was the new PIN, the old one counts still" in caught.value.remedy
    assert "pin verify URI --keep 1" in caught.value.remedy
    record = ledger.records(CARD)["global"]
    assert (record.state, record.operation, record.unsettled) == (REFUSED, PinOperation.VERIFY, open_end)
    with pytest.raises(PinRefused, match="not sent again") as stopped:
        bench.verify(guard(RIGHT, ledger, kept=1))
    assert stopped.value.remedy == caught.value.remedy


def test_a_second_refusal_keeps_it_too_and_an_accepted_pin_settles_it() -> None:
    bench, ledger = Bench(), MemoryPinLedger()
    without_an_end(USES["change"], ledger, bench, committed=True)
    open_end = ledger.records(CARD)["global"]
    for wrong in (RIGHT, WRONG):
        with pytest.raises(PinIncorrect):
            bench.verify(guard(wrong, ledger, attended=True, kept=0))
        assert ledger.records(CARD)["global"].unsettled == open_end
    bench.verify(guard(NEW, ledger, attended=True, kept=0))
    assert ledger.records(CARD)["global"].unsettled is None


def test_a_verify_without_an_end_after_a_change_without_an_end_leads_back_from_the_change() -> None:
    bench, ledger = Bench(), MemoryPinLedger()
    without_an_end(USES["change"], ledger, bench, committed=False)
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        bench.verify(guard(NEW, ledger, attended=True))
    bench.answer = None
    with pytest.raises(PinRefused, match="attempt to verify the PIN global") as caught:
        bench.verify(guard(NEW, ledger))
    assert caught.value.remedy == USES["change"].way_back


@pytest.mark.parametrize("attended", [False, True])
def test_which_of_two_pins_counts_is_said_before_the_last_tries_too(attended: bool) -> None:
    """A change without an end on a card that hides its counter, a refusal, and a VERIFY without an end."""
    bench, ledger = Silent(), MemoryPinLedger()
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded):
        change(guard(None, ledger), bench)
    refuse(bench, ledger)
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        send(guard(None, ledger, attended=True, kept=1), bench)
    bench.answer = None
    with pytest.raises(PinRefused, match="1 try left as far as is known") as caught:
        bench.verify(guard(RIGHT, ledger, attended=attended))
    assert "Verify the new PIN at the terminal: demail-hw pin verify URI --keep 0" in caught.value.remedy
    assert "the old one counts still. Another wrong one blocks it" in caught.value.remedy


def verify_puk(bench: Bench, ledger: PinLedger) -> None:
    with Pin(RIGHT_PUK) as puk, bench.connection.transaction(deadline=bench.deadline):
        guard(None, ledger).verify(bench.card, PUK, puk, deadline=bench.deadline)


@pytest.mark.parametrize("most", [3, 10])
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
def test_the_puk_of_an_unblocking_without_an_end_is_free_again_if_its_counter_proves_it(
    committed: bool, most: int
) -> None:
    use, card = USES["unblock"], blocked_card()
    puk = card.file_system.root.pins[PUK.reference]
    puk.maximum_tries, puk.tries = most, 3
    bench, ledger = Telling(card), MemoryPinLedger()
    without_an_end(use, ledger, bench, committed=committed)
    verify_puk(bench, ledger)
    assert noted(ledger)["puk"] == (ACCEPTED, PinOperation.VERIFY, most)
    with pytest.raises(PinRefused, match="attempt to unblock the PIN global at"):
        use.act(guard(None, ledger), bench)


@pytest.mark.parametrize(
    ("bench_of", "before", "most", "after"),
    [(Bench, 3, 3, 3), (Bench, 5, 10, 10), (Bench, 5, 10, 9), (Telling, 3, 3, 2), (Telling, 5, 10, 9)],
)
def test_the_puk_of_an_unblocking_that_may_have_cost_it_a_try_stays_stopped(
    bench_of: type[Bench], before: int, most: int, after: int
) -> None:
    """The VERIFY before it restored the tries: what was left before that proves nothing, and what is left after it a
    card may not tell."""
    card = blocked_card()
    puk = card.file_system.root.pins[PUK.reference]
    puk.maximum_tries, puk.tries = most, before
    bench, ledger = bench_of(card), MemoryPinLedger()
    without_an_end(USES["unblock"], ledger, bench, committed=False)
    puk.tries = after
    with pytest.raises(PinRefused, match=r"attempt to unblock a PIN with the PIN puk at|kept") as caught:
        verify_puk(bench, ledger)
    assert "demail-hw pin verify URI --which puk" in caught.value.remedy


def test_the_tries_of_a_pin_that_was_blocked_through_the_guard_tell_whether_it_was_unblocked() -> None:
    """What was refused before makes no difference: it had none."""
    bench, ledger = blocked_through_the_guard()
    bench.other_answer = lambda command: mute(bench.simulated.transmit(command))
    with pytest.raises(DeadlineExceeded) as caught:
        unblock(guard(None, ledger), bench)
    assert "See whether the PIN has its tries again" in caught.value.remedy
    assert noted(ledger)["global"] == (PENDING, PinOperation.UNBLOCK, 0)


def test_the_first_change_without_an_end_is_remembered_until_one_is_accepted() -> None:
    """A change, two unblockings and a VERIFY, none of which has an end."""
    bench, ledger = Bench(), MemoryPinLedger()
    without_an_end(USES["change"], ledger, bench, committed=False)
    first = ledger.records(CARD)["global"]
    keeper = guard(None, ledger, attended=True, kept=0)
    for _ in range(2):
        bench.other_answer = mute
        with pytest.raises(DeadlineExceeded):
            unblock(keeper, bench)
    bench.answer = mute
    with pytest.raises(DeadlineExceeded):
        send(keeper, bench)
    last = ledger.records(CARD)["global"].unsettled
    assert last is not None
    assert (last.operation, last.unsettled) == (PinOperation.UNBLOCK, first)
    bench.answer = None
    with pytest.raises(PinRefused, match="not known"):
        bench.verify(guard(RIGHT, ledger, kept=0))
    send(keeper, bench)
    assert ledger.records(CARD)["global"].unsettled is None


def test_the_way_back_of_a_pin_that_was_not_blocked_claims_nothing_of_its_tries() -> None:
    bench, ledger = Bench(), MemoryPinLedger()
    bench.other_answer = mute
    with pytest.raises(DeadlineExceeded) as caught:
        unblock(guard(None, ledger), bench)
    assert "has its tries again" not in caught.value.remedy
    assert "Verify the new PIN at the terminal" in caught.value.remedy
    assert "does not tell" in caught.value.remedy


# --- where the ledger is


@pytest.mark.parametrize(
    ("found", "begins"), [(False, "demail-hw --state-dir '{}' pin clear URI"), (True, "demail-hw pin clear URI")]
)
def test_a_remedy_names_the_folder_of_a_ledger_that_the_command_line_would_not_find(
    bench: Bench, tmp_path: Path, found: bool, begins: str
) -> None:
    folder = tmp_path / "a folder"
    ledger = FilePinLedger(folder, found=found)
    with pytest.raises(PinIncorrect):
        bench.verify(guard(WRONG, ledger, kept=1))
    bench.restore_tries()
    with ledger.page(CARD, deadline=bench.deadline) as page:
        page.write({"global": dataclasses.replace(page.records["global"], retries_left=None)})
    with pytest.raises(PinRefused) as caught:
        bench.verify(guard(RIGHT, ledger))
    assert begins.format(folder) in caught.value.remedy


def test_a_ledger_that_cannot_be_written_is_found_before_a_pin_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("where a folder should be")
    with pytest.raises(PinRefused, match="no PIN is sent without it"):
        guard(None, FilePinLedger(tmp_path / "state")).check_ledger(deadline=bench.deadline)
    with pytest.raises(PinRefused, match="full"):
        guard(None, Unwritable()).check_ledger(deadline=bench.deadline)


def test_what_is_not_settled_outlives_the_process(bench: Bench, tmp_path: Path) -> None:
    without_an_end(USES["change"], FilePinLedger(tmp_path), bench, committed=False)
    open_end = FilePinLedger(tmp_path).records(CARD)["global"]
    with pytest.raises(PinIncorrect):
        bench.verify(guard(NEW, FilePinLedger(tmp_path), attended=True))
    assert FilePinLedger(tmp_path).records(CARD)["global"].unsettled == open_end
    bench.verify(guard(RIGHT, FilePinLedger(tmp_path), attended=True, kept=1))
    assert FilePinLedger(tmp_path).records(CARD)["global"].unsettled is None
