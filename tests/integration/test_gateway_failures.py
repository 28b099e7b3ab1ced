"""The connector's probe against the simulated gateway: what works, and each failure as its own finding."""

import logging
import pathlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw import open_provider
from demail_hw.errors import CardRemoved, ConfigurationError, GatewayError, HardwareError, Outcome
from demail_hw.gateway import Finding, ProbeResult, probe, probe_over
from demail_hw.identity import Identity, KeyRole
from demail_hw.interfaces import Timeouts
from demail_hw.keys.private_keys import CardRsaPrivateKey
from demail_hw.tls import DEMAIL, client_context
from demail_hw_simulators import ca
from demail_hw_simulators.gateway import DEFAULT_DOMAINS, Fault, SimulatedGateway, TlsMode

KEY = ca.load_test_key("other-ca")
NUMBERS = KEY.private_numbers()
BRIEF = Timeouts(connect=0.3, command=0.3)
"""For a gateway that never answers."""


class Card:
    """The two operations of a card's key on a software key, counted; ``failure`` is raised instead."""

    decrypts = False

    def __init__(self, *, raw: bool = True, failure: HardwareError | None = None) -> None:
        self.raw = raw
        self.failure = failure
        self.signatures = 0

    def compute_digital_signature(self, digest_info: bytes) -> bytes:
        return self.raw_rsa(b"\x00\x01" + b"\xff" * (253 - len(digest_info)) + b"\x00" + digest_info)

    def suspect(self) -> None:
        raise AssertionError("it never answers wrong")

    def raw_rsa(self, block: bytes) -> bytes:
        self.signatures += 1
        if self.failure is not None:
            raise self.failure
        return pow(int.from_bytes(block, "big"), NUMBERS.d, NUMBERS.public_numbers.n).to_bytes(256, "big")

    def decipher(self, block: bytes) -> bytes:
        raise NotImplementedError


def identity(card: Card, role: KeyRole = KeyRole.AUTHENTICATION, *, holder: str = ca.DEFAULT_HOLDER) -> Identity:
    authority = ca.telesec_ca()
    certificate = authority.issue_card_certificate(role, KEY.public_key(), holder=holder)
    return Identity(role, "card", CardRsaPrivateKey(KEY.public_key(), card), certificate, authority.chain)


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture(scope="module")
def cafile(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return ca.write_trust(tmp_path_factory.mktemp("trust"))[2]


@pytest.fixture
def finding_of(card: Card, cafile: pathlib.Path) -> Callable[..., GatewayError]:
    """``finding_of(url)``: the error of a probe."""

    def find(url: str, *, who: Identity | None = None, timeouts: Timeouts | None = None) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            probe(who or identity(card), url, cafile=cafile, timeouts=timeouts)
        return caught.value

    return find


@pytest.mark.parametrize(
    ("mode", "version", "cipher"),
    [
        (TlsMode.TLS12, "TLSv1.2", "ECDHE-RSA-AES256-SHA384"),
        (TlsMode.TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ],
)
def test_the_probe_finds_the_domains(
    card: Card, cafile: pathlib.Path, mode: TlsMode, version: str, cipher: str
) -> None:
    with SimulatedGateway(mode=mode) as gateway:
        result = probe(identity(card), gateway.url, cafile=cafile)
        assert gateway.connections == 1
        assert result.gateway == f"127.0.0.1:{gateway.port}"
    assert result.owner == ca.DEFAULT_HOLDER
    assert result.domains == DEFAULT_DOMAINS
    assert len(result.domains) == 3
    assert (result.tls_version, result.cipher, result.group) == (version, cipher, "secp521r1")
    assert "CN=localhost" in result.server_certificate
    assert "CN=Beispiel GmbH (TEST) authentication" in result.client_certificate
    assert min(result.connect_ms, result.handshake_ms, result.request_ms) > 0
    assert card.signatures == 1


def test_a_key_without_pss_signs_pkcs1_in_tls12(cafile: pathlib.Path) -> None:
    with SimulatedGateway() as gateway:
        result = probe(identity(Card(raw=False)), gateway.url, cafile=cafile)
    assert result.client_signature == "rsa_pkcs1_sha256"


def test_a_context_of_ones_own_can_be_probed_over(card: Card, cafile: pathlib.Path) -> None:
    who = identity(card)
    context = client_context(who, cafile=cafile, profile=DEMAIL)
    with SimulatedGateway(domains={ca.DEFAULT_HOLDER: ["a.example"]}) as gateway:
        result = probe_over(context, gateway.url, client=who.certificate)
        again = probe_over(context, gateway.url, client=who.certificate)
    assert isinstance(result, ProbeResult)
    assert again.domains == result.domains == ("a.example",)


EACH_FAULT = {
    Fault.RESET: Finding.CONNECTION_RESET,
    Fault.NOT_TLS: Finding.NOT_TLS,
    Fault.WRONG_CA: Finding.SERVER_NOT_TRUSTED,
    Fault.WRONG_HOST: Finding.SERVER_NAME,
    Fault.OTHER_CURVE: Finding.CURVE,
    Fault.HANG_UP: Finding.CONNECTION_CLOSED,
    Fault.NOT_HTTP: Finding.NOT_HTTP,
    Fault.HTTP_500: Finding.SERVER_ERROR,
    Fault.EMPTY_REPLY: Finding.ANSWER_EMPTY,
    Fault.MALFORMED_JSON: Finding.ANSWER_MALFORMED,
    Fault.WRONG_JSON: Finding.ANSWER_UNEXPECTED,
    Fault.TRUNCATED_REPLY: Finding.ANSWER_INCOMPLETE,
    Fault.TOO_LARGE: Finding.ANSWER_TOO_LARGE,
}
NEVER_ANSWERS = {
    Fault.SILENT: Finding.HANDSHAKE_TIMEOUT,
    Fault.NO_REPLY: Finding.ANSWER_TIMEOUT,
    Fault.SLOW_REPLY: Finding.ANSWER_TIMEOUT,
}
BEFORE_THE_CARD_SIGNS = {
    Fault.RESET,
    Fault.NOT_TLS,
    Fault.WRONG_CA,
    Fault.WRONG_HOST,
    Fault.OTHER_SUITE,
    Fault.OTHER_CURVE,
    Fault.SILENT,
}
LOOKS = {Fault.OTHER_CURVE: 1, Fault.OTHER_SUITE: 2}
"""Handshakes without a key that show what the gateway would pick."""


def test_every_fault_has_its_test() -> None:
    assert EACH_FAULT.keys() | NEVER_ANSWERS.keys() == set(Fault) - {
        Fault.NONE,
        Fault.OTHER_SUITE,
        Fault.PSS_ONLY,
    }
    assert len({*EACH_FAULT.values(), *NEVER_ANSWERS.values()}) == len(EACH_FAULT) + len(NEVER_ANSWERS) - 1


@pytest.mark.parametrize("mode", TlsMode)
@pytest.mark.parametrize("fault", EACH_FAULT)
def test_each_fault_is_its_finding_and_nothing_is_tried_again(
    finding_of: Callable[..., GatewayError], card: Card, fault: Fault, mode: TlsMode
) -> None:
    with SimulatedGateway(fault=fault, mode=mode) as gateway:
        error = finding_of(gateway.url)
        assert gateway.connections == 1 + LOOKS.get(fault, 0)
    assert error.finding == EACH_FAULT[fault]
    assert error.remedy
    assert card.signatures == (0 if fault in BEFORE_THE_CARD_SIGNS else 1)


@pytest.mark.parametrize("fault", NEVER_ANSWERS)
def test_what_never_answers_ends_with_the_deadline(
    finding_of: Callable[..., GatewayError], card: Card, fault: Fault
) -> None:
    with SimulatedGateway(fault=fault) as gateway:
        error = finding_of(gateway.url, timeouts=BRIEF)
        assert gateway.connections == 1
    assert error.finding == NEVER_ANSWERS[fault]
    assert error.outcome is Outcome.UNKNOWN
    assert card.signatures == (0 if fault in BEFORE_THE_CARD_SIGNS else 1)


def test_another_suite_is_named(finding_of: Callable[..., GatewayError], card: Card) -> None:
    with SimulatedGateway(fault=Fault.OTHER_SUITE) as gateway:
        error = finding_of(gateway.url)
        assert gateway.connections == 1 + LOOKS[Fault.OTHER_SUITE]
    assert error.finding == Finding.CIPHER_SUITE
    assert "ECDHE-RSA-AES256-SHA384 offered; it picks ECDHE-RSA-AES128-GCM-SHA256 with secp521r1" in error.message
    assert card.signatures == 0


def test_another_curve_is_named(finding_of: Callable[..., GatewayError]) -> None:
    with SimulatedGateway(fault=Fault.OTHER_CURVE) as gateway:
        message = finding_of(gateway.url).message
    assert "secp521r1 offered; it picks ECDHE-RSA-AES256-SHA384 with secp256r1" in message


@pytest.mark.parametrize("mode", TlsMode)
def test_the_issuer_that_is_not_trusted_is_named(finding_of: Callable[..., GatewayError], mode: TlsMode) -> None:
    """TLS 1.3 hides it from the wire, and Python before 3.13 from its user."""
    with SimulatedGateway(fault=Fault.WRONG_CA, mode=mode) as gateway:
        message = finding_of(gateway.url).message
    named = "issued by CN=Simulated root that nobody trusts" in message
    assert named is (mode is TlsMode.TLS12 or sys.version_info >= (3, 13))


def test_a_gateway_of_tls13_alone_and_a_key_without_pss(finding_of: Callable[..., GatewayError]) -> None:
    pkcs1 = Card(raw=False)
    with SimulatedGateway(mode=TlsMode.TLS13) as gateway:
        error = finding_of(gateway.url, who=identity(pkcs1))
    assert error.finding == Finding.PROTOCOL_VERSION
    assert "tls_1_2; the key cannot sign with RSA-PSS" in error.message
    assert "TLS 1.2 enabled" in error.remedy
    assert pkcs1.signatures == 0


def test_an_ec_key_and_the_curve_of_the_profile(
    finding_of: Callable[..., GatewayError], cafile: pathlib.Path
) -> None:
    """Without TLS 1.3 it is refused before the card is asked for anything: there is no PIN."""
    with open_provider("sim:signature-card-v2") as provider, SimulatedGateway() as gateway:
        error = finding_of(gateway.url, who=provider.identity(KeyRole.AUTHENTICATION))
    assert error.finding == Finding.KEY_CURVE
    assert "is on the curve secp256r1, and in TLS 1.2 the profile 'demail' takes" in error.message
    with (
        open_provider("sim:signature-card-v2", pin=lambda: b"123456") as provider,
        SimulatedGateway(mode=TlsMode.TLS13) as gateway,
    ):
        assert probe(provider.identity(KeyRole.AUTHENTICATION), gateway.url, cafile=cafile).tls_version == "TLSv1.3"


def test_a_gateway_that_wants_pss_and_a_key_without(
    finding_of: Callable[..., GatewayError], card: Card, cafile: pathlib.Path
) -> None:
    pkcs1 = Card(raw=False)
    with SimulatedGateway(fault=Fault.PSS_ONLY) as gateway:
        error = finding_of(gateway.url, who=identity(pkcs1))
        assert probe(identity(card), gateway.url, cafile=cafile).client_signature == "rsa_pss_rsae_sha256"
    assert error.finding == Finding.SIGNATURE_SCHEME
    assert "rsa_pss_rsae_sha256, " in error.message
    assert "rsa_pkcs1_sha256, " in error.message
    assert pkcs1.signatures == 0


@pytest.mark.parametrize("mode", TlsMode)
def test_a_revoked_certificate(
    finding_of: Callable[..., GatewayError], card: Card, cafile: pathlib.Path, mode: TlsMode
) -> None:
    who = identity(card)
    with SimulatedGateway(mode=mode) as gateway:
        assert probe(who, gateway.url, cafile=cafile).domains
        gateway.revoke(who.certificate.serial_number)
        assert finding_of(gateway.url, who=who).finding == Finding.CLIENT_CERTIFICATE_REVOKED
    with SimulatedGateway(mode=mode, revoked=[who.certificate.serial_number]) as gateway:
        assert finding_of(gateway.url, who=who).finding == Finding.CLIENT_CERTIFICATE_REVOKED


@pytest.mark.parametrize("mode", TlsMode)
def test_a_certificate_of_another_authority(
    finding_of: Callable[..., GatewayError], card: Card, mode: TlsMode
) -> None:
    who = identity(card)
    stranger = ca.other_ca().issue_server_certificate(KEY.public_key(), ["card.example"])
    who = Identity(who.role, who.label, who.private_key, stranger)
    with SimulatedGateway(mode=mode) as gateway:
        assert finding_of(gateway.url, who=who).finding == Finding.CLIENT_CERTIFICATE_UNKNOWN_CA


@pytest.mark.parametrize("mode", TlsMode)
def test_a_certificate_that_is_not_for_authentication(
    finding_of: Callable[..., GatewayError], card: Card, mode: TlsMode
) -> None:
    with SimulatedGateway(mode=mode) as gateway:
        error = finding_of(gateway.url, who=identity(card, KeyRole.SIGNATURE))
    assert error.finding == Finding.CLIENT_CERTIFICATE_REFUSED
    assert "unsupported_certificate" in error.message


def test_an_owner_that_is_not_known(finding_of: Callable[..., GatewayError], card: Card) -> None:
    with SimulatedGateway() as gateway:
        error = finding_of(gateway.url, who=identity(card, holder="Unknown AG (TEST)"))
    assert error.finding == Finding.FORBIDDEN
    assert "403" in error.message


def test_another_path(finding_of: Callable[..., GatewayError]) -> None:
    with SimulatedGateway() as gateway:
        error = finding_of(f"{gateway.url}/elsewhere/")
    assert error.finding == Finding.HTTP_STATUS
    assert "404" in error.message


def test_the_cards_own_error_in_mid_handshake(cafile: pathlib.Path) -> None:
    failure = CardRemoved("The card was taken out.")
    broken = Card(failure=failure)
    with SimulatedGateway() as gateway, pytest.raises(CardRemoved) as caught:
        probe(identity(broken), gateway.url, cafile=cafile)
    assert caught.value is failure
    assert broken.signatures == 1


def test_a_port_where_nobody_listens(finding_of: Callable[..., GatewayError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = finding_of(f"https://127.0.0.1:{port}")
    assert error.finding == Finding.CONNECTION_REFUSED
    assert error.outcome is Outcome.NOT_SENT
    assert error.transient


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: it answers no SYN (Linux)."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield server.getsockname()[1]
        for caller in callers:
            caller.close()


def test_a_port_that_never_answers(finding_of: Callable[..., GatewayError], full_port: int) -> None:
    error = finding_of(f"https://127.0.0.1:{full_port}", timeouts=Timeouts(connect=0.3, command=30.0))
    assert error.finding == Finding.CONNECT_TIMEOUT
    assert error.outcome is Outcome.NOT_SENT


def test_a_name_that_cannot_be_looked_up(finding_of: Callable[..., GatewayError]) -> None:
    error = finding_of(f"https://{'x' * 64}.example")
    assert error.finding == Finding.NAME_NOT_FOUND


def test_a_name_server_that_never_answers(
    finding_of: Callable[..., GatewayError], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def wait(*_args: object, **_options: object) -> list[object]:
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    try:
        error = finding_of("https://gateway.example", timeouts=BRIEF)
    finally:
        answered.set()
    assert error.finding == Finding.NAME_NOT_FOUND
    assert "did not answer" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.example",
        "https://",
        "gateway.example:443",
        "https://user:secret@gateway.example",
        "https://gateway.example/?a=b",
        "https://gateway.example/a b",
        "https://gateway.example:99999",
    ],
)
def test_a_bad_url_is_the_callers_mistake(card: Card, cafile: pathlib.Path, url: str) -> None:
    with pytest.raises(ValueError) as caught:
        probe(identity(card), url, cafile=cafile)
    assert "secret" not in str(caught.value)


def test_a_ca_file_that_cannot_be_used(card: Card, tmp_path: pathlib.Path) -> None:
    nothing = tmp_path / "empty.pem"
    nothing.write_bytes(b"")
    for file in (tmp_path / "missing.pem", nothing):
        with pytest.raises(ConfigurationError) as caught:
            probe(identity(card), "https://127.0.0.1:1", cafile=file)
        assert caught.value.file == str(file)


def test_a_client_that_says_nothing_holds_up_nobody(card: Card, cafile: pathlib.Path) -> None:
    with SimulatedGateway() as gateway, socket.create_connection(("127.0.0.1", gateway.port)):
        assert probe(identity(card), gateway.url, cafile=cafile).domains


def test_the_gateway_ends_its_threads(finding_of: Callable[..., GatewayError]) -> None:
    before = set(threading.enumerate())
    gateway = SimulatedGateway(host="localhost", fault=Fault.NO_REPLY).start()
    with socket.create_connection(("127.0.0.1", gateway.port)):
        assert finding_of(gateway.url, timeouts=BRIEF).finding == Finding.ANSWER_TIMEOUT
        gateway.close()
    gateway.close()
    gateway.close()
    assert set(threading.enumerate()) - before == set()
    with pytest.raises(RuntimeError, match="started"):
        gateway.start()


def test_the_gateway_writes_to_the_log_only(
    card: Card, cafile: pathlib.Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with SimulatedGateway() as gateway:
        probe(identity(card), gateway.url, cafile=cafile)
        with socket.create_connection(("127.0.0.1", gateway.port)) as stranger:
            stranger.sendall(b"no TLS\r\n\r\n")
            stranger.recv(1)
    assert capfd.readouterr() == ("", "")
    assert "GET /domains" in caplog.text
    assert "ended" in caplog.text


def test_a_gateway_that_was_not_started_has_no_address() -> None:
    gateway = SimulatedGateway()
    assert gateway.connections == 0
    gateway.close()
    with pytest.raises(RuntimeError, match="not started"):
        _ = gateway.url


def test_software_keys_work_too(cafile: pathlib.Path) -> None:
    """An identity is an interface: the key may be in a file."""
    key = rsa.generate_private_key(65537, 2048)
    authority = ca.telesec_ca()
    certificate = authority.issue_card_certificate(KeyRole.AUTHENTICATION, key.public_key())
    with SimulatedGateway() as gateway:
        who = Identity(KeyRole.AUTHENTICATION, "file", key, certificate, authority.chain)
        assert probe(who, gateway.url, cafile=cafile).domains
