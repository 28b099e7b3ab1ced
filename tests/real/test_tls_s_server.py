"""OpenSSL's own server, with client certificates demanded, from http.client and httpx."""

import contextlib
import datetime
import http.client
import ssl
import subprocess
from types import SimpleNamespace

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from demail_hw.errors import AlgorithmNotSupported, CardRemoved
from demail_hw.identity import Identity, KeyRole
from demail_hw.tls import DEMAIL, client_context

GATEWAY = ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384", "-curves", "P-521")
TLS13 = ("-tls1_3",)
SERVERS = pytest.mark.parametrize(("options", "version"), [(GATEWAY, "TLSv1.2"), (TLS13, "TLSv1.3")])
TIMEOUT = 20.0


class RemoteKey(rsa.RSAPrivateKey):
    """A key that OpenSSL does not know: it signs in Python, or raises."""

    def __init__(self, software, failure=None):
        self.software = software
        self.failure = failure
        self.paddings = []

    def sign(self, data, padding, algorithm):
        self.paddings.append(type(padding).__name__)
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


class SignatureCardKey(RemoteKey):
    """PKCS#1 v1.5 only."""

    def supports(self, padding_, algorithm):
        return isinstance(padding_, padding.PKCS1v15)


def make_certificate(common_name, public_key, issuer_key, *, ca):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(name("real test root"))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def pki(tool, tmp_path_factory):
    openssl = tool("openssl")
    folder = tmp_path_factory.mktemp("s_server")
    root, server, client = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3))
    certificate = make_certificate("localhost", server.public_key(), root, ca=False).public_bytes(Encoding.PEM)
    key = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(certificate + key)
    issuer = make_certificate("real test root", root.public_key(), root, ca=True)
    (folder / "root.pem").write_bytes(issuer.public_bytes(Encoding.PEM))
    return SimpleNamespace(
        openssl=openssl,
        root_file=folder / "root.pem",
        server_file=folder / "server.pem",
        client_key=client,
        client_certificate=make_certificate("client", client.public_key(), root, ca=False),
    )


@contextlib.contextmanager
def s_server(pki, *options):
    """``openssl s_server``; the port that it chose."""
    command = [
        *(pki.openssl, "s_server", "-accept", "127.0.0.1:0", "-www"),
        *("-cert", pki.server_file, "-CAfile", pki.root_file, "-Verify", "3", "-verify_return_error"),
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield next(int(line.rpartition(":")[2]) for line in process.stdout if line.startswith("ACCEPT"))
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        process.stdout.close()


def context_of(key, pki, **options):
    identity = Identity(KeyRole.AUTHENTICATION, "remote key", key, pki.client_certificate)
    return client_context(identity, cafile=pki.root_file, **options)


def get_by_http_client(context, port):
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def get_by_httpx(context, port):
    with httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT) as client:
        return client.get(f"https://localhost:{port}/").text


CLIENTS = pytest.mark.parametrize("get", [get_by_http_client, get_by_httpx])


@CLIENTS
@SERVERS
@pytest.mark.parametrize("profile", [None, DEMAIL])
def test_the_server_accepts_the_key(pki, get, options, version, profile):
    key = RemoteKey(pki.client_key)
    with s_server(pki, *options) as port:
        page = get(context_of(key, pki, profile=profile), port)
    assert f"Protocol  : {version}" in page
    assert "Subject: CN = client" in page or "Subject: CN=client" in page
    assert key.paddings == ["PSS"]


@CLIENTS
def test_a_key_without_pss_signs_pkcs1(pki, get):
    key = SignatureCardKey(pki.client_key)
    with s_server(pki, *GATEWAY) as port:
        assert "Protocol  : TLSv1.2" in get(context_of(key, pki), port)
    assert key.paddings == ["PKCS1v15"]


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@CLIENTS
@SERVERS
def test_the_keys_exception_is_in_the_chain(pki, get, options, version):
    key = RemoteKey(pki.client_key, CardRemoved("The card was taken out."))
    context = context_of(key, pki)
    with s_server(pki, *options) as port:
        with pytest.raises((ssl.SSLError, httpx.ConnectError)) as caught:
            get(context, port)
        tls_error = next(error for error in causes(caught.value) if isinstance(error, ssl.SSLError))
        assert tls_error.__cause__ is key.failure
        key.failure = None
        assert f"Protocol  : {version}" in get(context, port)


@CLIENTS
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (TLS13, "TLS 1.3 needs RSA-PSS"),
        (("-tls1_2", "-client_sigalgs", "RSA-PSS+SHA256"), "takes these signatures from a client: rsa_pss_"),
        (("-tls1_2", "-client_sigalgs", "ECDSA+SHA384"), "takes these signatures from a client: ecdsa_secp384r1"),
    ],
)
def test_a_server_that_wants_what_the_key_does_not(pki, get, options, sentence):
    key = SignatureCardKey(pki.client_key)
    with s_server(pki, *options) as port, pytest.raises((ssl.SSLError, httpx.ConnectError)) as caught:
        get(context_of(key, pki), port)
    finding = next(error for error in causes(caught.value) if isinstance(error, AlgorithmNotSupported))
    assert sentence in finding.message
    assert finding.remedy
    assert key.paddings == []
