"""What the card object remembers of its card, and what it forgets."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from demail_hw.errors import CardError, FileNotFound, HardwareError, Outcome, PinIncorrect, UnexpectedCard
from demail_hw.secrets import Pin
from demail_hw.tcos.card import PinState, TcosCard
from demail_hw.tcos.layout import PinName, Profile
from demail_hw.tcos.netkey import NKS
from demail_hw.tcos.profiles import IDKEY, NETKEY2, NETKEY3
from demail_hw.tcos.public_key_file import PublicKeyParts
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.sim_reader import SimulatedReader
from permits import permit

GLOBAL, SIGG_1 = NETKEY3.pin(PinName.GLOBAL), NETKEY3.pin(PinName.SIGG_1)
KEY = NETKEY3.keys[0]
SIGG = 0xDF01
SELECT, MSE, PSO = 0xA4, 0x22, 0x2A


class OneRefusal:
    """A card that does not do the first command of one instruction, and answers this instead."""

    def __init__(self, card: SimulatedTcosCard, instruction: int, answer: str = "6a80") -> None:
        self.card = card
        self.answer = bytes.fromhex(answer)
        self.log: list[int] = []
        self._refused: int | None = instruction

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        self.log.append(command[1])
        if command[1] == self._refused:
            self._refused = None
            return self.answer
        return self.card.transmit(command)


@contextmanager
def opened(card: SimulatedTcosCard | OneRefusal) -> Iterator[tuple[TcosCard, float]]:
    deadline = time.monotonic() + 30
    connection = SimulatedReader(card).connect(deadline=deadline)
    with connection.transaction(deadline=deadline):
        yield TcosCard(connection, NETKEY3), deadline


def verify(card: TcosCard, pin: bytes, deadline: float) -> None:
    card.verify(GLOBAL, permit(GLOBAL.reference, Pin(pin)), deadline=deadline)


def test_a_pin_of_an_application_that_the_card_does_not_have_is_absent() -> None:
    simulated = open_card("netkey3")
    del simulated.file_system.root.files[SIGG]
    with opened(simulated) as (card, deadline):
        assert card.pin_status(SIGG_1, deadline=deadline).state is PinState.ABSENT
        assert card.pin_status(GLOBAL, deadline=deadline).retries_left == 3


def test_a_wrong_pin_closes_what_a_right_one_opened() -> None:
    with opened(open_card("netkey3")) as (card, deadline):
        verify(card, b"123456", deadline)
        assert card.is_verified(GLOBAL)
        with pytest.raises(PinIncorrect):
            verify(card, b"975310", deadline)
        assert not card.is_verified(GLOBAL)


@pytest.mark.parametrize("answer", ["6a80", "90"], ids=["refused", "garbled"])
@pytest.mark.parametrize(
    ("refused", "again"),
    [(SELECT, [SELECT, MSE, PSO]), (MSE, [SELECT, MSE, PSO]), (PSO, [SELECT, MSE, PSO])],
    ids=["SELECT", "MSE", "PSO"],
)
def test_a_command_that_fails_leaves_nothing_to_rely_on(refused: int, again: list[int], answer: str) -> None:
    simulated = OneRefusal(open_card("netkey3"), refused, answer)
    with opened(simulated) as (card, deadline):
        verify(card, b"123456", deadline)
        with pytest.raises(HardwareError):
            card.compute_digital_signature(KEY, bytes(51), deadline=deadline)
        assert not card.is_verified(GLOBAL)
        simulated.log.clear()
        assert len(card.compute_digital_signature(KEY, bytes(51), deadline=deadline)) == 256
        assert simulated.log == again


# --- the serial number and EF.PK, as a card gives them


@pytest.mark.parametrize("content", ["5a00", "5a0a" + "00" * 10, "5a0a" + "ff" * 10, "5a01ff", "5a0200ff"])
def test_a_blank_serial_number_is_no_identity(scripted, content: str) -> None:
    connection = scripted(lambda command: (bytes.fromhex(content) if command[1] == 0xB0 else b"") + b"\x90\x00")
    with pytest.raises(UnexpectedCard, match="blank") as caught:
        TcosCard(connection, NETKEY3).serial_number(deadline=DEADLINE)
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("status", ["6a83", "6a82"])
@pytest.mark.parametrize("record", [1, 2])
def test_half_a_public_key_is_not_none(scripted, record: int, status: str) -> None:
    def answer(command: bytes) -> bytes:
        missing = command[1] == 0xB2 and command[2] == record
        return bytes.fromhex(status) if missing else b"\x01\x90\x00" if command[1] == 0xB2 else b"\x90\x00"

    with pytest.raises(CardError, match=status.upper()) as caught:
        TcosCard(scripted(answer), NETKEY3).read_public_key(NKS, KEY.public_key_file, deadline=DEADLINE)
    assert not isinstance(caught.value, FileNotFound)


def test_no_file_is_no_public_key(scripted) -> None:
    connection = scripted(lambda command: b"\x6a\x82" if command[2] == 0x02 else b"\x90\x00")
    with pytest.raises(FileNotFound):
        TcosCard(connection, NETKEY3).read_public_key(NKS, KEY.public_key_file, deadline=DEADLINE)


# --- keys that use up their PINs


def test_a_signature_uses_up_the_pins_that_open_the_key_alone(scripted) -> None:
    card = TcosCard(scripted(lambda command: b"\x90\x00"), NETKEY3)
    for pin in NETKEY3.pins:
        card.verify(pin, permit(pin.reference, Pin(b"123456")), deadline=DEADLINE)
    card.compute_digital_signature(KEY, b"\xaa", deadline=DEADLINE)
    assert card.is_verified(GLOBAL)
    for name in (PinName.SIGG_1, PinName.SIGG_2):
        pin = NETKEY3.pin(name)
        card.verify(pin, permit(pin.reference, Pin(b"123456")), deadline=DEADLINE)
    (sigg,) = NETKEY3.keys_opened_by(SIGG_1)
    card.compute_digital_signature(sigg, b"\xaa", deadline=DEADLINE)
    assert [pin.name for pin in NETKEY3.pins if card.is_verified(pin)] == [PinName.GLOBAL, PinName.PUK]


# --- other cards, by what they are sent

DEADLINE = 99.0
SELECT_NKS = "00a4040c07d2760000030102"


def sent_by(scripted, profile: Profile, *uses: Callable[[TcosCard], object]) -> list[str]:
    """The commands that a card of this kind gets, which is content with all of them."""
    connection = scripted(lambda command: b"\x90\x00")
    card = TcosCard(connection, profile)
    for use in uses:
        use(card)
    return connection.sent


def signing(card: TcosCard) -> None:
    card.compute_digital_signature(card.profile.keys[0], b"\xaa", deadline=DEADLINE)


def deciphering(card: TcosCard) -> None:
    card.decipher(card.profile.keys[1], b"\xbb" * 128, deadline=DEADLINE)


def test_tcos_2_signs_with_the_key_that_selecting_the_application_sets(scripted) -> None:
    sign = "002a9e9a01aa00"
    decipher = "002a80868102" + "bb" * 128 + "80"
    sent = sent_by(scripted, NETKEY2, signing, signing, deciphering, deciphering, signing, signing)
    assert sent == [SELECT_NKS, sign, sign, "0022c1b803840181", decipher, decipher, SELECT_NKS, sign, sign]


def test_selecting_the_same_application_anew_leaves_its_local_pins(scripted) -> None:
    connection = scripted(lambda command: b"\x90\x00")
    card = TcosCard(connection, NETKEY2)
    local = NETKEY2.pin(PinName.NKS_1)
    card.verify(local, permit(local.reference, Pin(b"123456")), deadline=DEADLINE)
    deciphering(card)
    signing(card)
    assert connection.sent.count(SELECT_NKS) == 2
    assert card.is_verified(local)


def test_the_keys_of_an_idkey_lie_in_two_directories(scripted) -> None:
    def every_key(card: TcosCard) -> None:
        for key in IDKEY.keys:
            card.decipher(key, b"\xbb" * 256, deadline=DEADLINE)

    sent = [command for command in sent_by(scripted, IDKEY, every_key) if not command.startswith("002a")]
    df07, df08 = "00a4080c02df07", "00a4080c02df08"
    assert sent == [df07, "002241b803840184", "002241b803840185", df08, "002241b803840181"]


def test_a_global_pin_of_an_idkey_needs_no_application(scripted) -> None:
    pin = IDKEY.pin(PinName.GLOBAL)
    assert sent_by(scripted, IDKEY, lambda card: card.pin_status(pin, deadline=DEADLINE)) == ["00200000"]


def test_the_public_key_of_tcos_2_is_in_data_objects(scripted) -> None:
    records = {"00b2010400": "0104c3c3c3c3", "00b2020400": "0203010001"}
    connection = scripted(lambda command: bytes.fromhex(records.get(command.hex(), "")) + b"\x90\x00")
    file = NETKEY2.keys[0].public_key_file
    parts = TcosCard(connection, NETKEY2).read_public_key(NKS, file, deadline=DEADLINE)
    assert parts == PublicKeyParts(0xC3C3C3C3, 65537)
