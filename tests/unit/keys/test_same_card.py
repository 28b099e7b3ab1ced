"""Whenever the connection may have lost the card, it is looked at again before anything else is done."""

import contextlib
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw.errors import CardError, Outcome, UnexpectedCard
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Buffers, CardLimits, Deadline, ShareMode, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3

VERIFY = 0x20
OTHER = "89490173510080407144"


class Slot:
    """Reader and connection in one, of the kind that does not notice when a card is swapped; only the epoch tells."""

    name = "Slot"
    serial = None
    limits = CardLimits(extended=True, max_command=65544, max_response=65538)

    def __init__(self, card: SimulatedTcosCard) -> None:
        self.epoch = 0
        self.each_transaction_is_new = False
        self.put(card)

    def put(self, card: SimulatedTcosCard) -> None:
        self.card = card
        self.atr = card.power_on()
        self.epoch += 1

    def card_present(self, *, deadline: Deadline) -> bool:
        return True

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        raise NotImplementedError

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> "Slot":
        return self

    @contextlib.contextmanager
    def transaction(self, *, deadline: Deadline) -> Iterator[None]:
        self.epoch += self.each_transaction_is_new
        yield

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        return self.card.transmit(b"".join(command))

    def reset(self, *, deadline: Deadline) -> None:
        self.put(self.card)

    def close(self) -> None:
        pass


@pytest.fixture
def slot() -> Slot:
    return Slot(netkey3())


@pytest.fixture
def provider(slot: Slot) -> TcosKeyProvider:
    session = CardSession(slot, slot, timeouts=Timeouts())
    return TcosKeyProvider(session, CallablePinSource(lambda: b"123456"), ledger=MemoryPinLedger())


def sign(provider: TcosKeyProvider) -> None:
    provider.identity(KeyRole.SIGNATURE).private_key.sign(b"data", PKCS1v15(), SHA256())


def test_f64_the_same_card_after_a_reset_gets_its_pin_again(slot: Slot, provider: TcosKeyProvider) -> None:
    sign(provider)
    slot.put(slot.card)
    sign(provider)
    # Each time: the counter, asked twice, and the PIN.
    assert slot.card.instructions[VERIFY] == 6


@pytest.mark.parametrize("signed_before", [True, False])
def test_f63_another_card_never_gets_the_pin(slot: Slot, provider: TcosKeyProvider, signed_before: bool) -> None:
    if signed_before:
        sign(provider)
    other = netkey3(iccsn=OTHER)
    slot.put(other)
    for _ in range(2):
        with pytest.raises(UnexpectedCard, match=OTHER) as caught:
            sign(provider)
        assert caught.value.outcome is Outcome.NOT_SENT
    assert other.instructions[VERIFY] == 0


def test_f63_a_card_with_another_atr_gets_no_command(slot: Slot, provider: TcosKeyProvider) -> None:
    other = netkey3()
    other.atr = bytes.fromhex("3BBF96008131FE5D00640411040F31C073F701D000900074")
    slot.put(other)
    with pytest.raises(UnexpectedCard):
        sign(provider)
    assert other.log == other.log.__class__()


def test_f62_the_first_card_may_come_back(slot: Slot, provider: TcosKeyProvider) -> None:
    first = slot.card
    slot.put(netkey3(iccsn=OTHER))
    with pytest.raises(UnexpectedCard):
        sign(provider)
    slot.put(first)
    sign(provider)


def test_an_epoch_that_stays_costs_no_command(slot: Slot, provider: TcosKeyProvider) -> None:
    sign(provider)
    before = len(slot.card.log)
    sign(provider)
    assert len(slot.card.log) == before + 1


def test_f65_where_others_use_the_card_too_nothing_is_believed(slot: Slot, provider: TcosKeyProvider) -> None:
    slot.each_transaction_is_new = True
    sign(provider)
    before = slot.card.instructions[VERIFY]
    slot.card.transmit(bytes.fromhex("00A4040C06D27600006601"))  # somebody else selects SigG
    sign(provider)
    assert slot.card.instructions[VERIFY] == before + 1  # the card was asked whether the PIN is open still


def test_after_a_failure_another_card_is_found_though_nothing_told_of_it(
    slot: Slot, provider: TcosKeyProvider
) -> None:
    sign(provider)
    slot.card = netkey3(iccsn=OTHER)
    slot.card.power_on()
    with pytest.raises(CardError):
        sign(provider)  # it knows nothing of our PIN and security environment
    with pytest.raises(UnexpectedCard, match=OTHER):
        sign(provider)
    assert slot.card.instructions[VERIFY] == 0


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_after_whatever_failed_in_a_transaction_the_card_is_looked_at_again(
    slot: Slot, provider: TcosKeyProvider, failure: type[BaseException]
) -> None:
    session = provider.session
    with pytest.raises(failure), session.transaction():
        raise failure
    slot.card = netkey3(iccsn=OTHER)
    slot.card.power_on()
    with pytest.raises(UnexpectedCard, match=OTHER):
        sign(provider)
    assert slot.card.instructions[VERIFY] == 0


@pytest.mark.parametrize("blank", ["", "00" * 10, "ff" * 10, "00"])
def test_a_card_without_a_number_is_not_opened(slot: Slot, blank: str) -> None:
    number = bytes.fromhex(blank)
    slot.card.file_system.root.files[0x2F02].content = bytearray(bytes((0x5A, len(number))) + number)
    with pytest.raises(UnexpectedCard, match="blank"):
        CardSession(slot, slot, timeouts=Timeouts())
    assert slot.card.instructions[VERIFY] == 0


def test_the_deadline_of_a_session_is_in_the_future(provider: TcosKeyProvider) -> None:
    assert provider.session.deadline() > time.monotonic()
