"""The card as a whole: class and instruction bytes, malformed commands, power, observation."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import LOG_LENGTH, SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3

Send: TypeAlias = Callable[[str], ResponseApdu]

SELECT_NKS = "00A4040C 07 D2760000030102"
ATR = bytes.fromhex("3BBF96008131FE5D00640411030131C073F701D00090007D")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("00C0000000", 0x6D00),
        ("00880000", 0x6D00),
        ("00820000", 0x6D00),
        ("80200000", 0x6E00),
        ("00AA010000", 0x6E00),
        ("20200000", 0x6E00),
        ("FFA4000C", 0x6E00),
        ("80C0000000", 0x6D00),
        ("01A4000C", 0x6881),
        ("04A4000C", 0x6882),
        ("0CA4000C", 0x6882),
        ("10A4000C", 0x6884),
        ("", 0x6700),
        ("00A400", 0x6700),
        ("00A4000C 03 3F00", 0x6700),
        ("00A4000C 02 3F00 00 00", 0x6700),
        ("00A4000C 00 0002 3F", 0x6700),
        ("00A4000C 00 00", 0x6700),
    ],
)
def test_what_no_handler_sees(send: Send, command: str, status: int) -> None:
    assert send(command) == ResponseApdu(b"", status)


def test_the_answer_to_reset() -> None:
    card = netkey3()
    assert card.power_on() == ATR
    assert card.atr == ATR


def test_nothing_works_without_power(card: SimulatedTcosCard) -> None:
    card.power_off()
    assert not card.powered
    with pytest.raises(RuntimeError):
        card.transmit(bytes.fromhex("00A4000C"))


@pytest.mark.parametrize("off", [True, False])
def test_a_reset_forgets_pins_files_and_environment(card: SimulatedTcosCard, send: Send, off: bool) -> None:
    send(SELECT_NKS)
    send("00200000 06 313233343536")
    send("002241B8 03 840182")
    send("00A4020C 02 C000")
    if off:
        card.power_off()
    card.power_on()
    assert send("00200000").status == 0x63C3
    assert send("00B0000001").status == 0x6986
    assert send("80AA010000").data == bytes.fromhex("DF02DF01")
    send(SELECT_NKS)
    send("00200000 06 313233343536")
    assert send(f"002A8086 00 0101 {'00' * 257} 0100").status == 0x6985


def test_counters_and_files_outlive_a_reset(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_NKS)
    send("00200000 06 393939393939")
    send("00200000 06 313233343536")
    send("00200081 06 393939393939")
    send("00A4020C 02 4331")
    send("00D60000 02 3082")
    card.power_off()
    card.power_on()
    send(SELECT_NKS)
    assert send("00200081").status == 0x63C2
    send("00A4020C 02 4331")
    assert send("00B0000002").data == b"\x30\x82"


def test_what_is_observed(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_NKS)
    send("00200000 06 313233343536")
    send("00200000")
    send("00C0000000")
    send("00")
    assert list(card.log) == [0xA4, 0x20, 0x20, 0xC0]
    assert card.instructions == {0xA4: 1, 0x20: 2, 0xC0: 1}
    assert card.resets == 1
    card.power_on()
    assert card.resets == 2


def test_the_log_is_bounded(card: SimulatedTcosCard, send: Send) -> None:
    for _ in range(LOG_LENGTH + 1):
        card.transmit(b"\x00\xc0\x00\x00")
    assert len(card.log) == LOG_LENGTH
    assert card.instructions[0xC0] == LOG_LENGTH + 1
