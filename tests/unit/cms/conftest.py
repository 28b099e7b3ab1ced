"""Software identities, the recorded messages, and a key that counts what it is asked."""

import datetime
import pathlib
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.x509.oid import ExtensionOID, NameOID

from demail_hw.errors import DeviceLost
from demail_hw.identity import Identity, KeyRole, PrivateKey

VECTORS = pathlib.Path(__file__).parent / "vectors"
"""Recorded messages; their README says how they were made."""

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime(2026, 11, 24, 8, 0, tzinfo=datetime.UTC)


def name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Stadt Köln"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def certificate(
    subject: str,
    key: PrivateKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    *,
    ca: bool,
    extra: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 3650 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def identity() -> Identity:
    """A signer under an intermediate CA; the chain ends with the root."""
    root_key, middle_key, key = rsa_key(), rsa_key(), rsa_key()
    root = certificate("Root", root_key, "Root", root_key, ca=True)
    middle = certificate("Intermediate", middle_key, "Root", root_key, ca=True)
    leaf = certificate("Jürgen Groß", key, "Intermediate", middle_key, ca=False)
    return Identity(KeyRole.SIGNATURE, "test", key, leaf, (middle, root))


@pytest.fixture(scope="session")
def ec_identity() -> Identity:
    root_key, key = rsa_key(), ec.generate_private_key(ec.SECP256R1())
    return Identity(KeyRole.SIGNATURE, "test", key, certificate("EC", key, "Root", root_key, ca=False))


@pytest.fixture(scope="session")
def broken_certificate() -> x509.Certificate:
    """Its subjectKeyIdentifier is no octet string."""
    key = rsa_key()
    garbage = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_KEY_IDENTIFIER, b"\x05\x01")
    return certificate("Broken", key, "Broken", key, ca=False, extra=[garbage])


@pytest.fixture(scope="session")
def recipient() -> Identity:
    """Whom the recorded messages are for."""
    key = serialization.load_pem_private_key((VECTORS / "recipient-test-key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    loaded = x509.load_pem_x509_certificate((VECTORS / "recipient.pem").read_bytes())
    return Identity(KeyRole.ENCRYPTION, "test", key, loaded)


class ScriptedKey(rsa.RSAPrivateKey):
    """A key that answers as it is told, and counts how often it was asked."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.asked = 0

    def sign(self, data: bytes, padding: object, algorithm: object) -> bytes:
        self.asked += 1
        return self._answer(data)

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        self.asked += 1
        return self._answer(ciphertext)

    @property
    def key_size(self) -> int:
        return 2048

    def _no(self) -> NoReturn:
        raise NotImplementedError

    def public_key(self) -> rsa.RSAPublicKey:
        self._no()

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        self._no()

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> bytes:  # noqa: A002
        self._no()

    def __copy__(self) -> rsa.RSAPrivateKey:
        return self

    def __deepcopy__(self, memo: object) -> rsa.RSAPrivateKey:
        return self


@pytest.fixture
def scripted_key() -> type[ScriptedKey]:
    return ScriptedKey


@pytest.fixture
def broken_key() -> ScriptedKey:
    def unplugged(_: bytes) -> bytes:
        raise DeviceLost("the reader was unplugged")

    return ScriptedKey(unplugged)
