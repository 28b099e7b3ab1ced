"""RSA without padding against plain arithmetic, for key sizes, boundaries and padded blocks."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw_simulators.card.personalities import load_card_key
from demail_hw_simulators.card.raw_rsa import RawRsa, modulus_length

KEYS = {name: load_card_key(name) for name in ("nks-80", "nks-83")}


@pytest.fixture(params=KEYS)
def key(request: pytest.FixtureRequest) -> rsa.RSAPrivateKey:
    return KEYS[request.param]


@pytest.fixture(params=[True, False], ids=["libcrypto", "cryptography"])
def raw(request: pytest.FixtureRequest, key: rsa.RSAPrivateKey) -> RawRsa:
    return RawRsa(key, use_libcrypto=request.param)


def reference(key: rsa.RSAPrivateKey, number: int) -> bytes:
    numbers = key.private_numbers()
    return pow(number, numbers.d, numbers.public_numbers.n).to_bytes(modulus_length(key), "big")


def test_numbers_at_the_boundaries(key: rsa.RSAPrivateKey, raw: RawRsa) -> None:
    numbers = key.private_numbers()
    n = numbers.public_numbers.n
    for number in (0, 1, 2, n - 1, n - 2, numbers.p, numbers.q, n // 2):
        block = number.to_bytes(modulus_length(key), "big")
        assert raw.apply(block) == reference(key, number)


def test_any_number(key: rsa.RSAPrivateKey, raw: RawRsa) -> None:
    for seed in range(5):
        block = b"\x00" + hashlib.shake_256(bytes((seed,))).digest(modulus_length(key) - 1)
        assert raw.apply(block) == reference(key, int.from_bytes(block, "big"))


@pytest.mark.parametrize("filling", [7, 8, 9, 60])
@pytest.mark.parametrize("kind", [b"\x00\x01", b"\x00\x02", b"\x00\x00"])
def test_padded_blocks(key: rsa.RSAPrivateKey, raw: RawRsa, filling: int, kind: bytes) -> None:
    block = (kind + b"\xff" * filling + b"\x00").ljust(modulus_length(key), b"\x5a")
    assert raw.apply(block) == reference(key, int.from_bytes(block, "big"))


@pytest.mark.parametrize("end", [b"\x00", b"\xff", b"\x01"])
def test_padding_without_data(key: rsa.RSAPrivateKey, raw: RawRsa, end: bytes) -> None:
    block = b"\x00\x01".ljust(modulus_length(key) - 1, b"\xff") + end
    assert raw.apply(block) == reference(key, int.from_bytes(block, "big"))


def test_a_signature_is_the_one_that_everybody_makes(key: rsa.RSAPrivateKey, raw: RawRsa) -> None:
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"data").digest()
    expected = key.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert raw.sign(info) == expected
    padded = b"\x00\x01".ljust(modulus_length(key) - len(info) - 1, b"\xff") + b"\x00" + info
    assert raw.apply(padded) == expected


def test_what_is_no_block_of_this_modulus(key: rsa.RSAPrivateKey, raw: RawRsa) -> None:
    length = modulus_length(key)
    n = key.private_numbers().public_numbers.n
    for block in (b"", bytes(length - 1), bytes(length + 1), n.to_bytes(length, "big"), b"\xff" * length):
        with pytest.raises(ValueError):
            raw.apply(block)
