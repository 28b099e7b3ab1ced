"""GnuPG's gpgsm and gpg use the simulated card, by way of their agent and a real PC/SC service."""

import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from demail_hw.cms import SignedForm, sign
from demail_hw.identity import Identity, KeyRole
from demail_hw_simulators.ca import pem, telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import load_card_key, netkey3
from gpgsm import GnuPgHome, Run, fingerprint
from pcscd import PrivatePcscd

ICCSN = "89490173510080407136"
PIN, WRONG = "123456", "999999"
CONTENT = b"What the card's holder says.\n"
VERIFY, PSO = 0x20, 0x2A
SIGNATURE_LENGTH = 256
MOMENTS = {"first bit clear": "20260101T120000", "first bit set": "20260102T120000"}
"""When it signs: the time is in what is signed, so each moment has its signature."""
CA = telesec_ca()


def certificate(role: KeyRole, test_key: str) -> x509.Certificate:
    return CA.issue_card_certificate(role, load_card_key(test_key).public_key())


SIGNATURE = certificate(KeyRole.SIGNATURE, "nks-80")
ENCRYPTION = certificate(KeyRole.ENCRYPTION, "nks-81")
ENCRYPTION_1024 = certificate(KeyRole.ENCRYPTION, "nks-83")
QUALIFIED = certificate(KeyRole.SIGNATURE, "sigg-84")


@pytest.fixture
def card(tool: Callable[[str], str], pcscd: PrivatePcscd) -> SimulatedTcosCard:
    """It is in the reader."""
    tool("opensc-tool")  # tells when the card is there
    card = netkey3()
    pcscd.slot(card)
    return card


@pytest.fixture
def home(tool: Callable[[str], str], pcscd: PrivatePcscd) -> Iterator[GnuPgHome]:
    for program in ("gpg-agent", "/usr/lib/gnupg/scdaemon"):
        tool(program)
    with GnuPgHome(tool, pcscd.environment, root=CA.root, pin=PIN) as home:
        yield home


@pytest.fixture
def learned(home: GnuPgHome, card: SimulatedTcosCard) -> GnuPgHome:
    """It knows the card."""
    home.need("gpgsm", "--learn-card")
    return home


@pytest.fixture
def openssl(tool: Callable[[str], str], tmp_path: pathlib.Path) -> Callable[..., Run]:
    """OpenSSL, with the root and the holder's certificates in files."""
    program = tool("openssl")
    for name, each in {"root": CA.root, "signature": SIGNATURE, "encryption": ENCRYPTION}.items():
        (tmp_path / f"{name}.pem").write_bytes(pem(each))

    def run(*arguments: str, stdin: bytes) -> Run:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, input=stdin, capture_output=True, timeout=20, check=False
        )

    return run


def without_zero(signed: bytes) -> bytes:
    """This version writes a signature whose first bit is set as if it were a signed number, with a zero before it.
    Verifiers want as many bytes as the modulus has (RFC 8017, 8.2.2)."""
    message = asn1_cms.ContentInfo.load(signed)
    signature = message["content"]["signer_infos"][0]["signature"].native
    before, proper = signature[:-SIGNATURE_LENGTH], signature[-SIGNATURE_LENGTH:]
    if not before:
        return signed
    assert (before, proper[0] >> 7) == (b"\x00", 1)
    message["content"]["signer_infos"][0]["signature"] = proper
    rewritten: bytes = message.dump(force=True)
    return rewritten


def sign_with(home: GnuPgHome, signer: x509.Certificate, *options: str) -> Run:
    return home.run("gpgsm", "--local-user", fingerprint(signer), *options, stdin=CONTENT)


def tries(card: SimulatedTcosCard) -> int:
    return card.file_system.root.pins[0x00].tries


# --- The card --------------------------------------------------------------------------------------------------


def test_card_status(home: GnuPgHome, card: SimulatedTcosCard) -> None:
    shown = home.need("gpg", "--batch", "--card-status").decode()
    assert re.search(r"^Application type \.*: NetKey$", shown, re.MULTILINE)
    assert re.search(rf"^Application ID \.*: {ICCSN}$", shown, re.MULTILINE)
    home.end()
    fields = home.need("gpg", "--batch", "--with-colons", "--card-status").decode()
    assert fields == f"Reader:Virtual PCD 00 00:AID:{ICCSN}:netkey-card:\n"


def test_it_learns_the_certificates_and_trusts_them(learned: GnuPgHome) -> None:
    """crt is a certificate, crs one with a key; f is fully valid, u the root, which is trusted."""
    listed = learned.need("gpgsm", "--with-colons", "--with-validation", "--list-keys").decode()
    validity = {name: letter for letter, name in re.findall(r"^crt:(\w*):.*\nfpr:+(\w+):", listed, re.MULTILINE)}
    holder = (SIGNATURE, ENCRYPTION, ENCRYPTION_1024, QUALIFIED)
    assert validity == {
        fingerprint(CA.root): "u",
        fingerprint(CA.intermediate): "f",
        **{fingerprint(each): "f" for each in holder},
    }
    listed = learned.need("gpgsm", "--with-colons", "--list-secret-keys").decode()
    secret = re.findall(r"^crs:.*\nfpr:+(\w+):", listed, re.MULTILINE)
    assert sorted(secret) == sorted(map(fingerprint, holder))
    assert len(re.findall(rf"^crs:.*:{ICCSN}:", listed, re.MULTILINE)) == len(holder)


def test_it_exports_what_is_on_the_card(learned: GnuPgHome) -> None:
    exported = learned.need("gpgsm", "--export", fingerprint(SIGNATURE))
    assert exported == SIGNATURE.public_bytes(serialization.Encoding.DER)


# --- Signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=list(MOMENTS))
def test_its_signature_holds(
    learned: GnuPgHome, card: SimulatedTcosCard, openssl: Callable[..., Run], moment: str
) -> None:
    signed = sign_with(learned, SIGNATURE, "--sign", "--faked-system-time", moment)
    assert signed.returncode == 0, signed.stderr.decode()
    status = learned.need("gpgsm", "--status-fd", "1", "--verify", stdin=signed.stdout).decode()
    assert f"[GNUPG:] GOODSIG {fingerprint(SIGNATURE)}" in status
    assert "[GNUPG:] TRUST_FULLY" in status
    options = ("-binary", "-inform", "DER", "-CAfile", "root.pem")
    judged = openssl("cms", "-verify", *options, stdin=without_zero(signed.stdout))
    assert judged.returncode == 0, judged.stderr.decode()
    assert judged.stdout == CONTENT
    assert len(learned.asked()) == card.instructions[VERIFY] == card.instructions[PSO] == 1
    assert tries(card) == 3


def test_its_detached_signature_holds(
    learned: GnuPgHome, card: SimulatedTcosCard, openssl: Callable[..., Run], tmp_path: pathlib.Path
) -> None:
    how = ("--digest-algo", "SHA512", "--faked-system-time", "20260101T120000")
    signed = sign_with(learned, SIGNATURE, "--detach-sign", *how)
    files = {name: tmp_path / name for name in ("signature", "content", "forged")}
    for name, content in {"signature": signed.stdout, "content": CONTENT, "forged": CONTENT + b"!"}.items():
        files[name].write_bytes(content)
    learned.need("gpgsm", "--verify", str(files["signature"]), str(files["content"]))
    forged = learned.run("gpgsm", "--verify", str(files["signature"]), str(files["forged"]))
    assert b"invalid signature" in forged.stderr
    assert forged.returncode != 0
    options = ("-binary", "-inform", "DER", "-CAfile", "root.pem", "-content", "content")
    judged = openssl("cms", "-verify", *options, stdin=without_zero(signed.stdout))
    assert judged.returncode == 0, judged.stderr.decode()


def test_it_verifies_what_our_cms_signs(home: GnuPgHome) -> None:
    """The same key and certificate, without the card."""
    identity = Identity(KeyRole.SIGNATURE, "test", load_card_key("nks-80"), SIGNATURE, CA.chain)
    signed = sign(CONTENT, identity, form=SignedForm.DER)
    home.need("gpgsm", "--import", stdin=pem(CA.root))
    status = home.need("gpgsm", "--status-fd", "1", "--verify", stdin=signed).decode()
    assert f"[GNUPG:] GOODSIG {fingerprint(SIGNATURE)}" in status
    assert "[GNUPG:] TRUST_FULLY" in status


def test_a_wrong_pin_costs_one_try(learned: GnuPgHome, card: SimulatedTcosCard) -> None:
    learned.pin = WRONG
    refused = sign_with(learned, SIGNATURE, "--sign")
    assert refused.returncode != 0
    assert b"Bad PIN" in refused.stderr
    assert (card.instructions[VERIFY], card.instructions[PSO]) == (1, 0)
    assert tries(card) == 2
    learned.pin = PIN
    assert sign_with(learned, SIGNATURE, "--sign").returncode == 0
    assert tries(card) == 3


def test_the_sigg_key_is_refused_as_a_real_card_does(learned: GnuPgHome, card: SimulatedTcosCard) -> None:
    """This version takes the key reference 80 for it, which no key has there."""
    refused = sign_with(learned, QUALIFIED, "--sign")
    assert refused.returncode != 0
    assert b"Missing item in object" in refused.stderr
    assert learned.asked() == []
    assert card.instructions[VERIFY] == 0


# --- Encryption ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipient", [ENCRYPTION, ENCRYPTION_1024], ids=["2048", "1024"])
def test_it_decrypts_what_it_encrypted(
    learned: GnuPgHome, card: SimulatedTcosCard, recipient: x509.Certificate
) -> None:
    encrypted = learned.need("gpgsm", "--recipient", fingerprint(recipient), "--encrypt", stdin=CONTENT)
    assert CONTENT not in encrypted
    assert card.instructions[PSO] == 0
    assert learned.need("gpgsm", "--decrypt", stdin=encrypted) == CONTENT
    assert len(learned.asked()) == card.instructions[VERIFY] == card.instructions[PSO] == 1


def test_it_decrypts_what_openssl_encrypted(learned: GnuPgHome, openssl: Callable[..., Run]) -> None:
    options = ("-binary", "-aes256", "-outform", "DER", "-recip", "encryption.pem")
    encrypted = openssl("cms", "-encrypt", *options, stdin=CONTENT)
    assert learned.need("gpgsm", "--decrypt", stdin=encrypted.stdout) == CONTENT


def test_it_does_not_decrypt_with_a_wrong_pin(learned: GnuPgHome, card: SimulatedTcosCard) -> None:
    encrypted = learned.need("gpgsm", "--recipient", fingerprint(ENCRYPTION), "--encrypt", stdin=CONTENT)
    learned.pin = WRONG
    refused = learned.run("gpgsm", "--decrypt", stdin=encrypted)
    assert refused.returncode != 0
    assert refused.stdout == b""
    assert (tries(card), card.instructions[PSO]) == (2, 0)


# --- One client after the other --------------------------------------------------------------------------------


def test_clients_follow_each_other(learned: GnuPgHome, card: SimulatedTcosCard, pcscd: PrivatePcscd) -> None:
    """scdaemon has the card for itself; when it has ended, others find it as if it had never been there."""
    assert learned.running() == ["gpg-agent", "scdaemon"]
    meanwhile = pcscd.run("opensc-tool", "--serial")
    learned.end()
    assert learned.running() == []
    afterwards = pcscd.run("opensc-tool", "--serial")
    assert "Reader in use by another application" in meanwhile.stderr
    assert "89 49 01 73 51 00 80 40 71 36" in afterwards.stdout
    assert sign_with(learned, SIGNATURE, "--sign").returncode == 0


def test_card_status_after_the_card_was_learned(learned: GnuPgHome, card: SimulatedTcosCard) -> None:
    """The agent of this version crashes then, unnoticed by gpg. Nothing stays behind, and the card is free."""
    assert f":AID:{ICCSN}:".encode() in learned.need("gpg", "--batch", "--with-colons", "--card-status")
    learned.end()
    assert learned.running() == []
    assert sign_with(learned, SIGNATURE, "--sign").returncode == 0
    assert tries(card) == 3
