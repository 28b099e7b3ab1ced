"""The simulated authorities: what they issue, byte for byte, and that OpenSSL's strictest check accepts it."""

import hashlib
import ipaddress
import itertools
import pathlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from demail_hw.identity import KeyRole
from demail_hw_simulators import ca

KEY = ca.load_test_key("gateway-server").public_key()
OTHER_KEY = ca.load_test_key("other-ca").public_key()
SMALLEST = 256  # a certificate file on a TCOS card is read with a two-byte DER length (30 82)

# SHA-256 of what was issued when the keys were made: a change of one byte anywhere would break stored cards.
FINGERPRINTS = {
    "root": "7d9841eca68acddb02d6f244871f422833760872514707e6491d2c736a613ee0",
    "intermediate": "bf46085c352951889ee3250de7bb41b47e36ad70f1fa65ab8e650bc4050c5e98",
    "gateway root": "84963da8887756d1c75582d57dd0426fe974346e8eb569eebf59eae32eb135d6",
    "signature": "4ab5360b79c1360f391816d4b50a0e4184166e610f45b2ba75d9e49fef5abf31",
    "encryption": "acf333a7a081dad5f642025c0600c876948edee06ca955b48beb336ed143e58b",
    "authentication": "bab6bd7400fd1922af9c2c40c80cdcc3ba7cd25ce79f986fe91b49d7b7391d13",
}


def issued() -> dict[str, x509.Certificate]:
    authority = ca.telesec_ca()
    cards = {role.value: authority.issue_card_certificate(role, KEY) for role in KeyRole}
    return {
        "root": authority.root,
        "intermediate": authority.intermediate,
        "gateway root": ca.gateway_ca().root,
        **cards,
    }


def test_the_same_bytes_come_out_every_time() -> None:
    seen = {
        name: hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        for name, certificate in issued().items()
    }
    assert seen == FINGERPRINTS


def test_every_certificate_is_a_labelled_test_and_long_enough() -> None:
    everything = [
        *issued().values(),
        ca.other_ca().root,
        ca.gateway_ca().issue_server_certificate(KEY, ["a.example"]),
    ]
    for certificate in everything:
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        assert [unit.value for unit in units] == ["TEST - not TeleSec"]
        assert len(certificate.public_bytes(Encoding.DER)) >= SMALLEST


def usages(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign")
    return {name for name in names if getattr(usage, name)}


@pytest.mark.parametrize(
    ("role", "usage", "extended"),
    [
        (KeyRole.SIGNATURE, {"digital_signature", "content_commitment"}, ExtendedKeyUsageOID.EMAIL_PROTECTION),
        (KeyRole.ENCRYPTION, {"key_encipherment", "data_encipherment"}, ExtendedKeyUsageOID.EMAIL_PROTECTION),
        (KeyRole.AUTHENTICATION, {"digital_signature"}, ExtendedKeyUsageOID.CLIENT_AUTH),
    ],
)
def test_a_card_certificate_says_what_its_role_is_for(role: KeyRole, usage: set[str], extended: object) -> None:
    certificate = ca.telesec_ca().issue_card_certificate(role, KEY)
    assert usages(certificate) == usage
    found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(found) == [extended]
    assert certificate.public_key() == KEY


def test_the_holder_is_in_the_subject_and_the_address_beside_it() -> None:
    certificate = ca.telesec_ca().issue_card_certificate(
        KeyRole.SIGNATURE, KEY, holder="Müller & Söhne (TEST)", email="post@mueller.example"
    )
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "Müller & Söhne (TEST)"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.RFC822Name) == ["post@mueller.example"]


def test_different_contents_have_different_serial_numbers() -> None:
    authority = ca.telesec_ca()
    certificates = [authority.issue_card_certificate(role, key) for role in KeyRole for key in (KEY, OTHER_KEY)]
    certificates.append(authority.issue_card_certificate(KeyRole.SIGNATURE, KEY, holder="Other (TEST)"))
    certificates.append(authority.issue_card_certificate(KeyRole.SIGNATURE, KEY, email="other@example.org"))
    serials = {certificate.serial_number for certificate in certificates}
    assert len(serials) == len(certificates)
    assert all(0 < serial < 1 << 127 for serial in serials)


def test_the_chain_is_nearest_first_and_each_signs_the_one_before() -> None:
    authority = ca.telesec_ca()
    chain = (authority.issue_card_certificate(KeyRole.SIGNATURE, KEY), *authority.chain)
    for certificate, issuer in itertools.pairwise(chain):
        certificate.verify_directly_issued_by(issuer)
    authority.root.verify_directly_issued_by(authority.root)


def test_a_holder_that_is_too_long_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError):
        ca.telesec_ca().issue_card_certificate(KeyRole.SIGNATURE, KEY, holder="x" * 65)


def test_a_server_certificate_takes_names_and_addresses() -> None:
    names = ["gateway.example", "127.0.0.1", ipaddress.ip_address("::1")]
    certificate = ca.gateway_ca().issue_server_certificate(KEY, names)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["gateway.example"]
    assert [str(address) for address in found.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    with pytest.raises(ValueError, match="name"):
        ca.gateway_ca().issue_server_certificate(KEY, [])


def test_the_revocation_list_names_each_serial_once() -> None:
    authority = ca.telesec_ca()
    revoked = authority.revocation_list([7, 3, 7])
    assert [entry.serial_number for entry in revoked] == [3, 7]
    assert revoked.is_signature_valid(authority.intermediate.public_key())  # type: ignore[arg-type]
    assert authority.revocation_list([3, 7]).public_bytes(Encoding.DER) == revoked.public_bytes(Encoding.DER)


def test_trust_is_written_as_pem(tmp_path: pathlib.Path) -> None:
    written = ca.write_trust(tmp_path / "new")
    assert [path.name for path in written] == ["telesec-root.pem", "telesec-chain.pem", "gateway-ca.pem"]
    authority = ca.telesec_ca()
    root, chain, gateway = (x509.load_pem_x509_certificates(path.read_bytes()) for path in written)
    assert root == [authority.root]
    assert chain == [authority.intermediate, authority.root]
    assert gateway == [ca.gateway_ca().root]


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="gateway.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def test_both_sides_of_a_handshake_pass_the_strictest_check(tmp_path: pathlib.Path) -> None:
    """VERIFY_X509_STRICT is the default of ssl.create_default_context from Python 3.13 on."""
    trust = {path.name: path for path in ca.write_trust(tmp_path)}
    key = ca.load_test_key("other-ca")
    card = ca.telesec_ca().issue_card_certificate(KeyRole.AUTHENTICATION, key.public_key())
    server_key = ca.load_test_key("gateway-server")
    server_certificate = ca.gateway_ca().issue_server_certificate(server_key.public_key(), ["gateway.example"])

    client = ssl.create_default_context(cafile=trust["gateway-ca.pem"])
    client.load_cert_chain(key_file(tmp_path, "card", key, [card, *ca.telesec_ca().chain]))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=trust["telesec-root.pem"])
    server.load_cert_chain(key_file(tmp_path, "server", server_key, [server_certificate]))
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (client, server):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(client, server)


def key_file(
    folder: pathlib.Path, name: str, key: rsa.RSAPrivateKey, certificates: list[x509.Certificate]
) -> pathlib.Path:
    file = folder / f"{name}.pem"
    file.write_bytes(ca.pem_key(key) + b"".join(map(ca.pem, certificates)))
    return file


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.BrainpoolP256R1()], ids=lambda curve: curve.name)
def test_a_card_certificate_for_an_ec_key(role: KeyRole, curve: ec.EllipticCurve) -> None:
    """It never says that such a key enciphers (RFC 5480, 3)."""
    public_key = ec.generate_private_key(curve).public_key()
    issued = ca.telesec_ca().issue_card_certificate(role, public_key)
    assert issued.public_key() == public_key
    issued.verify_directly_issued_by(ca.telesec_ca().intermediate)
    usage = issued.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not usage.key_encipherment
    assert not usage.data_encipherment
    assert usage.key_agreement is (role is KeyRole.ENCRYPTION)
