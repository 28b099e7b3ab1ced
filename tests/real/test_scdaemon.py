"""GnuPG's scdaemon judges the simulated card, through a real PC/SC service.

Its key names are of the form APPLICATION.EF: NKS-NKS3.4531 is the key whose public half is EF 4531 of NKS.
"""

import hashlib
import pathlib
import subprocess
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.personalities import load_card_key, netkey3, netkey3_fresh
from pcscd import PrivatePcscd
from scdaemon import Scdaemon

ICCSN = "89490173510080407136"
GLOBAL_PIN, GLOBAL_PUK, SIGG_PIN, SIGG_PUK = "123456", "12345678", "654321", "87654321"
WRONG = "99999999"
NULL_PIN, VERIFIED, BLOCKED = -4, -5, -3

KEYS = {
    "NKS-NKS3.4531": "nks-80",
    "NKS-NKS3.45B1": "nks-81",
    "NKS-NKS3.45B2": "nks-83",
    "NKS-SIGG.4531": "sigg-84",
}
"""The keys that scdaemon knows. That for authentication, of EF 4571, is none of them in this version."""
USAGES = {"NKS-NKS3.4531": "sa", "NKS-NKS3.45B1": "e", "NKS-NKS3.45B2": "e", "NKS-SIGG.4531": "sae"}
CERTIFICATES = {
    "NKS-NKS3.C000": "nks-80",
    "NKS-NKS3.C200": "nks-81",
    "NKS-NKS3.C201": "nks-83",
    "NKS-SIGG.C000": "sigg-84",
}

SIGNATURE_KEY = "NKS-NKS3.4531"
CONTENT = b"signed by scdaemon"
ALGORITHMS: dict[str, tuple[hashes.HashAlgorithm, bytes]] = {
    "sha1": (hashes.SHA1(), bytes.fromhex("3021300906052b0e03021a05000414")),
    "sha224": (hashes.SHA224(), bytes.fromhex("302d300d06096086480165030402040500041c")),
    "sha256": (hashes.SHA256(), bytes.fromhex("3031300d060960864801650304020105000420")),
    "sha384": (hashes.SHA384(), bytes.fromhex("3041300d060960864801650304020205000430")),
    "sha512": (hashes.SHA512(), bytes.fromhex("3051300d060960864801650304020305000440")),
}
"""With what DigestInfo begins (RFC 8017, 9.2, note 1)."""
DIGEST = hashlib.sha256(CONTENT).digest()
DIGEST_INFO = ALGORITHMS["sha256"][1] + DIGEST
VERIFY, CHANGE, RESET, PSO = 0x20, 0x24, 0x2C, 0x2A


@pytest.fixture
def program(tool: Callable[[str], str]) -> str:
    tool("opensc-tool")  # tells when the card is there
    return tool("/usr/lib/gnupg/scdaemon")


Start = Callable[[SimulatedTcosCard], Scdaemon]


@pytest.fixture
def start(program: str, pcscd: PrivatePcscd, tmp_path: pathlib.Path) -> Start:
    """Put the card in; scdaemon, not yet running."""

    def put(card: SimulatedTcosCard) -> Scdaemon:
        pcscd.slot(card)
        home = tmp_path / "gnupg"
        home.mkdir(mode=0o700)
        return Scdaemon(program, home, pcscd.environment)

    return put


@pytest.fixture
def card() -> SimulatedTcosCard:
    return netkey3()


def tries(card: SimulatedTcosCard) -> tuple[int, ...]:
    """In the order of CHV-STATUS, from the card itself."""
    root = card.file_system.root
    sigg = root.files[0xDF01]
    assert isinstance(sigg, DedicatedFile)
    pins = (root.pins[0x00], root.pins[0x01], sigg.pins[0x81], sigg.pins[0x83])
    return tuple(pin.tries for pin in pins)


def public_key(name: str) -> rsa.RSAPublicKey:
    key = load_card_key(name).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def mpi(number: int) -> bytes:
    """As libgcrypt writes it: signed."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def atom(data: bytes) -> bytes:
    return b"%d:%b" % (len(data), data)


def expression(key: rsa.RSAPublicKey) -> bytes:
    """A public key as canonical S-expression."""
    numbers = key.public_numbers()
    modulus, exponent = atom(mpi(numbers.n)), atom(mpi(numbers.e))
    return b"(10:public-key(3:rsa(1:n%b)(1:e%b)))" % (modulus, exponent)


def keygrip(key: rsa.RSAPublicKey) -> str:
    """GnuPG's name of an RSA key: SHA-1 of the modulus."""
    return hashlib.sha1(mpi(key.public_numbers().n), usedforsecurity=False).hexdigest().upper()


# --- What is on the card ---------------------------------------------------------------------------------------


def test_it_is_a_netkey_card(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        assert scdaemon.need("SERIALNO").values("SERIALNO") == [ICCSN]
        attributes = ("APPTYPE", "NKS-VERSION", "$SIGNKEYID", "$ENCRKEYID", "SERIALNO")
        found = [scdaemon.need(f"GETATTR {name}").values(name) for name in attributes]
    assert found == [["nks"], ["3"], ["NKS-NKS3.4531"], ["NKS-NKS3.45B1"], [ICCSN]]


def test_it_learns_every_key_and_certificate(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        learned = scdaemon.need("LEARN --force")
    assert learned.values("KEYPAIRINFO") == [
        f"{keygrip(public_key(test_key))} {name} {USAGES[name]}" for name, test_key in KEYS.items()
    ]
    # 101 is a certificate of the card's maker, 111 a root.
    authorities = ["101 NKS-SIGG.C008", "111 NKS-SIGG.C00E"]
    assert learned.values("CERTINFO") == [f"101 {name}" for name in CERTIFICATES] + authorities


def test_it_reads_the_certificates(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        read = {name: scdaemon.need(f"READCERT {name}").data for name in CERTIFICATES}
        issuers = [scdaemon.need(f"READCERT NKS-SIGG.{name}").data for name in ("C008", "C00E")]
        again = scdaemon.need("READCERT NKS-NKS3.4531").data
    ca = telesec_ca()
    assert issuers == [each.public_bytes(serialization.Encoding.DER) for each in ca.chain]
    for name, content in read.items():
        certificate = x509.load_der_x509_certificate(content)
        certificate.verify_directly_issued_by(ca.intermediate)
        assert certificate.public_key() == public_key(CERTIFICATES[name])
    assert again == read["NKS-NKS3.C000"]


def test_an_empty_certificate_file_is_no_certificate(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        errors = [scdaemon.command(f"READCERT NKS-NKS3.{name}").error for name in ("4331", "B000", "C0FF")]
    assert ["Not found" in str(error) for error in errors] == [True] * 3


def test_it_reads_the_public_keys(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        read = {name: scdaemon.need(f"READKEY {name}").data for name in KEYS}
    assert read == {name: expression(public_key(test_key)) for name, test_key in KEYS.items()}


def test_it_gets_random_bytes(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        first, second = (scdaemon.need("RANDOM 16").data for _ in range(2))
    assert len(first) == len(second) == 16
    assert first != second


def test_it_has_the_card_for_itself_until_it_ends(start: Start, card: SimulatedTcosCard, pcscd: PrivatePcscd) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        meanwhile = pcscd.run("opensc-tool", "--serial")
    assert "Reader in use by another application" in meanwhile.stderr
    assert "89 49 01 73 51 00 80 40 71 36" in pcscd.run("opensc-tool", "--serial").stdout


# --- Signatures ------------------------------------------------------------------------------------------------


def test_its_signature_holds(
    start: Start, card: SimulatedTcosCard, tool: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(DIGEST_INFO)
        signed = scdaemon.need(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN)
    assert signed.questions == ("NEEDPIN PIN",)
    files = {"signature": signed.data, "content": CONTENT, "key.pem": pem(public_key("nks-80"))}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    openssl = (tool("openssl"), "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "content")
    judged = subprocess.run(openssl, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert judged.stdout == "Verified OK\n", judged.stderr


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_signs_every_digest(start: Start, card: SimulatedTcosCard, name: str) -> None:
    algorithm, prefix = ALGORITHMS[name]
    digest = hashlib.new(name, CONTENT).digest()
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(prefix + digest)
        signed = scdaemon.need(f"PKSIGN --hash={name} {SIGNATURE_KEY}", GLOBAL_PIN)
    public_key("nks-80").verify(signed.data, digest, padding.PKCS1v15(), Prehashed(algorithm))


def test_it_wraps_sha_1_itself_and_no_other_digest(start: Start, card: SimulatedTcosCard) -> None:
    short = hashlib.sha1(CONTENT, usedforsecurity=False).digest()
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(short)
        signed = scdaemon.need(f"PKSIGN --hash=sha1 {SIGNATURE_KEY}", GLOBAL_PIN)
        scdaemon.set_data(DIGEST)
        refused = scdaemon.command(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN)
    public_key("nks-80").verify(signed.data, short, padding.PKCS1v15(), Prehashed(hashes.SHA1()))
    assert "Invalid value" in str(refused.error)
    assert refused.questions == ()
    assert card.instructions[PSO] == 1


def test_it_asks_for_the_pin_each_time(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(DIGEST_INFO)
        signed = [scdaemon.need(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN) for _ in range(3)]
    assert [each.questions for each in signed] == [("NEEDPIN PIN",)] * 3
    assert len({each.data for each in signed}) == 1
    assert (card.instructions[VERIFY], card.instructions[PSO]) == (3, 3)


def test_a_wrong_pin_costs_a_try_and_signs_nothing(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(DIGEST_INFO)
        refused = scdaemon.command(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", WRONG)
        cancelled = scdaemon.command(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}")
    assert "Bad PIN" in str(refused.error)
    assert "cancelled" in str(cancelled.error)
    assert tries(card) == (2, 3, 3, 3)
    assert (card.instructions[VERIFY], card.instructions[PSO]) == (1, 0)


def test_the_sigg_key_is_refused_as_a_real_card_does(start: Start, card: SimulatedTcosCard) -> None:
    """This version takes NKS's key reference, 80, in SigG, where the key is 84: nothing has that reference there."""
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(DIGEST_INFO)
        refused = scdaemon.command("PKSIGN --hash=sha256 NKS-SIGG.4531", SIGG_PIN)
    assert "Missing item in object" in str(refused.error)
    assert refused.questions == ()
    assert (card.instructions[VERIFY], card.instructions[PSO]) == (0, 0)
    assert tries(card) == (3, 3, 3, 3)


def test_it_has_no_key_for_authentication(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(DIGEST_INFO)
        refused = scdaemon.command(f"PKAUTH {SIGNATURE_KEY}", GLOBAL_PIN)
    assert "Unsupported operation" in str(refused.error)
    assert card.instructions[PSO] == 0


# --- Decryption ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NKS-NKS3.45B1", "NKS-NKS3.45B2"])
def test_it_decrypts(start: Start, card: SimulatedTcosCard, name: str) -> None:
    """RSA-2048 takes an extended APDU, RSA-1024 a short one. The whole block comes back, padding included."""
    key = public_key(KEYS[name])
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(key.encrypt(b"session key", padding.PKCS1v15()))
        block = scdaemon.need(f"PKDECRYPT {name}", GLOBAL_PIN).data
    assert len(block) == key.key_size // 8
    assert block[:2] == b"\x00\x02"
    assert block[2:].partition(b"\x00")[2] == b"session key"
    assert tries(card) == (3, 3, 3, 3)


def test_it_does_not_decrypt_with_a_wrong_pin(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.set_data(public_key("nks-81").encrypt(b"session key", padding.PKCS1v15()))
        refused = scdaemon.command("PKDECRYPT NKS-NKS3.45B1", WRONG)
    assert "Bad PIN" in str(refused.error)
    assert refused.data == b""
    assert tries(card) == (2, 3, 3, 3)
    assert card.instructions[PSO] == 0


# --- PINs ------------------------------------------------------------------------------------------------------

PINS = {"PW1.CH": GLOBAL_PIN, "PW2.CH": GLOBAL_PUK, "PW1.CH.SIG": SIGG_PIN, "PW2.CH.SIG": SIGG_PUK}
"""In the order of CHV-STATUS."""


@pytest.mark.parametrize("name", PINS)
def test_pin_status_and_check(start: Start, card: SimulatedTcosCard, name: str) -> None:
    place = list(PINS).index(name)
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        before = scdaemon.pin_status()
        wrong = scdaemon.command(f"CHECKPIN {name}", WRONG)
        meanwhile, at_the_card = scdaemon.pin_status(), tries(card)
        scdaemon.need(f"CHECKPIN {name}", PINS[name])
        after = scdaemon.pin_status()
    assert "Bad PIN" in str(wrong.error)
    assert before == (3, 3, 3, 3)
    assert meanwhile == at_the_card == replaced(before, place, 2)
    assert after == replaced(before, place, VERIFIED)
    assert tries(card) == (3, 3, 3, 3)


def replaced(status: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*status[:place], value, *status[place + 1 :])


def test_a_pin_that_is_too_short_never_reaches_the_card(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        assert "Bad PIN" in str(scdaemon.command("CHECKPIN PW1.CH", "12345").error)
    assert card.instructions[VERIFY] == 0


def test_a_blocked_pin_is_reset_with_the_puk(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        wrong = [str(scdaemon.command("CHECKPIN PW1.CH", WRONG).error) for _ in range(3)]
        right = scdaemon.command("CHECKPIN PW1.CH", GLOBAL_PIN)
        scdaemon.set_data(DIGEST_INFO)
        unsigned = scdaemon.command(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN)
        blocked, at_the_card = scdaemon.pin_status(), tries(card)
        reset = scdaemon.need("PASSWD --reset PW1.CH", GLOBAL_PUK, "1234567")
        scdaemon.need(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", "1234567")
    assert ["Bad PIN" in error for error in wrong] == [True] * 3
    assert ["PIN blocked" in str(each.error) for each in (right, unsigned)] == [True] * 2
    assert (blocked, at_the_card) == ((BLOCKED, 3, 3, 3), (0, 3, 3, 3))
    assert ["PUK" in question for question in reset.questions] == [True, False]
    assert tries(card) == (3, 3, 3, 3)
    assert (card.instructions[RESET], card.instructions[PSO]) == (1, 1)


@pytest.mark.parametrize(("name", "puk", "place"), [("PW1.CH", GLOBAL_PIN, 1), ("PW1.CH.SIG", SIGG_PIN, 3)])
def test_a_wrong_puk_costs_the_puk_a_try(
    start: Start, card: SimulatedTcosCard, name: str, puk: str, place: int
) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        refused = scdaemon.command(f"PASSWD --reset {name}", "00000000", "1234567")
        status = scdaemon.pin_status()
        scdaemon.need(f"CHECKPIN {name}", puk)
    assert "Bad PIN" in str(refused.error)
    assert status == replaced((3, 3, 3, 3), place, 2) == tries(card)
    assert card.instructions[RESET] == 1


@pytest.mark.parametrize(("name", "other"), [("PW1.CH", "PW2.CH"), ("PW1.CH.SIG", "PW2.CH.SIG")])
def test_pin_and_puk_reset_each_other(start: Start, card: SimulatedTcosCard, name: str, other: str) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.need(f"PASSWD --reset {other}", PINS[name], "11223344")
        scdaemon.need(f"PASSWD --reset {name}", "11223344", "112233")
        scdaemon.need(f"CHECKPIN {name}", "112233")
    assert card.instructions[RESET] == 2
    assert tries(card) == (3, 3, 3, 3)


@pytest.mark.parametrize("name", ["PW1.CH", "PW1.CH.SIG"])
def test_it_changes_a_pin(start: Start, card: SimulatedTcosCard, name: str) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        wrong = scdaemon.command(f"PASSWD {name}", WRONG, "1122334")
        short = scdaemon.command(f"PASSWD {name}", PINS[name], "11223")
        scdaemon.need(f"CHECKPIN {name}", PINS[name])
        scdaemon.need(f"PASSWD {name}", PINS[name], "1122334")
        old = scdaemon.command(f"CHECKPIN {name}", PINS[name])
        scdaemon.need(f"CHECKPIN {name}", "1122334")
    assert ["Bad PIN" in str(each.error) for each in (wrong, short, old)] == [True] * 3
    assert card.instructions[CHANGE] == 2
    assert tries(card) == (3, 3, 3, 3)


# --- A card as it is delivered ---------------------------------------------------------------------------------


def test_null_pins_open_nothing(start: Start) -> None:
    card = netkey3_fresh()
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        status = scdaemon.pin_status()
        refused = scdaemon.command("CHECKPIN PW1.CH", "000000")
        scdaemon.set_data(DIGEST_INFO)
        unsigned = scdaemon.command(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN)
    assert status == (NULL_PIN, BLOCKED, NULL_PIN, BLOCKED)
    assert ["Conditions of use not satisfied" in str(each.error) for each in (refused, unsigned)] == [True] * 2
    assert tries(card) == (3, 0, 3, 0)
    assert card.instructions[PSO] == 0


@pytest.mark.parametrize(("name", "place"), [("PW1.CH", 0), ("PW1.CH.SIG", 2)])
def test_it_sets_the_first_pin(start: Start, name: str, place: int) -> None:
    card = netkey3_fresh()
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        asked = scdaemon.need(f"PASSWD --nullpin {name}", "1122334").questions
        status = scdaemon.pin_status()
        scdaemon.need(f"CHECKPIN {name}", "1122334")
    assert len(asked) == 1
    assert "|N|" in asked[0]
    assert status == replaced((NULL_PIN, BLOCKED, NULL_PIN, BLOCKED), place, 3)
    assert tries(card) == (3, 0, 3, 0)


def test_a_new_card_signs_when_its_pin_is_set(start: Start) -> None:
    with start(netkey3_fresh()) as scdaemon:
        scdaemon.need("SERIALNO")
        scdaemon.need("PASSWD --nullpin PW1.CH", GLOBAL_PIN)
        scdaemon.set_data(DIGEST_INFO)
        signed = scdaemon.need(f"PKSIGN --hash=sha256 {SIGNATURE_KEY}", GLOBAL_PIN)
    public_key("nks-80").verify(signed.data, CONTENT, padding.PKCS1v15(), hashes.SHA256())


def test_a_pin_that_is_set_is_no_null_pin(start: Start, card: SimulatedTcosCard) -> None:
    with start(card) as scdaemon:
        scdaemon.need("SERIALNO")
        assert "Bad PIN" in str(scdaemon.command("PASSWD --nullpin PW1.CH", "1122334").error)
        scdaemon.need("CHECKPIN PW1.CH", GLOBAL_PIN)
    assert card.instructions[CHANGE] == 1
