"""OpenSC verifies, changes and unblocks PINs of the simulated card; what it costs is counted at the card."""

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from opensc import ERRORS, OpenSc
from pcscd import PrivatePcscd

GLOBAL, PUK, NKS_2, NKS_1, SIGG = "01", "02", "03", "04", "05"


@pytest.fixture
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = netkey3()
    pcscd.slot(card)
    return card


def tries(card: SimulatedTcosCard, reference: int = 0) -> int:
    return card.file_system.root.pins[reference].tries


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("name", "pin"), [(GLOBAL, "123456"), (PUK, "12345678"), (NKS_2, "222222"), (NKS_1, "111111"), (SIGG, "654321")]
)
def test_verify(opensc: OpenSc, name: str, pin: str) -> None:
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", name, "--pin", pin)


def test_a_wrong_pin_costs_one_try_and_the_right_one_restores_it(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    verify = ("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin")
    assert ERRORS["pin"] in opensc.bad(*verify, "999999")
    assert tries(card) == 2
    assert "Tries left     : 2" in opensc.good("pkcs15-tool", "--dump")
    opensc.good(*verify, "123456")
    assert tries(card) == 3


def test_three_wrong_pins_block_and_the_puk_unblocks(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    verify = ("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin")
    unblock = ("pkcs15-tool", "--unblock-pin", "--auth-id", GLOBAL, "--new-pin", "777777", "--puk")
    for _ in range(3):
        opensc.bad(*verify, "999999")
    assert tries(card) == 0
    assert ERRORS["blocked"] in opensc.bad(*verify, "123456")
    opensc.bad(*unblock, "99999999")
    assert (tries(card), tries(card, 1)) == (0, 2)
    opensc.good(*unblock, "12345678")
    assert (tries(card), tries(card, 1)) == (3, 3)
    opensc.good(*verify, "777777")


def test_change(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    change = ("pkcs15-tool", "--change-pin", "--auth-id", GLOBAL)
    opensc.bad(*change, "--pin", "999999", "--new-pin", "777777")
    assert tries(card) == 2
    opensc.good(*change, "--pin", "123456", "--new-pin", "777777")
    assert tries(card) == 3
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin", "777777")


def test_change_of_a_local_pin_leaves_the_others(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    opensc.good("pkcs15-tool", "--change-pin", "--auth-id", NKS_1, "--pin", "111111", "--new-pin", "777777")
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", NKS_1, "--pin", "777777")
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", NKS_2, "--pin", "222222")
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin", "123456")
