"""MSE, PSO and the access rules of the keys; signatures are checked with cryptography (tcos.md 3.7, 4.4, 4.5)."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card

Send: TypeAlias = Callable[[str], ResponseApdu]

SELECT_NKS = "00A4040C 07 D2760000030102"
SELECT_SIGG = "00A4040C 06 D27600006601"
VERIFY_GLOBAL = "00200000 06 313233343536"
VERIFY_NKS_1 = "00200081 06 313131313131"
VERIFY_NKS_2 = "00200083 06 323232323232"
VERIFY_SIGG_1 = "00200081 06 363534333231"
VERIFY_SIGG_2 = "00200083 08 3837363534333231"

SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
DIGEST = hashlib.sha256(b"message").digest()
DIGEST_INFO = SHA256_INFO + DIGEST


def sign(data: bytes, le: str = "00") -> str:
    return f"002A9E9A {len(data):02X} {data.hex()} {le}"


def decipher(block: bytes, indicator: int = 0) -> str:
    if len(block) < 255:
        return f"002A8086 {len(block) + 1:02X} {indicator:02X} {block.hex()} 00"
    return f"002A8086 00 {len(block) + 1:04X} {indicator:02X} {block.hex()} 0100"


def public_key(card: SimulatedTcosCard, reference: int) -> rsa.RSAPublicKey:
    (key,) = (directory.keys[reference] for directory in card.file_system.root.walk() if reference in directory.keys)
    return key.public_key


def raw(key: rsa.RSAPublicKey, data: bytes) -> bytes:
    """The public operation without padding."""
    numbers = key.public_numbers()
    return pow(int.from_bytes(data, "big"), numbers.e, numbers.n).to_bytes(len(data), "big")


@pytest.mark.parametrize("mse", ["002241B6 06 800102 840180", "002241B6 03 840180", "0022C1B6 03 840180"])
@pytest.mark.parametrize("verify", [VERIFY_GLOBAL, VERIFY_NKS_1, VERIFY_NKS_2])
def test_a_signature(card: SimulatedTcosCard, send: Send, mse: str, verify: str) -> None:
    send(SELECT_NKS)
    assert send(mse).status == 0x9000
    assert send(verify).status == 0x9000
    answer = send(sign(DIGEST_INFO))
    assert answer.status == 0x9000
    public_key(card, 0x80).verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize("verify", [VERIFY_SIGG_1, VERIFY_SIGG_2])
def test_a_signature_with_the_sigg_key(card: SimulatedTcosCard, send: Send, verify: str) -> None:
    send(SELECT_SIGG)
    assert send("002241B6 03 840184").status == 0x9000
    send(verify)
    answer = send(sign(DIGEST_INFO))
    public_key(card, 0x84).verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(("application", "reference"), [(SELECT_NKS, 0x80), (SELECT_SIGG, 0x84)])
def test_without_an_environment_the_application_s_own_key_signs(
    card: SimulatedTcosCard, send: Send, application: str, reference: int
) -> None:
    send(application)
    send(VERIFY_NKS_1 if reference == 0x80 else VERIFY_SIGG_1)
    answer = send(sign(DIGEST_INFO))
    public_key(card, reference).verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize("data", [b"\x00", bytes(35), bytes(83), bytes(245)])
def test_what_is_signed_is_not_looked_at(card: SimulatedTcosCard, send: Send, data: bytes) -> None:
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    padded = b"\x00\x01".ljust(256 - 1 - len(data), b"\xff") + b"\x00" + data
    assert raw(public_key(card, 0x80), send(sign(data)).data) == padded


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (sign(bytes(246)), 0x6A87),
        ("002A9E9A 00 0100" + "00" * 256 + "0100", 0x6A87),
        (sign(DIGEST_INFO, le=""), 0x6700),
        (sign(DIGEST_INFO, le="80"), 0x6C00),
        ("002A9E9A00", 0x6700),
        ("002A9E9B 01 00 00", 0x6A86),
        ("002A8486 01 00 00", 0x6A86),
        (decipher(bytes(256)), 0x6985),
    ],
)
def test_what_the_signature_key_refuses(send: Send, command: str, status: int) -> None:
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    assert send(command).status == status


@pytest.mark.parametrize("reference", [0x81, 0x82])
@pytest.mark.parametrize("indicator", [0x00, 0x02, 0x81])
@pytest.mark.parametrize("mse", ["002241B8 03 8401", "002241B8 06 80010A 8401"])
def test_the_plain_operation(card: SimulatedTcosCard, send: Send, reference: int, indicator: int, mse: str) -> None:
    send(SELECT_NKS)
    send(f"{mse}{reference:02X}")
    send(VERIFY_GLOBAL)
    block = b"\x00" + hashlib.shake_256(b"any block").digest(255)
    answer = send(decipher(block, indicator))
    assert answer.status == 0x9000
    assert raw(public_key(card, reference), answer.data) == block


def test_a_cryptogram_comes_back_with_its_padding(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_NKS)
    send("002241B8 03 840181")
    send(VERIFY_GLOBAL)
    key = public_key(card, 0x81)
    cryptogram = key.encrypt(b"secret", padding.PKCS1v15())
    plain = send(decipher(cryptogram)).data
    assert plain.startswith(b"\x00\x02")
    assert plain.endswith(b"\x00secret")


def test_an_rsa_1024_key_says_when_the_block_is_too_long(card: SimulatedTcosCard, send: Send) -> None:
    send(SELECT_NKS)
    send("002241B8 03 840183")
    send(VERIFY_NKS_2)
    assert send(decipher(bytes(256))).status == 0x6A87
    block = b"\x00\x01" + b"\xff" * 74 + b"\x00" + DIGEST_INFO
    answer = send(decipher(block, 2))
    assert len(answer.data) == 128
    public_key(card, 0x83).verify(answer.data, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (decipher(bytes(128)), 0x6A87),
        (decipher(bytes(255)), 0x6A87),
        (decipher(bytes(256), indicator=0x01), 0x6A80),
        (decipher(b"\xff" * 256), 0x6A80),
        ("002A8086", 0x6700),
        (f"002A8086 00 0101 {'00' * 257}", 0x6700),
        (f"002A8086 00 0101 {'00' * 257} 00FF", 0x6C00),
        (sign(b"\x00"), 0x9000),
    ],
)
def test_what_decipher_refuses(send: Send, command: str, status: int) -> None:
    send(SELECT_NKS)
    send("002241B8 03 840182")
    send(VERIFY_GLOBAL)
    assert send(command).status == status


@pytest.mark.parametrize(
    ("application", "command", "status"),
    [
        (SELECT_NKS, "002241B6 03 840184", 0x6A88),
        (SELECT_SIGG, "002241B6 06 800102 840180", 0x6A88),
        ("00A4000C", "002241B8 03 840181", 0x6A88),
        (SELECT_NKS, "002241B8 03 840180", 0x6A81),
        (SELECT_NKS, "002241B6 03 840181", 0x6A81),
        (SELECT_SIGG, "002241B8 03 840184", 0x6A81),
        (SELECT_NKS, "002241B8 06 80011A 840181", 0x6A80),
        (SELECT_NKS, "002241B6 06 80010A 840180", 0x6A80),
        (SELECT_NKS, "002241B8 03 800110", 0x6A80),
        (SELECT_NKS, "002241B8 04 84020081", 0x6A80),
        (SELECT_NKS, "002241B8 06 830101 840181", 0x6A80),
        (SELECT_NKS, "002241B8 02 8401", 0x6A80),
        (SELECT_NKS, "002241B8", 0x6700),
        (SELECT_NKS, "002241A4 03 840181", 0x6A86),
        (SELECT_NKS, "002281B8 03 840181", 0x6A86),
    ],
)
def test_what_mse_refuses(send: Send, application: str, command: str, status: int) -> None:
    send(application)
    assert send(command).status == status


def test_a_refused_environment_leaves_the_old_one(send: Send) -> None:
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    send("002241B8 03 840182")
    assert send("002241B8 03 840180").status == 0x6A81
    assert send(decipher(bytes(256))).status == 0x9000


@pytest.mark.parametrize("verify", ["", "00200001 08 3132333435363738", "00200000 06 393939393939"])
def test_no_key_of_nks_without_its_pin(send: Send, verify: str) -> None:
    send(SELECT_NKS)
    if verify:
        send(verify)
    assert send(sign(DIGEST_INFO)).status == 0x6982
    send("002241B8 03 840182")
    assert send(decipher(bytes(256))).status == 0x6982


def test_the_global_pin_does_not_open_the_sigg_key(send: Send) -> None:
    send(VERIFY_GLOBAL)
    send(SELECT_NKS)
    send(VERIFY_NKS_1)
    send(SELECT_SIGG)
    assert send(sign(DIGEST_INFO)).status == 0x6982
    send(VERIFY_SIGG_1)
    assert send(sign(DIGEST_INFO)).status == 0x9000


def test_a_failed_verify_closes_the_key_again(send: Send) -> None:
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    assert send("00200000 06 393939393939").status == 0x63C2
    assert send(sign(DIGEST_INFO)).status == 0x6982


@pytest.mark.parametrize(("le", "status"), [("", 0x6700), ("80", 0x6C00), ("FF", 0x6C00)])
def test_a_signature_that_is_refused_uses_up_no_pin(send: Send, le: str, status: int) -> None:
    send(SELECT_SIGG)
    send(VERIFY_SIGG_1)
    assert send(sign(DIGEST_INFO, le)).status == status
    assert send(sign(DIGEST_INFO)).status == 0x9000


def test_an_environment_outlives_selections_in_its_application_alone(send: Send) -> None:
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    send("002241B8 03 840182")
    send("00A4020C 02 C000")
    send(SELECT_NKS)
    assert send(decipher(bytes(256))).status == 0x9000
    send("00A4000C")
    send(SELECT_NKS)
    assert send(decipher(bytes(256))).status == 0x6985


def test_a_verified_pin_outlives_selections(send: Send) -> None:
    send(SELECT_NKS)
    send(VERIFY_NKS_1)
    send(SELECT_SIGG)
    send(SELECT_NKS)
    assert send(sign(DIGEST_INFO)).status == 0x9000


def talk(card: SimulatedTcosCard) -> Send:
    card.power_on()
    return lambda command: ResponseApdu.decode(card.transmit(bytes.fromhex(command)))


@pytest.mark.parametrize("leave", [SELECT_SIGG, "00A4000C", "00A4080C 02 2F02"])
@pytest.mark.parametrize(("keeps", "status"), [(True, 0x9000), (False, 0x6982)])
def test_what_becomes_of_a_local_pin_when_its_application_is_left(leave: str, keeps: bool, status: int) -> None:
    send = talk(open_card("netkey3", keeps_local_pins=keeps))
    send(SELECT_NKS)
    send(VERIFY_NKS_1)
    assert send(leave).status == 0x9000
    send(SELECT_NKS)
    assert send(sign(DIGEST_INFO)).status == status


def test_other_verified_states_outlive_a_selection_on_every_card() -> None:
    send = talk(open_card("netkey3", keeps_local_pins=False))
    send(VERIFY_GLOBAL)
    send(SELECT_NKS)
    assert send("00200000").status == 0x9000
    send(VERIFY_NKS_1)
    send("00A4020C 02 C000")
    send(SELECT_NKS)
    assert send("00200081").status == 0x9000
    assert send("00A4080C 02 4711").status == 0x6A82
    assert send("00200081").status == 0x9000


@pytest.mark.parametrize(("keeps", "status"), [(True, 0x9000), (False, 0x6985)])
def test_what_becomes_of_an_environment_when_its_application_is_selected_again(keeps: bool, status: int) -> None:
    send = talk(open_card("netkey3", keeps_environment=keeps))
    send(SELECT_NKS)
    send(VERIFY_GLOBAL)
    send("002241B8 03 840182")
    send("00A4020C 02 C000")
    send("00A4080C 04 DF024331")
    assert send(decipher(bytes(256))).status == 0x9000
    send(SELECT_NKS)
    assert send(decipher(bytes(256))).status == status


def test_there_is_no_key_in_the_master_file(send: Send) -> None:
    send(VERIFY_GLOBAL)
    assert send(sign(DIGEST_INFO)).status == 0x6985


@pytest.mark.parametrize(("command", "length"), [("0084000008", 8), ("0084000000", 256), ("00840000 000200", 512)])
def test_a_challenge_has_the_length_that_is_asked_for(send: Send, command: str, length: int) -> None:
    first, second = send(command), send(command)
    assert (first.status, len(first.data)) == (0x9000, length)
    assert first.data != second.data


def test_a_seed_makes_the_same_challenges() -> None:
    first, second, other, none = (talk(open_card("netkey3", seed=seed)) for seed in (1, 1, 2, None))
    challenges = [[send("0084000008").data for _ in range(2)] for send in (first, second, other, none)]
    assert challenges[0] == challenges[1]
    assert len({each for pair in challenges for each in pair}) == 6


@pytest.mark.parametrize(
    ("command", "status"), [("00840000", 0x6700), ("0084010008", 0x6A86), ("00840000 01 00 08", 0x6700)]
)
def test_what_get_challenge_refuses(send: Send, command: str, status: int) -> None:
    assert send(command).status == status


@pytest.mark.parametrize("verify", [VERIFY_SIGG_1, VERIFY_SIGG_2])
def test_one_qualified_signature_for_each_pin(send: Send, verify: str) -> None:
    """Says the card of itself (DO 93 in EF.KEYD)."""
    send(SELECT_SIGG)
    for _ in range(2):
        send(verify)
        assert send("002A9E9A 00 000000 0000").status == 0x6700
        assert send(sign(DIGEST_INFO)).status == 0x9000
        assert send(sign(DIGEST_INFO)).status == 0x6982
