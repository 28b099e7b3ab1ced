"""OpenSC signs and decrypts with the simulated card; OpenSSL says whether it is right."""

import hashlib
import pathlib
from collections.abc import Callable

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from opensc import ERRORS, OpenSc
from openssl_judge import DATA, OpenSsl
from pcscd import PrivatePcscd

SHA1 = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(DATA).digest()
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(DATA).digest()
NKS_2, NKS_1, SIGG = "222222", "111111", "654321"
MODULI = {"46": 256, "47": 256, "48": 128}
"""Keys 81, 82 and 83 by OpenSC's identifiers, and the length of their moduli."""


@pytest.fixture(autouse=True)
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = netkey3()
    pcscd.slot(card)
    return card


@pytest.fixture
def openssl(tool: Callable[[str], str], opensc: OpenSc) -> OpenSsl:
    return OpenSsl(tool("openssl"), opensc)


def crypt(opensc: OpenSc, action: str, key: str, pin: str, data: str) -> tuple[str, ...]:
    output = opensc.file("output")
    return ("pkcs15-crypt", action, "--key", key, "--pkcs1", "--pin", pin, "-i", data, "-o", output, "--raw")


@pytest.mark.parametrize("key", MODULI)
def test_pkcs15_crypt_signs(opensc: OpenSc, openssl: OpenSsl, key: str) -> None:
    opensc.good(*crypt(opensc, "--sign", key, NKS_2, opensc.file("input", SHA256)))
    openssl.verify(key, str(opensc.folder / "output"), "sha256")


@pytest.mark.parametrize("key", MODULI)
def test_pkcs15_crypt_deciphers(opensc: OpenSc, openssl: OpenSsl, key: str) -> None:
    opensc.good(*crypt(opensc, "--decipher", key, NKS_2, openssl.encrypt(key)))
    assert (opensc.folder / "output").read_bytes() == DATA


def test_the_signature_key_signs_what_opensc_can_send_it(opensc: OpenSc, openssl: OpenSsl) -> None:
    opensc.good(*crypt(opensc, "--sign", "45", NKS_1, opensc.file("input", SHA1)))
    openssl.verify("45", str(opensc.folder / "output"), "sha1")


def test_opensc_sends_the_signature_key_no_more_than_48_bytes(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.bad(*crypt(opensc, "--sign", "45", NKS_1, opensc.file("input", SHA256)))
    assert ERRORS["arguments"] in said
    assert card.instructions[0x2A] == 0


def test_the_signature_key_does_not_decipher(opensc: OpenSc, openssl: OpenSsl) -> None:
    opensc.bad(*crypt(opensc, "--decipher", "45", NKS_1, openssl.encrypt("45")))
    assert (opensc.folder / "output").read_bytes() != DATA


def test_the_sigg_key_is_not_to_be_had_through_decipher(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.bad(*crypt(opensc, "--sign", "49", SIGG, opensc.file("input", SHA1)))
    assert ERRORS["not supported"] in said
    assert card.log[-1] == 0x22  # set for decipherment: there the card says no
    assert card.instructions[0x2A] == 0
    assert card.file_system.root.pins[0].tries == 3


def pkcs11(opensc: OpenSc, action: str, mechanism: str, data: str, *options: str, key: str = "47") -> pathlib.Path:
    output = opensc.file("output")
    login = ("--login", "--pin", NKS_2, "--slot-index", "1", "--id", key)
    opensc.good("pkcs11-tool", *login, action, "-m", mechanism, "-i", data, "-o", output, *options)
    return pathlib.Path(output)


def test_pkcs11_signs_with_pkcs1(opensc: OpenSc, openssl: OpenSsl) -> None:
    signature = pkcs11(opensc, "--sign", "SHA256-RSA-PKCS", opensc.file("input", DATA))
    openssl.verify("47", str(signature), "sha256")


def test_pkcs11_signs_with_pss(opensc: OpenSc, openssl: OpenSsl) -> None:
    signature = pkcs11(opensc, "--sign", "SHA256-RSA-PKCS-PSS", opensc.file("input", DATA))
    openssl.verify("47", str(signature), "sha256", "-sigopt", "rsa_padding_mode:pss")


def test_pkcs11_decrypts_pkcs1(opensc: OpenSc, openssl: OpenSsl) -> None:
    assert pkcs11(opensc, "--decrypt", "RSA-PKCS", openssl.encrypt("46"), key="46").read_bytes() == DATA


def test_pkcs11_decrypts_oaep(opensc: OpenSc, openssl: OpenSsl) -> None:
    padding = (
        "-pkeyopt",
        "rsa_padding_mode:oaep",
        "-pkeyopt",
        "rsa_oaep_md:sha256",
        "-pkeyopt",
        "rsa_mgf1_md:sha256",
    )
    options = ("--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256")
    clear = pkcs11(opensc, "--decrypt", "RSA-PKCS-OAEP", openssl.encrypt("46", *padding), *options, key="46")
    assert clear.read_bytes() == DATA


def test_pkcs11_tools_own_test_of_the_netkey_keys(opensc: OpenSc) -> None:
    said = opensc.good("pkcs11-tool", "--login", "--pin", NKS_2, "--slot-index", "1", "--test")
    assert said.rstrip().endswith("No errors")


@pytest.mark.parametrize(("slot", "pin"), [("2", NKS_1), ("3", SIGG)])
def test_pkcs11_tools_own_test_is_refused_by_the_signature_keys(
    opensc: OpenSc, card: SimulatedTcosCard, slot: str, pin: str
) -> None:
    said = opensc.bad("pkcs11-tool", "--login", "--pin", pin, "--slot-index", slot, "--test")
    assert "No errors" not in said
    nks, sigg = (card.file_system.root.child(directory) for directory in (0xDF02, 0xDF01))
    assert [pin.tries for each in (nks, sigg) for pin in each.pins.values()] == [3, 3, 3, 3]  # type: ignore[union-attr]
