"""Rules that let client certificates in."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demail_hw.usbip.access import ANY_CERTIFICATE, AccessRule, RuleKind, may_have
from demail_hw_drivers.usbip_server_access import ClientCertificate

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def certificate() -> ClientCertificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Firm, Ltd"),
            x509.NameAttribute(NameOID.COMMON_NAME, "gateway"),
        ]
    )
    names = [
        x509.DNSName("Gateway.Example"),
        x509.RFC822Name("post@gateway.example"),
        x509.UniformResourceIdentifier("urn:gateway:1"),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, START, START + datetime.timedelta(days=1))
    signed = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    return ClientCertificate(signed.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize(
    "text",
    [
        "any",
        r"subject:CN=gateway,O=Firm\, Ltd",
        "san:gateway.example",
        "san:GATEWAY.EXAMPLE",
        "san:post@gateway.example",
        "san:urn:gateway:1",
    ],
)
def test_rules_that_fit(certificate: ClientCertificate, text: str) -> None:
    assert AccessRule.parse(text).fits(certificate)


@pytest.mark.parametrize(
    "text",
    [
        "subject:CN=gateway",
        "subject:gateway",
        "san:example",
        "san:gateway.example.",
        f"sha256:{'0' * 64}",
    ],
)
def test_rules_that_do_not_fit(certificate: ClientCertificate, text: str) -> None:
    assert not AccessRule.parse(text).fits(certificate)


def test_a_fingerprint_as_openssl_writes_it(certificate: ClientCertificate) -> None:
    written = ":".join(f"{byte:02X}" for byte in bytes.fromhex(certificate.fingerprint))
    rule = AccessRule.parse(f"sha256:{written}")
    assert rule == AccessRule(RuleKind.SHA256, certificate.fingerprint)
    assert rule.fits(certificate)


@pytest.mark.parametrize(
    "text",
    ["", "gateway", "sha256:", "sha256:12", f"sha256:{'g' * 64}", "subject:", "san:", "any:one", "ANY", "md5:00"],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"rule|fingerprint|takes"):
        AccessRule.parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("san:*.example", "compared whole"),
        ("subject:O = Firm, CN = gateway", "RFC2253"),
        ("subject:CN=gateway, O=Firm", "RFC2253"),
        ("subject:CN= gateway", "RFC2253"),
    ],
)
def test_a_rule_that_could_let_nobody_in(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AccessRule.parse(text)


def test_a_value_may_have_blanks_and_signs() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a = b, c = d + e = f")])
    assert AccessRule.parse(f"subject:{name.rfc4514_string()}").value == name.rfc4514_string()


def test_a_certificate_that_cannot_be_read_has_a_fingerprint_and_nothing_else() -> None:
    broken = ClientCertificate(b"\x30\x03\x02\x01\x00")
    assert (broken.subject, broken.names) == ("", frozenset())
    assert AccessRule.parse(f"sha256:{broken.fingerprint}").fits(broken)
    assert not AccessRule.parse("subject:CN=gateway").fits(broken)


EDI_PARTY_NAME = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex("300aa508a1060c0461626364")
)
"""A subjectAltName with a kind of name (RFC 5280, 4.2.1.6) that cryptography does not read."""


def test_names_of_a_kind_that_is_not_read_are_none() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, START, START + datetime.timedelta(days=1))
    signed = builder.add_extension(EDI_PARTY_NAME, critical=False).sign(key, hashes.SHA256())
    odd = ClientCertificate(signed.public_bytes(serialization.Encoding.DER))
    assert not may_have(odd, "1-1", {"1-1": [AccessRule.parse("san:gateway.example")]})
    assert may_have(odd, "1-1", {"1-1": [AccessRule.parse("subject:CN=odd")]})


def test_a_list_is_for_the_devices_that_it_names(certificate: ClientCertificate) -> None:
    allowed = {"1-1": [ANY_CERTIFICATE], "1-2": []}
    assert may_have(certificate, "1-1", allowed)
    assert not may_have(certificate, "1-2", allowed)
    assert not may_have(certificate, "1-3", allowed)
    assert not may_have(None, "1-1", allowed)
    assert may_have(None, "1-3", None)
