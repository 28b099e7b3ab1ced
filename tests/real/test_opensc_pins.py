"""OpenSC verifies, changes and unblocks PINs of the simulated card; what it costs is counted at the card."""

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.personalities import netkey3, netkey3_fresh
from opensc import ERRORS, OpenSc
from pcscd import PrivatePcscd

GLOBAL, PUK, NKS_2, NKS_1, SIGG, SIGG_2 = "01", "02", "03", "04", "05", "06"
VERIFY, CHANGE, RESET = 0x20, 0x24, 0x2C
MF, NKS, SIGG_DF = 0x3F00, 0xDF02, 0xDF01
PLACES = {
    GLOBAL: (MF, 0x00, "123456"),
    PUK: (MF, 0x01, "12345678"),
    NKS_2: (NKS, 0x83, "222222"),
    NKS_1: (NKS, 0x81, "111111"),
    SIGG: (SIGG_DF, 0x81, "654321"),
    SIGG_2: (SIGG_DF, 0x83, "87654321"),
}
"""OpenSC's name of a PIN: where it is on the card, and what it is."""


@pytest.fixture
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = netkey3()
    pcscd.slot(card)
    return card


def tries(card: SimulatedTcosCard, name: str = GLOBAL) -> int:
    directory, reference, _ = PLACES[name]
    root = card.file_system.root
    place = root if directory == MF else root.child(directory)
    assert isinstance(place, DedicatedFile)
    return place.pins[reference].tries


def all_tries(card: SimulatedTcosCard) -> dict[str, int]:
    return {name: tries(card, name) for name in PLACES}


@pytest.mark.parametrize("name", PLACES)
def test_verify_and_what_a_wrong_pin_costs(opensc: OpenSc, card: SimulatedTcosCard, name: str) -> None:
    verify = ("pkcs15-tool", "--verify-pin", "--auth-id", name, "--pin")
    before = all_tries(card)
    assert ERRORS["pin"] in opensc.bad(*verify, "99999999")
    assert all_tries(card) == {**before, name: 2}
    opensc.good(*verify, PLACES[name][2])
    assert all_tries(card) == before


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
    assert opensc.good("pkcs15-tool", "--list-pins").count("Tries left     : 0") == 1
    opensc.bad(*unblock, "99999999")
    assert (tries(card), tries(card, PUK)) == (0, 2)
    opensc.good(*unblock, "12345678")
    assert (tries(card), tries(card, PUK)) == (3, 3)
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


@pytest.mark.parametrize(("name", "puk"), [(NKS_2, "123456"), (NKS_1, "123456"), (SIGG, "87654321")])
def test_a_local_pin_is_unblocked_by_its_own_puk(
    opensc: OpenSc, card: SimulatedTcosCard, name: str, puk: str
) -> None:
    """The global PIN unblocks those of NetKey, SigG's second PIN the first. OpenSC takes no six digits to unblock the
    second, which has eight."""
    for _ in range(3):
        opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", name, "--pin", "99999999")
    assert tries(card, name) == 0
    opensc.good("pkcs15-tool", "--unblock-pin", "--auth-id", name, "--puk", puk, "--new-pin", "77777777")
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", name, "--pin", "77777777")
    assert set(all_tries(card).values()) == {3}


def test_a_pin_of_the_wrong_length_never_reaches_the_card(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    for pin in ("1234", "1" * 17):
        said = opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", NKS_2, "--pin", pin)
        assert ERRORS["length"] in said
    assert card.instructions[VERIFY] == 0


def test_pkcs11_login_counts_and_changes(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    login = ("pkcs11-tool", "--slot-index", "1", "--login", "--pin")
    assert "CKR_PIN_INCORRECT" in opensc.bad(*login, "999999", "--list-objects")
    assert tries(card, NKS_2) == 2
    opensc.good(*login, "222222", "--change-pin", "--new-pin", "777777")
    assert tries(card, NKS_2) == 3
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", NKS_2, "--pin", "777777")


def test_a_pin_that_was_never_set_opens_nothing_and_is_set_by_the_explorer(
    opensc: OpenSc, pcscd: PrivatePcscd
) -> None:
    card = netkey3_fresh()
    pcscd.slot(card)
    verify = ("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin", "123456")
    assert ERRORS["not allowed"] in opensc.bad(*verify)
    unblock = ("pkcs15-tool", "--unblock-pin", "--auth-id", GLOBAL, "--puk", "12345678", "--new-pin", "123456")
    assert ERRORS["blocked"] in opensc.bad(*unblock)
    assert tries(card) == 3
    assert "PIN changed." in opensc.explore("change CHV0 00:00:00:00:00:00 31:32:33:34:35:36")
    opensc.good(*verify)


def test_no_pin_command_is_sent_twice(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", GLOBAL, "--pin", "999999")
    opensc.bad("pkcs15-tool", "--change-pin", "--auth-id", NKS_1, "--pin", "999999", "--new-pin", "777777")
    opensc.bad("pkcs15-tool", "--unblock-pin", "--auth-id", GLOBAL, "--puk", "99999999", "--new-pin", "777777")
    assert [card.instructions[each] for each in (VERIFY, CHANGE, RESET)] == [1, 1, 1]
    assert all_tries(card) == {GLOBAL: 2, PUK: 2, NKS_2: 3, NKS_1: 2, SIGG: 3, SIGG_2: 3}
