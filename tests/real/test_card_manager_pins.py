"""What the card manager does to PINs, OpenSC and GnuPG find on the card; and the other way round."""

import pathlib
from collections.abc import Callable

import pytest

from demail_hw.card_manager.manager import open_manager
from demail_hw.errors import PinBlocked, PinIncorrect
from demail_hw.pin_sources import CallablePinSource
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName
from demail_hw_simulators.card.personalities import netkey3, netkey3_fresh
from opensc import ERRORS, OpenSc
from pcsc_client import require_pyscard
from pcscd import PrivatePcscd
from scdaemon import Scdaemon

URI = "pcsc:*00 00"
GLOBAL = PinName.GLOBAL
VERIFY = ("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin")
CHANGE = ("pkcs15-tool", "--change-pin", "--auth-id", "01")


@pytest.fixture(autouse=True)
def _pyscard(pytestconfig: pytest.Config) -> None:
    require_pyscard(pytestconfig)


def source(pin: bytes) -> PinSource:
    return CallablePinSource(lambda: pin)


def test_opensc_takes_the_pin_that_we_set(opensc: OpenSc, pcscd: PrivatePcscd) -> None:
    pcscd.slot(netkey3())
    with open_manager(URI) as manager:
        manager.pins.change(GLOBAL, source(b"123456"), source(b"864209"))
    assert ERRORS["pin"] in opensc.bad(*VERIFY, "123456")
    opensc.good(*VERIFY, "864209")
    with open_manager(URI) as manager:
        manager.pins.verify(GLOBAL, source(b"864209"))


def test_we_take_the_pin_that_opensc_set_and_a_refused_one_is_not_sent_again(
    opensc: OpenSc, pcscd: PrivatePcscd
) -> None:
    card = netkey3()
    pcscd.slot(card)
    with open_manager(URI) as manager:
        manager.pins.verify(GLOBAL, source(b"123456"))
    opensc.good(*CHANGE, "--pin", "123456", "--new-pin", "864209")
    with open_manager(URI) as manager, pytest.raises(PinIncorrect):
        manager.pins.verify(GLOBAL, source(b"123456"))
    assert card.file_system.root.pins[0].tries == 2
    with open_manager(URI, kept=1, attended=True) as manager:
        manager.pins.verify(GLOBAL, source(b"864209"))
    assert card.file_system.root.pins[0].tries == 3


def test_what_opensc_blocks_we_unblock(opensc: OpenSc, pcscd: PrivatePcscd) -> None:
    pcscd.slot(netkey3())
    for _ in range(3):
        opensc.bad(*VERIFY, "999999")
    with open_manager(URI) as manager:
        with pytest.raises(PinBlocked):
            manager.pins.verify(GLOBAL, source(b"123456"))
        manager.pins.unblock(GLOBAL, source(b"12345678"), source(b"864209"))
    opensc.good(*VERIFY, "864209")


def test_gnupg_takes_the_first_pin_that_we_set(
    tool: Callable[[str], str], pcscd: PrivatePcscd, tmp_path: pathlib.Path
) -> None:
    pcscd.slot(netkey3_fresh())
    with open_manager(URI) as manager:
        manager.pins.initialize(GLOBAL, source(b"864209"))
    with Scdaemon(tool("/usr/lib/gnupg/scdaemon"), tmp_path, pcscd.environment) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.need("CHECKPIN PW1.CH", "864209")
