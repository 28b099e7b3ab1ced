"""The card's key behind a USB server, judged by openssl: S/MIME both ways, and TLS servers that demand it."""

import contextlib
import http.client
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

import demail_hw
from demail_hw import KeyProvider, KeyRole, cms
from demail_hw.tls import client_context
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ca import gateway_ca, pem_key, write_trust
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader

TLS12 = ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384", "-curves", "P-521")
TLS13 = ("-tls1_3",)


@pytest.fixture(scope="module")
def provider() -> Iterator[KeyProvider]:
    with (
        UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0) as server,
        demail_hw.open_provider(f"usbip://127.0.0.1:{server.port}/", pin=lambda: b"123456") as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    write_trust(folder)
    return folder


@pytest.fixture
def openssl(tool: Callable[[str], str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    program = tool("openssl")

    def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [program, *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)

    return run


def letter(*, body: str, attachment: bytes) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = "absender@beispiel.example", "empfänger <b@beispiel.example>"
    message["Subject"] = "Prüfbericht für Köln"
    message.set_content(body)
    message.add_alternative(f"<p>{body}</p>", subtype="html")
    message.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="prüf.bin")
    return message.as_bytes()


MESSAGES = {
    "umlauts": letter(body="Schöne Grüße\nzweite Zeile\n", attachment=bytes(range(256))),
    "5 MB": letter(body="groß\n", attachment=bytes(range(256)) * (5 * 4096)),
    "text": "Nur Text, ohne Kopf, mit Umlauten: äöü\n".encode(),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("form", [cms.SignedForm.MULTIPART, cms.SignedForm.OPAQUE], ids=lambda form: form.name)
def test_signed_message_is_accepted_and_rejected_after_one_byte(
    provider: KeyProvider, trust: Path, tmp_path: Path, openssl, name: str, form: cms.SignedForm
) -> None:
    signed = bytearray(cms.sign(MESSAGES[name], provider.identity(KeyRole.SIGNATURE), form=form))
    path = tmp_path / "signed.eml"
    verify = ("cms", "-verify", "-in", path, "-CAfile", trust / "telesec-root.pem", "-out", tmp_path / "content")
    path.write_bytes(signed)
    accepted = openssl(*verify)
    assert accepted.returncode == 0, accepted.stderr
    middle = len(signed) // 2
    signed[middle] = ord("A") if signed[middle] != ord("A") else ord("B")
    path.write_bytes(signed)
    assert openssl(*verify).returncode != 0


@pytest.mark.parametrize(
    "options",
    [("-des3",), ("-aes128",), ("-aes256",), ("-aes-256-gcm",)],
    ids=lambda options: options[0],
)
@pytest.mark.parametrize("padding", [(), ("-keyopt", "rsa_padding_mode:oaep")], ids=["pkcs1", "oaep"])
def test_openssl_encrypts_and_the_card_opens(
    provider: KeyProvider, tmp_path: Path, openssl, options: tuple[str, ...], padding: tuple[str, ...]
) -> None:
    identity = provider.identity(KeyRole.ENCRYPTION)
    recipient = tmp_path / "recipient.pem"
    recipient.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    message = MESSAGES["umlauts"]
    done = openssl("cms", "-encrypt", "-binary", *options, "-recip", recipient, *padding, stdin=message)
    assert done.returncode == 0, done.stderr
    assert cms.decrypt(done.stdout, identity) == message


@contextlib.contextmanager
def s_server(program: str, folder: Path, *options: str) -> Iterator[str]:
    """openssl s_server that demands a client certificate of the card's issuer; its URL."""
    key = rsa.generate_private_key(65537, 2048)
    certificate = gateway_ca().issue_server_certificate(key.public_key(), ["localhost"])
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + pem_key(key))
    command = [
        program, "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", folder / "server.pem",
        "-CAfile", folder / "telesec-root.pem", "-Verify", "3", "-verify_return_error", *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith("ACCEPT"))
        yield f"https://localhost:{ready.rsplit(':', 1)[1].strip()}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.mark.parametrize(
    ("options", "version"), [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")], ids=["gateway profile", "TLS 1.3"]
)
def test_s_server_accepts_the_card(
    provider: KeyProvider, trust: Path, tool: Callable[[str], str], options: tuple[str, ...], version: str
) -> None:
    context = client_context(provider.identity(KeyRole.AUTHENTICATION), cafile=trust / "gateway-ca.pem")
    with s_server(tool("openssl"), trust, *options) as url:
        for page in (by_http_client(url, context), by_httpx(url, context)):
            assert f"Protocol  : {version}" in page or f"New, {version}" in page
            assert "BEGIN CERTIFICATE" in page or "Client certificate" in page


def by_http_client(url: str, context) -> str:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def by_httpx(url: str, context) -> str:
    with httpx.Client(verify=context, timeout=20) as client:
        return client.get(url).text


def test_s_server_refuses_without_the_card(trust: Path, tool: Callable[[str], str]) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(trust / "gateway-ca.pem"))
    with s_server(tool("openssl"), trust, *TLS12) as url, pytest.raises((ssl.SSLError, ConnectionError)):
        by_http_client(url, context)
