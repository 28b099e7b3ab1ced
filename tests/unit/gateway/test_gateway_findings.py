"""The table: an exception, where it was raised, what the handshake showed before -> the finding."""

import errno
import http.client
import pickle
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.errors import AlgorithmNotSupported, CardRemoved, GatewayError, HardwareError, Layer, Outcome
from demail_hw.gateway.findings import Finding, Phase, Situation
from demail_hw.gateway.handshake import ClientHello
from demail_hw.gateway.judgement import UnusableAnswer, mapped, printable
from demail_hw.gateway.stream import Endpoint
from demail_hw.tls.policy import SignatureScheme
from demail_hw_simulators import ca

PSS = SignatureScheme.RSA_PSS_RSAE_SHA256
PKCS1 = SignatureScheme.RSA_PKCS1_SHA256


def situation(phase: Phase = Phase.HANDSHAKE) -> Situation:
    return Situation(Endpoint("gateway.example", 443), phase)


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] in words (_ssl.c:1)")
    error.reason = reason
    return error


def untrusted(code: int, message: str = "in words") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def found(error: Exception, where: Situation | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught, mapped(where or situation()):
        raise error
    assert caught.value.__cause__ is error or isinstance(error, UnusableAnswer)
    return caught.value


TABLE = [
    (Phase.RESOLVE, socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Finding.NAME_NOT_FOUND),
    (Phase.RESOLVE, TimeoutError("the name server did not answer"), Finding.NAME_NOT_FOUND),
    (Phase.CONNECT, ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Finding.CONNECTION_REFUSED),
    (Phase.CONNECT, TimeoutError("timed out"), Finding.CONNECT_TIMEOUT),
    (Phase.CONNECT, TimeoutError(errno.ETIMEDOUT, "Connection timed out"), Finding.CONNECT_TIMEOUT),
    (Phase.CONNECT, OSError(errno.ENETUNREACH, "Network is unreachable"), Finding.UNREACHABLE),
    (Phase.CONNECT, ConnectionResetError(errno.ECONNRESET, "reset"), Finding.CONNECTION_RESET),
    (Phase.HANDSHAKE, ConnectionResetError(errno.ECONNRESET, "reset"), Finding.CONNECTION_RESET),
    (Phase.HANDSHAKE, BrokenPipeError(errno.EPIPE, "Broken pipe"), Finding.CONNECTION_RESET),
    (Phase.HANDSHAKE, TimeoutError("timed out"), Finding.HANDSHAKE_TIMEOUT),
    (Phase.HANDSHAKE, ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), Finding.CONNECTION_CLOSED),
    (Phase.HANDSHAKE, tls("WRONG_VERSION_NUMBER"), Finding.NOT_TLS),
    (Phase.HANDSHAKE, tls("RECORD_LAYER_FAILURE"), Finding.NOT_TLS),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), Finding.HANDSHAKE_FAILURE),
    (Phase.HANDSHAKE, tls("SSL/TLS_ALERT_HANDSHAKE_FAILURE"), Finding.HANDSHAKE_FAILURE),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_INSUFFICIENT_SECURITY"), Finding.HANDSHAKE_FAILURE),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_PROTOCOL_VERSION"), Finding.PROTOCOL_VERSION),
    (Phase.HANDSHAKE, tls("UNSUPPORTED_PROTOCOL"), Finding.PROTOCOL_VERSION),
    (Phase.REQUEST, tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), Finding.CLIENT_CERTIFICATE_MISSING),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_UNKNOWN_CA"), Finding.CLIENT_CERTIFICATE_UNKNOWN_CA),
    (Phase.REQUEST, tls("TLSV1_ALERT_UNKNOWN_CA"), Finding.CLIENT_CERTIFICATE_UNKNOWN_CA),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_CERTIFICATE_REVOKED"), Finding.CLIENT_CERTIFICATE_REVOKED),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_CERTIFICATE_EXPIRED"), Finding.CLIENT_CERTIFICATE_EXPIRED),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_BAD_CERTIFICATE"), Finding.CLIENT_CERTIFICATE_REFUSED),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"), Finding.CLIENT_CERTIFICATE_REFUSED),
    (Phase.HANDSHAKE, tls("SSLV3_ALERT_CERTIFICATE_UNKNOWN"), Finding.CLIENT_CERTIFICATE_REFUSED),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_ACCESS_DENIED"), Finding.CLIENT_CERTIFICATE_REFUSED),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_DECRYPT_ERROR"), Finding.SIGNATURE_REFUSED),
    (Phase.HANDSHAKE, tls("TLSV1_UNRECOGNIZED_NAME"), Finding.SERVER_NAME),
    (Phase.HANDSHAKE, tls("TLSV1_ALERT_INTERNAL_ERROR"), Finding.TLS_FAILURE),
    (Phase.HANDSHAKE, tls("WRONG_CURVE"), Finding.CURVE),
    (Phase.HANDSHAKE, tls("WRONG_CIPHER_RETURNED"), Finding.CIPHER_SUITE),
    (Phase.HANDSHAKE, tls("NO_SUITABLE_SIGNATURE_ALGORITHM"), Finding.SIGNATURE_SCHEME),
    (Phase.HANDSHAKE, tls("SOMETHING_NEW"), Finding.TLS_FAILURE),
    (Phase.HANDSHAKE, ssl.SSLError("no reason at all"), Finding.TLS_FAILURE),
    (Phase.HANDSHAKE, untrusted(20), Finding.SERVER_NOT_TRUSTED),
    (Phase.HANDSHAKE, untrusted(18), Finding.SERVER_NOT_TRUSTED),
    (Phase.HANDSHAKE, untrusted(19), Finding.SERVER_NOT_TRUSTED),
    (Phase.HANDSHAKE, untrusted(10), Finding.SERVER_CERTIFICATE_EXPIRED),
    (Phase.HANDSHAKE, untrusted(9), Finding.SERVER_CERTIFICATE_EXPIRED),
    (Phase.HANDSHAKE, untrusted(62), Finding.SERVER_NAME),
    (Phase.HANDSHAKE, untrusted(64), Finding.SERVER_NAME),
    (Phase.HANDSHAKE, untrusted(66), Finding.SERVER_CERTIFICATE_INVALID),
    (Phase.REQUEST, TimeoutError("timed out"), Finding.ANSWER_TIMEOUT),
    (Phase.REQUEST, http.client.RemoteDisconnected("closed"), Finding.CONNECTION_CLOSED),
    (Phase.REQUEST, http.client.BadStatusLine("220 mail ESMTP"), Finding.NOT_HTTP),
    (Phase.REQUEST, http.client.LineTooLong("status line"), Finding.NOT_HTTP),
    (Phase.REQUEST, http.client.IncompleteRead(b"abc", 5), Finding.ANSWER_INCOMPLETE),
    (Phase.REQUEST, http.client.IncompleteRead(b"abc"), Finding.ANSWER_INCOMPLETE),
    (Phase.REQUEST, UnusableAnswer(Finding.FORBIDDEN, "403 Forbidden"), Finding.FORBIDDEN),
]


@pytest.mark.parametrize(("phase", "error", "finding"), TABLE, ids=[f"{e!r}-{p.name}" for p, e, _ in TABLE])
def test_each_failure_is_its_finding(phase: Phase, error: Exception, finding: Finding) -> None:
    gateway_error = found(error, situation(phase))
    assert gateway_error.finding == finding
    assert gateway_error.layer is Layer.GATEWAY
    assert gateway_error.remedy


@pytest.mark.parametrize("finding", Finding)
def test_every_finding_has_a_sentence_and_a_remedy(finding: Finding) -> None:
    error = situation().error(finding, "DETAIL")
    assert "gateway.example" in error.message
    assert "{" not in error.message
    assert error.message.endswith((".", "DETAIL"))
    assert error.remedy.endswith(".")
    assert finding.startswith("gateway-")


def test_nothing_was_sent_where_no_connection_came_about() -> None:
    outcomes = {found(error, situation(phase)).outcome for phase, error, _ in TABLE[:6]}
    assert outcomes == {Outcome.NOT_SENT}
    assert found(TimeoutError()).outcome is Outcome.UNKNOWN
    assert found(tls("SSLV3_ALERT_CERTIFICATE_REVOKED")).outcome is Outcome.REFUSED


def test_only_what_may_pass_is_transient() -> None:
    assert found(TimeoutError()).transient
    assert found(UnusableAnswer(Finding.SERVER_ERROR)).transient
    assert not found(tls("SSLV3_ALERT_CERTIFICATE_REVOKED")).transient
    assert not found(UnusableAnswer(Finding.FORBIDDEN)).transient


@pytest.mark.parametrize(
    ("sent", "finding"),
    [
        (None, Finding.HANDSHAKE_FAILURE),
        ((), Finding.CLIENT_CERTIFICATE_MISSING),
        ((b"der",), Finding.CLIENT_CERTIFICATE_REFUSED),
    ],
)
def test_when_a_handshake_failure_came_tells_what_it_is_about(
    sent: tuple[bytes, ...] | None, finding: Finding
) -> None:
    where = situation()
    where.observer.client_certificates = sent
    assert found(tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), where).finding == finding


def test_a_version_refused_names_what_was_offered_and_what_the_key_lacks() -> None:
    where = situation()
    where.observer.client_hello = ClientHello(versions=(0x0303,), suites=(0xC028,), groups=(25,), schemes=(PSS,))
    where.schemes = (PKCS1,)
    error = found(tls("TLSV1_ALERT_PROTOCOL_VERSION"), where)
    assert "tls_1_2; the key cannot sign with RSA-PSS, which TLS 1.3 demands" in error.message
    where.schemes = (PSS,)
    assert "RSA-PSS" not in found(tls("TLSV1_ALERT_PROTOCOL_VERSION"), where).message
    assert "tls_1_2, 1 cipher suites, curves secp521r1" in found(tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), where).message


def test_a_certificate_refused_is_described() -> None:
    where = situation()
    certificate = ca.other_ca().issue_server_certificate(
        ca.load_test_key("gateway-server").public_key(), ["elsewhere.example", "127.0.0.1"]
    )
    where.observer.server_certificates = (certificate.public_bytes(Encoding.DER),)
    assert "issued by CN=Simulated root that nobody trusts" in found(untrusted(20), where).message
    assert "it is for elsewhere.example, 127.0.0.1" in found(untrusted(62), where).message
    assert "valid from 2025-01-01 to 2049-12-31" in found(untrusted(10), where).message
    where.observer.server_certificates = (ca.other_ca().root.public_bytes(Encoding.DER),)
    assert "it names none" in found(untrusted(62), where).message
    where.observer.server_certificates = (b"not a certificate",)
    assert found(untrusted(20), where).finding == Finding.SERVER_NOT_TRUSTED


def test_the_cards_own_error_comes_out_as_what_it_was() -> None:
    cause = ConnectionResetError("the USB server went away")
    card = CardRemoved("The card was taken out.")
    card.__cause__ = cause
    error = tls("INTERNAL_ERROR")
    error.__cause__ = card
    with pytest.raises(CardRemoved) as caught, mapped(situation()):
        raise error
    assert caught.value is card
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is error


def test_an_alert_is_the_gateways_word_whatever_stands_behind_it() -> None:
    error = tls("TLSV1_ALERT_PROTOCOL_VERSION")
    error.__cause__ = AlgorithmNotSupported("The key does no PSS.", layer=Layer.TLS)
    assert found(error).finding == Finding.PROTOCOL_VERSION


def test_a_curve_that_only_tls13_takes_is_a_finding_of_its_own() -> None:
    where = situation()
    where.schemes = (SignatureScheme.ECDSA_SECP256R1_SHA256,)
    where.observer.client_hello = ClientHello(versions=(0x0304,), suites=(0x1302,), groups=(25,), schemes=())
    error = tls("TLSV1_ALERT_PROTOCOL_VERSION")
    assert "RSA-PSS" not in found(error, where).message
    error.__cause__ = AlgorithmNotSupported("The key is on this curve.", layer=Layer.TLS)
    assert found(error, where).finding == Finding.KEY_CURVE
    assert found(error, where).message.endswith(": The key is on this curve.")


def test_a_key_that_cannot_do_what_was_asked_is_a_finding() -> None:
    error = tls("CALLBACK_FAILED")
    error.__cause__ = AlgorithmNotSupported("It wants this, the key does that.", layer=Layer.TLS)
    assert found(error).finding == Finding.SIGNATURE_SCHEME
    assert found(error).message.endswith(": It wants this, the key does that.")


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), mapped(situation()):
        raise KeyError
    with pytest.raises(HardwareError, match="taken out"), mapped(situation()):
        raise CardRemoved("The card was taken out.")


def test_a_gateway_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(situation().error(Finding.CURVE, "x")))
    assert (error.finding, error.outcome, error.remedy != "") == (Finding.CURVE, Outcome.REFUSED, True)


def test_a_peers_text_is_fit_for_a_terminal() -> None:
    assert printable("a\x1b[31m\r\nb") == "a?[31m??b"
    assert len(printable("x" * 1000)) == 200
