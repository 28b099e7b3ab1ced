import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from demail_hw.errors import AlgorithmNotSupported, Layer
from demail_hw.tls import DEMAIL, TlsProfile, client_context
from demail_hw.tls.policy import (
    LimitedKey,
    SignatureScheme,
    is_good_for_tls13,
    scheme_name,
    signature_algorithms,
    signature_schemes,
)

PKCS1 = ("rsa_pkcs1_sha256", "rsa_pkcs1_sha384", "rsa_pkcs1_sha512")
PSS = ("rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384", "rsa_pss_rsae_sha512")


def test_a_software_key_does_everything(rsa_key):
    assert signature_algorithms(rsa_key) == PSS + PKCS1


def test_a_key_without_pss_says_so(pkcs1_key):
    assert isinstance(pkcs1_key, LimitedKey)
    assert signature_algorithms(pkcs1_key) == PKCS1


def test_a_key_may_be_limited_to_a_hash(pkcs1_key):
    pkcs1_key.supports = lambda padding, algorithm: algorithm.name == "sha384"
    assert signature_algorithms(pkcs1_key) == ("rsa_pss_rsae_sha384", "rsa_pkcs1_sha384")


def test_a_key_that_does_nothing_is_refused(pkcs1_key):
    pkcs1_key.supports = lambda padding, algorithm: False
    with pytest.raises(AlgorithmNotSupported):
        signature_algorithms(pkcs1_key)


@pytest.mark.parametrize(
    ("curve", "first"),
    [
        ("secp256r1", "ecdsa_secp256r1_sha256"),
        ("secp384r1", "ecdsa_secp384r1_sha384"),
        ("secp521r1", "ecdsa_secp521r1_sha512"),
    ],
)
def test_an_ec_key_begins_with_its_own_scheme(ec_keys, curve, first):
    names = signature_algorithms(ec_keys[curve])
    assert names[0] == first
    assert len(set(names)) == 3


def test_a_curve_that_tls_does_not_know_is_refused():
    with pytest.raises(AlgorithmNotSupported) as caught:
        signature_schemes(ec.generate_private_key(ec.BrainpoolP256R1()))
    assert "P-256" in caught.value.remedy


def test_only_pkcs1_is_no_good_for_tls13(rsa_key, pkcs1_key, ec_keys):
    assert is_good_for_tls13(signature_schemes(rsa_key))
    assert is_good_for_tls13(signature_schemes(ec_keys["secp256r1"]))
    assert not is_good_for_tls13(signature_schemes(pkcs1_key))


def test_code_points_have_openssls_names():
    assert scheme_name(SignatureScheme.RSA_PSS_RSAE_SHA256) == "rsa_pss_rsae_sha256"
    assert scheme_name(0x0904) == "0x0904"


def test_the_demail_profile_offers_one_suite_below_tls13():
    context = ssl.create_default_context()
    DEMAIL.apply(context)
    assert [c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"] == ["ECDHE-RSA-AES256-SHA384"]
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def test_the_demail_profile_meets_the_gateway(root, card_key, ca_file, gateway, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file, profile=DEMAIL)
    done = shake_hands(context, gateway)
    assert done.client.cipher()[:2] == ("ECDHE-RSA-AES256-SHA384", "TLSv1.2")


def test_the_demail_profile_meets_tls13(root, card_key, ca_file, make_server, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file, profile=DEMAIL)
    done = shake_hands(context, make_server(version=ssl.TLSVersion.TLSv1_3))
    assert done.client.version() == "TLSv1.3"
    assert card_key.calls == [("PSS", "sha256")]


def refusal(context, server, begin):
    """What stands behind the alert of a server that does not take the version offered; it sends it at once."""
    ends = begin(context, server)
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.do_handshake()
    ends.pump()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        ends.server.do_handshake()
    ends.pump()
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION") as caught:
        ends.client.do_handshake()
    return caught.value.__cause__


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1"])
def test_the_demail_profile_needs_tls13_for_a_key_on_another_curve(
    root, ec_keys, ca_file, gateway, make_server, begin, shake_hands, curve
):
    context = client_context(root.identity(ec_keys[curve]), cafile=ca_file, profile=DEMAIL)
    server = make_server(version=ssl.TLSVersion.TLSv1_3, group="secp521r1")
    assert shake_hands(context, server).client.version() == "TLSv1.3"
    cause = refusal(context, gateway, begin)
    assert isinstance(cause, AlgorithmNotSupported)
    assert cause.layer is Layer.TLS
    assert f"'test key' is on the curve {curve}, and in TLS 1.2 the profile 'demail' takes" in cause.message
    assert "EC keys on secp521r1 only" in cause.message


def test_the_demail_profile_takes_a_key_on_its_own_curve(root, ec_keys, ca_file, gateway, shake_hands):
    context = client_context(root.identity(ec_keys["secp521r1"]), cafile=ca_file, profile=DEMAIL)
    assert shake_hands(context, gateway).client.version() == "TLSv1.2"


def test_a_profile_without_tls13_refuses_a_key_on_another_curve(root, ec_keys):
    old = TlsProfile(name="old", maximum_version=ssl.TLSVersion.TLSv1_2, group="secp521r1")
    with pytest.raises(AlgorithmNotSupported, match=r"'test key' is on the curve secp256r1.* 'old'") as caught:
        client_context(root.identity(ec_keys["secp256r1"]), profile=old)
    assert "TLS 1.3" in caught.value.remedy


@pytest.mark.parametrize("group", ["prime256v1", ""])
def test_a_curve_is_the_same_by_either_name(root, ec_keys, group):
    profile = TlsProfile(name="other", maximum_version=ssl.TLSVersion.TLSv1_2, group=group)
    context = client_context(root.identity(ec_keys["secp256r1"]), profile=profile)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_demail_profile_offers_no_other_group(root, card_key, ca_file, make_server, shake_hands, version):
    context = client_context(root.identity(card_key), cafile=ca_file, profile=DEMAIL)
    with pytest.raises(ssl.SSLError):
        shake_hands(context, make_server(version=version, group="prime256v1"))
    assert card_key.calls == []


def test_a_profile_without_names_limits_versions_only():
    plain, context = ssl.create_default_context(), ssl.create_default_context()
    TlsProfile(name="tls 1.2", maximum_version=ssl.TLSVersion.TLSv1_2).apply(context)
    assert context.maximum_version == ssl.TLSVersion.TLSv1_2
    assert context.get_ciphers() == plain.get_ciphers()


def test_an_unknown_suite_is_an_error():
    with pytest.raises(ssl.SSLError):
        TlsProfile(name="typo", ciphers="ECDHE-RSA-AES257-SHA384").apply(ssl.create_default_context())
