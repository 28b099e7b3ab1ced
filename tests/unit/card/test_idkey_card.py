"""IDKey: keys in two DFs of their own, and no algorithm in MSE (tcos.md 3.9 and 6)."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, utils

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.keys import RsaCardKey
from demail_hw_simulators.card.personalities import NETKEY3, open_card

Send: TypeAlias = Callable[[str], ResponseApdu]

VERIFY = "00200000 06 313233343536"
DF07, DF08 = "00A4080C 02 DF07", "00A4080C 02 DF08"
DIGEST = hashlib.sha256(b"message").digest()
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420") + DIGEST
KEYS = [
    *((DF07, reference) for reference in range(0x84, 0x8A)),
    *((DF08, reference) for reference in range(0x81, 0x84)),
]


@pytest.fixture
def card() -> SimulatedTcosCard:
    powered = open_card("idkey")
    powered.power_on()
    return powered


def key_of(card: SimulatedTcosCard, directory: str, reference: int) -> RsaCardKey:
    found = card.file_system.root.files[int(directory[-4:], 16)]
    assert isinstance(found, DedicatedFile)
    key = found.keys[reference]
    assert isinstance(key, RsaCardKey)
    return key


def test_it_looks_like_a_netkey_3_without_nks(card: SimulatedTcosCard, send: Send) -> None:
    assert card.atr == NETKEY3.atr
    assert send("00A4040C 07 D2760000030102").status == 0x6A82
    assert send("00A4040C 07 D2760000030C01").status == 0x9000


@pytest.mark.parametrize(("directory", "reference"), KEYS)
def test_every_key_works_raw(card: SimulatedTcosCard, send: Send, directory: str, reference: int) -> None:
    assert send(VERIFY).status == 0x9000
    send(directory)
    assert send(f"002241B8 03 8401{reference:02X}").status == 0x9000
    block = b"\x00\x01".ljust(256 - 1 - len(DIGEST_INFO), b"\xff") + b"\x00" + DIGEST_INFO
    answer = send(f"002A8086 00 0101 00 {block.hex()} 0100")
    public_key = key_of(card, directory, reference).public_key
    public_key.verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("002241B8 06 80010A 840184", 0x6A80),
        ("002241B6 06 800102 840184", 0x6A80),
        ("002241B6 03 840184", 0x9000),
        ("002241B8 03 840181", 0x6A88),
        ("0022C1B8 03 840184", 0x6A86),
    ],
)
def test_mse_takes_no_algorithm(send: Send, command: str, status: int) -> None:
    send(DF07)
    assert send(command).status == status


def test_no_key_without_the_pin(send: Send) -> None:
    send(DF08)
    send("002241B8 03 840181")
    assert send(f"002A8086 00 0101 {'00' * 257} 0100").status == 0x6982


@pytest.mark.parametrize(
    ("directory", "records"),
    [("DF07", [f"a0038301{n:02x}b600b800" for n in range(0x84, 0x8A)]),
     ("DF08", [f"a0038301{n:02x}b800" for n in range(0x81, 0x84)])],
)  # fmt: skip
def test_the_keys_are_described(send: Send, directory: str, records: list[str]) -> None:
    send(f"00A4080C 04 {directory}5349")
    found = [send(f"00B2{number:02X}0400").data.hex() for number in range(1, len(records) + 1)]
    assert found == records
    assert send(f"00B2{len(records) + 1:02X}0400").status == 0x6A83


def test_its_pins_may_be_long(send: Send) -> None:
    new = (b"9" * 24).hex()
    assert send(f"00240000 1E 313233343536 {new}").status == 0x9000
    assert send(f"00200000 18 {new}").status == 0x9000
    assert send(f"00240000 31 {new} {new} 39").status == 0x6700
