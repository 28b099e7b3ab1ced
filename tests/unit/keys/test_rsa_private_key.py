"""CardRsaPrivateKey over a software stand-in for the card: what it sends, refuses, verifies and returns."""

import copy
import datetime
import pickle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.serialization import pkcs7

from demail_hw.errors import (
    AlgorithmNotSupported,
    DecryptionFailed,
    Outcome,
    ProtocolViolation,
    SignatureInvalid,
)
from demail_hw.keys.rsa_private_key import CardRsaPrivateKey

SOFTWARE = rsa.generate_private_key(65537, 2048)
NUMBERS = SOFTWARE.private_numbers()
BY_NAME = {hashed.name: hashed for hashed in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())}
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


class StandIn:
    """The card's two operations on a software key, counted; ``spoil`` changes the answer."""

    def __init__(self, *, raw: bool, decrypts: bool = False) -> None:
        self.raw = raw
        self.decrypts = decrypts
        self.operations = 0
        self.suspected = 0
        self.spoil = lambda answer: answer

    def compute_digital_signature(self, digest_info: bytes) -> bytes:
        assert not self.raw
        fill = b"\xff" * (256 - 3 - len(digest_info))
        return self._power(b"\x00\x01" + fill + b"\x00" + digest_info)

    def raw_rsa(self, block: bytes) -> bytes:
        assert self.raw
        assert len(block) == 256
        return self._power(block)

    def decipher(self, block: bytes) -> bytes:
        return self.raw_rsa(block)

    def suspect(self) -> None:
        self.suspected += 1

    def _power(self, block: bytes) -> bytes:
        self.operations += 1
        number = pow(int.from_bytes(block, "big"), NUMBERS.d, NUMBERS.public_numbers.n)
        return self.spoil(number.to_bytes(256, "big"))


def key_of(card: StandIn) -> CardRsaPrivateKey:
    return CardRsaPrivateKey(SOFTWARE.public_key(), card)


@pytest.fixture
def padding_card() -> StandIn:
    return StandIn(raw=False)


@pytest.fixture
def raw_card() -> StandIn:
    return StandIn(raw=True, decrypts=True)


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
@pytest.mark.parametrize("raw", [True, False])
def test_pkcs1_equals_the_software_signature(algorithm: hashes.HashAlgorithm, raw: bool) -> None:
    key = key_of(StandIn(raw=raw))
    expected = SOFTWARE.sign(b"message", padding.PKCS1v15(), algorithm)
    assert key.sign(b"message", padding.PKCS1v15(), algorithm) == expected
    assert key._operations.suspected == 0


def test_prehashed(padding_card: StandIn) -> None:
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(b"message")
    prehashed = utils.Prehashed(hashes.SHA256())
    expected = SOFTWARE.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    assert key_of(padding_card).sign(hasher.finalize(), padding.PKCS1v15(), prehashed) == expected
    with pytest.raises(ValueError, match="same length"):
        key_of(padding_card).sign(b"short", padding.PKCS1v15(), prehashed)


@pytest.mark.parametrize(
    "salt", [padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH, 0, 32], ids=["digest", "max", "0", "32"]
)
def test_pss_with_a_raw_key(raw_card: StandIn, salt: int) -> None:
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), salt)
    signature = key_of(raw_card).sign(b"message", scheme, hashes.SHA384())
    SOFTWARE.public_key().verify(signature, b"message", scheme, hashes.SHA384())
    assert raw_card.operations == 1


def test_pss_is_refused_by_a_padding_card_before_anything_is_sent(padding_card: StandIn) -> None:
    with pytest.raises(AlgorithmNotSupported, match=r"PKCS#1 v1\.5 only") as caught:
        key_of(padding_card).sign(b"message", PSS, hashes.SHA256())
    assert caught.value.outcome is Outcome.NOT_SENT
    assert "authentication key" in caught.value.remedy
    assert padding_card.operations == 0


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.MD5(), hashes.SHA3_256()], ids=lambda a: a.name)
def test_hashes_that_are_not_signed(raw_card: StandIn, algorithm: hashes.HashAlgorithm) -> None:
    with pytest.raises(AlgorithmNotSupported):
        key_of(raw_card).sign(b"message", padding.PKCS1v15(), algorithm)
    assert raw_card.operations == 0


def test_bare_data_is_not_signed(raw_card: StandIn) -> None:
    with pytest.raises(AlgorithmNotSupported):
        key_of(raw_card).sign(b"message", padding.PKCS1v15(), utils.NoDigestInfo())


def test_a_salt_that_does_not_fit(raw_card: StandIn) -> None:
    for salt, complaint in ((223, "does not fit"), (padding.PSS.AUTO, "for verifying")):
        with pytest.raises(ValueError, match=complaint):
            key_of(raw_card).sign(b"message", padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())


@pytest.mark.parametrize(
    "spoil",
    [lambda s: bytes((s[0] ^ 1,)) + s[1:], lambda s: s[:-2], lambda s: s + b"\0", lambda s: b""],
    ids=["one bit", "two bytes too few", "one byte too many", "empty"],
)
@pytest.mark.parametrize("scheme", [padding.PKCS1v15(), PSS], ids=["pkcs1", "pss"])
def test_a_wrong_signature_never_leaves(raw_card: StandIn, spoil, scheme) -> None:
    raw_card.spoil = spoil
    with pytest.raises(SignatureInvalid):
        key_of(raw_card).sign(b"message", scheme, hashes.SHA256())
    assert raw_card.suspected == 1


@pytest.mark.parametrize("paired", [True, False])
def test_the_certificate_may_be_to_blame_where_it_was_not_compared_with_the_cards_key(
    raw_card: StandIn, paired: bool
) -> None:
    raw_card.spoil = lambda signature: signature[:-1] + bytes((signature[-1] ^ 1,))
    key = CardRsaPrivateKey(SOFTWARE.public_key(), raw_card, paired=paired)
    with pytest.raises(SignatureInvalid) as caught:
        key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    assert "out of service" in caught.value.remedy
    assert ("certificate" in caught.value.remedy) is not paired


@pytest.mark.parametrize(
    "scheme",
    [padding.PKCS1v15(), padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA256(), b"label")],
    ids=["pkcs1", "oaep"],
)
def test_decrypt(raw_card: StandIn, scheme) -> None:
    cipher = SOFTWARE.public_key().encrypt(b"message", scheme)
    assert key_of(raw_card).decrypt(cipher, scheme) == b"message"


def test_decrypt_refusals(raw_card: StandIn, padding_card: StandIn) -> None:
    key = key_of(raw_card)
    with pytest.raises(ValueError, match="length"):
        key.decrypt(b"short", padding.PKCS1v15())
    with pytest.raises(ValueError, match="modulus"):
        key.decrypt(b"\xff" * 256, padding.PKCS1v15())
    with pytest.raises(AlgorithmNotSupported, match="encryption key"):
        key_of(padding_card).decrypt(bytes(256), padding.PKCS1v15())
    assert raw_card.operations == padding_card.operations == 0


def test_decrypt_failures_are_alike_and_value_errors(raw_card: StandIn) -> None:
    key = key_of(raw_card)
    with pytest.raises(DecryptionFailed) as caught:
        key.decrypt(bytes(255) + b"\x05", padding.PKCS1v15())
    assert isinstance(caught.value, ValueError)
    assert raw_card.suspected == 0  # it is the message's fault, and nobody is to see a difference


def test_decrypt_with_an_answer_of_the_wrong_length(raw_card: StandIn) -> None:
    raw_card.spoil = lambda answer: answer[:-2]
    with pytest.raises(ProtocolViolation, match="254 bytes"):
        key_of(raw_card).decrypt(SOFTWARE.public_key().encrypt(b"m", padding.PKCS1v15()), padding.PKCS1v15())
    assert raw_card.suspected == 1


def test_it_is_a_real_rsa_private_key_and_never_shows_itself(raw_card: StandIn) -> None:
    key = key_of(raw_card)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key().public_numbers() == NUMBERS.public_numbers
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    with pytest.raises(NotImplementedError):
        key.private_numbers()
    with pytest.raises(NotImplementedError):
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_supports(raw_card: StandIn, padding_card: StandIn) -> None:
    assert key_of(raw_card).supports(PSS, hashes.SHA256())
    assert not key_of(padding_card).supports(PSS, hashes.SHA256())
    assert key_of(padding_card).supports(padding.PKCS1v15(), hashes.SHA512())
    assert not key_of(raw_card).supports(padding.PKCS1v15(), hashes.SHA1())


def test_a_short_key_has_no_room_for_every_hash_in_pss(raw_card: StandIn) -> None:
    key = CardRsaPrivateKey(rsa.generate_private_key(65537, 1024).public_key(), raw_card)
    pss = {name: padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH) for name, hashed in BY_NAME.items()}
    assert {name: key.supports(scheme, BY_NAME[name]) for name, scheme in pss.items()} == {
        "sha256": True,
        "sha384": True,
        "sha512": False,
    }
    assert not key.supports(padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256())
    assert key.supports(padding.PKCS1v15(), hashes.SHA512())


def certificate_of(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    begin = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(9999))
    return builder.sign(key, hashes.SHA256())


def test_in_cryptographys_builders(raw_card: StandIn, padding_card: StandIn) -> None:
    for key in (key_of(raw_card), key_of(padding_card)):
        certificate = certificate_of(key)
        certificate.verify_directly_issued_by(certificate)
        request = x509.CertificateSigningRequestBuilder().subject_name(certificate.subject)
        assert request.sign(key, hashes.SHA256()).is_signature_valid
        signed = (
            pkcs7.PKCS7SignatureBuilder()
            .set_data(b"message")
            .add_signer(certificate, key, hashes.SHA256())
            .sign(serialization.Encoding.DER, [])
        )
        assert len(signed) > 256
    revocation_list = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(certificate.not_valid_before_utc)
        .next_update(certificate.not_valid_after_utc)
    )
    assert revocation_list.sign(key_of(raw_card), hashes.SHA256()).is_signature_valid(SOFTWARE.public_key())


def test_in_pkcs7_decrypt(raw_card: StandIn) -> None:
    certificate = certificate_of(SOFTWARE)
    envelope = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(b"message")
        .add_recipient(certificate)
        .encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    assert pkcs7.pkcs7_decrypt_der(envelope, certificate, key_of(raw_card), []) == b"message"
