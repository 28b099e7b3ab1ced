"""The card taken out, changed, or broken in every step of an import and an erasure: no half certificate is left."""

import contextlib
import logging
import time
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certificate_bench import DER, IMPORTED, PIN, carry_out, ef, managing, public_key, put, write
from demail_hw.card_manager.certificates import CardCertificates
from demail_hw.errors import CardError, CardRemoved, CertificateError, HardwareError, UnexpectedCard
from demail_hw.interfaces import Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificate_file import wrap
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.layout import StorageForm
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.faults import FaultyCard, FlippedBit
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

VERIFY, READ, UPDATE = 0x20, 0xB0, 0xD6
OTHER = "89490173510080407144"
CONTAINER = StorageForm.CONTAINER


class Hand:
    """Takes the card out at the command of one number, before it acts or after. ``other``: what is in its place then.

    ``updates``: how many of UPDATE BINARY there were. ``verified_at``: the number of the one with the PIN.
    """

    def __init__(self, card: SimulatedCard, at: int, *, acted: bool, other: SimulatedCard | None = None) -> None:
        self.reader = SimulatedReader(self)
        self.commands = self.updates = self.verified_at = 0
        self._card = card
        self._at = at
        self._acted = acted
        self._other = other

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        last = self.commands == self._at
        if command[1] == VERIFY and len(command) > 4:
            self.verified_at = self.commands
        self.commands += 1
        if last and not self._acted:
            self._take_out()
        self.updates += command[1] == UPDATE
        answer = self._card.transmit(command)
        if last:
            self._take_out()
        return answer

    def _take_out(self) -> NoReturn:
        self.reader.remove()
        if self._other is not None:
            self.reader.insert(self._other)
        raise CardRemoved("The card was taken out.")


NEVER = 1 << 20
LONGER = issue(public_key(), name="before", filling=700)


def card_in_use(*, iccsn: str | None = None) -> SimulatedTcosCard:
    card = netkey3(iccsn=iccsn)
    put(card, wrap(LONGER.public_bytes(Encoding.DER), CONTAINER))
    return card


def length_of(action: str) -> int:
    hand = Hand(card_in_use(), NEVER, acted=False)
    perform(hand, action)
    return hand.commands


def perform(hand: Hand, action: str) -> None:
    with managing(hand.reader) as certificates:
        act(certificates, action)


def act(certificates: CardCertificates, action: str) -> None:
    file = certificates.file("4331")
    plan = certificates.plan_erase(file) if action == "erase" else certificates.plan_import(IMPORTED, file)
    carry_out(certificates, plan)


AGAIN = {"import": "Then import the certificate again. NKS/4331 now ", "erase": "Then erase it again. NKS/4331 now "}
NEW = {"import": wrap(DER, CONTAINER).ljust(2048, b"\xff"), "erase": b"\xff" * 2048}


@pytest.mark.parametrize("swapped", [False, True], ids=["pulled", "swapped"])
@pytest.mark.parametrize("acted", [False, True], ids=["before it acts", "after it acted"])
@pytest.mark.parametrize("action", NEW)
def test_every_step_can_be_the_last(action: str, acted: bool, swapped: bool) -> None:
    before = bytes(ef(card_in_use()).content)
    seen = set()
    for at in range(length_of(action)):
        card = card_in_use()
        other = card_in_use(iccsn=OTHER) if swapped else None
        hand = Hand(card, at, acted=acted, other=other)
        with pytest.raises(HardwareError) as caught:
            perform(hand, action)
        content = bytes(ef(card).content)
        if content == before:
            state = "is as it was"
        elif content[0] == 0xFF:
            state = "is empty"
        else:
            assert content == NEW[action]
            state = "holds the new content"
        # As it was is what a person expects; everything else has to be said.
        if state != "is as it was" or hand.updates:
            assert state in caught.value.message
            assert AGAIN[action] in caught.value.remedy
            assert state in caught.value.remedy
        elif 0 < hand.verified_at < at:
            assert AGAIN[action] in caught.value.remedy
        seen.add(state)
        if other is not None:
            assert bytes(ef(other).content) == before
            assert other.instructions[VERIFY] == 0
    assert seen == {"is as it was", "is empty", *(["holds the new content"] if action == "import" else [])}


class Slot:
    """A reader that does not notice when its card is changed; only the epoch tells, if anything does."""

    name = "Slot"
    serial = None

    def __init__(self, card: SimulatedTcosCard, other: SimulatedTcosCard, at: int, *, notices: bool) -> None:
        self._connection = SimulatedReader(card).connect(deadline=time.monotonic() + 30)
        self.limits, self.atr, self.epoch = self._connection.limits, card.atr, 0
        self._card = card
        self._other = other
        self._left = at
        self._notices = notices

    def transaction(self, *, deadline: float) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def transmit(self, command: list[bytes], *, deadline: float) -> bytes:
        if not self._left:
            self._card = self._other
            self._other.power_on()
            self.epoch += self._notices
        self._left -= 1
        return self._card.transmit(b"".join(command))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("notices", [False, True], ids=["unnoticed", "noticed"])
@pytest.mark.parametrize("action", NEW)
def test_another_card_in_its_place_is_never_written(action: str, notices: bool) -> None:
    """From the PIN on, which is sent to the card that was looked at."""
    before = bytes(ef(card_in_use()).content)
    hand = Hand(card_in_use(), NEVER, acted=False)
    perform(hand, action)
    for at in range(hand.verified_at + 1, hand.commands):
        card, other = card_in_use(), card_in_use(iccsn=OTHER)
        slot = Slot(card, other, at, notices=notices)
        session = CardSession(slot, slot, timeouts=Timeouts())  # type: ignore[arg-type]
        certificates = CardCertificates(session, MemoryPinLedger())
        with pytest.raises(HardwareError):
            act(certificates, action)
        with pytest.raises(UnexpectedCard, match=OTHER):
            act(certificates, action)
        assert other.instructions[VERIFY] == 0
        assert bytes(ef(other).content) == before
        assert bytes(ef(card).content) in (before, NEW[action]) or ef(card).content[0] == 0xFF


def test_a_person_who_interrupts_it_is_told_how_the_file_is(caplog: pytest.LogCaptureFixture) -> None:
    card = card_in_use()

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with managing(card) as certificates, caplog.at_level(logging.WARNING):
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        with pytest.raises(KeyboardInterrupt):
            certificates.carry_out(plan, CallablePinSource(lambda: PIN), progress=interrupt)
    assert "NKS/4331 now is empty. To go on, import the certificate again." in caplog.messages
    assert ef(card).content[0] == 0xFF
    write(card)
    assert bytes(ef(card).content) == NEW["import"]


# --- a card that writes badly


class Forgetful:
    """Makes one byte zero of whatever it is told to write: that at ``offset``."""

    def __init__(self, card: SimulatedTcosCard, offset: int) -> None:
        self.card = card
        self._offset = offset

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        answer = self.card.transmit(command)
        if command[1] == UPDATE and command[:4] != b"\x00\xd6\x00\x00":
            ef(self.card).content[self._offset] = 0
        return answer


def test_what_reads_differently_never_counts() -> None:
    card = Forgetful(card_in_use(), 1000)
    with pytest.raises(CertificateError, match=r"reads differently.*NKS/4331 now is empty\."):
        write(card)
    assert ef(card.card).content[0] == 0xFF


class Reads(Hand):
    """Counts READ BINARY."""

    count = 0

    def transmit(self, command: bytes) -> bytes:
        self.count += command[1] == READ
        return super().transmit(command)


def test_what_reads_differently_at_the_end_is_made_empty_again() -> None:
    reads = Reads(card_in_use(), NEVER, acted=False)
    perform(reads, "import")
    card = card_in_use()
    with pytest.raises(CertificateError, match=r"reads differently.*NKS/4331 now is empty\."):
        write(FaultyCard(card, FlippedBit(), instruction=READ, after=reads.count - 1))
    assert ef(card).content[0] == 0xFF


def test_a_card_whose_memory_fails_leaves_an_empty_file() -> None:
    class Failing(Forgetful):
        def transmit(self, command: bytes) -> bytes:
            return b"\x65\x81" if command[:4] == b"\x00\xd6\x01\x00" else self.card.transmit(command)

    card = Failing(card_in_use(), 0)
    with pytest.raises(CardError, match=r"6581.*NKS/4331 now is empty\.") as caught:
        write(card)
    assert caught.value.remedy.startswith("Import the certificate again; if it stays so,")
    assert ef(card.card).content[0] == 0xFF
