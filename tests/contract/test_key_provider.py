"""One contract for every KeyProvider: each simulated card in process, one of them behind USB/IP, software keys."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

import demail_hw
from demail_hw import KeyProvider, KeyRole
from demail_hw.errors import AlgorithmNotSupported, HardwareError
from demail_hw.identity import PrivateKey
from demail_hw.tls import LimitedKey
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.personalities import PERSONALITIES, open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.software_keys import SoftwareKeyProvider

GLOBAL_PIN = b"123456"
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
SHA2 = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
IN_USE = [personality for personality in PERSONALITIES if personality != "netkey3-fresh"]
"""A fresh card has a NullPIN, and no key that works."""
Opener: TypeAlias = Callable[[], contextlib.AbstractContextManager[KeyProvider]]


def in_process(personality: str) -> Opener:
    @contextlib.contextmanager
    def opener() -> Iterator[KeyProvider]:
        with demail_hw.open_provider(f"sim:{personality}", pin=lambda: GLOBAL_PIN) as provider:
            yield provider

    return opener


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


OPENERS: dict[str, Opener] = {
    **{personality: in_process(personality) for personality in IN_USE},
    "behind_usbip": behind_usbip,
    "software": software,
}


@pytest.fixture(params=OPENERS.values(), ids=OPENERS)
def provider(request: pytest.FixtureRequest) -> Iterator[KeyProvider]:
    opener: Opener = request.param
    with opener() as opened:
        yield opened


def sign(key: PrivateKey, algorithm: hashes.HashAlgorithm) -> None:
    """Sign as every key of its kind can, and verify."""
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(b"message", padding.PKCS1v15(), algorithm)
        key.public_key().verify(signature, b"message", padding.PKCS1v15(), algorithm)
    else:
        key.public_key().verify(key.sign(b"message", ec.ECDSA(algorithm)), b"message", ec.ECDSA(algorithm))


def rsa_keys(provider: KeyProvider) -> dict[KeyRole, rsa.RSAPrivateKey]:
    keys = {identity.role: identity.private_key for identity in provider.identities()}
    return {role: key for role, key in keys.items() if isinstance(key, rsa.RSAPrivateKey)}


def test_three_identities_by_role(provider: KeyProvider) -> None:
    assert {identity.role for identity in provider.identities()} == set(KeyRole)
    for role in KeyRole:
        assert provider.identity(role).role is role
        assert provider.identity(role.value) is provider.identity(role)
    with pytest.raises(ValueError, match="nobody"):
        provider.identity("nobody")


def test_certificate_belongs_to_the_key_and_chain_leads_to_the_root(provider: KeyProvider) -> None:
    for identity in provider.identities():
        assert identity.certificate.public_key() == identity.private_key.public_key()
        below = identity.certificate
        for issuer in identity.chain:
            below.verify_directly_issued_by(issuer)
            below = issuer
        assert below == (telesec_ca().root if identity.chain else identity.certificate)


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("algorithm", SHA2, ids=lambda algorithm: algorithm.name)
def test_signatures(provider: KeyProvider, role: KeyRole, algorithm: hashes.HashAlgorithm) -> None:
    sign(provider.identity(role).private_key, algorithm)


def test_pss_by_the_keys_that_say_they_can(provider: KeyProvider) -> None:
    for key in rsa_keys(provider).values():
        assert isinstance(key, LimitedKey)
        if key.supports(PSS, hashes.SHA256()):
            key.public_key().verify(key.sign(b"message", PSS, hashes.SHA256()), b"message", PSS, hashes.SHA256())
        else:
            with pytest.raises(AlgorithmNotSupported):
                key.sign(b"message", PSS, hashes.SHA256())


def test_an_rsa_authentication_key_can(provider: KeyProvider) -> None:
    """TLS 1.3 needs it."""
    for role, key in rsa_keys(provider).items():
        assert isinstance(key, LimitedKey)
        assert role is not KeyRole.AUTHENTICATION or key.supports(PSS, hashes.SHA256())


@pytest.mark.parametrize(
    "scheme",
    [padding.PKCS1v15(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)],
    ids=["pkcs1", "oaep"],
)
def test_only_the_encryption_key_decrypts(provider: KeyProvider, scheme: padding.AsymmetricPadding) -> None:
    for role, key in rsa_keys(provider).items():
        ciphertext = key.public_key().encrypt(b"message", scheme)
        if role is KeyRole.ENCRYPTION:
            assert key.decrypt(ciphertext, scheme) == b"message"
        else:
            with pytest.raises(AlgorithmNotSupported):
                key.decrypt(ciphertext, scheme)


def test_an_ec_key_says_what_it_cannot_do(provider: KeyProvider) -> None:
    for identity in provider.identities():
        key = identity.private_key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            with pytest.raises(AlgorithmNotSupported):
                key.exchange(ec.ECDH(), key.public_key())


def test_keys_end_with_their_provider(provider: KeyProvider) -> None:
    key = provider.identity(KeyRole.SIGNATURE).private_key
    provider.close()
    provider.close()
    with pytest.raises(HardwareError):
        sign(key, hashes.SHA256())


def test_in_cryptographys_own_builders(provider: KeyProvider) -> None:
    identity = provider.identity(KeyRole.SIGNATURE)
    request = x509.CertificateSigningRequestBuilder().subject_name(identity.certificate.subject)
    assert request.sign(identity.private_key, hashes.SHA256()).is_signature_valid
    signed = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(b"message")
        .add_signer(identity.certificate, identity.private_key, hashes.SHA256())
        .sign(Encoding.DER, [])
    )
    assert pkcs7.load_der_pkcs7_certificates(signed) == [identity.certificate]


def test_in_cryptographys_own_decryption(provider: KeyProvider) -> None:
    certificate = provider.identity(KeyRole.ENCRYPTION).certificate
    for key in rsa_keys(provider).values():
        if key.public_key() == certificate.public_key():
            cipher = pkcs7.PKCS7EnvelopeBuilder().set_data(b"message").add_recipient(certificate)
            encrypted = cipher.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
            assert pkcs7.pkcs7_decrypt_der(encrypted, certificate, key, []) == b"message"
