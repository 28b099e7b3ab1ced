"""From an exception in DNS, TCP, TLS or HTTP to the finding that it stands for.

Foreign exceptions of this room end here, in :func:`mapped`. What an alert says is only the gateway's word; what the
handshake showed before (:mod:`~demail_hw.gateway.handshake`) says the rest.
"""

import contextlib
import enum
import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias, TypeGuard

from cryptography import x509

from demail_hw.errors import AlgorithmNotSupported, HardwareError, Layer
from demail_hw.gateway.findings import Finding, Phase, Situation
from demail_hw.gateway.handshake import AlertDescription, HandshakeObserver, NamedGroup, TlsVersion, code_name
from demail_hw.tls.policy import is_good_for_tls13

__all__ = ["UnusableAnswer", "mapped", "printable"]


class UnusableAnswer(Exception):
    """The gateway answered, and the answer is of no use."""

    def __init__(self, finding: Finding, detail: str = "") -> None:
        super().__init__(finding, detail)
        self.finding = finding
        self.detail = detail


@contextlib.contextmanager
def mapped(situation: Situation) -> Iterator[None]:
    """Every failure comes out as a ``GatewayError``; one of the card in mid-handshake as what it was."""
    try:
        yield
    except (OSError, http.client.HTTPException, UnusableAnswer) as error:
        card = _card_failure(error)
        if card is not None:
            # Its own cause is kept; the TLS error that it broke off stands in __context__.
            raise card  # noqa: B904
        finding, detail = _find(error, situation)
        raise situation.error(finding, detail) from (error.__cause__ if isinstance(error, UnusableAnswer) else error)


def printable(text: str) -> str:
    """A peer's text, fit for a terminal: no control characters, 200 characters at most."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])


def _card_failure(error: BaseException) -> HardwareError | None:
    """The card's own error behind a broken handshake, of which OpenSSL's is only the echo.

    An alert is the gateway's word and not the card's; and that the key can't do what was asked (layer TLS) is a
    finding about the two of them.
    """
    if not isinstance(error, ssl.SSLError) or _alert(error) is not None:
        return None
    cause = error.__cause__
    while cause is not None and not isinstance(cause, HardwareError):
        cause = cause.__cause__
    return None if cause is None or cause.layer is Layer.TLS else cause


_Found: TypeAlias = tuple[Finding, str]


def _find(error: Exception, situation: Situation) -> _Found:
    for kind, judge in _JUDGES:
        if isinstance(error, kind):
            return judge(error, situation)
    raise AssertionError(error)


# --- TCP ---------------------------------------------------------------------------------------------------------

_TIMEOUTS: Final[Mapping[Phase, Finding]] = {
    Phase.RESOLVE: Finding.NAME_NOT_FOUND,
    Phase.CONNECT: Finding.CONNECT_TIMEOUT,
    Phase.HANDSHAKE: Finding.HANDSHAKE_TIMEOUT,
    Phase.REQUEST: Finding.ANSWER_TIMEOUT,
}


def _timeout(error: Exception, situation: Situation) -> _Found:
    return _TIMEOUTS[situation.phase], printable(str(error))


def _os_error(error: Exception, _situation: Situation) -> _Found:
    assert isinstance(error, OSError)
    return Finding.UNREACHABLE, printable(error.strerror or str(error))


def _name(error: Exception, situation: Situation) -> _Found:
    return Finding.NAME_NOT_FOUND, _os_error(error, situation)[1]


def _refused(_error: Exception, _situation: Situation) -> _Found:
    return Finding.CONNECTION_REFUSED, ""


def _reset(_error: Exception, situation: Situation) -> _Found:
    return Finding.CONNECTION_RESET, situation.phase.value


def _closed(_error: Exception, situation: Situation) -> _Found:
    return Finding.CONNECTION_CLOSED, situation.phase.value


# --- TLS ---------------------------------------------------------------------------------------------------------

_ALERT: Final = re.compile(r"(?:ALERT_|TLSV1_(?!ALERT_))([A-Z_]+)$")
"""OpenSSL's reason for an alert of the peer: SSLV3_ALERT_, TLSV1_ALERT_, TLSV13_ALERT_ or TLSV1_, and its name."""

_ALERTS: Final[Mapping[AlertDescription, Finding]] = {
    AlertDescription.HANDSHAKE_FAILURE: Finding.HANDSHAKE_FAILURE,
    AlertDescription.INSUFFICIENT_SECURITY: Finding.HANDSHAKE_FAILURE,
    AlertDescription.PROTOCOL_VERSION: Finding.PROTOCOL_VERSION,
    AlertDescription.CERTIFICATE_REQUIRED: Finding.CLIENT_CERTIFICATE_MISSING,
    AlertDescription.UNKNOWN_CA: Finding.CLIENT_CERTIFICATE_UNKNOWN_CA,
    AlertDescription.CERTIFICATE_REVOKED: Finding.CLIENT_CERTIFICATE_REVOKED,
    AlertDescription.CERTIFICATE_EXPIRED: Finding.CLIENT_CERTIFICATE_EXPIRED,
    AlertDescription.BAD_CERTIFICATE: Finding.CLIENT_CERTIFICATE_REFUSED,
    AlertDescription.UNSUPPORTED_CERTIFICATE: Finding.CLIENT_CERTIFICATE_REFUSED,
    AlertDescription.CERTIFICATE_UNKNOWN: Finding.CLIENT_CERTIFICATE_REFUSED,
    AlertDescription.ACCESS_DENIED: Finding.CLIENT_CERTIFICATE_REFUSED,
    AlertDescription.DECRYPT_ERROR: Finding.SIGNATURE_REFUSED,
    AlertDescription.UNRECOGNIZED_NAME: Finding.SERVER_NAME,
}

_LOCAL_REASONS: Final[Mapping[str, Finding]] = {
    "WRONG_VERSION_NUMBER": Finding.NOT_TLS,
    "HTTP_REQUEST": Finding.NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": Finding.NOT_TLS,
    "RECORD_LAYER_FAILURE": Finding.NOT_TLS,
    "UNKNOWN_PROTOCOL": Finding.NOT_TLS,
    "UNSUPPORTED_PROTOCOL": Finding.PROTOCOL_VERSION,
    "WRONG_SSL_VERSION": Finding.PROTOCOL_VERSION,
    "WRONG_CIPHER_RETURNED": Finding.CIPHER_SUITE,
    "UNKNOWN_CIPHER_RETURNED": Finding.CIPHER_SUITE,
    "WRONG_CURVE": Finding.CURVE,
    "BAD_KEY_SHARE": Finding.CURVE,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": Finding.SIGNATURE_SCHEME,
}


def _tls(error: Exception, situation: Situation) -> _Found:
    assert isinstance(error, ssl.SSLError)
    alert = _alert(error)
    if alert is not None:
        return _judge_alert(alert, situation, error.__cause__)
    if isinstance(error.__cause__, AlgorithmNotSupported):
        return Finding.SIGNATURE_SCHEME, error.__cause__.message.rstrip(".")
    reason = _reason(error)
    finding = _LOCAL_REASONS.get(reason, Finding.TLS_FAILURE)
    detail = _DETAILS.get(finding)
    return finding, detail(situation) if detail else printable(reason or str(error)).lower()


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name of the reason; an error that Python itself made has none."""
    return getattr(error, "reason", None) or ""


def _alert(error: ssl.SSLError) -> AlertDescription | None:
    """The alert of the peer that the error stands for, if it does."""
    match = _ALERT.search(_reason(error))
    return AlertDescription.__members__.get(match[1]) if match else None


def _judge_alert(alert: AlertDescription, situation: Situation, cause: BaseException | None) -> _Found:
    finding = _ALERTS.get(alert, Finding.TLS_FAILURE)
    if finding is Finding.PROTOCOL_VERSION and _is_about_curve(cause, situation):
        return Finding.KEY_CURVE, cause.message.rstrip(".")
    said = f"its alert says {alert.name.lower()}"
    if finding is Finding.HANDSHAKE_FAILURE:
        finding = _judge_refusal(situation.observer)
    detail = _DETAILS.get(finding)
    return finding, detail(situation) if detail else said


def _is_about_curve(cause: BaseException | None, situation: Situation) -> TypeGuard[AlgorithmNotSupported]:
    """Only one version was offered because of the key: of one that is good for TLS 1.3 it is the curve."""
    return isinstance(cause, AlgorithmNotSupported) and is_good_for_tls13(situation.schemes)


def _judge_refusal(observer: HandshakeObserver) -> Finding:
    """In TLS 1.2 one alert stands for many things (RFC 5246, 7.2.2); when it came tells which."""
    sent = observer.client_certificates
    if sent is None:
        return Finding.HANDSHAKE_FAILURE
    return Finding.CLIENT_CERTIFICATE_REFUSED if sent else Finding.CLIENT_CERTIFICATE_MISSING


def _names(kind: type[enum.IntEnum], codes: Iterable[int]) -> str:
    return ", ".join(code_name(kind, code) for code in codes)


def _offered(situation: Situation) -> str:
    hello = situation.observer.client_hello
    if hello is None:
        return "what that was is not known"
    versions, groups = _names(TlsVersion, hello.versions), _names(NamedGroup, hello.groups)
    return f"{versions}, {len(hello.suites)} cipher suites, curves {groups}"


def _offered_versions(situation: Situation) -> str:
    hello = situation.observer.client_hello
    versions = _names(TlsVersion, hello.versions) if hello else "which is not known"
    if situation.schemes and not is_good_for_tls13(situation.schemes):
        return f"{versions}; the key cannot sign with RSA-PSS, which TLS 1.3 demands"
    return versions


_DETAILS: Final[Mapping[Finding, Callable[[Situation], str]]] = {
    Finding.HANDSHAKE_FAILURE: _offered,
    Finding.PROTOCOL_VERSION: _offered_versions,
}

_VERIFY_CODES: Final[Mapping[int, Finding]] = {
    2: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
    9: Finding.SERVER_CERTIFICATE_EXPIRED,  # X509_V_ERR_CERT_NOT_YET_VALID
    10: Finding.SERVER_CERTIFICATE_EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    18: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    19: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    20: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
    27: Finding.SERVER_NOT_TRUSTED,  # X509_V_ERR_CERT_UNTRUSTED
    62: Finding.SERVER_NAME,  # X509_V_ERR_HOSTNAME_MISMATCH
    64: Finding.SERVER_NAME,  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
"""openssl/x509_vfy.h"""


def _server_certificate(error: Exception, situation: Situation) -> _Found:
    assert isinstance(error, ssl.SSLCertVerificationError)
    finding = _VERIFY_CODES.get(error.verify_code, Finding.SERVER_CERTIFICATE_INVALID)
    detail = printable(error.verify_message).rstrip(".")
    certificate = _shown_certificate(situation.observer)
    return finding, f"{detail}; {_ABOUT.get(finding, _issuer)(certificate)}" if certificate else detail


def _shown_certificate(observer: HandshakeObserver) -> x509.Certificate | None:
    """The gateway's certificate, if it can be seen: TLS 1.3 hides it, and Python before 3.13 has it not."""
    if not observer.server_certificates:
        return None
    try:
        return x509.load_der_x509_certificate(observer.server_certificates[0])
    except ValueError:
        return None


def _issuer(certificate: x509.Certificate) -> str:
    return f"issued by {printable(certificate.issuer.rfc4514_string())}"


def _subject_names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "it names none"
    return f"it is for {printable(', '.join(str(name.value) for name in names))}"


def _validity(certificate: x509.Certificate) -> str:
    return f"valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"


_ABOUT: Final[Mapping[Finding, Callable[[x509.Certificate], str]]] = {
    Finding.SERVER_NAME: _subject_names,
    Finding.SERVER_CERTIFICATE_EXPIRED: _validity,
}


# --- HTTP and JSON -----------------------------------------------------------------------------------------------


def _incomplete(error: Exception, _situation: Situation) -> _Found:
    assert isinstance(error, http.client.IncompleteRead)
    missing = "more" if error.expected is None else f"{error.expected} bytes"
    return Finding.ANSWER_INCOMPLETE, f"{len(error.partial)} bytes came, {missing} were to follow"


def _http(error: Exception, _situation: Situation) -> _Found:
    return Finding.NOT_HTTP, printable(str(error) or type(error).__name__)


def _unusable(error: Exception, _situation: Situation) -> _Found:
    assert isinstance(error, UnusableAnswer)
    return error.finding, error.detail


_JUDGES: Final[tuple[tuple[type[Exception], Callable[[Exception, Situation], _Found]], ...]] = (
    (UnusableAnswer, _unusable),
    (ssl.SSLCertVerificationError, _server_certificate),
    (ssl.SSLEOFError, _closed),
    (ssl.SSLError, _tls),
    (http.client.RemoteDisconnected, _closed),
    (socket.gaierror, _name),
    (TimeoutError, _timeout),
    (ConnectionRefusedError, _refused),
    (ConnectionError, _reset),
    (OSError, _os_error),
    (http.client.IncompleteRead, _incomplete),
    (http.client.HTTPException, _http),
)
"""The first that fits: a subclass stands above its class."""
