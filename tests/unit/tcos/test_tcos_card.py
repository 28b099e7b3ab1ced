"""What the card object remembers of its card, and what it forgets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demail_hw.errors import CardError, PinIncorrect
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit
from demail_hw.tcos.card import PinState, TcosCard
from demail_hw.tcos.profiles import NETKEY3, PinName
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.sim_reader import SimulatedReader

GLOBAL, SIGG_1 = NETKEY3.pin(PinName.GLOBAL), NETKEY3.pin(PinName.SIGG_1)
KEY = NETKEY3.keys[0]
SIGG = 0xDF01
SELECT, MSE, PSO = 0xA4, 0x22, 0x2A


class OneRefusal:
    """A card that refuses the first command of one instruction."""

    def __init__(self, card: SimulatedTcosCard, instruction: int) -> None:
        self.card = card
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
            return bytes.fromhex("6a80")
        return self.card.transmit(command)


@contextmanager
def opened(card: SimulatedTcosCard | OneRefusal) -> Iterator[tuple[TcosCard, float]]:
    deadline = time.monotonic() + 30
    connection = SimulatedReader(card).connect(deadline=deadline)
    with connection.transaction(deadline=deadline):
        yield TcosCard(connection, NETKEY3), deadline


def verify(card: TcosCard, pin: bytes, deadline: float) -> None:
    card.verify(GLOBAL, PinPermit(_GUARD_KEY, GLOBAL.reference, (Pin(pin),)), deadline=deadline)


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


@pytest.mark.parametrize(
    ("refused", "again"),
    [(SELECT, [SELECT, MSE, PSO]), (MSE, [MSE, PSO]), (PSO, [SELECT, MSE, PSO])],
    ids=["SELECT", "MSE", "PSO"],
)
def test_a_refused_command_leaves_nothing_to_rely_on(refused: int, again: list[int]) -> None:
    simulated = OneRefusal(open_card("netkey3"), refused)
    with opened(simulated) as (card, deadline):
        verify(card, b"123456", deadline)
        with pytest.raises(CardError):
            card.compute_digital_signature(KEY, bytes(51), deadline=deadline)
        simulated.log.clear()
        assert len(card.compute_digital_signature(KEY, bytes(51), deadline=deadline)) == 256
        assert simulated.log == again
