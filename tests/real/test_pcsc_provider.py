"""The keys of a card through PC/SC, while other programs, people and pcscd interfere: a PIN try is never lost."""

from collections.abc import Callable, Iterator
from typing import cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw import KeyRole, open_provider
from demail_hw.errors import (
    CardError,
    CardRemoved,
    DeviceLost,
    HardwareError,
    Outcome,
    PinIncorrect,
    PinRefused,
    ReaderBusy,
    UnexpectedCard,
)
from demail_hw.interfaces import KeyProvider, Timeouts
from demail_hw_simulators.card.personalities import netkey3
from pcsc_client import require_pyscard
from pcsc_wire import READER, GatedCard, Wire, open_wire, soon

ICCSN = "89490173510080407136"
OTHER_ICCSN = "89490173510080407144"
EXCLUSIVE = f"pcsc:{READER}"
SHARED = f"pcsc:{READER}?share=shared"
MODES = pytest.mark.parametrize("address", [EXCLUSIVE, SHARED])
MESSAGE = b"De-Mail"
VERIFY_INS, SIGN_INS = 0x20, 0x2A
ASK_PIN = bytes.fromhex("00200000")
VERIFY = bytes.fromhex("00200000 06 313233343536")
WRONG_SECURITY_ENVIRONMENT = bytes.fromhex("002241B6 03 840101")
SELECT_MF = bytes.fromhex("00A4000C023F00")
SHARED_SIGNATURE = [0xA4, 0xA4, 0xB0, VERIFY_INS, 0xA4, 0x22, SIGN_INS]
"""MF, EF.GDO, its content; the PIN's state, without data; the application, MSE, PSO."""
TWO_TRIES, THREE_TRIES = b"\x63\xc2", b"\x63\xc3"


@pytest.fixture
def wire(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[Wire]:
    require_pyscard(pytestconfig)
    with open_wire(request.getfixturevalue("pcscd")) as opened:
        yield opened


def open_keys(address: str, *, command: float = 30.0) -> KeyProvider:
    return open_provider(address, pin=lambda: b"123456", timeouts=Timeouts(command=command))


def sign(provider: KeyProvider) -> None:
    """Sign, and verify with the certificate."""
    identity = provider.identity(KeyRole.SIGNATURE)
    key = cast("rsa.RSAPrivateKey", identity.private_key)
    signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


def tries(card: GatedCard) -> bytes:
    """What the card itself says, with nobody in between, when it is powered anew."""
    card.card.power_off()
    card.card.power_on()
    return card.card.transmit(ASK_PIN)


def commands_of(wire: Wire, act: Callable[[], object]) -> list[int]:
    wire.card.commands.clear()
    act()
    return [command[1] for command in wire.card.commands]


def verifications(card: GatedCard) -> int:
    return sum(command[1] == VERIFY_INS and len(command) > len(ASK_PIN) for command in card.commands)


def test_steady_signature_costs_one_command_exclusively(wire: Wire) -> None:
    with open_keys(EXCLUSIVE) as provider:
        sign(provider)
        assert commands_of(wire, lambda: sign(provider)) == [SIGN_INS]


def test_each_shared_signature_looks_at_the_card_and_asks_whether_it_is_open(wire: Wire) -> None:
    with open_keys(SHARED) as provider:
        sign(provider)
        for _ in range(2):
            assert commands_of(wire, lambda: sign(provider)) == SHARED_SIGNATURE
            assert verifications(wire.card) == 0
    assert tries(wire.card) == THREE_TRIES


def test_who_has_not_shown_that_he_knows_the_pin_has_no_use_of_another_programs(wire: Wire) -> None:
    wire.foreign.connect(READER)
    wire.foreign.transmit(VERIFY)
    with open_provider(SHARED, pin=lambda: b"975310") as provider:
        with pytest.raises(PinIncorrect):
            sign(provider)
        for _ in range(2):
            with pytest.raises(PinRefused, match="not sent again"):
                sign(provider)
    assert verifications(wire.card) == 2  # the other program's, and the one that an open card gets
    wire.foreign.start("SCardDisconnect", "card", 0)
    wire.foreign.finish()
    assert tries(wire.card) == TWO_TRIES


@pytest.mark.parametrize(
    "meddle",
    [
        lambda foreign: foreign.reset(),
        lambda foreign: foreign.disconnect(1),
        lambda foreign: foreign.disconnect(2),
        lambda foreign: foreign.transmit(SELECT_MF),
        lambda foreign: foreign.transmit(VERIFY),
        lambda foreign: foreign.transmit(WRONG_SECURITY_ENVIRONMENT),
    ],
    ids=["reset", "disconnect-reset", "disconnect-unpower", "select", "verify", "security-environment"],
)
def test_f64_f65_shared_signature_is_right_whatever_others_did_before(
    wire: Wire, meddle: Callable[[object], None]
) -> None:
    with open_keys(SHARED) as provider:
        sign(provider)
        for _ in range(2):
            wire.foreign.connect(READER)
            meddle(wire.foreign)
            sign(provider)
            wire.foreign.start("SCardDisconnect", "card", 0)
            wire.foreign.finish()
    assert tries(wire.card) == THREE_TRIES


def test_f66_another_programs_transaction_ends_the_shared_signature_at_its_deadline(wire: Wire) -> None:
    with open_keys(SHARED, command=0.3) as provider:
        wire.foreign.connect(READER)
        wire.foreign.begin()
        with pytest.raises(HardwareError) as caught:
            sign(provider)
        assert (caught.value.outcome, caught.value.transient) == (Outcome.NOT_SENT, True)
        assert verifications(wire.card) == 0
        wire.foreign.end()
    with open_keys(SHARED) as provider:
        sign(provider)
    assert tries(wire.card) == THREE_TRIES


@MODES
def test_card_that_another_program_has_is_not_opened(wire: Wire, address: str) -> None:
    wire.foreign.connect(READER, exclusive=True)
    with pytest.raises(ReaderBusy):
        open_keys(address)
    assert wire.card.commands == []


@MODES
def test_f60_removal_between_two_signatures(wire: Wire, address: str) -> None:
    with open_keys(address) as provider:
        sign(provider)
        wire.remove()
        for _ in range(2):
            with pytest.raises(CardRemoved) as caught:
                sign(provider)
            assert caught.value.outcome is Outcome.NOT_SENT
    assert tries(wire.card) == THREE_TRIES


@MODES
def test_f62_the_same_card_comes_back(wire: Wire, address: str) -> None:
    """The old connection stays dead; one that is opened anew looks whose card it is, and then sends the PIN."""
    with open_keys(address) as provider:
        sign(provider)
        wire.remove()
        wire.insert(wire.card)
        with pytest.raises(CardRemoved) as caught:
            sign(provider)
        assert caught.value.outcome is Outcome.NOT_SENT
    wire.card.commands.clear()
    separator = "&" if "?" in address else "?"
    with open_keys(f"{address}{separator}card={ICCSN}") as provider:
        assert verifications(wire.card) == 0
        sign(provider)
    assert verifications(wire.card) == 1
    assert tries(wire.card) == THREE_TRIES


@MODES
def test_f63_another_card_never_gets_the_pin_of_the_first(wire: Wire, address: str) -> None:
    other = GatedCard(netkey3(iccsn=OTHER_ICCSN))
    with open_keys(address) as provider:
        sign(provider)
        wire.remove()
        wire.insert(other)
        for _ in range(2):
            with pytest.raises(CardRemoved):
                sign(provider)
    assert other.commands == []
    separator = "&" if "?" in address else "?"
    with pytest.raises(UnexpectedCard) as caught:
        open_keys(f"{address}{separator}card={ICCSN}")
    assert caught.value.outcome is Outcome.NOT_SENT
    assert verifications(other) == 0
    assert tries(other) == THREE_TRIES


@MODES
def test_f63_another_card_that_nobody_saw_come_never_gets_the_pin_of_the_first(wire: Wire, address: str) -> None:
    """As if vpcd's next card had been waiting: to PC/SC nothing was ever taken out."""
    other = netkey3(iccsn=OTHER_ICCSN)
    with open_keys(address) as provider:
        sign(provider)
        other.power_on()
        wire.card.card = other
        wire.card.commands.clear()
        with pytest.raises(UnexpectedCard if address == SHARED else CardError):
            sign(provider)
    assert verifications(wire.card) == 0
    assert tries(wire.card) == THREE_TRIES


@MODES
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_f67_restart_of_pcscd_needs_the_provider_anew(wire: Wire, address: str, end: str) -> None:
    with open_keys(address) as provider:
        sign(provider)
        getattr(wire.pcscd, end)()
        wire.pcscd.start()
        for _ in range(2):
            with pytest.raises(DeviceLost) as caught:
                sign(provider)
            assert caught.value.transient
    wire.reader.wait_for_card(True, deadline=soon())
    with open_keys(address) as provider:
        sign(provider)
    assert tries(wire.card) == THREE_TRIES
