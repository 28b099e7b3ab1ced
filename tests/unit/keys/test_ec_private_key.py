"""CardEcPrivateKey over a software stand-in for the card: what it sends, refuses, verifies and returns."""

import copy
import datetime
import hashlib
import pickle
import re
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from demail_hw.errors import AlgorithmNotSupported, Outcome, SignatureInvalid
from demail_hw.keys.ec_private_key import CardEcPrivateKey, der_signature

CURVES = [ec.SECP256R1(), ec.BrainpoolP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.BrainpoolP512R1()]
HASHES = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class StandIn:
    """The card's operation on a software key; ``spoil`` changes the answer, ``digests``: what was to be signed."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self.software = ec.generate_private_key(curve)
        self.digests: list[bytes] = []
        self.suspected = 0
        self.spoil: Callable[[bytes], bytes] = lambda answer: answer
        self._length = (curve.key_size + 7) // 8

    @property
    def key(self) -> CardEcPrivateKey:
        return CardEcPrivateKey(self.software.public_key(), self)

    def suspect(self) -> None:
        self.suspected += 1

    def compute_digital_signature(self, digest: bytes) -> bytes:
        assert len(digest) <= self._length
        self.digests.append(digest)
        same_length = next(one for one in HASHES if one.digest_size == len(digest))
        made = self.software.sign(digest, ec.ECDSA(utils.Prehashed(same_length)))
        return self.spoil(b"".join(part.to_bytes(self._length, "big") for part in utils.decode_dss_signature(made)))


@pytest.fixture
def card() -> StandIn:
    return StandIn(ec.SECP256R1())


@pytest.mark.parametrize("algorithm", HASHES, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_signature_verifies_with_the_public_key(curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> None:
    card = StandIn(curve)
    signature = card.key.sign(b"message", ec.ECDSA(algorithm))
    card.software.public_key().verify(signature, b"message", ec.ECDSA(algorithm))
    whole = hashlib.new(algorithm.name, b"message").digest()
    assert card.digests == [whole[: (curve.key_size + 7) // 8]]


@pytest.mark.parametrize("algorithm", HASHES, ids=lambda algorithm: algorithm.name)
def test_prehashed(card: StandIn, algorithm: hashes.HashAlgorithm) -> None:
    digest = hashlib.new(algorithm.name, b"message").digest()
    signature = card.key.sign(digest, ec.ECDSA(utils.Prehashed(algorithm)))
    card.software.public_key().verify(signature, b"message", ec.ECDSA(algorithm))
    with pytest.raises(ValueError, match="same length"):
        card.key.sign(b"short", ec.ECDSA(utils.Prehashed(algorithm)))


@pytest.mark.parametrize(
    "data", [bytearray(b"message"), memoryview(b"message")], ids=lambda data: type(data).__name__
)
def test_any_buffer_is_signed(card: StandIn, data: bytearray | memoryview) -> None:
    signature = card.key.sign(data, ec.ECDSA(hashes.SHA256()))
    card.software.public_key().verify(signature, b"message", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: bytes((plain[0] ^ 1,)) + plain[1:],
        lambda plain: plain[32:] + plain[:32],
        lambda plain: plain[:-2],
        lambda plain: plain + b"\0",
        lambda plain: b"",
        lambda plain: bytes(32) + plain[32:],
        lambda plain: plain[:32] + bytes(32),
        lambda plain: P256_ORDER.to_bytes(32, "big") + plain[32:],
        lambda plain: plain[:32] + P256_ORDER.to_bytes(32, "big"),
        lambda plain: b"\xff" * 64,
        der_signature,
    ],
    ids=["one bit", "s and r", "short", "long", "empty", "r 0", "s 0", "r order", "s order", "all ones", "DER"],
)
def test_a_wrong_signature_never_leaves(card: StandIn, spoil: Callable[[bytes], bytes]) -> None:
    card.spoil = spoil
    with pytest.raises(SignatureInvalid) as caught:
        card.key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert caught.value.outcome is Outcome.UNKNOWN
    assert len(card.digests) == 1
    assert card.suspected == 1


@pytest.mark.parametrize(
    ("spoil", "length"),
    [(der_signature, range(68, 73)), (lambda plain: plain[:-2], [62]), (lambda plain: b"", [0])],
    ids=["DER", "short", "empty"],
)
def test_an_answer_of_another_form_is_told_by_its_length(
    card: StandIn, spoil: Callable[[bytes], bytes], length: Sequence[int]
) -> None:
    card.spoil = spoil
    with pytest.raises(SignatureInvalid, match=r"(\d+) bytes instead of 64") as caught:
        card.key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    found = re.search(r"(\d+) bytes", caught.value.message)
    assert found is not None
    assert int(found[1]) in length


@pytest.mark.parametrize("paired", [True, False])
def test_the_certificate_may_be_to_blame_where_it_was_not_compared_with_the_cards_key(
    card: StandIn, paired: bool
) -> None:
    card.spoil = lambda plain: plain[::-1]
    key = CardEcPrivateKey(card.software.public_key(), card, paired=paired)
    with pytest.raises(SignatureInvalid, match="does not verify") as caught:
        key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert ("certificate" in caught.value.remedy) is not paired


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA3_256()], ids=lambda algorithm: algorithm.name)
def test_hashes_that_are_not_signed(card: StandIn, algorithm: hashes.HashAlgorithm) -> None:
    with pytest.raises(AlgorithmNotSupported) as caught:
        card.key.sign(b"message", ec.ECDSA(algorithm))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert card.digests == []


def test_what_a_card_cannot_do_is_not_sent(card: StandIn) -> None:
    with pytest.raises(AlgorithmNotSupported, match="random number"):
        card.key.sign(b"message", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    with pytest.raises(TypeError, match="ECDSA"):
        card.key.sign(b"message", hashes.SHA256())
    with pytest.raises(AlgorithmNotSupported, match="signs only") as caught:
        card.key.exchange(ec.ECDH(), card.software.public_key())
    assert caught.value.remedy
    assert card.digests == []


def test_der_of_the_plain_form() -> None:
    assert der_signature(bytes.fromhex("000100ff")) == bytes.fromhex("3007020101020200ff")


def test_it_is_a_real_ec_private_key_and_never_shows_itself(card: StandIn) -> None:
    key = card.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.key_size == 256
    assert key.public_key() == card.software.public_key()
    assert repr(key) == "<CardEcPrivateKey secp256r1>"
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    with pytest.raises(NotImplementedError):
        key.private_numbers()
    with pytest.raises(NotImplementedError):
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_in_cryptographys_builders(card: StandIn) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    begin = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(card.key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(9999))
        .sign(card.key, hashes.SHA384())
    )
    certificate.verify_directly_issued_by(certificate)
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    assert request.sign(card.key, hashes.SHA256()).is_signature_valid
