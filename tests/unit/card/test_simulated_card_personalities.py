"""What is on the cards: certificates that fit the keys and the chain, options, and nothing shared between cards."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.identity import KeyRole
from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile, RecordFile, TransparentFile
from demail_hw_simulators.card.personalities import PERSONALITIES, load_card_key, netkey3, open_card

NKS = 0xDF02
SIGG = 0xDF01
CERTIFICATES = {
    (NKS, 0x80): (0xC000, 0x4531),
    (NKS, 0x81): (0xC200, 0x45B1),
    (NKS, 0x82): (0xC500, 0x4571),
    (NKS, 0x83): (0xC201, 0x45B2),
    (SIGG, 0x84): (0xC000, 0x4531),
}


def directory(card: SimulatedTcosCard, identifier: int) -> DedicatedFile:
    found = card.file_system.root.files[identifier]
    assert isinstance(found, DedicatedFile)
    return found


def certificate(card: SimulatedTcosCard, application: int, identifier: int) -> x509.Certificate:
    """The certificate in a file, taken out of its container the way the clients do it."""
    file = directory(card, application).files[identifier]
    assert isinstance(file, TransparentFile)
    content = bytes(file.content)
    assert len(content) == 2048
    assert content.startswith(b"\x30\x82")
    assert content[4:9] == bytes.fromhex("0603550424")
    length = int.from_bytes(content[2:4], "big")
    assert set(content[4 + length :]) == {0xFF}
    return x509.load_der_x509_certificate(content[9 : 4 + length])


@pytest.mark.parametrize(("where", "files"), CERTIFICATES.items())
def test_certificate_key_and_public_key_file_belong_together(where: tuple[int, int], files: tuple[int, int]) -> None:
    card = netkey3()
    application, reference = where
    certificate_file, public_key_file = files
    held = directory(card, application).keys[reference].public_key
    assert certificate(card, application, certificate_file).public_key() == held
    records = directory(card, application).files[public_key_file]
    assert isinstance(records, RecordFile)
    numbers = rsa.RSAPublicNumbers(
        n=int.from_bytes(records.record(1), "big"), e=int.from_bytes(records.record(2), "big")
    )
    assert numbers == held.public_numbers()
    assert len(records.record(1)) == held.key_size // 8


@pytest.mark.parametrize(
    ("application", "identifier", "issuer"),
    [(NKS, 0xC008, "intermediate"), (SIGG, 0xC008, "intermediate"), (SIGG, 0xC00E, "root")],
)
def test_the_chain_is_on_the_card(application: int, identifier: int, issuer: str) -> None:
    assert certificate(netkey3(), application, identifier) == getattr(telesec_ca(), issuer)


@pytest.mark.parametrize(("where", "files"), CERTIFICATES.items())
def test_every_certificate_is_issued_by_the_chain(where: tuple[int, int], files: tuple[int, int]) -> None:
    certificate(netkey3(), where[0], files[0]).verify_directly_issued_by(telesec_ca().intermediate)


def test_key_sizes() -> None:
    keys = directory(netkey3(), NKS).keys
    assert {reference: key.public_key.key_size for reference, key in keys.items()} == {
        0x80: 2048,
        0x81: 2048,
        0x82: 2048,
        0x83: 1024,
    }


def test_the_same_name_gives_the_same_card() -> None:
    first, second = open_card("netkey3"), open_card("telesec")
    assert certificate(first, NKS, 0xC500) == certificate(second, NKS, 0xC500)


def test_cards_share_no_state() -> None:
    first, second = netkey3(), netkey3()
    for card in (first, second):
        card.power_on()
    first.transmit(bytes.fromhex("00200000 06 393939393939"))
    assert second.transmit(bytes.fromhex("00200000")) == b"\x63\xc3"


def test_another_card() -> None:
    key = rsa.generate_private_key(65537, 2048)
    issued = telesec_ca().issue_card_certificate(KeyRole.AUTHENTICATION, key.public_key(), holder="Someone else")
    card = netkey3(iccsn="89490179990000000001", keys={0x82: key}, certificates={0x82: issued})
    card.power_on()
    card.transmit(bytes.fromhex("00A4080C 02 2F02"))
    assert card.transmit(bytes.fromhex("00B000000C")).hex() == "5a0a894901799900000000019000"
    assert directory(card, NKS).keys[0x82].public_key == key.public_key()
    assert certificate(card, NKS, 0xC500) == issued
    assert certificate(card, NKS, 0xC000) == certificate(netkey3(), NKS, 0xC000)


def test_a_key_without_its_certificate_gets_one() -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert certificate(netkey3(keys={0x80: key}), NKS, 0xC000).public_key() == key.public_key()


@pytest.mark.parametrize("iccsn", [" " * 20, "8949", "8949017351001234567A", "894901735100123456789"])
def test_an_iccsn_has_20_digits(iccsn: str) -> None:
    with pytest.raises(ValueError):
        netkey3(iccsn=iccsn)


def test_every_personality_opens() -> None:
    others = {"netkey2", "idkey", "signature-card-v2", "signature-card-v2-brainpool"}
    assert set(PERSONALITIES) == {"netkey3", "netkey3-fresh", "telesec", *others}
    for name in PERSONALITIES:
        card = open_card(name)
        card.power_on()
        answer = ResponseApdu.decode(card.transmit(bytes.fromhex("00A4040C 07 D2760000030102")))
        assert answer.status == (0x6A82 if name == "idkey" else 0x9000)


def test_an_unknown_personality_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="netkey3, netkey3-fresh, telesec"):
        open_card("geldkarte")


def test_a_missing_test_key_is_no_key() -> None:
    with pytest.raises(FileNotFoundError):
        load_card_key("nks-99")
