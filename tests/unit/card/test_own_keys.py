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
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile, TransparentFile
from demail_hw_simulators.card.own_keys import load_own_certificates, load_own_keys
from demail_hw_simulators.card.personalities import NETKEY3, build_card, find_personality, load_card_key, netkey3

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
    (loaded,) = load_own_keys({0x80: write(encoded(KEY, encoding))}, NETKEY3).values()
    assert loaded.public_key() == KEY.public_key()


@pytest.mark.parametrize(
    ("curve", "name"),
    [(ec.SECP256R1(), "signature-card-v2"), (ec.BrainpoolP256R1(), "signature-card-v2-brainpool")],
)
def test_an_ec_key_for_a_card_that_has_such(write: Write, curve: ec.EllipticCurve, name: str) -> None:
    key = ec.generate_private_key(curve)
    loaded = load_own_keys({0x80: write(encoded(key))}, find_personality(name))
    assert loaded[0x80].public_key() == key.public_key()
    with pytest.raises(ConfigurationError, match="Key 80 of this card is rsa-2048, not ec-"):
        load_own_keys({0x80: write(encoded(key))}, NETKEY3)


def test_a_card_with_own_key_and_certificate(write: Write, tmp_path: Path) -> None:
    keys = load_own_keys({0x80: write(encoded(KEY))}, NETKEY3)
    path = tmp_path / "certificate"
    path.write_bytes(CERTIFICATE.public_bytes(Encoding.DER))
    certificates = load_own_certificates({0x80: str(path)}, NETKEY3, keys)
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
    assert load_own_certificates({0x81: path}, NETKEY3, {}) == {0x81: issued}


def test_a_certificate_of_another_key(write: Write) -> None:
    path = write(CERTIFICATE.public_bytes(Encoding.PEM))
    for keys, how in (({}, "too"), ({0x80: OTHER}, "instead")):
        with pytest.raises(ConfigurationError, match="does not belong to key 80") as caught:
            load_own_certificates({0x80: path}, NETKEY3, keys)
        assert caught.value.remedy == f"Give the key of this certificate {how} (--key nks:80=FILE)."


def test_a_certificate_with_a_key_that_nobody_knows(write: Write) -> None:
    der = CERTIFICATE.public_bytes(Encoding.DER)
    # The object identifier of RSA (PKCS #1) becomes one that there is not.
    oid = bytes.fromhex("06092a864886f70d010101")
    path = write(der.replace(oid, oid[:-1] + b"\x7f"))
    with pytest.raises(ConfigurationError, match="does not belong to key 80"):
        load_own_certificates({0x80: path}, NETKEY3, {0x80: KEY})


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
        load_own_keys({0x80: path}, NETKEY3)
    assert (caught.value.file, bool(caught.value.remedy)) == (path, True)


@pytest.mark.parametrize("content", [b"", b"\x30\x80", encoded(KEY), b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_certificate_file_that_does_not_do(write: Write, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="holds no certificate") as caught:
        load_own_certificates({0x80: write(content)}, NETKEY3, {})
    assert caught.value.remedy


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_own_keys({0x80: str(path)}, NETKEY3)


def test_a_reference_that_the_card_has_not(write: Write) -> None:
    path = write(encoded(KEY))
    with pytest.raises(ConfigurationError, match="no key 85; it has these: 80, 81, 82, 83, 84") as caught:
        load_own_keys({0x80: path, 0x85: path}, NETKEY3)
    assert (caught.value.file, bool(caught.value.remedy)) == (path, True)


RSA_1024 = rsa.generate_private_key(65537, 1024)


def keys_of(card: SimulatedTcosCard, directory: int) -> DedicatedFile:
    found = card.file_system.root.files[directory]
    assert isinstance(found, DedicatedFile)
    return found


@pytest.mark.parametrize(("application", "own", "other"), [("nks", 0xDF01, 0xDF03), ("sigg", 0xDF03, 0xDF01)])
def test_two_applications_with_the_same_reference(write: Write, application: str, own: int, other: int) -> None:
    netkey2 = find_personality("netkey2")
    keys = load_own_keys({(application, 0x80): write(encoded(RSA_1024))}, netkey2)
    issued = telesec_ca().issue_card_certificate(KeyRole.SIGNATURE, RSA_1024.public_key(), holder="Someone else")
    path = write(issued.public_bytes(Encoding.DER))
    card = build_card(
        netkey2, keys=keys, certificates=load_own_certificates({(application, 0x80): path}, netkey2, keys)
    )
    assert keys_of(card, own).keys[0x80].public_key == RSA_1024.public_key()
    assert keys_of(card, other).keys[0x80].public_key != RSA_1024.public_key()
    der = issued.public_bytes(Encoding.DER)
    for directory, there in ((own, True), (other, False)):
        file = keys_of(card, directory).files[0xC000]
        assert isinstance(file, TransparentFile)
        assert (der in file.content) is there


def test_a_name_that_means_two_keys(write: Write) -> None:
    netkey2, path = find_personality("netkey2"), write(encoded(RSA_1024))
    for load in (load_own_keys, lambda files, card: load_own_certificates(files, card, {})):
        with pytest.raises(ConfigurationError, match="This card has several keys 80") as caught:
            load({0x80: path}, netkey2)
        assert caught.value.remedy == "Say which one you mean: nks:80 or sigg:80."
    with pytest.raises(ConfigurationError, match="no key 83; it has these: nks:80, 81, 82, sigg:80"):
        load_own_keys({0x83: path}, netkey2)
    with pytest.raises(ValueError, match="several keys 80"):
        build_card(netkey2, keys={0x80: RSA_1024})


def test_a_key_that_is_given_twice(write: Write) -> None:
    path = write(encoded(KEY))
    with pytest.raises(ConfigurationError, match="Key nks:80 is given twice"):
        load_own_keys({0x80: path, ("nks", 0x80): path}, NETKEY3)


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
    card = netkey3(keys=load_own_keys({0x80: write(encoded(KEY))}, NETKEY3))
    card.power_on()
    card.transmit(bytes.fromhex("00A4080C 04 DF02C000"))
    content = card.transmit(bytes.fromhex("00B00000 00 0000"))[9:]
    length = 4 + int.from_bytes(content[2:4], "big")
    issued = x509.load_der_x509_certificate(content[:length])
    assert issued.public_key() == KEY.public_key()
    issued.verify_directly_issued_by(telesec_ca().intermediate)
