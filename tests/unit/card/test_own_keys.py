"""Own keys and certificates by file: RSA or EC, PEM or DER, of the kind that the card has at that reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demail_hw.errors import ConfigurationError
from demail_hw.identity import KeyRole, PrivateKey
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.own_keys import load_own_certificates, load_own_keys
from demail_hw_simulators.card.personalities import NETKEY3, find_personality, load_card_key, netkey3

KEY = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CERTIFICATE = telesec_ca().issue_card_certificate(KeyRole.SIGNATURE, KEY.public_key(), holder="Someone else")

Write = Callable[[bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file; its path comes back."""

    def write_file(content: bytes) -> str:
        path = tmp_path / "file"
        path.write_bytes(content)
        return str(path)

    return write_file


def encoded(
    key: PrivateKey | ed25519.Ed25519PrivateKey,
    encoding: Encoding = Encoding.PEM,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(encoding, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_an_rsa_key(write: Write, encoding: Encoding) -> None:
    (loaded,) = load_own_keys([f"80={write(encoded(KEY, encoding))}"], NETKEY3).values()
    assert loaded.public_key() == KEY.public_key()


@pytest.mark.parametrize(
    ("curve", "name"),
    [(ec.SECP256R1(), "signature-card-v2"), (ec.BrainpoolP256R1(), "signature-card-v2-brainpool")],
)
def test_an_ec_key_for_a_card_that_has_such(write: Write, curve: ec.EllipticCurve, name: str) -> None:
    key = ec.generate_private_key(curve)
    loaded = load_own_keys([f"80={write(encoded(key))}"], find_personality(name))
    assert loaded[0x80].public_key() == key.public_key()
    with pytest.raises(ConfigurationError, match="Key 80 of this card is rsa-2048, not ec-"):
        load_own_keys([f"80={write(encoded(key))}"], NETKEY3)


def test_a_card_with_own_key_and_certificate(write: Write, tmp_path: Path) -> None:
    keys = load_own_keys([f"80={write(encoded(KEY))}"], NETKEY3)
    path = tmp_path / "certificate"
    path.write_bytes(CERTIFICATE.public_bytes(Encoding.DER))
    certificates = load_own_certificates([f"80={path}"], NETKEY3, keys)
    assert certificates == {0x80: CERTIFICATE}
    card = netkey3(keys=keys, certificates=certificates)
    card.power_on()
    card.transmit(bytes.fromhex("00A4080C 04 DF02C000"))
    read = card.transmit(bytes.fromhex("00B00009 00 0000"))
    assert read.startswith(CERTIFICATE.public_bytes(Encoding.DER))


def test_a_certificate_of_the_cards_own_key(write: Write) -> None:
    public_key = load_card_key("nks-81").public_key()
    issued = telesec_ca().issue_card_certificate(KeyRole.ENCRYPTION, public_key, holder="Someone else")
    path = write(issued.public_bytes(Encoding.PEM))
    assert load_own_certificates([f"81={path}"], NETKEY3, {}) == {0x81: issued}


def test_a_certificate_of_another_key(write: Write) -> None:
    path = write(CERTIFICATE.public_bytes(Encoding.PEM))
    for keys in ({}, {0x80: OTHER}):
        with pytest.raises(ConfigurationError, match="does not belong to key 80"):
            load_own_certificates([f"80={path}"], NETKEY3, keys)


def test_a_certificate_with_a_key_that_nobody_knows(write: Write) -> None:
    der = CERTIFICATE.public_bytes(Encoding.DER)
    # The object identifier of RSA (PKCS #1) becomes one that there is not.
    oid = bytes.fromhex("06092a864886f70d010101")
    path = write(der.replace(oid, oid[:-1] + b"\x7f"))
    with pytest.raises(ConfigurationError, match="does not belong to key 80"):
        load_own_certificates([f"80={path}"], NETKEY3, {0x80: KEY})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (CERTIFICATE.public_bytes(Encoding.PEM), "holds no private key"),
        (encoded(KEY)[:400], "holds no private key"),
        (encoded(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
        (encoded(KEY, encryption=serialization.BestAvailableEncryption(b"x")), "is encrypted"),
        (encoded(KEY, Encoding.DER, serialization.BestAvailableEncryption(b"x")), "is encrypted"),
        (encoded(load_card_key("nks-83")), "Key 80 of this card is rsa-2048, not rsa-1024"),
        (encoded(rsa.generate_private_key(65537, 1536)), "no card has keys of the kind rsa-1536"),
        (encoded(ec.generate_private_key(ec.SECP521R1())), "no card has keys of the kind ec-secp521r1"),
    ],
)
def test_a_key_file_that_does_not_do(write: Write, content: bytes, said: str) -> None:
    path = write(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_own_keys([f"80={path}"], NETKEY3)
    assert caught.value.file == path


@pytest.mark.parametrize("content", [b"", b"\x30\x80", encoded(KEY), b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_certificate_file_that_does_not_do(write: Write, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="holds no certificate"):
        load_own_certificates([f"80={write(content)}"], NETKEY3, {})


@pytest.mark.parametrize("assignment", ["", "80", "80=", "=FILE", "8=FILE", "0080=FILE", "eighty=FILE", "0x80=FILE"])
def test_what_is_no_assignment(write: Write, assignment: str) -> None:
    path = write(encoded(KEY))
    for load in (load_own_keys, lambda each, card: load_own_certificates(each, card, {})):
        with pytest.raises(ConfigurationError, match="is not REFERENCE=FILE"):
            load([assignment.replace("FILE", path)], NETKEY3)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_own_keys([f"80={path}"], NETKEY3)


def test_a_reference_that_the_card_has_not_or_that_comes_twice(write: Write) -> None:
    path = write(encoded(KEY))
    with pytest.raises(ConfigurationError, match="no key 85; it has these: 80, 81, 82, 83, 84"):
        load_own_keys([f"85={path}"], NETKEY3)
    with pytest.raises(ConfigurationError, match="Key 81 is given twice"):
        load_own_keys([f"81={path}", f"81={path}"], NETKEY3)


def test_the_same_is_refused_where_keys_are_given_as_objects() -> None:
    with pytest.raises(ValueError, match="no key 85"):
        netkey3(keys={0x85: KEY})
    with pytest.raises(ValueError, match="no key 86"):
        netkey3(certificates={0x86: CERTIFICATE})
    with pytest.raises(ValueError, match="key 83 of this card is rsa-1024"):
        netkey3(keys={0x83: KEY})
    with pytest.raises(ValueError, match="no card has keys of the kind ec-secp384r1"):
        netkey3(keys={0x80: ec.generate_private_key(ec.SECP384R1())})


def test_a_key_without_its_certificate_gets_one_from_the_ca(write: Write) -> None:
    card = netkey3(keys=load_own_keys([f"80={write(encoded(KEY))}"], NETKEY3))
    card.power_on()
    card.transmit(bytes.fromhex("00A4080C 04 DF02C000"))
    content = card.transmit(bytes.fromhex("00B00000 00 0000"))[9:]
    length = 4 + int.from_bytes(content[2:4], "big")
    issued = x509.load_der_x509_certificate(content[:length])
    assert issued.public_key() == KEY.public_key()
    issued.verify_directly_issued_by(telesec_ca().intermediate)
