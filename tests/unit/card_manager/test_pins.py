"""The PINs of every card by the card manager: what each command sends, what it leaves behind, and what it says."""

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from demail_hw.card_manager.manager import CardManager
from demail_hw.card_manager.pin_states import describe, remembered
from demail_hw.card_manager.pins import PinManager
from demail_hw.errors import (
    CardError,
    CardRemoved,
    HardwareError,
    KeyNotFound,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
)
from demail_hw.interfaces import PinLedger, PinOperation, PinRecord, PinRecordState, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.keys.pin_remedies import PinRemedies
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.secrets import PinSource
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinName
from demail_hw.tcos.profiles import NETKEY3
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import PERSONALITIES, netkey3, open_card
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedReader

VERIFY, CHANGE, RESET = 0x20, 0x24, 0x2C
GLOBAL, PUK, NKS_1, SIGG_1 = PinName.GLOBAL, PinName.PUK, PinName.NKS_1, PinName.SIGG_1
OLD, NEW, WRONG, PUK_OF_THE_CARD = b"123456", b"864209", b"975310", b"12345678"
ICCSN, OTHER = "89490173510080407136", "89490173510080407144"


class Watched:
    """A card that writes down its PIN commands; before or after the command of one number it is taken out.

    ``other``: what is in the reader from then on. ``refused``: the instruction that it does not take.
    """

    def __init__(self, card: SimulatedCard) -> None:
        self.card = card
        self.commands = 0
        self.secrets: list[int] = []
        self.taken_out_at: int | None = None
        self.refused: int | None = None
        self.acts_before = False
        self.other: SimulatedCard | None = None
        self.reader = SimulatedReader(self)

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        last = self.commands == self.taken_out_at
        self.commands += 1
        if last and not self.acts_before:
            self._take_out()
        if command[1] in {VERIFY, CHANGE, RESET} and len(command) > 4:
            self.secrets.append(command[1])
        answer = b"\x6a\x80" if command[1] == self.refused else self.card.transmit(command)
        if last:
            self._take_out()
        return answer

    def _take_out(self) -> NoReturn:
        self.reader.remove()
        if self.other is not None:
            self.reader.insert(self.other)
        raise CardRemoved("The card was taken out.", outcome=Outcome.UNKNOWN)


def source(pin: bytes) -> PinSource:
    return CallablePinSource(lambda: pin)


@contextmanager
def managing(
    card: Watched | SimulatedCard, ledger: PinLedger | None = None, *, kept: int = KEPT_TRIES, attended: bool = False
) -> Iterator[PinManager]:
    reader = card.reader if isinstance(card, Watched) else SimulatedReader(card)
    connection = reader.connect(deadline=time.monotonic() + 30)
    with CardSession(reader, connection, timeouts=Timeouts()) as session:
        yield CardManager(session, ledger or MemoryPinLedger(), kept=kept, attended=attended).pins
        connection.close()


def status_word(card: SimulatedTcosCard, command: str) -> bytes:
    """What the card itself says, powered anew."""
    card.power_off()
    card.power_on()
    return card.transmit(bytes.fromhex(command))


def accepts(card: SimulatedTcosCard, pin: bytes) -> bool:
    return status_word(card, f"00200000{len(pin):02x}{pin.hex()}") == b"\x90\x00"


# --- states


def sentences(card: SimulatedCard, ledger: PinLedger | None = None) -> dict[str, str]:
    with managing(card, ledger) as pins:
        return {report.pin.name.value: f"{report.sentence} {report.next_step}" for report in pins.report()}


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_every_pin_of_every_card_is_a_sentence(personality: str) -> None:
    card = Watched(open_card(personality))
    said = sentences(card)
    assert {"global", "puk"} <= said.keys()
    assert all(not sentence[0].islower() and sentence.rstrip().endswith(".") for sentence in said.values())
    assert card.secrets == []


def test_a_delivered_card_says_what_to_do_first() -> None:
    said = sentences(open_card("netkey3-fresh"))
    assert "never set" in said["global"]
    assert "pin initialize" in said["global"]
    assert "blocked" in said["puk"]
    assert "PIN global" in said["puk"]


def test_a_blocked_pin_names_its_puk_and_a_blocked_puk_the_issuer() -> None:
    card = open_card("netkey3")
    card.power_on()
    for _ in range(3):
        card.transmit(bytes.fromhex("0020000006") + WRONG)
    said = sentences(card)
    assert "Unblock it with the PIN puk" in said["global"]
    card.power_on()
    for _ in range(3):
        card.transmit(bytes.fromhex("0020000108") + b"99999999")
    assert "issuer" in sentences(card)["global"]


def test_few_tries_and_what_the_ledger_knows_are_said() -> None:
    card, ledger = open_card("netkey3"), MemoryPinLedger()
    with managing(card, ledger) as pins, pytest.raises(PinIncorrect):
        pins.verify(GLOBAL, source(WRONG))
    said = sentences(card, ledger)["global"]
    assert said.startswith("2 tries are left. The card refused what was sent at ")
    assert "demail-hw pin verify URI --keep 1" in said
    assert "--keep 1" in sentences(card)["global"]


# --- verify


@pytest.mark.parametrize(
    ("name", "pin"), [(GLOBAL, OLD), (NKS_1, b"111111"), (SIGG_1, b"654321"), (PUK, PUK_OF_THE_CARD)]
)
def test_verify_sends_one_command(name: PinName, pin: bytes) -> None:
    card, ledger = Watched(open_card("netkey3")), MemoryPinLedger()
    with managing(card, ledger) as pins:
        pins.verify(name, source(pin))
    assert card.secrets == [VERIFY]
    assert ledger.records(ICCSN)[name.value].state is PinRecordState.ACCEPTED


def test_a_refusal_stops_a_service_and_not_a_person() -> None:
    card, ledger = Watched(open_card("netkey3")), MemoryPinLedger()
    with managing(card, ledger) as pins, pytest.raises(PinIncorrect):
        pins.verify(GLOBAL, source(WRONG))
    with managing(card, ledger, kept=1) as pins, pytest.raises(PinRefused, match="until a person"):
        pins.verify(GLOBAL, source(OLD))
    with managing(card, ledger, attended=True) as pins, pytest.raises(PinRefused, match="2 are kept"):
        pins.verify(GLOBAL, source(OLD))
    assert card.secrets == [VERIFY]
    with managing(card, ledger, kept=1, attended=True) as pins:
        pins.verify(GLOBAL, source(OLD))
    with managing(card, ledger) as pins:
        pins.verify(GLOBAL, source(OLD))
    assert card.secrets == [VERIFY] * 3


def test_a_person_comes_to_the_last_try_unless_he_was_told_of_more() -> None:
    card = open_card("netkey3")
    with managing(Watched(card), attended=True, kept=0) as pins:
        for pin in (WRONG, WRONG):
            with pytest.raises(PinIncorrect):
                pins.verify(GLOBAL, source(pin))
        pins.verify(GLOBAL, source(OLD))
        for use in (
            lambda: pins.verify(GLOBAL, source(OLD)),
            lambda: pins.change(GLOBAL, source(OLD), source(OLD)),
        ):
            card.power_on()
            assert pins.check(GLOBAL).retries_left == 3
            card.file_system.root.pins[0].tries = 1
            with pytest.raises(PinRefused, match="only the last try is left by now"):
                use()
            use()
        card.power_on()
        assert pins.check_unblocking(GLOBAL) == (PUK, 3)
        card.file_system.root.pins[1].tries = 1
        with pytest.raises(PinRefused, match="only the last try is left by now"):
            pins.unblock(GLOBAL, source(PUK_OF_THE_CARD), source(NEW))


def test_nobody_is_asked_for_a_pin_that_may_not_be_sent() -> None:
    def never() -> bytes:
        raise AssertionError("nobody should be asked")

    with managing(open_card("netkey3-fresh")) as pins:
        with pytest.raises(PinNotInitialized):
            pins.verify(GLOBAL, CallablePinSource(never))
        with pytest.raises(PinNotInitialized):
            pins.unblock(GLOBAL, CallablePinSource(never), CallablePinSource(never))
        with pytest.raises(PinBlocked):
            pins.verify(PUK, CallablePinSource(never))
    with managing(open_card("netkey3")) as pins:
        with pytest.raises(PinRefused, match="not the NullPIN"):
            pins.initialize(GLOBAL, CallablePinSource(never))
        with pytest.raises(KeyNotFound, match="no PIN"):
            managing_idkey(lambda idkey: idkey.verify(SIGG_1, CallablePinSource(never)))


def managing_idkey(use: Callable[[PinManager], None]) -> None:
    with managing(open_card("idkey")) as pins:
        use(pins)


# --- change, unblock, initialize


@pytest.mark.parametrize("personality", ["netkey3", "netkey2", "idkey"])
def test_change(personality: str) -> None:
    simulated = open_card(personality)
    card = Watched(simulated)
    with managing(card) as pins:
        pins.change(GLOBAL, source(OLD), source(NEW))
    assert card.secrets == [VERIFY, CHANGE]
    assert accepts(simulated, NEW)
    assert not accepts(simulated, OLD)


def test_a_change_with_a_wrong_old_pin_costs_one_try_and_is_remembered() -> None:
    simulated, ledger = open_card("netkey3"), MemoryPinLedger()
    card = Watched(simulated)
    with managing(card, ledger) as pins:
        with pytest.raises(PinIncorrect):
            pins.change(GLOBAL, source(WRONG), source(NEW))
        with pytest.raises(PinRefused):
            pins.change(GLOBAL, source(OLD), source(NEW))
    assert card.secrets == [VERIFY]
    assert ledger.records(ICCSN)["global"].state is PinRecordState.REFUSED
    assert accepts(simulated, OLD)


@pytest.mark.parametrize("typed", [b"1234567", b"123456864"])
def test_what_is_typed_too_much_of_the_old_pin_does_not_become_part_of_the_new_one(typed: bytes) -> None:
    """The card gets both without a border."""
    simulated = open_card("netkey3")
    card = Watched(simulated)
    with managing(card) as pins, pytest.raises(PinIncorrect):
        pins.change(GLOBAL, source(typed), source(NEW))
    assert card.secrets == [VERIFY]
    assert accepts(simulated, OLD)


def test_what_is_typed_too_much_of_a_puk_does_not_become_part_of_the_new_pin() -> None:
    simulated = blocked_card()
    card = Watched(simulated)
    with managing(card) as pins, pytest.raises(PinIncorrect):
        pins.unblock(GLOBAL, source(PUK_OF_THE_CARD + b"9"), source(NEW))
    assert card.secrets == [VERIFY]
    assert status_word(simulated, "00200000") == b"\x69\x83"


@pytest.mark.parametrize("bad", [b"", b"12345", b"1" * 17, b"12345\n", "12345ß".encode()])
@pytest.mark.parametrize("which", ["old", "new"])
def test_a_malformed_pin_is_not_sent(bad: bytes, which: str) -> None:
    card = Watched(open_card("netkey3"))
    pair = (bad, NEW) if which == "old" else (OLD, bad)
    with managing(card) as pins, pytest.raises(PinRefused, match="nothing was sent"):
        pins.change(GLOBAL, *map(source, pair))
    assert card.secrets == []


def blocked_card(personality: str = "netkey3") -> SimulatedTcosCard:
    card = open_card(personality)
    card.power_on()
    for _ in range(3):
        card.transmit(bytes.fromhex("0020000006") + WRONG)
    assert status_word(card, "00200000") == b"\x69\x83"
    return card


@pytest.mark.parametrize("personality", ["netkey3", "netkey2", "idkey"])
def test_unblock(personality: str) -> None:
    simulated, ledger = blocked_card(personality), MemoryPinLedger()
    card = Watched(simulated)
    with managing(card, ledger) as pins:
        pins.unblock(GLOBAL, source(PUK_OF_THE_CARD), source(NEW))
    assert card.secrets == [VERIFY, RESET]
    assert accepts(simulated, NEW)
    serial = next(iter(ledger._pages))
    assert {record.state for record in ledger.records(serial).values()} == {PinRecordState.ACCEPTED}


def test_a_wrong_puk_costs_one_try_of_its_own_and_is_never_repeated() -> None:
    simulated, ledger = blocked_card(), MemoryPinLedger()
    card = Watched(simulated)
    with managing(card, ledger) as pins:
        with pytest.raises(PinIncorrect, match="PIN puk") as caught:
            pins.unblock(GLOBAL, source(b"99999999"), source(NEW))
        assert caught.value.retries_left == 2
        with pytest.raises(PinRefused, match="PIN puk"):
            pins.unblock(GLOBAL, source(PUK_OF_THE_CARD), source(NEW))
    assert card.secrets == [VERIFY]
    assert set(ledger.records(ICCSN)) == {"puk"}
    assert status_word(simulated, "00200001") == b"\x63\xc2"


def test_a_pin_that_nothing_unblocks() -> None:
    with managing(open_card("netkey2")) as pins, pytest.raises(PinRefused, match="No PIN of this card unblocks"):
        pins.unblock(PUK, source(OLD), source(NEW))


@pytest.mark.parametrize(
    ("personality", "name"),
    [("netkey3-fresh", GLOBAL), ("netkey3-fresh", SIGG_1), ("signature-card-v2", SIGG_1)],
)
def test_initialize(personality: str, name: PinName) -> None:
    card = Watched(open_card(personality))
    with managing(card) as pins:
        pins.initialize(name, source(NEW))
        pins.verify(name, source(NEW))
        with pytest.raises(PinRefused, match="not the NullPIN"):
            pins.initialize(name, source(NEW))
    assert card.secrets == [CHANGE, VERIFY]


def test_what_is_said_of_a_verify_is_said_of_this_pin() -> None:
    """In one session: after a good PIN a wrong one is wrong, and after a change the old one is."""
    card = open_card("netkey3")
    with managing(card, attended=True, kept=1) as pins:
        pins.verify(GLOBAL, source(OLD))
        with pytest.raises(PinIncorrect):
            pins.verify(GLOBAL, source(WRONG))
        pins.verify(GLOBAL, source(OLD))
        pins.change(GLOBAL, source(OLD), source(NEW))
        with pytest.raises(PinIncorrect):
            pins.verify(GLOBAL, source(OLD))
        pins.verify(GLOBAL, source(NEW))


def test_the_commands_that_are_said_name_the_pin() -> None:
    said = sentences(open_card("netkey3-fresh"))
    assert "demail-hw pin initialize URI --which sigg-1" in said["sigg-1"]
    assert "demail-hw pin initialize URI." in said["global"]
    assert "set that first (demail-hw pin initialize URI --which sigg-1)" in said["sigg-2"]


def test_a_first_pin_that_the_card_did_not_take_is_said_and_a_person_may_try_again() -> None:
    ledger = MemoryPinLedger()
    simulated = open_card("netkey3-fresh")
    card = Watched(simulated)
    card.refused = CHANGE
    with managing(card, ledger) as pins, pytest.raises(CardError):
        pins.initialize(GLOBAL, source(NEW))
    card.refused = None
    said = sentences(card, ledger)["global"]
    assert "The card refused what was sent at" in said
    assert "pin initialize URI" in said
    with managing(card, ledger) as pins, pytest.raises(PinRefused, match="not sent again"):
        pins.initialize(GLOBAL, source(NEW))
    with managing(card, ledger, attended=True) as pins:
        pins.initialize(GLOBAL, source(NEW))
    assert accepts(simulated, NEW)


def test_blocked_is_said_before_the_refusal_that_made_it_so() -> None:
    ledger = MemoryPinLedger()
    card = open_card("netkey3")
    with managing(card, ledger) as pins, pytest.raises(PinIncorrect):
        pins.verify(GLOBAL, source(WRONG))
    card.file_system.root.pins[0].tries = 0
    with managing(card, ledger) as pins, pytest.raises(PinBlocked) as caught:
        pins.verify(GLOBAL, source(OLD))
    assert "demail-hw pin unblock URI" in caught.value.remedy


def test_a_blocked_puk_is_not_sent_in_a_circle() -> None:
    card = blocked_card()
    card.file_system.root.pins[1].tries = 0
    with managing(card) as pins, pytest.raises(PinBlocked) as caught:
        pins.unblock(GLOBAL, source(PUK_OF_THE_CARD), source(NEW))
    assert "issuer" in caught.value.remedy


def test_ctrl_c_in_a_change_says_the_way_back(caplog: pytest.LogCaptureFixture) -> None:
    class Interrupting(Watched):
        def transmit(self, command: bytes) -> bytes:
            if command[1] == CHANGE:
                raise KeyboardInterrupt
            return super().transmit(command)

    ledger = MemoryPinLedger()
    with pytest.raises(KeyboardInterrupt), managing(Interrupting(open_card("netkey3")), ledger) as pins:
        pins.change(GLOBAL, source(OLD), source(NEW))
    assert "Verify the new PIN at the terminal" in caplog.text
    assert ledger.records(ICCSN)["global"].state is PinRecordState.PENDING


def test_clear() -> None:
    ledger = MemoryPinLedger()
    card = open_card("netkey3")
    with managing(card, ledger, kept=1) as pins:
        assert pins.clear(GLOBAL) is None
        with pytest.raises(PinIncorrect):
            pins.verify(GLOBAL, source(WRONG))
        cleared = pins.clear(GLOBAL)
        assert cleared is not None
        assert cleared.state is PinRecordState.REFUSED
        pins.verify(GLOBAL, source(OLD))


# --- a card that is pulled or swapped at every step of every command

USES: dict[str, tuple[Callable[[], SimulatedTcosCard], Callable[[PinManager], None], PinOperation]] = {
    "verify": (lambda: open_card("netkey3"), lambda pins: pins.verify(GLOBAL, source(OLD)), PinOperation.VERIFY),
    "change": (
        lambda: open_card("netkey3"),
        lambda pins: pins.change(GLOBAL, source(OLD), source(NEW)),
        PinOperation.CHANGE,
    ),
    "unblock": (
        blocked_card,
        lambda pins: pins.unblock(GLOBAL, source(PUK_OF_THE_CARD), source(NEW)),
        PinOperation.UNBLOCK,
    ),
    "initialize": (
        lambda: open_card("netkey3-fresh"),
        lambda pins: pins.initialize(GLOBAL, source(NEW)),
        PinOperation.INITIALIZE,
    ),
}


def steps_of(name: str) -> int:
    """How many commands the whole of it takes, opening the card included."""
    make, use, _ = USES[name]
    card = Watched(make())
    with managing(card) as pins:
        use(pins)
    return card.commands


@pytest.mark.parametrize("acts_before", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", USES)
def test_a_card_that_is_taken_out_at_any_step(name: str, acts_before: bool) -> None:
    make, use, operation = USES[name]
    unknown = 0
    for step in range(steps_of(name)):
        simulated, ledger, other = make(), MemoryPinLedger(), Watched(netkey3(iccsn=OTHER))
        card = Watched(simulated)
        card.taken_out_at, card.acts_before, card.other = step, acts_before, other
        with pytest.raises(HardwareError) as caught, managing(card, ledger) as pins:
            use(pins)
        assert isinstance(caught.value, CardRemoved)
        assert other.secrets == []
        record = ledger.records(ICCSN).get("global")
        if record is None or record.operation is not operation:
            assert record is None or record.operation is PinOperation.VERIFY  # of the old PIN, alone
            assert operation is PinOperation.VERIFY or not accepts(simulated, NEW)
            continue
        unknown += 1
        assert record.state is PinRecordState.PENDING
        assert "demail-hw pin" in caught.value.remedy or operation is PinOperation.VERIFY
        # Whatever it was, the card has the old PIN or the new one, and the way back that is printed works.
        if operation in {PinOperation.CHANGE, PinOperation.UNBLOCK}:
            assert accepts(simulated, NEW) is acts_before
    assert unknown == 1


@pytest.mark.parametrize("committed", [False, True], ids=["old PIN counts", "new PIN counts"])
def test_the_way_back_from_a_change_without_an_end(committed: bool) -> None:
    """F69: the new PIN once, by a person; if the card refuses it, the old one."""
    simulated, ledger = open_card("netkey3"), MemoryPinLedger()
    card = Watched(simulated)
    card.taken_out_at, card.acts_before = steps_of("change") - 1, committed
    with pytest.raises(CardRemoved) as caught, managing(card, ledger) as pins:
        pins.change(GLOBAL, source(OLD), source(NEW))
    assert "Verify the new PIN at the terminal" in caught.value.remedy
    with managing(simulated, ledger) as pins, pytest.raises(PinRefused, match="change the PIN") as stopped:
        pins.verify(GLOBAL, source(OLD))
    assert "Verify the new PIN at the terminal" in stopped.value.remedy
    with managing(simulated, ledger, kept=1, attended=True) as pins:
        if committed:
            pins.verify(GLOBAL, source(NEW))
        else:
            with pytest.raises(PinIncorrect):
                pins.verify(GLOBAL, source(NEW))
            pins.verify(GLOBAL, source(OLD))
    assert ledger.records(ICCSN)["global"].state is PinRecordState.ACCEPTED


def interrupted(name: str, simulated: SimulatedTcosCard, ledger: PinLedger, *, committed: bool) -> None:
    """The last command of a use has no end that anybody noted."""
    card = Watched(simulated)
    card.taken_out_at, card.acts_before = steps_of(name) - 1, committed
    with pytest.raises(CardRemoved), managing(card, ledger) as pins:
        USES[name][1](pins)


def test_status_says_both_after_a_change_without_an_end_and_a_refused_new_pin() -> None:
    simulated, ledger = open_card("netkey3"), MemoryPinLedger()
    interrupted("change", simulated, ledger, committed=False)
    with managing(simulated, ledger, attended=True) as pins, pytest.raises(PinIncorrect):
        pins.verify(GLOBAL, source(NEW))
    said = sentences(simulated, ledger)["global"]
    assert "The card refused what was sent at" in said
    assert "How the attempt to change it at" in said
    assert "If that was the new PIN, the old one counts still" in said
    assert "demail-hw pin verify URI --keep 1" in said
    with managing(simulated, ledger, kept=1, attended=True) as pins:
        pins.verify(GLOBAL, source(OLD))
    assert sentences(simulated, ledger)["global"] == "3 tries are left. "


def test_status_says_all_that_is_not_known_and_how_to_verify_it_where_the_card_hides_its_counter() -> None:
    """A change, an unblocking and a VERIFY, none of which has an end, with two tries at the most before the last."""
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    record = None
    for operation in (PinOperation.CHANGE, PinOperation.UNBLOCK, PinOperation.VERIFY):
        record = PinRecord(PinRecordState.PENDING, operation, now, None, record, at_most=2)
    statuses = {pin: PinStatus(PinState.UNREADABLE) for pin in NETKEY3.pins}
    report = describe(NETKEY3.pin(GLOBAL), statuses, record, PinRemedies())
    ended = "at 2026-01-02 00:00:00+00:00 ended is not known"
    assert report.sentence == (
        f"The card does not tell how many tries are left. How the attempt to verify it {ended}. "
        f"How the attempt to unblock it {ended} either. How the attempt to change it {ended} either."
    )
    assert "demail-hw pin verify URI --keep 0" in report.next_step


@pytest.mark.parametrize("state", [PinState.UNREADABLE, PinState.VERIFIED, PinState.READY])
def test_status_says_the_tries_that_are_known_after_a_refusal_was_cleared(state: PinState) -> None:
    """Where the card says them itself, what it said before is past."""
    record = PinRecord(
        PinRecordState.CLEARED, PinOperation.VERIFY, datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), 2
    )
    statuses = {pin: PinStatus(state, 3 if state is PinState.READY else None) for pin in NETKEY3.pins}
    report = describe(NETKEY3.pin(GLOBAL), statuses, record, PinRemedies())
    if state is PinState.READY:
        assert (report.sentence, report.next_step) == ("3 tries are left.", "")
    else:
        assert report.sentence.endswith(" As far as is known 2 tries are left.")
        assert "demail-hw pin verify URI --keep 1" in report.next_step


def test_after_a_change_that_the_card_refused_no_script_begins_another_until_it_is_cleared() -> None:
    card, ledger = Watched(open_card("netkey3")), MemoryPinLedger()
    card.refused = CHANGE
    with managing(card, ledger) as pins:
        with pytest.raises(CardError, match="CHANGE"):
            pins.change(GLOBAL, source(OLD), source(NEW))
        pins.check(GLOBAL)
        for act in (pins.check_changing, lambda name: pins.change(name, source(OLD), source(NEW))):
            with pytest.raises(PinRefused, match="and then refused to change it"):
                act(GLOBAL)
        assert card.secrets == [VERIFY, CHANGE]
        assert not pins.report()[0].next_step
        cleared = pins.clear(GLOBAL)
        assert cleared is not None
        assert "and then refused what was to be done with it" in remembered(cleared)
        pins.check_changing(GLOBAL)


def test_an_interrupted_unblocking_of_a_pin_that_was_not_blocked_proves_nothing_by_its_tries() -> None:
    simulated, ledger = open_card("netkey3"), MemoryPinLedger()
    interrupted("unblock", simulated, ledger, committed=False)
    said = sentences(simulated, ledger)
    assert "How the attempt to unblock it at" in said["global"]
    assert "tries again" not in said["global"]
    assert "Verify the new PIN at the terminal" in said["global"]
    assert "How the attempt to unblock a PIN with it at" in said["puk"], "its tries were restored before it"
    assert said["puk"].endswith("Verify it at the terminal: demail-hw pin verify URI --which puk.")


def test_an_interrupted_unblocking_of_a_blocked_pin_is_told_by_its_tries() -> None:
    for committed in (False, True):
        simulated, ledger = blocked_card(), MemoryPinLedger()
        interrupted("unblock", simulated, ledger, committed=committed)
        said = sentences(simulated, ledger)
        if committed:
            assert "it was blocked. So the new PIN counts" in said["global"]
        else:
            assert said["global"].startswith("It is blocked. Unblock it with the PIN puk")


def test_a_puk_that_lost_a_try_in_an_unblocking_without_an_end_is_called_what_it_was() -> None:
    simulated, ledger = open_card("netkey3"), MemoryPinLedger()
    interrupted("unblock", simulated, ledger, committed=False)
    simulated.file_system.root.pins[1].tries = 2
    assert "How the attempt to unblock a PIN with it at" in sentences(simulated, ledger)["puk"]


def test_a_rehearsal_refuses_what_the_deed_would_and_sends_nothing() -> None:
    card = Watched(open_card("netkey3"))
    with managing(card) as pins:
        pins.rehearse((GLOBAL, source(OLD)), (PUK, source(PUK_OF_THE_CARD)))
        with pytest.raises(PinRefused, match="PIN puk is 8 to"):
            pins.rehearse((GLOBAL, source(OLD)), (PUK, source(OLD[:5])))
        with pytest.raises(PinRefused, match="nothing was sent"):
            pins.rehearse((GLOBAL, source(b"12 456")))
    assert card.secrets == []


def test_a_rehearsal_wipes_what_it_was_given() -> None:
    store = bytearray(OLD)
    with managing(open_card("netkey3")) as pins:
        pins.rehearse((GLOBAL, CallablePinSource(lambda: store)))
    assert store == bytes(len(OLD))
