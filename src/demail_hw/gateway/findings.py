"""What a probe can find, as a stable code with a sentence and a remedy."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from demail_hw.errors import GatewayError, Outcome
from demail_hw.gateway.handshake import HandshakeObserver
from demail_hw.gateway.stream import Endpoint
from demail_hw.tls.policy import SignatureScheme

__all__ = ["Finding", "Phase", "Situation"]


class Finding(enum.StrEnum):
    """What is wrong, as a stable code."""

    NAME_NOT_FOUND = "gateway-name-not-found"
    CONNECTION_REFUSED = "gateway-connection-refused"
    CONNECT_TIMEOUT = "gateway-connect-timeout"
    UNREACHABLE = "gateway-unreachable"
    CONNECTION_RESET = "gateway-connection-reset"
    CONNECTION_CLOSED = "gateway-connection-closed"
    HANDSHAKE_TIMEOUT = "gateway-handshake-timeout"
    NOT_TLS = "gateway-not-tls"
    HANDSHAKE_FAILURE = "gateway-handshake-failure"
    CIPHER_SUITE = "gateway-cipher-suite"
    CURVE = "gateway-curve"
    PROTOCOL_VERSION = "gateway-protocol-version"
    KEY_CURVE = "gateway-key-curve"
    SIGNATURE_SCHEME = "gateway-signature-scheme"
    SIGNATURE_REFUSED = "gateway-signature-refused"
    CLIENT_CERTIFICATE_MISSING = "gateway-client-certificate-missing"
    CLIENT_CERTIFICATE_UNKNOWN_CA = "gateway-client-certificate-unknown-ca"
    CLIENT_CERTIFICATE_REVOKED = "gateway-client-certificate-revoked"
    CLIENT_CERTIFICATE_EXPIRED = "gateway-client-certificate-expired"
    CLIENT_CERTIFICATE_REFUSED = "gateway-client-certificate-refused"
    SERVER_NAME = "gateway-server-name"
    SERVER_NOT_TRUSTED = "gateway-server-not-trusted"
    SERVER_CERTIFICATE_EXPIRED = "gateway-server-certificate-expired"
    SERVER_CERTIFICATE_INVALID = "gateway-server-certificate-invalid"
    TLS_FAILURE = "gateway-tls-failure"
    ANSWER_TIMEOUT = "gateway-answer-timeout"
    NOT_HTTP = "gateway-not-http"
    FORBIDDEN = "gateway-forbidden"
    HTTP_STATUS = "gateway-http-status"
    SERVER_ERROR = "gateway-server-error"
    ANSWER_EMPTY = "gateway-answer-empty"
    ANSWER_INCOMPLETE = "gateway-answer-incomplete"
    ANSWER_TOO_LARGE = "gateway-answer-too-large"
    ANSWER_MALFORMED = "gateway-answer-malformed"
    ANSWER_UNEXPECTED = "gateway-answer-unexpected"


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """``text`` takes {gateway}, {host} and {detail}. ``outcome``: may the card have signed?"""

    text: str
    remedy: str
    outcome: Outcome = Outcome.REFUSED
    transient: bool = False


_ASK_OPERATOR: Final = "Ask the gateway's operator; nothing on this side mends it."
_REGISTER: Final = "Ask the De-Mail provider to register the certificate of this card."
_OWN_REASONS: Final = "Compare the gateway's TLS settings with the profile, and the policy of the local OpenSSL."

_ENTRIES: Final[Mapping[Finding, _Entry]] = {
    Finding.NAME_NOT_FOUND: _Entry(
        "No address is known for the gateway {host}: {detail}.",
        "Check the name, and the name server of this machine.",
        Outcome.NOT_SENT,
        transient=True,
    ),
    Finding.CONNECTION_REFUSED: _Entry(
        "The gateway {gateway} refuses the connection.",
        "Check host and port; if they are right, the gateway is down or a firewall rejects the connection.",
        Outcome.NOT_SENT,
        transient=True,
    ),
    Finding.CONNECT_TIMEOUT: _Entry(
        "The gateway {gateway} did not take the connection in time.",
        "Check that the firewall lets this machine out to that port.",
        Outcome.NOT_SENT,
        transient=True,
    ),
    Finding.UNREACHABLE: _Entry(
        "The gateway {gateway} cannot be reached: {detail}.",
        "Check the network of this machine.",
        Outcome.NOT_SENT,
        transient=True,
    ),
    Finding.CONNECTION_RESET: _Entry(
        "The connection to the gateway {gateway} was reset {detail}.",
        "Look for a firewall or proxy on the way that cuts TLS connections, and in the gateway's log.",
        Outcome.UNKNOWN,
        transient=True,
    ),
    Finding.CONNECTION_CLOSED: _Entry(
        "The gateway {gateway} closed the connection without an answer {detail}.",
        "Look in the gateway's log; some gateways close when they refuse a client.",
        Outcome.UNKNOWN,
        transient=True,
    ),
    Finding.HANDSHAKE_TIMEOUT: _Entry(
        "The gateway {gateway} did not finish the TLS handshake in time.",
        "Check that it is a TLS server, and that nothing on the way holds packets back (MTU, proxy).",
        Outcome.UNKNOWN,
        transient=True,
    ),
    Finding.NOT_TLS: _Entry(
        "The gateway {gateway} does not speak TLS ({detail}).",
        "Check the port: it is another service, or a proxy that answers itself.",
    ),
    Finding.HANDSHAKE_FAILURE: _Entry(
        "The gateway {gateway} found nothing acceptable in what was offered: {detail}.",
        "Ask the gateway's operator for the suites, curves and signature schemes that it takes.",
    ),
    Finding.CIPHER_SUITE: _Entry(
        "The cipher suites offered are none that the gateway {gateway} takes: {detail}.",
        "Have the suite of the profile enabled at the gateway, or choose a profile that has the gateway's suite.",
    ),
    Finding.CURVE: _Entry(
        "The curves offered are none that the gateway {gateway} takes: {detail}.",
        "Have the curve of the profile enabled at the gateway, or choose a profile that has the gateway's curve.",
    ),
    Finding.PROTOCOL_VERSION: _Entry(
        "The gateway {gateway} does not take the TLS versions offered ({detail}).",
        "If it insists on TLS 1.3, the card's key must be able to sign with RSA-PSS: use a key that can "
        "(the authentication key), or have TLS 1.2 enabled at the gateway.",
    ),
    Finding.KEY_CURVE: _Entry(
        "The gateway {gateway} does not take TLS 1.3, and the card's key cannot be used without: {detail}.",
        "Use a card with an RSA key, or have TLS 1.3 enabled at the gateway.",
    ),
    Finding.SIGNATURE_SCHEME: _Entry(
        "The card's key can sign in none of the ways that the gateway {gateway} takes of a client: {detail}.",
        "Use a key of the card that can (a raw RSA key does RSA-PSS), or have RSA PKCS#1 v1.5 with SHA-256 "
        "enabled at the gateway.",
    ),
    Finding.SIGNATURE_REFUSED: _Entry(
        "The gateway {gateway} does not accept the signature of the handshake.",
        "Check that certificate and key of the card belong together.",
    ),
    Finding.CLIENT_CERTIFICATE_MISSING: _Entry(
        "The gateway {gateway} demands a client certificate and got none.",
        "Use the card's authentication key, and check that its certificate is on the card.",
    ),
    Finding.CLIENT_CERTIFICATE_UNKNOWN_CA: _Entry(
        "The gateway {gateway} does not know the issuer of the card's certificate.",
        "Send the chain of the card's certificate along, and ask the provider whether it trusts this issuer.",
    ),
    Finding.CLIENT_CERTIFICATE_REVOKED: _Entry(
        "The gateway {gateway} refuses the card's certificate: it is revoked.",
        "Order a new card; this certificate stays revoked.",
    ),
    Finding.CLIENT_CERTIFICATE_EXPIRED: _Entry(
        "The gateway {gateway} refuses the card's certificate: it has expired.",
        "Order a new card, or check the gateway's clock.",
    ),
    Finding.CLIENT_CERTIFICATE_REFUSED: _Entry(
        "The gateway {gateway} refuses the card's certificate ({detail}).",
        "Check that it is the authentication certificate (client authentication in its key usage). " + _REGISTER,
    ),
    Finding.SERVER_NAME: _Entry(
        "The certificate of the gateway {gateway} is for another name: {detail}.",
        "Use the name that is in the certificate; if it is the right one, somebody else answers at this address.",
    ),
    Finding.SERVER_NOT_TRUSTED: _Entry(
        "The certificate of the gateway {gateway} comes from an issuer that is not trusted here: {detail}.",
        "Give the CA file of the gateway's provider; if it is the right one, somebody else answers at this address.",
    ),
    Finding.SERVER_CERTIFICATE_EXPIRED: _Entry(
        "The certificate of the gateway {gateway} is not valid now: {detail}.",
        "Check the clock of this machine; if it is right, the gateway's operator has to renew the certificate.",
    ),
    Finding.SERVER_CERTIFICATE_INVALID: _Entry(
        "The certificate of the gateway {gateway} is not acceptable: {detail}.",
        _ASK_OPERATOR,
    ),
    Finding.TLS_FAILURE: _Entry("TLS with the gateway {gateway} failed: {detail}.", _OWN_REASONS),
    Finding.ANSWER_TIMEOUT: _Entry(
        "The gateway {gateway} did not answer the request in time.",
        "Try again later; if it stays so, ask the gateway's operator.",
        Outcome.UNKNOWN,
        transient=True,
    ),
    Finding.NOT_HTTP: _Entry(
        "What the gateway {gateway} answers is not HTTP ({detail}).", "Check the port: it is another service."
    ),
    Finding.FORBIDDEN: _Entry(
        "The gateway {gateway} knows the card's certificate to be good, but grants its owner nothing ({detail}).",
        _REGISTER,
    ),
    Finding.HTTP_STATUS: _Entry(
        "The gateway {gateway} answered {detail}.", "Check the path of the gateway's address."
    ),
    Finding.SERVER_ERROR: _Entry(
        "The gateway {gateway} has a fault of its own: it answered {detail}.",
        "Try again later; if it stays so, ask the gateway's operator.",
        transient=True,
    ),
    Finding.ANSWER_EMPTY: _Entry("The gateway {gateway} answered with nothing.", _ASK_OPERATOR),
    Finding.ANSWER_INCOMPLETE: _Entry(
        "The answer of the gateway {gateway} ended early: {detail}.", "Try again later.", transient=True
    ),
    Finding.ANSWER_TOO_LARGE: _Entry("The answer of the gateway {gateway} is larger than {detail}.", _ASK_OPERATOR),
    Finding.ANSWER_MALFORMED: _Entry("The answer of the gateway {gateway} is not JSON: {detail}.", _ASK_OPERATOR),
    Finding.ANSWER_UNEXPECTED: _Entry(
        "The answer of the gateway {gateway} is not a list of De-Mail domains: {detail}", _ASK_OPERATOR
    ),
}


class Phase(enum.Enum):
    """How far the probe had come."""

    RESOLVE = "while its name was looked up"
    CONNECT = "while connecting"
    HANDSHAKE = "in the TLS handshake"
    REQUEST = "after the TLS handshake"


@dataclasses.dataclass(slots=True)
class Situation:
    """Where a probe stands: what an exception is judged by. ``schemes``: those that the key can sign, if known."""

    endpoint: Endpoint
    phase: Phase = Phase.RESOLVE
    observer: HandshakeObserver = dataclasses.field(default_factory=HandshakeObserver)
    schemes: tuple[SignatureScheme, ...] = ()

    def error(self, finding: Finding, detail: str = "") -> GatewayError:
        """The error of this finding, here."""
        entry = _ENTRIES[finding]
        return GatewayError(
            entry.text.format(gateway=self.endpoint, host=self.endpoint.host, detail=detail),
            finding=finding,
            remedy=entry.remedy,
            transient=entry.transient,
            outcome=entry.outcome,
        )
