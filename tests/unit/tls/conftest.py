"""Throwaway certificates, keys that behave like a card's, and handshakes in memory."""

import dataclasses
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from demail_hw.identity import Identity, KeyRole
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.structures import SslCtrl

DAY = datetime.timedelta(days=1)


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(ca):
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


@dataclasses.dataclass
class Issuer:
    """A certificate authority with everything that a strict verifier wants to see."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, common_name, above=None):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        issuer_name, issuer_key = (above.certificate.subject, above.key) if above else (_name(common_name), key)
        return cls(key, _certificate(common_name, key.public_key(), issuer_name, issuer_key, ca=True))

    def issue(self, common_name, public_key):
        return _certificate(common_name, public_key, self.certificate.subject, self.key, ca=False)

    def identity(self, key, chain=()):
        return Identity(KeyRole.AUTHENTICATION, "test key", key, self.issue("client", key.public_key()), chain)


def _certificate(common_name, public_key, issuer_name, issuer_key, *, ca):
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer_name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(_key_usage(ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class CardLikeKey(rsa.RSAPrivateKey):
    """A key that is not OpenSSL's: it notes what it is asked for, and raises ``failure`` if there is one."""

    def __init__(self, software, failure=None):
        self.software = software
        self.failure = failure
        self.calls = []

    def sign(self, data, padding, algorithm):
        self.calls.append((type(padding).__name__, algorithm.name))
        if self.failure is not None:
            raise self.failure
        return self.software.sign(data, padding, algorithm)

    def public_key(self):
        return self.software.public_key()

    @property
    def key_size(self):
        return self.software.key_size

    def decrypt(self, ciphertext, padding):
        raise NotImplementedError

    def private_numbers(self):
        raise NotImplementedError

    def private_bytes(self, encoding, format, encryption_algorithm):  # noqa: A002 - the base class names it so
        raise NotImplementedError

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


class Pkcs1OnlyKey(CardLikeKey):
    """A signature card: PKCS#1 v1.5 and nothing else."""

    def supports(self, padding_, algorithm):
        return isinstance(padding_, padding.PKCS1v15)


@dataclasses.dataclass
class Handshake:
    """Two ends joined in memory."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    wires: tuple[tuple[ssl.MemoryBIO, ssl.MemoryBIO], tuple[ssl.MemoryBIO, ssl.MemoryBIO]]

    @classmethod
    def begin(cls, client, server):
        c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
        return cls(
            client.wrap_bio(c_in, c_out, server_hostname="localhost"),
            server.wrap_bio(s_in, s_out, server_side=True),
            ((c_out, s_in), (s_out, c_in)),
        )

    def pump(self):
        for out, into in self.wires:
            into.write(out.read())

    def run(self):
        pending = [self.client, self.server]
        while pending:
            for end in tuple(pending):
                try:
                    end.do_handshake()
                    pending.remove(end)
                except ssl.SSLWantReadError:
                    pass
                finally:
                    self.pump()
        return self


@pytest.fixture(scope="session")
def make_issuer():
    return Issuer.make


@pytest.fixture(scope="session")
def root():
    return Issuer.make("root")


@pytest.fixture(scope="session")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def ec_keys():
    return {curve.name: ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())}


@pytest.fixture
def card_key(rsa_key):
    return CardLikeKey(rsa_key)


@pytest.fixture
def pkcs1_key(rsa_key):
    return Pkcs1OnlyKey(rsa_key)


@pytest.fixture(scope="session")
def ca_file(root, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "root.pem"
    path.write_bytes(root.certificate.public_bytes(Encoding.PEM))
    return path


@pytest.fixture(scope="session")
def server_file(root, rsa_key, ca_file) -> Path:
    path = ca_file.with_name("server.pem")
    key = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(root.issue("localhost", rsa_key.public_key()).public_bytes(Encoding.PEM) + key)
    return path


@pytest.fixture
def make_server(ca_file, server_file) -> Callable[..., ssl.SSLContext]:
    """A server that demands a client certificate; ``client_sigalgs``: the signatures that it takes."""

    def make(*, version=None, ciphers="", group="", client_sigalgs=b""):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server_file)
        context.load_verify_locations(ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        if group:
            context.set_ecdh_curve(group)
        if client_sigalgs:
            library = OpenSsl.find()
            pointer = ssl_ctx_of(context, library)
            assert library.functions.SSL_CTX_ctrl(pointer, SslCtrl.SET_CLIENT_SIGALGS_LIST, 0, client_sigalgs) == 1
        return context

    return make


@pytest.fixture
def gateway(make_server):
    """The De-Mail gateway: one version, one suite, one curve."""
    return make_server(version=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES256-SHA384", group="secp521r1")


@pytest.fixture(scope="session")
def begin():
    """Join a client's and a server's context; nothing is sent yet."""
    return Handshake.begin


@pytest.fixture(scope="session")
def shake_hands():
    """A whole handshake between a client's and a server's context."""
    return lambda client, server: Handshake.begin(client, server).run()
