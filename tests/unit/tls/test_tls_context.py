import ssl

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demail_hw.errors import AlgorithmNotSupported, CertificateError, Layer, TlsKeyUnsupported
from demail_hw.identity import Identity, KeyRole
from demail_hw.keys.ec_private_key import CardEcPrivateKey
from demail_hw.tls import attach, client_context
from demail_hw.tls.openssl.attach import attached_key
from demail_hw.tls.openssl.library import OpenSsl

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def subject(done):
    return done.server.getpeercert()["subject"]


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_default_context_negotiates_unaided(root, card_key, ca_file, make_server, shake_hands, version):
    context = client_context(root.identity(card_key), cafile=ca_file)
    done = shake_hands(context, make_server(version=version))
    assert subject(done) == ((("commonName", "client"),),)
    assert card_key.calls == [("PSS", "sha256")]


def test_the_gateway_takes_the_key(root, card_key, ca_file, gateway, shake_hands):
    done = shake_hands(client_context(root.identity(card_key), cafile=ca_file), gateway)
    assert done.client.cipher()[0] == "ECDHE-RSA-AES256-SHA384"


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_ec_keys(root, ec_keys, ca_file, make_server, shake_hands, curve, version):
    context = client_context(root.identity(ec_keys[curve]), cafile=ca_file)
    assert shake_hands(context, make_server(version=version)).client.version() == version.name.replace("v1_", "v1.")


class PlainEcdsa:
    """A card's operation on a software key: a digest in, r and s out."""

    def __init__(self, software):
        self.software = software
        self.digests = []

    def compute_digital_signature(self, digest):
        self.digests.append(digest)
        made = self.software.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return b"".join(part.to_bytes(32, "big") for part in utils.decode_dss_signature(made))

    def suspect(self):
        raise AssertionError("it never answers wrong")


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_an_ec_key_on_a_card(root, ec_keys, ca_file, make_server, shake_hands, version):
    card = PlainEcdsa(ec_keys["secp256r1"])
    key = CardEcPrivateKey(card.software.public_key(), card)
    done = shake_hands(client_context(root.identity(key), cafile=ca_file), make_server(version=version))
    assert subject(done) == ((("commonName", "client"),),)
    assert len(card.digests) == 1


def test_a_curve_that_tls_does_not_know(root):
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    with pytest.raises(AlgorithmNotSupported, match="none of the signatures"):
        client_context(root.identity(key))


@pytest.mark.parametrize(
    ("sigalgs", "call"),
    [
        (b"rsa_pkcs1_sha512", ("PKCS1v15", "sha512")),
        (b"rsa_pss_rsae_sha384", ("PSS", "sha384")),
        (b"rsa_pkcs1_sha384:rsa_pss_rsae_sha512", ("PSS", "sha512")),
    ],
)
def test_the_first_of_the_keys_schemes_that_the_server_takes(
    root, card_key, ca_file, make_server, shake_hands, sigalgs, call
):
    context = client_context(root.identity(card_key), cafile=ca_file)
    shake_hands(context, make_server(version=TLS12, client_sigalgs=sigalgs))
    assert card_key.calls == [call]


def test_a_key_without_pss_signs_pkcs1_in_tls12(root, pkcs1_key, ca_file, make_server, shake_hands):
    context = client_context(root.identity(pkcs1_key), cafile=ca_file)
    assert context.maximum_version == TLS12
    done = shake_hands(context, make_server())
    assert done.client.version() == "TLSv1.2"
    assert [padding for padding, _ in pkcs1_key.calls] == ["PKCS1v15"]


def test_a_server_that_wants_pss_of_a_key_without(root, pkcs1_key, ca_file, make_server, shake_hands):
    context = client_context(root.identity(pkcs1_key), cafile=ca_file)
    server = make_server(version=TLS12, client_sigalgs=b"rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256")
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(context, server)
    cause = caught.value.__cause__
    assert isinstance(cause, AlgorithmNotSupported)
    assert "rsa_pss_rsae_sha256, ecdsa_secp256r1_sha256; the key makes these: rsa_pkcs1_sha256" in cause.message
    assert cause.remedy
    assert cause.layer is Layer.TLS
    assert pkcs1_key.calls == []


def test_a_server_that_wants_tls13_of_a_key_without_pss(root, pkcs1_key, ca_file, make_server, begin):
    context = client_context(root.identity(pkcs1_key), cafile=ca_file)
    ends = begin(context, make_server(version=TLS13))
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.do_handshake()
    ends.pump()
    with pytest.raises(ssl.SSLError):
        ends.server.do_handshake()
    ends.pump()
    with pytest.raises(ssl.SSLError) as caught:
        ends.client.do_handshake()
    assert isinstance(caught.value.__cause__, AlgorithmNotSupported)
    assert "TLS 1.3" in caught.value.__cause__.message


def test_a_context_that_demands_tls13_refuses_a_key_without_pss(root, pkcs1_key):
    context = ssl.create_default_context()
    context.minimum_version = TLS13
    with pytest.raises(AlgorithmNotSupported):
        attach(context, root.identity(pkcs1_key))
    assert attached_key(context) is None


def test_a_lower_maximum_version_is_kept(root, card_key, pkcs1_key):
    for key in (card_key, pkcs1_key):
        context = ssl.create_default_context()
        context.maximum_version = TLS12
        attach(context, root.identity(key))
        assert context.maximum_version == TLS12


def test_a_certificate_of_another_key_is_refused_at_load(root, card_key, ca_file, make_server, shake_hands):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    identity = Identity(KeyRole.AUTHENTICATION, "mixed up", card_key, root.issue("client", other.public_key()))
    context = ssl.create_default_context(cafile=ca_file)
    with pytest.raises(CertificateError, match="belongs to another key"):
        attach(context, identity)
    attach(context, root.identity(card_key))
    shake_hands(context, make_server())


def test_openssl_refuses_the_pair_as_well(root, card_key, rsa_key, monkeypatch):
    """The card lies about its public key: the first check passes, libssl's own does not."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    monkeypatch.setattr("demail_hw.tls.context._check_pair", lambda identity: None)
    identity = Identity(KeyRole.AUTHENTICATION, "mixed up", card_key, root.issue("client", other.public_key()))
    with pytest.raises(CertificateError, match="key values mismatch"):
        client_context(identity)


def test_a_key_too_small_for_this_openssl_is_refused(root, card_key):
    card_key.software = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(CertificateError, match="ee key too small") as caught:
        client_context(root.identity(card_key))
    assert "2048 bits" in caught.value.remedy


def test_the_issuers_are_sent_with_the_certificate(root, make_issuer, card_key, ca_file, make_server, shake_hands):
    between = make_issuer("between", above=root)
    chain = (between.certificate, root.certificate)
    context = client_context(between.identity(card_key, chain), cafile=ca_file)
    shake_hands(context, make_server())
    context = client_context(between.identity(card_key), cafile=ca_file)
    with pytest.raises(ssl.SSLError, match="unable to get local issuer"):
        shake_hands(context, make_server(version=TLS12))


def test_the_root_is_not_sent(root, make_issuer, card_key, ca_file, make_server, begin):
    between = make_issuer("between", above=root)
    context = client_context(between.identity(card_key, (between.certificate, root.certificate)), cafile=ca_file)
    ends = begin(context, make_server(version=TLS12))
    sent = b""
    for end in (ends.client, ends.server, ends.client):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
        sent = ends.wires[0][0].read()
        ends.wires[0][1].write(sent)
        ends.pump()
    assert between.certificate.tbs_certificate_bytes in sent
    assert root.certificate.tbs_certificate_bytes not in sent


def test_one_identity_a_context(root, card_key):
    context = client_context(root.identity(card_key))
    with pytest.raises(ValueError, match="already"):
        attach(context, root.identity(card_key))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_context_with_a_key_of_its_own_is_refused_and_left_alone(
    root, card_key, rsa_key, ec_keys, ca_file, make_server, shake_hands, tmp_path, kind
):
    own = rsa_key if kind == "rsa" else ec_keys["secp256r1"]
    certificate = root.issue("its own", own.public_key())
    (tmp_path / "own.pem").write_bytes(
        own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(tmp_path / "own.pem")
    with pytest.raises(ValueError, match="already"):
        attach(context, root.identity(card_key))
    assert attached_key(context) is None
    assert subject(shake_hands(context, make_server())) == ((("commonName", "its own"),),)
    assert card_key.calls == []


def test_a_servers_context_is_refused(root, card_key):
    with pytest.raises(ValueError, match="client"):
        attach(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), root.identity(card_key))


def test_cadata(root, card_key, ca_file, make_server, shake_hands):
    context = client_context(root.identity(card_key), cadata=ca_file.read_text())
    shake_hands(context, make_server())


def test_a_context_that_hides_its_ssl_ctx_is_refused_and_left_alone(root, card_key):
    class Wrapped(ssl.SSLContext):
        """Like truststore's: another context does the work."""

        inner = ssl.create_default_context()
        options = property(lambda self: self.inner.options, lambda self, value: setattr(self.inner, "options", value))

    context = Wrapped(ssl.PROTOCOL_TLS_CLIENT)
    before = context.options
    with pytest.raises(TlsKeyUnsupported):
        attach(context, root.identity(card_key))
    assert context.options == before
    assert attached_key(context) is None


def test_the_options_are_as_before(root, card_key):
    context = ssl.create_default_context()
    before = context.options
    attach(context, root.identity(card_key))
    assert context.options == before


def test_a_python_without_a_binding(root, card_key, monkeypatch):
    def find():
        raise TlsKeyUnsupported("no")

    monkeypatch.setattr("demail_hw.tls.openssl.provider.SHARED_PROVIDER._provider", None)
    monkeypatch.setattr(OpenSsl, "find", find)
    with pytest.raises(TlsKeyUnsupported):
        client_context(root.identity(card_key))
