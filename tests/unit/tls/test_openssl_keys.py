"""What OpenSSL is told about a key, and what it is not."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from demail_hw.errors import AlgorithmNotSupported, KeyNotFound, TlsKeyUnsupported
from demail_hw.tls.openssl.key_registry import KeyRegistry, RegisteredKey
from demail_hw.tls.openssl.provider import SHARED_PROVIDER
from demail_hw.tls.openssl.public_half import PublicHalf


@pytest.fixture
def provider():
    return SHARED_PROVIDER.get()


def test_there_is_one_provider():
    assert SHARED_PROVIDER.get() is SHARED_PROVIDER.get()


@pytest.mark.parametrize(("bits", "strength"), [(1024, 80), (2048, 112), (3072, 128), (4096, 128)])
def test_rsa_numbers(bits, strength):
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key()
    half = PublicHalf.describe(key)
    assert half.max_size == bits // 8
    assert half.exported == {b"n": key.public_numbers().n, b"e": 65537}
    assert (half.answers[b"bits"], half.answers[b"security-bits"]) == (bits, strength)


@pytest.mark.parametrize(
    ("curve", "group", "longest"),
    [("secp256r1", "prime256v1", 72), ("secp384r1", "secp384r1", 104), ("secp521r1", "secp521r1", 139)],
)
def test_ec_points(ec_keys, curve, group, longest):
    half = PublicHalf.describe(ec_keys[curve].public_key())
    assert half.exported[b"group"] == group
    assert half.exported[b"pub"][0] == 4
    order_bits = ec_keys[curve].key_size
    biggest = (1 << order_bits) - 1
    assert half.max_size == longest == len(encode_dss_signature(biggest, biggest))


def test_a_curve_without_a_scheme():
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    with pytest.raises(AlgorithmNotSupported, match="secp256k1"):
        PublicHalf.describe(key)


def test_a_key_is_known_as_long_as_somebody_holds_it(rsa_key):
    registry = KeyRegistry()
    first, second = registry.register(rsa_key), registry.register(rsa_key)
    assert registry.find(first.key_id) is first
    assert first.key_id != second.key_id
    gone = first.key_id
    del first
    with pytest.raises(KeyNotFound):
        registry.find(gone)
    assert registry.find(second.key_id) is second


def test_an_unknown_id_is_refused_by_the_import(provider, rsa_key, monkeypatch):
    monkeypatch.setattr(KeyRegistry, "register", lambda registry, key: RegisteredKey(1 << 40, key))
    with pytest.raises(TlsKeyUnsupported, match="refused the key") as caught:
        provider.new_evp_pkey(rsa_key)
    assert isinstance(caught.value.__cause__, KeyNotFound)
    assert provider.failures.take() is None
