"""``?card=`` chooses among several readers: on a driver that lists some, and opens the only one that it is told."""

from collections.abc import Callable, Sequence

import pytest

from demail_hw import registry
from demail_hw.address import Address
from demail_hw.errors import DeviceNotFound, HardwareError, ReaderBusy, UnexpectedCard
from demail_hw.interfaces import CardConnection, Deadline, ReaderInfo, ShareMode, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.sim_reader import SimulatedReader

FIRST, SECOND, NOBODYS = "89490173510080407136", "89490173510080407144", "89490173510080407151"
VERIFY = 0x20


class Card:
    """A NetKey card that remembers what was asked of it."""

    def __init__(self, iccsn: str) -> None:
        self._card = netkey3(iccsn=iccsn)
        self.instructions: list[int] = []

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        self.instructions.append(command[1])
        return self._card.transmit(command)


class Slot(SimulatedReader):
    """A reader that remembers how it was opened, and refuses if it is told."""

    def __init__(self, name: str, iccsn: str | None, *, in_use: bool | None = False) -> None:
        self.card = Card(iccsn or FIRST)
        super().__init__(None if iccsn is None else self.card, name=name, serial=f"S-{name}")
        self.in_use = in_use
        self.refusal: HardwareError | None = None
        self.shares: list[ShareMode] = []
        self.closed = 0

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> CardConnection:
        self.shares.append(share)
        if self.refusal is not None:
            raise self.refusal
        return super().connect(share, deadline=deadline)

    def close(self) -> None:
        super().close()
        self.closed += 1


class Slots:
    """The driver. ``knows_cards``: does its listing say where a card is, as that of PC/SC does, of USB/IP not?"""

    can_share = True
    parameters = frozenset()

    def __init__(self, *slots: Slot, knows_cards: bool = True) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.knows_cards = knows_cards
        self.listings = 0

    def open(self, address: Address, *, timeouts: Timeouts) -> Slot:
        chosen = [slot for slot in self.slots.values() if self._is_meant(slot, address)]
        if len(chosen) != 1:
            raise DeviceNotFound(f"{len(chosen)} readers.")
        return chosen[0]

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        self.listings += 1
        return [self._info(slot) for slot in self.slots.values() if not address.selector.startswith("no")]

    def _is_meant(self, slot: Slot, address: Address) -> bool:
        return address.selector in ("", slot.name) or address.serial == slot.serial

    def _info(self, slot: Slot) -> ReaderInfo:
        card = slot.card_present(deadline=0) if self.knows_cards else None
        return ReaderInfo(f"sim:{slot.name}", slot.name, None, card=card, in_use=slot.in_use)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Slots], Slots]:
    def put(driver: Slots) -> Slots:
        monkeypatch.setattr(registry, "reader_driver", lambda scheme: driver)
        return driver

    return put


@pytest.fixture
def two(install: Callable[[Slots], Slots]) -> Slots:
    return install(Slots(Slot("a", FIRST), Slot("b", SECOND)))


def opened(address: str) -> tuple[str, str]:
    with CardSession.open(address) as session:
        return session.reader.name, session.serial


@pytest.mark.parametrize(("card", "name"), [(FIRST, "a"), (SECOND, "b")])
def test_reader_with_the_demanded_card_is_taken(two: Slots, card: str, name: str) -> None:
    assert opened(f"sim:?card={card}") == (name, card)
    assert all(slot.closed == len(slot.shares) for slot in two.slots.values())


def test_without_a_demand_the_program_does_not_choose(two: Slots) -> None:
    with pytest.raises(DeviceNotFound, match=r"^2 readers\."):
        opened("sim:")
    assert two.listings == 0
    assert not any(slot.shares for slot in two.slots.values())


def test_only_reader_is_not_listed_and_another_card_in_it_is_refused(install: Callable[[Slots], Slots]) -> None:
    driver = install(Slots(Slot("a", FIRST)))
    with pytest.raises(UnexpectedCard, match=f"is {FIRST}, and {SECOND} was asked for"):
        opened(f"sim:?card={SECOND}")
    assert driver.listings == 0


def test_card_that_is_nowhere(two: Slots) -> None:
    with pytest.raises(UnexpectedCard, match=f"No reader has the card {NOBODYS}") as caught:
        opened(f"sim:?card={NOBODYS}")
    assert f"'a': The card in the reader is {FIRST}" in caught.value.message
    assert f"'b': The card in the reader is {SECOND}" in caught.value.message
    assert [slot.closed for slot in two.slots.values()] == [1, 1]


@pytest.mark.parametrize("knows_cards", [True, False])
def test_empty_reader_is_passed_over(install: Callable[[Slots], Slots], knows_cards: bool) -> None:
    empty = Slot("empty", None)
    install(Slots(empty, Slot("a", FIRST), Slot("b", SECOND), knows_cards=knows_cards))
    assert opened(f"sim:?card={SECOND}") == ("b", SECOND)
    assert bool(empty.shares) is not knows_cards


def test_reader_in_use_is_not_touched_and_said(two: Slots) -> None:
    two.slots["a"].in_use = True
    assert opened(f"sim:?card={SECOND}") == ("b", SECOND)
    with pytest.raises(ReaderBusy, match="'a': Another program has the card") as caught:
        opened(f"sim:?card={FIRST}")
    assert caught.value.transient
    assert "End the program" in caught.value.remedy
    assert two.slots["a"].shares == []


def test_card_that_is_to_be_shared_is_looked_for_in_readers_in_use_after_the_others(two: Slots) -> None:
    two.slots["a"].in_use = True
    assert opened(f"sim:?card={SECOND}&share=shared") == ("b", SECOND)
    assert two.slots["a"].shares == []
    assert opened(f"sim:?card={FIRST}&share=shared") == ("a", FIRST)
    assert two.slots["a"].shares == [ShareMode.SHARED]


def test_reader_that_cannot_be_had_does_not_end_the_search(two: Slots) -> None:
    two.slots["a"].refusal = ReaderBusy("It has just been taken.")
    assert opened(f"sim:?card={SECOND}") == ("b", SECOND)
    with pytest.raises(ReaderBusy, match="'a': It has just been taken"):
        opened(f"sim:?card={FIRST}")


def test_reader_that_is_demanded_as_well_is_the_only_one_whose_card_is_looked_at(two: Slots) -> None:
    assert opened(f"sim:?card={SECOND}&reader=S-b") == ("b", SECOND)
    assert two.slots["a"].shares == []
    with pytest.raises(UnexpectedCard, match="No reader has"):
        opened(f"sim:?card={FIRST}&reader=S-b")


@pytest.mark.parametrize("address", ["sim:none", "sim:serial=S-c", "sim:serial=S-c?reader=S-b"])
def test_what_means_no_reader_is_not_made_up_for_by_a_card(two: Slots, address: str) -> None:
    with pytest.raises(DeviceNotFound, match=r"^0 readers\."):
        opened(f"{address}{'&' if '?' in address else '?'}card={SECOND}")
    assert not any(slot.shares for slot in two.slots.values())


def test_no_pin_is_sent_to_any_card(two: Slots) -> None:
    with pytest.raises(UnexpectedCard):
        opened(f"sim:?card={NOBODYS}")
    for slot in two.slots.values():
        assert slot.card.instructions
        assert VERIFY not in slot.card.instructions
