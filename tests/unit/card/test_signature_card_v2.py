"""Signature Card V2: ECDSA and ECDH, PINs 03 and 04, a NullPIN of five zeros (tcos.md 4.6; newer GnuPG's app-nks)."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.keys import EcCardKey
from demail_hw_simulators.card.personalities import open_card

Send: TypeAlias = Callable[[str], ResponseApdu]

SELECT_NKS = "00A4040C 07 D2760000030102"
SELECT_ESIGN = "00A4040C 0A A000000167455349474E"
VERIFY = "00200003 06 313233343536"
FIRST_QES_PIN = "00240081 0B 3030303030 363534333231"
HASHES = (hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())


@pytest.fixture(params=["signature-card-v2", "signature-card-v2-brainpool"])
def card(request: pytest.FixtureRequest) -> SimulatedTcosCard:
    powered = open_card(request.param)
    powered.power_on()
    return powered


def key_of(card: SimulatedTcosCard, directory: int, reference: int) -> EcCardKey:
    found = card.file_system.root.files[directory]
    assert isinstance(found, DedicatedFile)
    key = found.keys[reference]
    assert isinstance(key, EcCardKey)
    return key


def check(key: EcCardKey, plain: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
    assert len(plain) == 64
    r, s = int.from_bytes(plain[:32], "big"), int.from_bytes(plain[32:], "big")
    key.public_key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(algorithm)))


def sign(digest: bytes) -> str:
    return f"002A9E9A {len(digest):02X} {digest.hex()} 00"


@pytest.mark.parametrize("reference", [0x80, 0x81, 0x82])
@pytest.mark.parametrize("algorithm", HASHES, ids=lambda algorithm: algorithm.name)
def test_it_signs_a_digest(
    card: SimulatedTcosCard, send: Send, reference: int, algorithm: hashes.HashAlgorithm
) -> None:
    send(SELECT_NKS)
    assert send(f"002241B6 03 8401{reference:02X}").status == 0x9000
    send(VERIFY)
    digest = hashlib.new(algorithm.name, b"message", usedforsecurity=False).digest()
    answer = send(sign(digest))
    assert answer.status == 0x9000
    check(key_of(card, 0xDF02, reference), answer.data, digest, algorithm)


def signed_twice(name: str, seed: int | None) -> list[bytes]:
    signatures = []
    for _ in range(2):
        card = open_card(name, seed=seed)
        card.power_on()
        for command in (SELECT_NKS, VERIFY):
            card.transmit(bytes.fromhex(command))
        digest = hashlib.sha256(b"message").digest()
        signatures.append(card.transmit(bytes.fromhex(sign(digest))))
        check(key_of(card, 0xDF02, 0x80), signatures[-1][:-2], digest, hashes.SHA256())
    return signatures


@pytest.mark.parametrize("name", ["signature-card-v2", "signature-card-v2-brainpool"])
def test_a_seed_makes_the_same_signatures(name: str) -> None:
    assert len(set(signed_twice(name, seed=1))) == 1
    assert len(set(signed_twice(name, seed=None))) == 2


@pytest.mark.parametrize("length", [1, 16, 31, 33, 35, 51, 65])
def test_it_signs_nothing_else(send: Send, length: int) -> None:
    send(SELECT_NKS)
    send("002241B6 03 840180")
    send(VERIFY)
    assert send(sign(bytes(length))).status == 0x6A87


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_it_agrees_on_a_key(card: SimulatedTcosCard, send: Send) -> None:
    public_key = key_of(card, 0xDF02, 0x81).public_key
    ephemeral = ec.generate_private_key(public_key.curve)
    send(SELECT_NKS)
    send("002241B8 03 840181")
    send(VERIFY)
    answer = send(f"002A8086 42 00 {point_of(ephemeral.public_key()).hex()} 00")
    assert answer.data == ephemeral.exchange(ec.ECDH(), public_key)


@pytest.mark.parametrize(
    "data", ["81" + "04" + "00" * 64, "00" + "04" + "00" * 64, "00" + "04" + "11" * 64, "00", "0004"]
)
def test_it_agrees_on_no_point_off_the_curve(send: Send, data: str) -> None:
    send(SELECT_NKS)
    send("002241B8 03 840181")
    send(VERIFY)
    assert send(f"002A8086 {len(data) // 2:02X} {data} 00").status == 0x6A80


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("002241B6 06 800102 840180", 0x6A80),
        ("002241B8 06 80010A 840181", 0x6A80),
        ("0022C1B6 03 840180", 0x6A86),
        ("002241B8 03 840180", 0x6A81),
        ("002241B6 03 840184", 0x6A88),
        ("00200000", 0x6A88),
        ("00200003", 0x63C3),
        ("00200004", 0x63C3),
    ],
)
def test_what_it_says_in_nks(send: Send, command: str, status: int) -> None:
    send(SELECT_NKS)
    assert send(command).status == status


def test_it_says_that_it_is_version_15(send: Send) -> None:
    assert send("80AA060000").data.hex().upper() == "05A0223EC80C04200F01B60101000002"


def test_the_first_qualified_pin_replaces_five_zeros(send: Send) -> None:
    send(SELECT_ESIGN)
    assert send("00200081").status == 0x6985
    assert send("00200082").status == 0x6983
    assert send("00240081 0C 000000000000 363534333231").status == 0x63C2
    assert send(FIRST_QES_PIN).status == 0x9000
    assert send("00200081 06 363534333231").status == 0x9000


def test_one_qualified_signature_for_each_pin(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_ESIGN)
    send(FIRST_QES_PIN)
    digest = hashlib.sha256(b"message").digest()
    assert send(sign(digest)).status == 0x6982
    for _ in range(2):
        send("00200081 06 363534333231")
        check(key_of(card, 0xDF01, 0x84), send(sign(digest)).data, digest, hashes.SHA256())
        assert send(sign(digest)).status == 0x6982


def test_the_curves() -> None:
    curves = {}
    for name in ("signature-card-v2", "signature-card-v2-brainpool"):
        opened = open_card(name)
        curves[name] = [key_of(opened, 0xDF02, 0x80), key_of(opened, 0xDF02, 0x82), key_of(opened, 0xDF01, 0x84)]
    assert [key.public_key.curve.name for key in curves["signature-card-v2"]] == [
        "secp256r1",
        "secp256r1",
        "brainpoolP256r1",
    ]
    assert {key.public_key.curve.name for key in curves["signature-card-v2-brainpool"]} == {"brainpoolP256r1"}
