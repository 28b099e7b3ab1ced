"""OpenSC signs and decrypts with the simulated card; OpenSSL says whether it is right."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import TypeAlias

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from opensc import ERRORS, OpenSc
from openssl_judge import DATA, OpenSsl
from pcscd import PrivatePcscd

SHA1 = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(DATA).digest()
SHA224 = bytes.fromhex("302d300d06096086480165030402040500041c") + hashlib.sha224(DATA).digest()
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(DATA).digest()
NKS_2, NKS_1, SIGG = "222222", "111111", "654321"
MODULI = {"46": 256, "47": 256, "48": 128}
"""Keys 81, 82 and 83 by OpenSC's identifiers, and the length of their moduli."""

Login: TypeAlias = tuple[str, ...]


def login(slot: int, pin: str) -> Login:
    return ("--slot-index", str(slot), "--login", "--pin", pin)


NKS_2_LOGIN, NKS_1_LOGIN, SIGG_LOGIN = login(1, NKS_2), login(2, NKS_1), login(3, SIGG)


@dataclasses.dataclass(frozen=True, slots=True)
class Mechanism:
    """``options`` for pkcs11-tool, ``openssl`` the same for openssl; ``signs``: what is handed in for SHA-256."""

    name: str
    signs: bytes = DATA
    options: tuple[str, ...] = ()
    openssl: tuple[str, ...] = ()


def oaep(pkcs11_name: str, openssl_name: str) -> Mechanism:
    modes = ("rsa_padding_mode:oaep", f"rsa_oaep_md:{openssl_name}", f"rsa_mgf1_md:{openssl_name}")
    options = tuple(word for mode in modes for word in ("-pkeyopt", mode))
    return Mechanism("RSA-PKCS-OAEP", options=("--hash-algorithm", pkcs11_name), openssl=options)


PSS = ("-sigopt", "rsa_padding_mode:pss")
SIGNING = (
    Mechanism("RSA-PKCS", signs=SHA256),
    Mechanism("SHA256-RSA-PKCS"),
    Mechanism("SHA256-RSA-PKCS-PSS", openssl=PSS),
    Mechanism("RSA-PKCS-PSS", hashlib.sha256(DATA).digest(), ("--hash-algorithm", "SHA256"), PSS),
)
DECRYPTING = (Mechanism("RSA-PKCS"), oaep("SHA256", "sha256"), oaep("SHA-1", "sha1"))


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


@pytest.mark.parametrize(("digest", "encoded"), [("sha1", SHA1), ("sha224", SHA224)])
def test_the_signature_key_signs_what_opensc_can_send_it(
    opensc: OpenSc, openssl: OpenSsl, digest: str, encoded: bytes
) -> None:
    opensc.good(*crypt(opensc, "--sign", "45", NKS_1, opensc.file("input", encoded)))
    openssl.verify("45", str(opensc.folder / "output"), digest)


def test_opensc_sends_the_signature_key_no_more_than_48_bytes(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.bad(*crypt(opensc, "--sign", "45", NKS_1, opensc.file("input", SHA256)))
    assert ERRORS["arguments"] in said
    assert card.instructions[0x2A] == 0


def test_the_signature_keys_do_not_decipher(opensc: OpenSc, openssl: OpenSsl, card: SimulatedTcosCard) -> None:
    for key, pin in (("45", NKS_1), ("49", SIGG)):
        said = opensc.bad(*crypt(opensc, "--decipher", key, pin, openssl.encrypt(key)))
        assert "Unable to find private decryption key" in said
    assert card.instructions[0x2A] == 0


def test_the_card_itself_refuses_to_decipher_with_the_signature_key(opensc: OpenSc) -> None:
    """What OpenSC would never send."""
    commands = (
        "00A4040C07D2760000030102",
        "0020008106313131313131",
        "002241B803840180",
        f"002A8086000101{'00' * 257}0100",
    )
    said = opensc.good("opensc-tool", *(word for command in commands for word in ("--send-apdu", command)))
    answers = re.findall(r"SW1=0x(\w\w), SW2=0x(\w\w)", said)
    assert answers[:3] == [("90", "00"), ("90", "00"), ("6A", "81")]
    assert answers[3] == ("69", "85")  # no key is set


def test_the_sigg_key_is_not_to_be_had_through_decipher(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.bad(*crypt(opensc, "--sign", "49", SIGG, opensc.file("input", SHA1)))
    assert ERRORS["not supported"] in said
    assert card.log[-1] == 0x22  # set for decipherment: there the card says no
    assert card.instructions[0x2A] == 0
    assert (opensc.folder / "output").read_bytes() == b""


def pkcs11(opensc: OpenSc, action: str, mechanism: Mechanism, key: str, data: str, login: Login) -> list[str]:
    output = opensc.file("output")
    command = ["pkcs11-tool", *login, "--id", key, action, "--mechanism", mechanism.name, *mechanism.options]
    return [*command, "--input-file", data, "--output-file", output]


@pytest.mark.parametrize("mechanism", SIGNING, ids=lambda mechanism: mechanism.name)
def test_pkcs11_signs(opensc: OpenSc, openssl: OpenSsl, mechanism: Mechanism) -> None:
    for key in MODULI:
        opensc.good(*pkcs11(opensc, "--sign", mechanism, key, opensc.file("input", mechanism.signs), NKS_2_LOGIN))
        openssl.verify(key, str(opensc.folder / "output"), "sha256", *mechanism.openssl)


@pytest.mark.parametrize(
    "mechanism", DECRYPTING, ids=lambda mechanism: "-".join((mechanism.name, *mechanism.options))
)
def test_pkcs11_decrypts(opensc: OpenSc, openssl: OpenSsl, mechanism: Mechanism) -> None:
    for key in MODULI:
        encrypted = openssl.encrypt(key, *mechanism.openssl)
        opensc.good(*pkcs11(opensc, "--decrypt", mechanism, key, encrypted, NKS_2_LOGIN))
        assert (opensc.folder / "output").read_bytes() == DATA, key


@pytest.mark.parametrize("mechanism", SIGNING, ids=lambda mechanism: mechanism.name)
@pytest.mark.parametrize(
    ("key", "login", "error"),
    [("45", NKS_1_LOGIN, "CKR_ARGUMENTS_BAD"), ("49", SIGG_LOGIN, "CKR_TOKEN_NOT_RECOGNIZED")],
    ids=["signature key", "sigg key"],
)
def test_pkcs11_gets_no_sha256_signature_of_the_signature_keys(
    opensc: OpenSc, card: SimulatedTcosCard, mechanism: Mechanism, key: str, login: Login, error: str
) -> None:
    said = opensc.bad(*pkcs11(opensc, "--sign", mechanism, key, opensc.file("input", mechanism.signs), login))
    assert error in said
    assert card.instructions[0x2A] == 0
    assert (opensc.folder / "output").read_bytes() == b""


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
    assert {pin.tries for each in (nks, sigg) for pin in each.pins.values()} == {3}  # type: ignore[union-attr]
