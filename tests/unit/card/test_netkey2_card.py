"""NetKey 2: the dialect of TCOS 2 (tcos.md 3.7, 3.9, 3.10, 4.4, 4.5)."""

import dataclasses
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
from demail_hw_simulators.card.personalities import build_card, find_personality, open_card

Send: TypeAlias = Callable[[str], ResponseApdu]

SELECT_NKS = "00A4040C 07 D2760000030102"
SELECT_SIGG = "00A4040C 06 D27600006601"
PIN, PUK, PIN_0, PIN_1 = b"123456".hex(), b"12345678".hex(), b"111111".hex(), b"222222".hex()
VERIFY = f"00200000 06 {PIN}"
DIGEST = hashlib.sha1(b"message", usedforsecurity=False).digest()
DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414") + DIGEST


@pytest.fixture
def card() -> SimulatedTcosCard:
    powered = open_card("netkey2")
    powered.power_on()
    return powered


def key_of(card: SimulatedTcosCard, directory: int, reference: int) -> RsaCardKey:
    found = card.file_system.root.files[directory]
    assert isinstance(found, DedicatedFile)
    key = found.keys[reference]
    assert isinstance(key, RsaCardKey)
    return key


def decipher(indicator: int, cryptogram: bytes) -> str:
    return f"002A8086 81 {indicator:02X} {cryptogram.hex()} 00"


@pytest.mark.parametrize(
    ("application", "directory", "verify"),
    [(SELECT_NKS, 0xDF01, VERIFY), (SELECT_SIGG, 0xDF03, "00200081 06 363534333231")],
)
def test_it_signs_without_an_environment(
    card: SimulatedTcosCard, send: Send, application: str, directory: int, verify: str
) -> None:
    send(application)
    send(verify)
    answer = send(f"002A9E9A 23 {DIGEST_INFO.hex()} 00")
    public_key = key_of(card, directory, 0x80).public_key
    public_key.verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))


@pytest.mark.parametrize("mse", ["0022C1B8 06 800110 840181", "0022C1B8 03 840181"])
def test_the_card_takes_the_padding_away_for_81_alone(card: SimulatedTcosCard, send: Send, mse: str) -> None:
    send(SELECT_NKS)
    assert send(mse).status == 0x9000
    send(VERIFY)
    cryptogram = key_of(card, 0xDF01, 0x81).public_key.encrypt(b"secret", padding.PKCS1v15())
    assert send(decipher(0x81, cryptogram)).data == b"secret"
    for indicator in (0x00, 0x02):
        plain = send(decipher(indicator, cryptogram)).data
        assert plain.startswith(b"\x00\x02")
        assert plain.endswith(b"\x00secret")


def encrypted(card: SimulatedTcosCard, block: bytes) -> bytes:
    numbers = key_of(card, 0xDF01, 0x81).public_key.public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(128, "big")


@pytest.mark.parametrize(
    "block",
    [
        b"\x00\x01" + b"\xff" * 120 + b"\x00hello",
        b"\x00\x02" + b"\xff" * 126,
        b"\x00\x02" + b"\xff" * 7 + b"\x00" + b"\xaa" * 118,
        bytes(128),
    ],
)
def test_what_is_not_padded_cannot_be_unpadded(card: SimulatedTcosCard, send: Send, block: bytes) -> None:
    send(SELECT_NKS)
    send("0022C1B8 03 840181")
    send(VERIFY)
    assert send(decipher(0x81, encrypted(card, block))).status == 0x6A80
    assert send(decipher(0x02, encrypted(card, block))).data == block


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("80AA0600 00", 0x6A86),
        ("002241B8 03 840181", 0x6A86),
        ("0022C1B8 06 80010A 840181", 0x6A80),
        ("0022C1B8 03 840180", 0x6A81),
        ("0022C1B8 03 840183", 0x6A88),
        ("00A4040C 00 0007 D2760000030102", 0x6700),
        ("00840000 00 0008", 0x6700),
        (f"002A8086 00 0101 {'00' * 257} 0100", 0x6700),
    ],
)
def test_what_it_refuses(send: Send, command: str, status: int) -> None:
    send(SELECT_NKS)
    assert send(command).status == status


@pytest.mark.parametrize("cryptogram", [bytes(127), bytes(129)])
def test_a_block_of_another_length(send: Send, cryptogram: bytes) -> None:
    send(SELECT_NKS)
    send("0022C1B8 03 840181")
    send(VERIFY)
    assert send(f"002A8086 {len(cryptogram) + 1:02X} 00 {cryptogram.hex()} 00").status == 0x6A87


def test_the_public_key_is_in_simple_tlv(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_NKS)
    send("00A4020C 02 45B1")
    modulus, exponent = send("00B2010400").data, send("00B2020400").data
    assert (modulus[:2], exponent) == (b"\x01\x80", b"\x01\x03\x01\x00\x01")
    assert int.from_bytes(modulus[2:], "big") == key_of(card, 0xDF01, 0x81).public_key.public_numbers().n


@pytest.mark.parametrize(("file", "usage"), [("5331", "08"), ("53B1", "04"), ("5371", "04")])
def test_a_key_file_says_what_its_key_can(send: Send, file: str, usage: str) -> None:
    answer = send(f"00A40804 04 DF01{file} 00")
    assert answer.data.hex() == f"620f800200008201018302{file.lower()}850201{usage}"
    assert send("00B0000010").status == 0x6982


def test_a_pin_file_says_how_many_tries_are_left(send: Send) -> None:
    control_information = "62128002001082010583025080 8505018000"
    assert send("00A40804 04 DF015080 00").data == bytes.fromhex(f"{control_information} 03 03")
    send("00200080 06 393939393939")
    assert send("00A40804 04 DF015080 00").data == bytes.fromhex(f"{control_information} 02 03")
    assert send("00B2010400").status == 0x6982


def test_the_initial_puk_is_for_whoever_knows_the_pin(send: Send) -> None:
    send("00A40804 02 4350 00")
    cryptogram = send("00B0000080").data.hex()
    send("00A40804 02 DF01 00")
    send("0022C1B8 06 800110 840181")
    assert send(f"002A8480 80 {cryptogram} 80").status == 0x6982
    send(VERIFY)
    assert send(f"002A8480 80 {cryptogram} 80").data.endswith(b"\x0012345678")


def test_a_first_pin_opens_the_initial_puk() -> None:
    spec = find_personality("netkey2")
    card = build_card(dataclasses.replace(spec, pins=(dataclasses.replace(spec.pins[0], value=None), spec.pins[1])))
    card.power_on()
    assert card.transmit(bytes.fromhex("00200000")) == b"\x69\x85"
    assert card.transmit(bytes.fromhex(f"00240000 0C 000000000000 {PIN}")) == b"\x90\x00"
    assert card.transmit(bytes.fromhex("00200000")) == b"\x90\x00"


@pytest.mark.parametrize(
    ("verify", "reference", "change", "unblock"),
    [
        (VERIFY, "00", 0x9000, 0x9000),
        (f"00200001 08 {PUK}", "00", 0x9000, 0x9000),
        (VERIFY, "80", 0x9000, 0x9000),
        (f"00200080 06 {PIN_0}", "80", 0x9000, 0x9000),
        (f"00200081 06 {PIN_1}", "80", 0x9000, 0x9000),
        (VERIFY, "81", 0x9000, 0x9000),
        (f"00200080 06 {PIN_0}", "81", 0x6982, 0x6982),
        (f"00200081 06 {PIN_1}", "00", 0x6982, 0x6982),
        (VERIFY, "01", 0x6A81, 0x6A81),
    ],
)
def test_which_pin_sets_which(send: Send, verify: str, reference: str, change: int, unblock: int) -> None:
    send(SELECT_NKS)
    assert send(verify).status == 0x9000
    assert send(f"002C03{reference}").status == unblock
    assert send(f"002401{reference} 08 3635343332313030").status == change
    new = send(f"002000{reference} 08 3635343332313030").status
    assert (new == 0x9000) is (change == 0x9000)
