"""The simulated CA and gateway, judged by the openssl program."""

import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from demail_hw.errors import GatewayError
from demail_hw.gateway import Finding, probe
from demail_hw.identity import Identity, KeyRole
from demail_hw_simulators import ca
from demail_hw_simulators.gateway import SimulatedGateway, TlsMode

SECONDS = 20
KEY = ca.load_test_key("other-ca")
PURPOSES = {
    KeyRole.SIGNATURE: "smimesign",
    KeyRole.ENCRYPTION: "smimeencrypt",
    KeyRole.AUTHENTICATION: "sslclient",
}

Openssl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Trust, and a file for each role: certificate and key."""
    ca.write_trust(tmp_path)
    authority = ca.telesec_ca()
    for role in KeyRole:
        certificate = authority.issue_card_certificate(role, KEY.public_key())
        (tmp_path / f"{role.value}.pem").write_bytes(ca.pem(certificate) + ca.pem_key(KEY))
    return tmp_path


@pytest.fixture
def openssl(tool: Callable[[str], str], folder: pathlib.Path) -> Openssl:
    program = tool("openssl")

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments],
            cwd=folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def verify(openssl: Openssl, file: str, purpose: str, *, root: str = "telesec-root.pem") -> bool:
    done = openssl(
        *("verify", "-x509_strict", "-purpose", purpose, "-no-CApath", "-no-CAstore"),
        *("-CAfile", root, "-untrusted", "telesec-chain.pem", file),
    )
    return done.returncode == 0 and done.stdout == f"{file}: OK\n"


@pytest.mark.parametrize("role", KeyRole)
def test_openssl_accepts_a_card_certificate_for_its_role_alone(openssl: Openssl, role: KeyRole) -> None:
    accepted = {purpose for purpose in PURPOSES.values() if verify(openssl, f"{role.value}.pem", purpose)}
    assert accepted == {PURPOSES[role]}


def test_openssl_accepts_it_under_no_other_root(openssl: Openssl) -> None:
    assert not verify(openssl, "authentication.pem", "sslclient", root="gateway-ca.pem")


def test_openssl_accepts_the_server_certificate_for_its_names(openssl: Openssl, folder: pathlib.Path) -> None:
    certificate = ca.gateway_ca().issue_server_certificate(KEY.public_key(), ["gateway.example", "127.0.0.1"])
    (folder / "server.pem").write_bytes(ca.pem(certificate))
    strict = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "gateway-ca.pem")
    assert openssl(*strict, "-verify_hostname", "gateway.example", "server.pem").returncode == 0
    assert openssl(*strict, "-verify_ip", "127.0.0.1", "server.pem").returncode == 0
    assert openssl(*strict, "-verify_hostname", "elsewhere.example", "server.pem").returncode != 0


def test_openssl_sees_the_revocation(openssl: Openssl, folder: pathlib.Path) -> None:
    certificate = ca.telesec_ca().issue_card_certificate(KeyRole.AUTHENTICATION, KEY.public_key())
    check = (
        *("verify", "-x509_strict", "-crl_check", "-CAfile", "telesec-root.pem"),
        *("-untrusted", "telesec-chain.pem", "-CRLfile", "crl.pem", "authentication.pem"),
    )
    (folder / "crl.pem").write_bytes(ca.pem(ca.telesec_ca().revocation_list([])))
    assert openssl(*check).returncode == 0
    (folder / "crl.pem").write_bytes(ca.pem(ca.telesec_ca().revocation_list([certificate.serial_number])))
    assert "certificate revoked" in openssl(*check).stderr


@pytest.fixture
def gateway() -> Iterator[SimulatedGateway]:
    with SimulatedGateway() as running:
        yield running


def connect(openssl: Openssl, gateway: SimulatedGateway, *options: str) -> subprocess.CompletedProcess[str]:
    """One request by s_client, which ends when the gateway closes."""
    return openssl(
        *("s_client", "-connect", f"127.0.0.1:{gateway.port}", "-CAfile", "gateway-ca.pem"),
        *("-verify_return_error", "-ign_eof", *options),
        text="GET /domains HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
    )


WITH_CARD = ("-cert", "authentication.pem", "-cert_chain", "telesec-chain.pem", "-key", "authentication.pem")


@pytest.mark.parametrize("options", [(), ("-tls1_2",), ("-curves", "P-256:P-521")], ids=str)
def test_s_client_gets_the_profile_and_the_domains(
    openssl: Openssl, gateway: SimulatedGateway, options: tuple[str, ...]
) -> None:
    done = connect(openssl, gateway, *WITH_CARD, *options)
    assert done.returncode == 0
    assert re.search(r"New, TLSv1.2, Cipher is ECDHE-RSA-AES256-SHA384\n", done.stdout)
    assert re.search(r"(Server|Peer) Temp Key: ECDH, secp521r1, 521 bits", done.stdout)
    assert '"domains": ["beispiel.de-mail.de", ' in done.stdout


REFUSED = [
    ("-cipher", "ECDHE-RSA-AES256-GCM-SHA384", "-tls1_2"),
    ("-cipher", "ECDHE-RSA-AES128-SHA256", "-tls1_2"),
    ("-cipher", "AES256-SHA256", "-tls1_2"),
    ("-curves", "P-256"),
    ("-curves", "X25519:P-384"),
    ("-tls1_3",),
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_s_client_is_refused_with_anything_else(
    openssl: Openssl, gateway: SimulatedGateway, options: tuple[str, ...]
) -> None:
    done = connect(openssl, gateway, *WITH_CARD, *options)
    assert done.returncode != 0
    assert re.search(r"alert (handshake failure|protocol version)", done.stderr)
    assert "domains" not in done.stdout


def test_s_client_is_refused_without_a_certificate(openssl: Openssl, gateway: SimulatedGateway) -> None:
    done = connect(openssl, gateway)
    assert done.returncode != 0
    assert "alert handshake failure" in done.stderr


def test_s_client_speaks_tls13_with_a_gateway_of_tls13(openssl: Openssl) -> None:
    with SimulatedGateway(mode=TlsMode.TLS13) as gateway:
        done = connect(openssl, gateway, *WITH_CARD)
        refused = connect(openssl, gateway)
    assert "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384" in done.stdout
    assert '"domains": ["beispiel.de-mail.de", ' in done.stdout
    assert "alert certificate required" in refused.stderr


@pytest.fixture
def s_server(tool: Callable[[str], str], folder: pathlib.Path) -> Iterator[Callable[..., int]]:
    """``s_server(options)``: the port of an openssl s_server with a client certificate required."""
    program = tool("openssl")
    server_key = ca.load_test_key("gateway-server")
    certificate = ca.gateway_ca().issue_server_certificate(server_key.public_key(), ["127.0.0.1"])
    (folder / "server.pem").write_bytes(ca.pem(certificate) + ca.pem_key(server_key))
    servers: list[subprocess.Popen[str]] = []

    def start(*options: str) -> int:
        arguments = ("-accept", "127.0.0.1:0", "-cert", "server.pem", "-Verify", "3", "-verify_return_error", "-www")
        server = subprocess.Popen(
            [program, "s_server", *arguments, "-CAfile", "telesec-root.pem", *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        servers.append(server)
        assert server.stdout is not None
        while line := server.stdout.readline():
            if match := re.match(r"ACCEPT .*:(\d+)$", line):
                return int(match[1])
        raise AssertionError("s_server did not start")

    yield start
    for server in servers:
        server.kill()
        server.communicate()


GATEWAY_OPTIONS = ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384", "-curves", "P-521")


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (GATEWAY_OPTIONS, Finding.ANSWER_MALFORMED),  # the handshake is done; s_server answers in HTML
        (("-tls1_2", "-cipher", "AES256-SHA256"), Finding.CIPHER_SUITE),
        (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256", "-curves", "P-521"), Finding.CIPHER_SUITE),
        ((*GATEWAY_OPTIONS[:-1], "P-384"), Finding.CURVE),
        (("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), Finding.PROTOCOL_VERSION),
    ],
    ids=lambda value: str(value),
)
def test_the_probe_finds_what_is_wrong_with_an_openssl_server(
    s_server: Callable[..., int], folder: pathlib.Path, options: tuple[str, ...], finding: Finding
) -> None:
    authority = ca.telesec_ca()
    certificate = authority.issue_card_certificate(KeyRole.AUTHENTICATION, KEY.public_key())
    who = Identity(KeyRole.AUTHENTICATION, "file", KEY, certificate, authority.chain)
    port = s_server(*options)
    with pytest.raises(GatewayError) as caught:
        probe(who, f"https://127.0.0.1:{port}", cafile=folder / "gateway-ca.pem")
    assert caught.value.finding == finding
