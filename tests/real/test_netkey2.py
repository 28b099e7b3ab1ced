"""OpenSC, its netkey-tool and GnuPG's scdaemon judge the simulated NetKey 2; OpenSSL says whether it is right."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.personalities import build_card, find_personality, load_card_key, open_card
from opensc import ERRORS, OpenSc
from openssl_judge import DATA, OpenSsl
from pcscd import PrivatePcscd
from scdaemon import Scdaemon

SHA1 = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(DATA).digest()
PIN, PUK, PIN_0, PIN_1 = "123456", "12345678", "111111", "222222"
PUK_FOR_NETKEY_TOOL = ":".join(f"{byte:02x}" for byte in PUK.encode())
"""It takes eight digits for four bytes."""


@pytest.fixture
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = open_card("netkey2")
    pcscd.slot(card)
    return card


@pytest.fixture
def openssl(tool: Callable[[str], str], opensc: OpenSc) -> OpenSsl:
    return OpenSsl(tool("openssl"), opensc)


def tries(card: SimulatedTcosCard) -> list[int]:
    """Of global PIN and PUK, PIN0, PIN1."""
    nks = card.file_system.root.files[0xDF01]
    assert isinstance(nks, DedicatedFile)
    return [pin.tries for each in (card.file_system.root, nks) for pin in each.pins.values()]


def crypt(opensc: OpenSc, action: str, key: str, pin: str, data: str) -> tuple[str, ...]:
    output = opensc.file("output")
    return ("pkcs15-crypt", action, "--key", key, "--pkcs1", "--pin", pin, "-i", data, "-o", output, "--raw")


@pytest.mark.usefixtures("card")
def test_opensc_knows_it(opensc: OpenSc) -> None:
    assert opensc.good("opensc-tool", "--name") == "TCOS\n"
    assert opensc.good("opensc-tool", "--serial").startswith("89 49 01 73 51 00 12 34 56 78")
    said = opensc.good("pkcs15-tool", "--dump")
    assert "NetKey Card" in said
    assert said.count("Private RSA Key") == said.count("X.509 Certificate [") == 4
    assert said.count("ModLength      : 1024") == 4
    assert said.count("Tries left     : 3") == 5


def test_the_counters_are_alive(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", "03", "--pin", "999999")
    assert ERRORS["pin"] in said
    assert tries(card) == [3, 3, 2, 3]
    assert "local PIN0: 2 tries left, 3 tries max, not verified" in opensc.good("netkey-tool")
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", "03", "--pin", PIN_0)
    assert tries(card) == [3, 3, 3, 3]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("key", ["46", "47"])
def test_it_signs_and_deciphers(opensc: OpenSc, openssl: OpenSsl, key: str) -> None:
    opensc.good(*crypt(opensc, "--sign", key, PIN_0, opensc.file("input", SHA1)))
    openssl.verify(key, str(opensc.folder / "output"), "sha1")
    opensc.good(*crypt(opensc, "--decipher", key, PIN_0, openssl.encrypt(key)))
    assert (opensc.folder / "output").read_bytes() == DATA


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("key", "pin"), [("45", PIN_1), ("49", "654321")])
def test_the_signature_keys_sign_what_opensc_can_send_them(
    opensc: OpenSc, openssl: OpenSsl, key: str, pin: str
) -> None:
    opensc.good(*crypt(opensc, "--sign", key, pin, opensc.file("input", SHA1)))
    openssl.verify(key, str(opensc.folder / "output"), "sha1")


def test_the_signature_key_does_not_decipher(opensc: OpenSc, openssl: OpenSsl, card: SimulatedTcosCard) -> None:
    opensc.bad(*crypt(opensc, "--decipher", "45", PIN_1, openssl.encrypt("45")))
    assert (opensc.folder / "output").read_bytes() != DATA
    assert card.instructions[0x2A] == 0  # MSE refused it


@pytest.mark.usefixtures("card")
def test_pkcs11_tools_own_test(opensc: OpenSc) -> None:
    said = opensc.good("pkcs11-tool", "--login", "--pin", PIN_0, "--slot-index", "1", "--test")
    assert said.rstrip().endswith("No errors")


@pytest.mark.usefixtures("card")
def test_netkey_tool_reads_the_card(opensc: OpenSc) -> None:
    said = opensc.good("netkey-tool", "--pin", PIN)
    assert "Serial-Number: 8949017351001234567\n" in said
    assert "global PIN: 3 tries left, 3 tries max, verified" in said
    for name in ("global PUK", "local PIN0", "local PIN1"):
        assert f"{name}: 3 tries left, 3 tries max, not verified" in said
    assert f"==> Initial-PUK:{PUK}\n" in said
    assert said.count("Subject-CN: Beispiel GmbH (TEST)") == 3
    assert said.count("Maxlen=1536, empty") == 6


@pytest.mark.usefixtures("card")
def test_netkey_tool_stores_and_reads_a_certificate(opensc: OpenSc) -> None:
    stored = opensc.file("stored.pem")
    assert "OK" in opensc.good("netkey-tool", "cert", "0", stored)
    assert "Storing Cert into Card-Certificate 1: OK" in opensc.good("netkey-tool", "--pin", PIN, "cert", stored, "1")
    again = opensc.file("again.pem")
    assert "OK" in opensc.good("netkey-tool", "cert", "1", again)
    begin = "-----BEGIN"
    assert pathlib.Path(again).read_text().partition(begin)[2] == pathlib.Path(stored).read_text().partition(begin)[2]


def test_netkey_tool_changes_pins(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    assert "Changing local PIN0 with global PIN: OK" in opensc.good(
        "netkey-tool", "--pin", PIN, "change", "pin0", "654321"
    )
    opensc.good("pkcs15-tool", "--verify-pin", "--auth-id", "03", "--pin", "654321")
    assert tries(card) == [3, 3, 3, 3]


def test_netkey_tool_unblocks_pins(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    for _ in range(3):
        opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", "999999")
    assert "global PIN: 0 tries left, 3 tries max, blocked" in opensc.good("netkey-tool")
    said = opensc.good("netkey-tool", "--puk", PUK_FOR_NETKEY_TOOL, "unblock", "pin")
    assert "Unblocking global PIN with global PUK: OK" in said
    assert tries(card) == [3, 3, 3, 3]


def test_netkey_tool_sets_the_first_pin(opensc: OpenSc, pcscd: PrivatePcscd) -> None:
    spec = find_personality("netkey2")
    pcscd.slot(
        build_card(dataclasses.replace(spec, pins=(dataclasses.replace(spec.pins[0], value=None), spec.pins[1])))
    )
    assert "global PIN: 3 tries left, 3 tries max, NullPin" in opensc.good("netkey-tool")
    said = opensc.good("netkey-tool", "nullpin", "654321")
    assert "Setting initial PIN-value: OK" in said
    assert f"==> Initial-PUK:{PUK}\n" in said
    assert "global PIN: 3 tries left, 3 tries max, verified" in opensc.good("netkey-tool", "--pin", "654321")


def test_gnupg_speaks_tcos_2_with_it(
    tool: Callable[[str], str], pcscd: PrivatePcscd, card: SimulatedTcosCard, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    with Scdaemon(tool("/usr/lib/gnupg/scdaemon"), home, pcscd.environment) as scdaemon:
        learned = scdaemon.need("LEARN --force")
        assert [line.split()[1] for line in learned.values("KEYPAIRINFO")] == ["NKS-DF01.4531", "NKS-DF01.45B1"]
        scdaemon.set_data(SHA1)
        signed = scdaemon.need("PKSIGN --hash=sha1 NKS-DF01.4531", PIN)
        key = load_card_key("netkey2-nks-81").public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        scdaemon.set_data(key.encrypt(DATA, padding.PKCS1v15()))
        assert scdaemon.need("PKDECRYPT NKS-DF01.45B1", PIN).data == DATA
    signature_key = load_card_key("netkey2-nks-80").public_key()
    assert isinstance(signature_key, rsa.RSAPublicKey)
    signature_key.verify(signed.data, hashlib.sha1(DATA).digest(), padding.PKCS1v15(), Prehashed(hashes.SHA1()))
    assert tries(card) == [3, 3, 3, 3]
