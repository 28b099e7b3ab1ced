"""The host's RSA encodings, judged by cryptography (OpenSSL) on the other side."""

import contextlib
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import DecryptionFailed
from demail_hw.keys.algorithms import HASHES
from demail_hw.keys.rsa_padding import oaep_decode, pkcs1_type1_encode, pkcs1_type2_decode, pss_encode

KEY = rsa.generate_private_key(65537, 2048)
ODD_KEY = rsa.generate_private_key(65537, 2049)  # emBits is a multiple of 8 then: one byte less than the modulus
ALGORITHMS = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


def raw(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    numbers = key.private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(block, "big"), numbers.d, n).to_bytes((n.bit_length() + 7) // 8, "big")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_pkcs1_signature_block_is_the_one_openssl_makes(name: str) -> None:
    digest = hashlib.new(name, b"message").digest()
    block = pkcs1_type1_encode(HASHES[name].digest_info + digest, 256)
    expected = KEY.sign(b"message", padding.PKCS1v15(), ALGORITHMS[name])
    assert raw(KEY, block) == expected


def test_pkcs1_needs_eight_bytes_of_padding() -> None:
    assert len(pkcs1_type1_encode(b"x" * 53, 64)) == 64
    with pytest.raises(ValueError, match="too short"):
        pkcs1_type1_encode(b"x" * 54, 64)


@pytest.mark.parametrize("key", [KEY, ODD_KEY], ids=["2048", "2049"])
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("salt", [0, 20, "digest"])
def test_pss_is_accepted_by_openssl(key: rsa.RSAPrivateKey, name: str, salt: int | str) -> None:
    used = HASHES[name]
    length = used.size if salt == "digest" else int(salt)
    digest = hashlib.new(name, b"message").digest()
    block = pss_encode(digest, used, used, length, key.key_size)
    key.public_key().verify(
        raw(key, block),
        digest,
        padding.PSS(padding.MGF1(ALGORITHMS[name]), length),
        utils.Prehashed(ALGORITHMS[name]),
    )


def test_pss_salts_differ() -> None:
    used = HASHES["sha256"]
    assert pss_encode(bytes(32), used, used, 32, 2048) != pss_encode(bytes(32), used, used, 32, 2048)


@given(st.binary(max_size=245))
def test_pkcs1_decryption_round_trip(message: bytes) -> None:
    cipher = KEY.public_key().encrypt(message, padding.PKCS1v15())
    assert pkcs1_type2_decode(raw(KEY, cipher)) == message


@pytest.mark.parametrize(
    "block",
    [
        b"\x01\x02" + b"\xaa" * 8 + b"\x00m",
        b"\x00\x01" + b"\xaa" * 8 + b"\x00m",
        b"\x00\x02" + b"\xaa" * 7 + b"\x00mm",
        b"\x00\x02" + b"\xaa" * 10,
        b"\x00\x02" + b"\xaa" * 3 + b"\x00" + b"\xaa" * 8 + b"\x00m",
    ],
    ids=["first byte", "type 1", "seven bytes of padding", "no separator", "early separator"],
)
def test_pkcs1_bad_blocks_all_fail_alike(block: bytes) -> None:
    with pytest.raises(DecryptionFailed, match=r"^Decryption failed\. \[keys\]$"):
        pkcs1_type2_decode(block)


def test_pkcs1_accepts_eight_bytes_of_padding_and_an_empty_message() -> None:
    assert pkcs1_type2_decode(b"\x00\x02" + b"\xaa" * 8 + b"\x00") == b""
    assert pkcs1_type2_decode(b"\x00\x02" + b"\xaa" * 8 + b"\x00\x00m") == b"\x00m"


@given(st.binary(max_size=120), st.sampled_from(["sha1", "sha256", "sha384"]), st.binary(max_size=8))
def test_oaep_round_trip(message: bytes, name: str, label: bytes) -> None:
    algorithm = {"sha1": hashes.SHA1(), **ALGORITHMS}[name]
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), algorithm, label)
    cipher = KEY.public_key().encrypt(message, oaep)
    assert oaep_decode(raw(KEY, cipher), HASHES[name], HASHES["sha256"], label) == message


@given(st.integers(0, 255), st.integers(1, 255))
def test_oaep_any_changed_byte_fails(position: int, change: int) -> None:
    used = HASHES["sha256"]
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    block = bytearray(raw(KEY, KEY.public_key().encrypt(b"secret", oaep)))
    block[position] ^= change
    with pytest.raises(DecryptionFailed, match=r"^Decryption failed\. \[keys\]$"):
        oaep_decode(bytes(block), used, used, b"")


@given(st.binary(min_size=2, max_size=256))
def test_decoders_take_any_block(block: bytes) -> None:
    used = HASHES["sha256"]
    for decode in (pkcs1_type2_decode, lambda data: oaep_decode(data, used, used, b"")):
        with contextlib.suppress(DecryptionFailed):
            assert len(decode(block)) < len(block)
