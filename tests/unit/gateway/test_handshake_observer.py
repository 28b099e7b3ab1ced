"""What is read of a handshake from the wire, judged by real handshakes of OpenSSL in memory."""

import pathlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.errors import ProtocolViolation
from demail_hw.gateway.handshake import (
    Alert,
    AlertDescription,
    CertificateMessage,
    ClientHello,
    ContentType,
    HandshakeMessage,
    HandshakeObserver,
    HandshakeType,
    NamedGroup,
    Record,
    Sender,
    ServerHello,
    ServerKeyExchange,
    TlsVersion,
    code_name,
)
from demail_hw.identity import KeyRole
from demail_hw.tls.policy import SignatureScheme
from demail_hw_simulators import ca

SUITE = "ECDHE-RSA-AES256-SHA384"
SUITE_CODE = 0xC028  # TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384 (RFC 5289)
TLS13_SUITE_CODE = 0x1302  # TLS_AES_256_GCM_SHA384 (RFC 8446, B.4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("tls")
    files = {path.name: path for path in ca.write_trust(folder)}
    card = ca.load_test_key("other-ca")
    server = ca.load_test_key("gateway-server")
    certificates = {
        "card": ca.telesec_ca().issue_card_certificate(KeyRole.AUTHENTICATION, card.public_key()),
        "server": ca.gateway_ca().issue_server_certificate(server.public_key(), ["gateway.example"]),
    }
    for (name, certificate), key in zip(certificates.items(), (card, server), strict=True):
        files[name] = folder / name
        files[name].write_bytes(ca.pem(certificate) + ca.pem_key(key))
    return files


def client_context(files: dict[str, pathlib.Path], *, card: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files["gateway-ca.pem"])
    context.set_ciphers(SUITE)
    if card:
        context.load_cert_chain(files["card"])
    return context


def server_context(
    files: dict[str, pathlib.Path], version: ssl.TLSVersion, *, suite: str = SUITE, curve: str = "secp521r1"
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(suite)
    context.set_ecdh_curve(curve)
    context.load_cert_chain(files["server"])
    context.load_verify_locations(files["telesec-chain.pem"])
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def observe(client: ssl.SSLContext, server: ssl.SSLContext, *, chunk: int = 1 << 14) -> HandshakeObserver:
    """A handshake in memory, whose bytes pass an observer in chunks."""
    observer = HandshakeObserver()
    ends = {}
    for sender, context in ((Sender.US, client), (Sender.GATEWAY, server)):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        is_server = sender is Sender.GATEWAY
        name = None if is_server else "gateway.example"
        end = context.wrap_bio(incoming, outgoing, server_side=is_server, server_hostname=name)
        ends[sender] = incoming, outgoing, end
    for _ in range(8):
        for sender, receiver in ((Sender.US, Sender.GATEWAY), (Sender.GATEWAY, Sender.US)):
            step(ends[sender][2])
            data = ends[sender][1].read()
            for start in range(0, len(data), chunk):
                observer.note(sender, data[start : start + chunk])
            ends[receiver][0].write(data)
    return observer


def step(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLError:
        return


@pytest.mark.parametrize("chunk", [1, 5, 1 << 14])
def test_a_tls12_handshake_shows_everything(files: dict[str, pathlib.Path], chunk: int) -> None:
    seen = observe(client_context(files), server_context(files, ssl.TLSVersion.TLSv1_2), chunk=chunk)
    assert seen.client_hello is not None
    assert SUITE_CODE in seen.client_hello.suites
    assert NamedGroup.SECP521R1 in seen.client_hello.groups
    assert TlsVersion.TLS_1_2 in seen.client_hello.versions
    assert seen.version == TlsVersion.TLS_1_2
    assert seen.server_hello is not None
    assert seen.server_hello.suite == SUITE_CODE
    assert seen.group == NamedGroup.SECP521R1
    assert seen.server_key_exchange is not None
    assert seen.server_key_exchange.scheme == SignatureScheme.RSA_PSS_RSAE_SHA256
    assert seen.certificate_request is not None
    assert SignatureScheme.RSA_PKCS1_SHA256 in seen.certificate_request.schemes
    assert seen.certificate_verify is not None
    assert seen.certificate_verify.scheme == SignatureScheme.RSA_PSS_RSAE_SHA256
    assert seen.server_certificates == (der(files["server"]),)
    assert seen.client_certificates == (der(files["card"]),)
    assert seen.alert is None


def der(file: pathlib.Path) -> bytes:
    return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("curve", ["secp521r1", "prime256v1"])
def test_a_tls13_handshake_shows_the_hellos_and_no_more(files: dict[str, pathlib.Path], curve: str) -> None:
    """secp521r1 comes about by a HelloRetryRequest: the client's first share is another one."""
    seen = observe(client_context(files), server_context(files, ssl.TLSVersion.TLSv1_3, curve=curve))
    assert seen.version == TlsVersion.TLS_1_3
    assert seen.server_hello is not None
    assert seen.server_hello.suite == TLS13_SUITE_CODE
    assert seen.group == {"secp521r1": NamedGroup.SECP521R1, "prime256v1": NamedGroup.SECP256R1}[curve]
    assert seen.server_certificates is None
    assert seen.certificate_request is None
    assert seen.certificate_verify is None


def test_a_client_without_certificate_is_seen_to_send_none(files: dict[str, pathlib.Path]) -> None:
    seen = observe(client_context(files, card=False), server_context(files, ssl.TLSVersion.TLSv1_2))
    assert seen.client_certificates == ()
    assert seen.alert is not None
    assert (seen.alert.description, seen.alert_sender) == (AlertDescription.HANDSHAKE_FAILURE, Sender.GATEWAY)


def test_an_alert_names_its_sender(files: dict[str, pathlib.Path]) -> None:
    server = server_context(files, ssl.TLSVersion.TLSv1_2)
    strange = ssl.create_default_context(cafile=files["telesec-root.pem"])
    seen = observe(strange, server)
    assert seen.alert is not None
    assert (seen.alert.description, seen.alert_sender) == (AlertDescription.UNKNOWN_CA, Sender.US)

    seen = observe(client_context(files), server_context(files, ssl.TLSVersion.TLSv1_2, suite="AES256-SHA256"))
    assert seen.alert == Alert(level=2, description=AlertDescription.HANDSHAKE_FAILURE)
    assert seen.alert_sender is Sender.GATEWAY
    assert seen.server_hello is None


def records(*fragments: tuple[int, bytes]) -> bytes:
    return b"".join(bytes((kind, 3, 3)) + len(fragment).to_bytes(2, "big") + fragment for kind, fragment in fragments)


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


KEY_EXCHANGE = (
    bytes((3, 0, 25, 2)) + b"\x04\x00" + bytes((8, 4))
)  # named_curve, secp521r1, a point, rsa_pss_rsae_sha256


def test_a_message_may_be_spread_over_records_and_a_record_hold_several() -> None:
    encoded = message(HandshakeType.SERVER_KEY_EXCHANGE, KEY_EXCHANGE) + message(
        HandshakeType.CERTIFICATE_REQUEST, b"\x01\x01" + b"\x00\x02\x04\x01" + b"\x00\x00"
    )
    observer = HandshakeObserver()
    observer.note(Sender.GATEWAY, records((22, encoded[:3]), (22, encoded[3:])))
    assert observer.server_key_exchange == ServerKeyExchange(
        NamedGroup.SECP521R1, SignatureScheme.RSA_PSS_RSAE_SHA256
    )
    assert observer.certificate_request is not None
    assert observer.certificate_request.schemes == (SignatureScheme.RSA_PKCS1_SHA256,)


@pytest.mark.parametrize("kind", [ContentType.CHANGE_CIPHER_SPEC, ContentType.APPLICATION_DATA, 99])
def test_nothing_is_read_after_encryption_begins(kind: int) -> None:
    observer = HandshakeObserver()
    observer.note(Sender.GATEWAY, records((kind, b"\x01"), (21, b"\x02\x28")))
    observer.note(Sender.GATEWAY, records((21, b"\x02\x28")))
    assert observer.alert is None


def test_a_key_exchange_without_named_curve_has_no_group() -> None:
    assert ServerKeyExchange.decode(b"\x01\x00") == ServerKeyExchange(None, None)


BROKEN = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    records((22, message(HandshakeType.SERVER_HELLO, b"\x03\x03"))),
    records((21, b"\x02")),
    bytes((22, 3, 3, 255, 255)),
    records((22, bytes((2, 255, 255, 255)))),
]


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_not_understood_is_not_reported_and_ends_the_reading(data: bytes) -> None:
    observer = HandshakeObserver()
    observer.note(Sender.GATEWAY, data)
    observer.note(Sender.GATEWAY, records((21, b"\x02\x28")))
    assert observer.alert is None
    assert observer.server_hello is None


@pytest.mark.parametrize("decode", [ClientHello.decode, ServerHello.decode, CertificateMessage.decode, Alert.decode])
def test_a_short_message_is_a_violation(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(ProtocolViolation):
        decode(b"\x01")


def test_half_a_record_or_message_is_none() -> None:
    assert Record.decode(bytearray(records((22, b"abc"))[:-1])) is None
    assert HandshakeMessage.decode(bytearray(message(1, b"abc")[:-1])) is None


def test_an_unknown_code_point_is_shown_as_its_number() -> None:
    assert code_name(NamedGroup, NamedGroup.SECP521R1) == "secp521r1"
    assert code_name(NamedGroup, 0x6399) == "0x6399"
