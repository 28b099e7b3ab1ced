"""Certificate requests by the keys of every card, with a certificate and without one."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certificate_bench import put
from demail_hw.card_manager import open_manager
from demail_hw.card_manager.general_names import alternative_names
from demail_hw.card_manager.requests import parse_subject, request_certificate
from demail_hw.errors import KeyNotFound, PinIncorrect, PinRefused
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Timeouts
from demail_hw.keys.bare_key import bare_private_key
from demail_hw.keys.card_session import CardSession
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.layout import PinName
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile, TransparentFile
from demail_hw_simulators.card.personalities import load_card_key, open_card
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

SUBJECT = parse_subject("CN=Poststelle,O=Beispiel GmbH,C=DE")
VERIFY, PSO = 0x20, 0x2A
KEYS = {KeyRole.SIGNATURE: "nks-80", KeyRole.ENCRYPTION: "nks-81", KeyRole.AUTHENTICATION: "nks-82"}


def request(
    card: SimulatedTcosCard, role: KeyRole, *, pin: bytes = b"123456", which: PinName = PinName.GLOBAL
) -> x509.CertificateSigningRequest:
    reader = SimulatedReader(card)
    session = CardSession(reader, reader.connect(deadline=1e12), timeouts=Timeouts())
    source = CallablePinSource(lambda: pin)
    key = bare_private_key(session, role, source, ledger=MemoryPinLedger(), which=which)
    try:
        return request_certificate(key, SUBJECT)
    finally:
        reader.close()


def without_certificates(card: SimulatedTcosCard) -> SimulatedTcosCard:
    """As it left its maker: nothing but keys."""
    for directory in card.file_system.root.files.values():
        if isinstance(directory, DedicatedFile):
            for file in directory.files.values():
                if isinstance(file, TransparentFile) and file.identifier >> 8 in (0x43, 0xC0, 0xC1, 0xC2, 0xC5):
                    file.content[:] = b"\xff" * file.size
    return card


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("name", ["netkey3", "netkey2", "idkey", "signature-card-v2", "signature-card-v2-brainpool"])
def test_every_key_of_every_card(name: str, role: KeyRole) -> None:
    card = open_card(name)
    made = request(card, role)
    assert made.is_signature_valid
    assert made.subject == SUBJECT
    assert card.instructions[PSO] == 1
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey) == name.startswith("signature-card")


@pytest.mark.parametrize(("role", "test_key"), KEYS.items())
def test_a_key_without_a_certificate_is_known_by_its_public_key_file(role: KeyRole, test_key: str) -> None:
    made = request(without_certificates(open_card("netkey3")), role)
    assert made.is_signature_valid
    assert made.public_key() == load_card_key(test_key).public_key()


def test_the_key_that_another_pin_opens() -> None:
    made = request(open_card("netkey3"), KeyRole.SIGNATURE, pin=b"654321", which=PinName.SIGG_1)
    assert made.public_key() == load_card_key("sigg-84").public_key()
    with pytest.raises(KeyNotFound, match="sigg-1"):
        request(open_card("netkey3"), KeyRole.ENCRYPTION, pin=b"654321", which=PinName.SIGG_1)


@pytest.mark.parametrize("name", ["idkey", "signature-card-v2"])
def test_a_key_of_which_nothing_is_known(name: str) -> None:
    card = without_certificates(open_card(name))
    with pytest.raises(KeyNotFound, match="public half"):
        request(card, KeyRole.SIGNATURE)
    assert card.instructions[VERIFY] == 0


def test_a_wrong_pin_costs_one_try_and_signs_nothing() -> None:
    card = open_card("netkey3")
    with pytest.raises(PinIncorrect):
        request(card, KeyRole.SIGNATURE, pin=b"975310")
    assert card.file_system.root.pins[0].tries == 2
    assert card.instructions[PSO] == 0


@pytest.mark.parametrize("attended", [False, True])
def test_by_the_card_manager(attended: bool) -> None:
    names = alternative_names(["gateway.example"], [])
    source = CallablePinSource(lambda: b"123456")
    with open_manager("sim:netkey3", attended=attended, ledger=MemoryPinLedger()) as manager:
        made = manager.request(KeyRole.AUTHENTICATION, SUBJECT, source, names=names)
    assert made.is_signature_valid
    assert made.public_key() == load_card_key("nks-82").public_key()
    assert made.subject == SUBJECT
    assert list(made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == list(names)


def test_the_card_managers_tries_are_kept_for_a_request_too() -> None:
    source = CallablePinSource(lambda: b"123456")
    with open_manager("sim:netkey3", kept=3, ledger=MemoryPinLedger()) as manager, pytest.raises(PinRefused):
        manager.request(KeyRole.AUTHENTICATION, SUBJECT, source)


# --- what is asked for


def test_a_subject_in_the_order_of_rfc_4514() -> None:
    name = parse_subject("emailAddress=a@b,CN=K\\C3\\B6ln\\, Nord,OU=A+UID=b,DC=example,2.5.4.5=#0c0131")
    assert [attribute.oid for attribute in name][:2] == [NameOID.SERIAL_NUMBER, NameOID.DOMAIN_COMPONENT]
    assert name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Köln, Nord"
    assert name.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)[0].value == "a@b"


@pytest.mark.parametrize(
    "text", ["", "Poststelle", "CN=", "CN=a\\", "XYZ=1", "C=Germany", "CN=a,,O=b", "CN=a,O=", "/CN=a/O=b"]
)
def test_what_is_no_subject(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_subject(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("CN=a\\", r"^'CN=a\\\\': no such"),
        ("CN=a\\,b,XYZ=1", "^'XYZ=1': "),
        ("CN=a\\\\,XYZ=1", "^'XYZ=1': "),
        (",CN=a", "is empty; "),
        ("CN=a,", "is empty; "),
        ("CN=a,,O=b", "is empty; "),
    ],
)
def test_the_part_that_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_subject(text)


def test_alternative_names() -> None:
    names = alternative_names(["gateway.example", "*.example"], ["a@example.org"])
    assert [each.value for each in names] == ["gateway.example", "*.example", "a@example.org"]
    card = open_card("netkey3")
    reader = SimulatedReader(card)
    session = CardSession(reader, reader.connect(deadline=1e12), timeouts=Timeouts())
    source = CallablePinSource(lambda: b"123456")
    key = bare_private_key(session, KeyRole.AUTHENTICATION, source, ledger=MemoryPinLedger())
    extension = request_certificate(key, SUBJECT, names).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert list(extension.value) == list(names)
    reader.close()


NO_DNS_NAMES = [
    "", "köln.example", "a..example", "-a.example", "a-.example", "a_b.example", "*", "a.*.example", "a*.example",
    "a.example.", "192.0.2.1", "2001:db8::1", f"{'x' * 64}.example", ".".join(["x" * 60] * 5), "a b", "a.example\n",
    "https://a.example", "a.example:443", "a@example.org",
]  # fmt: skip
NO_ADDRESSES = [
    "", "a", "a@", "@example.org", "ä@example.org", "a b@example.org", "a@b@example.org", "a..b@example.org",
    "a@[192.0.2.1]", "a@192.0.2.1", "A <a@example.org>", "a@example.org ", "a@example.org (A)", "a@-x.example",
    "a@köln.example", "a@*.example", '"a b"@example.org', "a@example.org\nBcc: b@example.org", f"{'a' * 65}@b.c",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_DNS_NAMES)
def test_what_is_no_dns_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"DNS"):
        alternative_names([name], [])


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_mail_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"mail address|DNS name|DNS does not know"):
        alternative_names([], [address])


@pytest.mark.parametrize("name", ["localhost", "xn--kln-sna.example", "*.a.example", "1.example", f"{'x' * 63}.c"])
def test_what_is_a_dns_name(name: str) -> None:
    assert alternative_names([name], []) == (x509.DNSName(name),)


@pytest.mark.parametrize("address", ["a@b", "first.last+tag@xn--kln-sna.example", "o'neil@example.org"])
def test_what_is_a_mail_address(address: str) -> None:
    assert alternative_names([], [address]) == (x509.RFC822Name(address),)


def test_a_request_warns_of_files_that_disagree(caplog: pytest.LogCaptureFixture) -> None:
    card = without_certificates(open_card("signature-card-v2"))
    put(card, issue(load_card_key("signature-card-v2-p256-nks-80").public_key()).public_bytes(Encoding.DER), 0x4331)
    put(card, issue(ec.generate_private_key(ec.SECP256R1()).public_key()).public_bytes(Encoding.DER), 0x4332)
    assert request(card, KeyRole.SIGNATURE).is_signature_valid
    assert "in 4332 and 4331 have different public keys; that in 4331 counts" in caplog.text
