"""One contract for every KeyProvider: the simulated card in process, the same card behind USB/IP, software keys."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

import demail_hw
from demail_hw import Identity, KeyProvider, KeyRole
from demail_hw.errors import AlgorithmNotSupported, HardwareError
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.software_keys import SoftwareKeyProvider

GLOBAL_PIN = b"123456"
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@contextlib.contextmanager
def in_process() -> Iterator[KeyProvider]:
    with demail_hw.open_provider("sim:netkey3", pin=lambda: GLOBAL_PIN) as provider:
        yield provider


@contextlib.contextmanager
def behind_usbip() -> Iterator[KeyProvider]:
    with (
        UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0) as server,
        demail_hw.open_provider(f"usbip://127.0.0.1:{server.port}/", pin=lambda: GLOBAL_PIN) as provider,
    ):
        yield provider


@contextlib.contextmanager
def software() -> Iterator[KeyProvider]:
    with SoftwareKeyProvider(telesec_ca()) as provider:
        yield provider


@pytest.fixture(params=[in_process, behind_usbip, software], ids=lambda opener: opener.__name__)
def provider(request: pytest.FixtureRequest) -> Iterator[KeyProvider]:
    opener: Callable[[], contextlib.AbstractContextManager[KeyProvider]] = request.param
    with opener() as opened:
        yield opened


def rsa_key(identity: Identity) -> rsa.RSAPrivateKey:
    assert isinstance(identity.private_key, rsa.RSAPrivateKey)
    return identity.private_key


def test_three_identities_by_role(provider: KeyProvider) -> None:
    assert {identity.role for identity in provider.identities()} == set(KeyRole)
    for role in KeyRole:
        assert provider.identity(role).role is role


def test_certificate_belongs_to_the_key_and_chain_leads_to_the_root(provider: KeyProvider) -> None:
    for identity in provider.identities():
        assert identity.certificate.public_key() == identity.private_key.public_key()
        below = identity.certificate
        for issuer in identity.chain:
            below.verify_directly_issued_by(issuer)
            below = issuer
        assert below == telesec_ca().root


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
def test_pkcs1_signatures(provider: KeyProvider, role: KeyRole, algorithm: hashes.HashAlgorithm) -> None:
    key = rsa_key(provider.identity(role))
    signature = key.sign(b"message", padding.PKCS1v15(), algorithm)
    key.public_key().verify(signature, b"message", padding.PKCS1v15(), algorithm)


def test_pss_with_the_authentication_key(provider: KeyProvider) -> None:
    key = rsa_key(provider.identity(KeyRole.AUTHENTICATION))
    key.public_key().verify(key.sign(b"message", PSS, hashes.SHA256()), b"message", PSS, hashes.SHA256())


def test_the_signature_key_refuses_pss(provider: KeyProvider) -> None:
    key = rsa_key(provider.identity(KeyRole.SIGNATURE))
    with pytest.raises(AlgorithmNotSupported):
        key.sign(b"message", PSS, hashes.SHA256())


@pytest.mark.parametrize(
    "scheme",
    [padding.PKCS1v15(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)],
    ids=["pkcs1", "oaep"],
)
def test_decryption_with_the_encryption_key(provider: KeyProvider, scheme: padding.AsymmetricPadding) -> None:
    key = rsa_key(provider.identity(KeyRole.ENCRYPTION))
    assert key.decrypt(key.public_key().encrypt(b"message", scheme), scheme) == b"message"


def test_only_the_encryption_key_decrypts(provider: KeyProvider) -> None:
    for role in (KeyRole.SIGNATURE, KeyRole.AUTHENTICATION):
        key = rsa_key(provider.identity(role))
        with pytest.raises(AlgorithmNotSupported):
            key.decrypt(key.public_key().encrypt(b"m", padding.PKCS1v15()), padding.PKCS1v15())


def test_keys_end_with_their_provider(provider: KeyProvider) -> None:
    key = rsa_key(provider.identity(KeyRole.SIGNATURE))
    provider.close()
    provider.close()
    with pytest.raises(HardwareError):
        key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())


def test_in_cryptographys_own_builders(provider: KeyProvider) -> None:
    identity = provider.identity(KeyRole.SIGNATURE)
    request = x509.CertificateSigningRequestBuilder().subject_name(identity.certificate.subject)
    assert request.sign(rsa_key(identity), hashes.SHA256()).is_signature_valid
    signed = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(b"message")
        .add_signer(identity.certificate, rsa_key(identity), hashes.SHA256())
        .sign(Encoding.DER, [])
    )
    assert pkcs7.load_der_pkcs7_certificates(signed) == [identity.certificate]
    recipient = provider.identity(KeyRole.ENCRYPTION)
    cipher = pkcs7.PKCS7EnvelopeBuilder().set_data(b"message").add_recipient(recipient.certificate)
    encrypted = cipher.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    assert pkcs7.pkcs7_decrypt_der(encrypted, recipient.certificate, rsa_key(recipient), []) == b"message"
