"""OpenSC judges the simulated IDKey; OpenSSL says whether it is right."""

import hashlib
import re
from collections.abc import Callable

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from opensc import ERRORS, OpenSc
from openssl_judge import DATA, OpenSsl
from pcscd import PrivatePcscd

PIN = "123456"
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(DATA).digest()
CERTIFIED = ["45", "46", "47", "4b", "4c", "4d"]
"""The keys with certificates, by OpenSC's identifiers."""


@pytest.fixture(autouse=True)
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = open_card("idkey")
    pcscd.slot(card)
    return card


@pytest.fixture
def openssl(tool: Callable[[str], str], opensc: OpenSc) -> OpenSsl:
    return OpenSsl(tool("openssl"), opensc)


def crypt(opensc: OpenSc, action: str, key: str, data: str) -> tuple[str, ...]:
    output = opensc.file("output")
    return ("pkcs15-crypt", action, "--key", key, "--pkcs1", "--pin", PIN, "-i", data, "-o", output, "--raw")


def test_opensc_knows_it(opensc: OpenSc) -> None:
    assert opensc.good("opensc-tool", "--name") == "TCOS\n"
    assert "89 49 01 73 51 00 80 50 91 27" in opensc.good("opensc-tool", "--serial")
    said = opensc.good("pkcs15-tool", "--dump")
    assert "IDKey Card" in said
    assert said.count("Private RSA Key") == 9
    assert said.count("X.509 Certificate [") == 6
    assert said.count("Tries left     : 3") == 2


def test_certificates_are_listed_by_id(opensc: OpenSc) -> None:
    listed = opensc.good("pkcs15-tool", "--list-certificates")
    assert [identifier.lower() for identifier in re.findall(r"ID +: (\w+)", listed)] == CERTIFIED


def test_one_slot_with_all_keys(opensc: OpenSc) -> None:
    assert opensc.good("pkcs11-tool", "--list-slots").count("token label") == 1
    said = opensc.good("pkcs11-tool", "--login", "--pin", PIN, "--list-objects")
    assert said.count("Private Key Object; RSA") == 9


def test_a_wrong_pin_costs_a_try(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    assert ERRORS["pin"] in opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", "999999")
    assert card.file_system.root.pins[0].tries == 2
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", PIN)
    assert card.file_system.root.pins[0].tries == 3


@pytest.mark.parametrize("key", CERTIFIED)
def test_it_signs_and_deciphers(opensc: OpenSc, openssl: OpenSsl, key: str) -> None:
    opensc.good(*crypt(opensc, "--sign", key, opensc.file("input", SHA256)))
    openssl.verify(key, str(opensc.folder / "output"), "sha256")
    opensc.good(*crypt(opensc, "--decipher", key, openssl.encrypt(key)))
    assert (opensc.folder / "output").read_bytes() == DATA


def test_pkcs11_tools_own_test(opensc: OpenSc) -> None:
    said = opensc.good("pkcs11-tool", "--login", "--pin", PIN, "--test")
    assert said.rstrip().endswith("No errors")
