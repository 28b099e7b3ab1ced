"""The simulated certification authorities: TeleSec's for the card, and the gateway provider's own.

Card, gateway and foreign tools agree on trust through them. Everything is deterministic: fixed test keys
(``test_keys/``), fixed validity, serial numbers derived from the contents, RSA PKCS#1 v1.5 signatures, so the
same call gives the same bytes everywhere. The certificates follow RFC 5280 as strictly as OpenSSL's
``-x509_strict`` wants it. Every subject says ``TEST - not TeleSec``.
"""

import dataclasses
import datetime
import hashlib
import importlib.resources
import ipaddress
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from demail_hw.identity import KeyRole, PrivateKey

__all__ = [
    "DEFAULT_EMAIL",
    "DEFAULT_HOLDER",
    "TEST_LABEL",
    "CertifiedKey",
    "GatewayCa",
    "ServerName",
    "SimulatedCa",
    "gateway_ca",
    "load_any_test_key",
    "load_test_key",
    "other_ca",
    "pem",
    "pem_key",
    "telesec_ca",
    "write_trust",
]

ServerName: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address
"""A name in a server certificate: a DNS name, or an address."""

CertifiedKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""A public key that a certificate can be issued for."""

DEFAULT_HOLDER: Final = "Beispiel GmbH (TEST)"
"""The organisation that the default card belongs to."""

DEFAULT_EMAIL: Final = "poststelle@beispiel.de-mail.de"
"""The De-Mail address of the default card."""

TEST_LABEL: Final = "TEST - not TeleSec"
"""The OU of every subject."""

_NOT_BEFORE: Final = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_SERIAL_BYTES: Final = 16


@dataclasses.dataclass(frozen=True, slots=True)
class _Profile:
    """What a certificate is for (RFC 5280, 4.2.1.3, 4.2.1.9 and 4.2.1.12)."""

    key_usage: x509.KeyUsage
    extended: tuple[ObjectIdentifier, ...] = ()
    constraints: x509.BasicConstraints = dataclasses.field(
        default_factory=lambda: x509.BasicConstraints(ca=False, path_length=None)
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_encipherment: bool = False,
    data_encipherment: bool = False,
    key_agreement: bool = False,
    sign_certificates: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=key_encipherment,
        data_encipherment=data_encipherment,
        key_agreement=key_agreement,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


_CARD: Final[Mapping[KeyRole, _Profile]] = {
    KeyRole.SIGNATURE: _Profile(
        _key_usage(digital_signature=True, content_commitment=True), (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
    ),
    KeyRole.ENCRYPTION: _Profile(
        _key_usage(key_encipherment=True, data_encipherment=True), (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
    ),
    KeyRole.AUTHENTICATION: _Profile(_key_usage(digital_signature=True), (ExtendedKeyUsageOID.CLIENT_AUTH,)),
}
_EC_ENCRYPTION: Final = _Profile(_key_usage(key_agreement=True), (ExtendedKeyUsageOID.EMAIL_PROTECTION,))
"""An EC key agrees on keys; it never enciphers one (RFC 5480, 3)."""
_SERVER: Final = _Profile(
    _key_usage(digital_signature=True, key_encipherment=True), (ExtendedKeyUsageOID.SERVER_AUTH,)
)


def _card_profile(role: KeyRole, public_key: CertifiedKey) -> _Profile:
    if role is KeyRole.ENCRYPTION and isinstance(public_key, ec.EllipticCurvePublicKey):
        return _EC_ENCRYPTION
    return _CARD[role]


def _authority(path_length: int) -> _Profile:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return _Profile(_key_usage(sign_certificates=True), constraints=constraints)


def load_any_test_key(name: str, package: str = "demail_hw_simulators") -> PrivateKey:
    """The fixed key ``test_keys/NAME.key.pem`` of a package: published, worthless by design."""
    file = importlib.resources.files(package) / "test_keys" / f"{name}.key.pem"
    # The keys are ours and never change; checking the primes again would cost more than all the rest.
    key = serialization.load_pem_private_key(file.read_bytes(), None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise TypeError(f"{name} is neither an RSA nor an EC key")
    return key


def load_test_key(name: str, package: str = "demail_hw_simulators") -> rsa.RSAPrivateKey:
    """One of the fixed keys that are RSA keys."""
    key = load_any_test_key(name, package)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{name} is not an RSA key")
    return key


def _name(organisation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, TEST_LABEL),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _serial(subject: x509.Name, public_key: CertifiedKey, names: Sequence[x509.GeneralName]) -> int:
    """A positive number of 16 bytes: one for each different content (RFC 5280, 4.1.2.2)."""
    content = hashlib.sha256(subject.public_bytes())
    content.update(
        public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    content.update("\n".join(f"{type(name).__name__}:{name.value}" for name in names).encode())
    number = int.from_bytes(content.digest()[:_SERIAL_BYTES], "big")
    top_bit = 1 << (8 * _SERIAL_BYTES - 2)
    return number % top_bit | top_bit


@dataclasses.dataclass(frozen=True, slots=True)
class _Authority:
    """A name and the key that signs for it."""

    name: x509.Name
    key: rsa.RSAPrivateKey

    def issue(
        self,
        subject: x509.Name,
        public_key: CertifiedKey,
        profile: _Profile,
        names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(_serial(subject, public_key, names))
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .add_extension(profile.constraints, critical=True)
            .add_extension(profile.key_usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if profile.extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue_root(self, path_length: int) -> x509.Certificate:
        return self.issue(self.name, self.key.public_key(), _authority(path_length))


class SimulatedCa:
    """The simulated TeleSec CA: ``root``, and ``intermediate`` under it, which issues the cards' certificates."""

    __slots__ = ("_issuer", "intermediate", "root")

    def __init__(self) -> None:
        root = _Authority(_name("Simulated trust center", "Simulated TeleSec root"), load_test_key("telesec-root"))
        self._issuer = _Authority(
            _name("Simulated trust center", "Simulated TeleSec card CA"), load_test_key("telesec-intermediate")
        )
        self.root = root.issue_root(1)
        self.intermediate = root.issue(self._issuer.name, self._issuer.key.public_key(), _authority(0))

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The issuers of a card certificate, nearest first, root included."""
        return self.intermediate, self.root

    def issue_card_certificate(
        self,
        role: KeyRole,
        public_key: CertifiedKey,
        *,
        holder: str = DEFAULT_HOLDER,
        email: str = DEFAULT_EMAIL,
    ) -> x509.Certificate:
        """The certificate of one key of a card: key usage by role, the holder as O, the address as rfc822Name.

        ``ValueError`` if the holder's name is too long for a subject (64 characters with the role).
        """
        subject = _name(holder, f"{holder} {role.value}")
        profile = _card_profile(role, public_key)
        return self._issuer.issue(subject, public_key, profile, (x509.RFC822Name(email),))

    def revocation_list(self, serials: Iterable[int]) -> x509.CertificateRevocationList:
        """The list of revoked card certificates, by serial number (RFC 5280, 5)."""
        issuer_key = self._issuer.key.public_key()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._issuer.name)
            .last_update(_NOT_BEFORE)
            .next_update(_NOT_AFTER)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for serial in sorted(set(serials)):
            entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=_NOT_BEFORE)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._issuer.key, hashes.SHA256())


class GatewayCa:
    """The authority of a gateway provider: ``root`` issues server certificates directly."""

    __slots__ = ("_issuer", "root")

    def __init__(self, common_name: str, key: rsa.RSAPrivateKey) -> None:
        self._issuer = _Authority(_name("Simulated De-Mail provider", common_name), key)
        self.root = self._issuer.issue_root(0)

    def issue_server_certificate(self, public_key: rsa.RSAPublicKey, names: Sequence[ServerName]) -> x509.Certificate:
        """A TLS server certificate; the first name is its CN too. ``ValueError`` if there is no name."""
        if not names:
            raise ValueError("a server certificate needs a name")
        general = tuple(_general_name(name) for name in names)
        subject = _name("Simulated De-Mail provider", str(names[0]))
        return self._issuer.issue(subject, public_key, _SERVER, general)


def _general_name(name: ServerName) -> x509.GeneralName:
    if not isinstance(name, str):
        return x509.IPAddress(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def telesec_ca() -> SimulatedCa:
    """The simulated TeleSec CA."""
    return SimulatedCa()


def gateway_ca() -> GatewayCa:
    """The authority that the simulated gateway's certificate comes from."""
    return GatewayCa("Simulated gateway root", load_test_key("gateway-ca"))


def other_ca() -> GatewayCa:
    """An authority that nobody here trusts."""
    return GatewayCa("Simulated root that nobody trusts", load_test_key("other-ca"))


def write_trust(directory: pathlib.Path | str) -> list[pathlib.Path]:
    """Write ``telesec-root.pem``, ``telesec-chain.pem`` (intermediate and root) and ``gateway-ca.pem``.

    The directory is made if it is missing. ``OSError`` if it can't be written.
    """
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    telesec = telesec_ca()
    files = {
        "telesec-root.pem": (telesec.root,),
        "telesec-chain.pem": telesec.chain,
        "gateway-ca.pem": (gateway_ca().root,),
    }
    for name, certificates in files.items():
        (folder / name).write_bytes(b"".join(map(pem, certificates)))
    return [folder / name for name in files]


def pem(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """In PEM (RFC 7468)."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_key(key: rsa.RSAPrivateKey) -> bytes:
    """A test key in PEM: PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
