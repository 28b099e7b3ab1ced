"""A powered NetKey 3 card, and a way to talk to it in hexadecimal."""

from collections.abc import Callable

import pytest

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3


@pytest.fixture
def card() -> SimulatedTcosCard:
    powered = netkey3()
    powered.power_on()
    return powered


@pytest.fixture
def send(card: SimulatedTcosCard) -> Callable[[str], ResponseApdu]:
    return lambda command: ResponseApdu.decode(card.transmit(bytes.fromhex(command)))
