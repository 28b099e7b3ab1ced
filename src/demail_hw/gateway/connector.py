"""The connector's proof: mutual TLS with the card's key, and the De-Mail domains that the gateway knows."""

import dataclasses
import http
import http.client
import os
import ssl
import time
import urllib.parse
from typing import Final

from cryptography import x509

from demail_hw.errors import ConfigurationError, GatewayError, ProtocolViolation
from demail_hw.gateway.domains import DOMAINS_PATH, DomainList
from demail_hw.gateway.findings import Finding, Phase, Situation
from demail_hw.gateway.handshake import CertificateVerify, NamedGroup, ServerKeyExchange, code_name
from demail_hw.gateway.judgement import UnusableAnswer, mapped, printable
from demail_hw.gateway.stream import Endpoint, HttpSocket, TlsStream, open_connection, resolve
from demail_hw.gateway.survey import explain_refusal
from demail_hw.identity import Identity
from demail_hw.interfaces import Deadline, Timeouts
from demail_hw.tls import client_context
from demail_hw.tls.policy import DEMAIL, SignatureScheme, signature_schemes

__all__ = ["ProbeResult", "parse_url", "probe", "probe_over"]

_HTTPS: Final = 443
_MAX_ANSWER: Final = 1 << 20
_MILLISECONDS: Final = 1000.0


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe saw. Names of TLS are OpenSSL's (``cipher``) or the standard's in lower case; ``None`` where TLS
    does not show it: in TLS 1.3 both signature schemes are encrypted. Times in milliseconds; ``handshake_ms``
    has the card's signature in it.
    """

    owner: str
    domains: tuple[str, ...]
    gateway: str
    server_certificate: str
    client_certificate: str
    tls_version: str
    cipher: str
    group: str | None
    server_signature: str | None
    client_signature: str | None
    connect_ms: float
    handshake_ms: float
    request_ms: float


def probe(
    identity: Identity, url: str, *, cafile: str | os.PathLike[str], timeouts: Timeouts | None = None
) -> ProbeResult:
    """Open the gateway at ``url`` with this identity under the De-Mail profile, and ask for the domains.

    ``url``: ``https://HOST[:PORT][/PATH]``; ``GET {url}/domains`` is sent. ``cafile``: the PEM file that the
    gateway's certificate is checked with. ``timeouts.connect`` is for name and TCP, ``timeouts.command`` for the
    whole, in seconds. Nothing is retried, no redirect followed, no proxy used.

    Errors: :class:`~demail_hw.errors.GatewayError` with a :class:`~demail_hw.gateway.Finding`; whatever the card
    raised, if it failed in the handshake; :class:`~demail_hw.errors.ConfigurationError` for a CA file that cannot
    be used; those of :func:`~demail_hw.tls.client_context`; ``ValueError`` for a bad URL.
    """
    place = parse_url(url)
    return _probe(
        _context(identity, cafile),
        *place,
        client=identity.certificate,
        schemes=signature_schemes(identity.private_key),
        timeouts=timeouts or Timeouts(),
    )


def _context(identity: Identity, cafile: str | os.PathLike[str]) -> ssl.SSLContext:
    try:
        return client_context(identity, cafile=cafile, profile=DEMAIL)
    except OSError as error:
        raise ConfigurationError(
            f"The CA file cannot be used: {error.strerror or error}.",
            file=os.fspath(cafile),
            remedy="Give a file with the certificates of the gateway provider's CA in PEM.",
        ) from error


def probe_over(
    context: ssl.SSLContext, url: str, *, client: x509.Certificate, timeouts: Timeouts | None = None
) -> ProbeResult:
    """The same over a context that somebody else made; ``client``: the certificate that it shows."""
    return _probe(context, *parse_url(url), client=client, schemes=(), timeouts=timeouts or Timeouts())


def _probe(
    context: ssl.SSLContext,
    endpoint: Endpoint,
    path: str,
    *,
    client: x509.Certificate,
    schemes: tuple[SignatureScheme, ...],
    timeouts: Timeouts,
) -> ProbeResult:
    situation = Situation(endpoint, schemes=schemes)
    deadline = time.monotonic() + timeouts.command
    try:
        with mapped(situation):
            return _visit(context, situation, path, client, timeouts.connect, deadline)
    except GatewayError as error:
        explained = _explained(error, situation, context, deadline)
        if explained is None:
            raise
        raise explained from error.__cause__


def _explained(
    error: GatewayError, situation: Situation, context: ssl.SSLContext, deadline: Deadline
) -> GatewayError | None:
    if error.finding != Finding.HANDSHAKE_FAILURE:
        return None
    explanation = explain_refusal(situation, context, deadline=deadline)
    return None if explanation is None else situation.error(*explanation)


def parse_url(url: str) -> tuple[Endpoint, str]:
    """Where a gateway is, and the path of its list of domains. ``ValueError`` for a bad URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("a gateway's address is https://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a gateway's address has no user, query or fragment")
    path = parts.path.rstrip("/") + DOMAINS_PATH
    if not (path.isascii() and path.isprintable() and " " not in path):
        raise ValueError("the path of a gateway's address is not percent-encoded")
    return Endpoint(parts.hostname, _HTTPS if parts.port is None else parts.port), path


def _visit(
    context: ssl.SSLContext,
    situation: Situation,
    path: str,
    client: x509.Certificate,
    connect_timeout: float,
    deadline: Deadline,
) -> ProbeResult:
    watch = _Stopwatch()
    connect_deadline = min(deadline, time.monotonic() + connect_timeout)
    addresses = resolve(situation.endpoint, deadline=connect_deadline)
    situation.phase = Phase.CONNECT
    connection = open_connection(addresses, deadline=connect_deadline)
    connect_ms = watch.lap()
    host = situation.endpoint.host
    with TlsStream(connection, context, server_hostname=host, deadline=deadline) as stream:
        situation.phase, situation.observer = Phase.HANDSHAKE, stream.observer
        stream.handshake()
        handshake_ms = watch.lap()
        situation.phase = Phase.REQUEST
        answer = _ask(stream, situation.endpoint, path)
        request_ms = watch.lap()
        return _result(situation, stream, client, answer, (connect_ms, handshake_ms, request_ms))


class _Stopwatch:
    """Laps, in milliseconds."""

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        start, self._start = self._start, time.perf_counter()
        return (self._start - start) * _MILLISECONDS


def _ask(stream: TlsStream, endpoint: Endpoint, path: str) -> DomainList:
    exchange = http.client.HTTPConnection(endpoint.host, endpoint.port)
    exchange.sock = HttpSocket(stream)
    exchange.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
    with exchange.getresponse() as response:
        _check_status(response)
        return _read_domains(response)


def _check_status(response: http.client.HTTPResponse) -> None:
    said = printable(f"{response.status} {response.reason}".rstrip())
    if response.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        raise UnusableAnswer(Finding.FORBIDDEN, said)
    if response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnusableAnswer(Finding.SERVER_ERROR, said)
    if response.status != http.HTTPStatus.OK:
        raise UnusableAnswer(Finding.HTTP_STATUS, said)


def _read_domains(response: http.client.HTTPResponse) -> DomainList:
    body = response.read(_MAX_ANSWER + 1)
    if len(body) > _MAX_ANSWER:
        raise UnusableAnswer(Finding.ANSWER_TOO_LARGE, f"{_MAX_ANSWER} bytes")
    if response.length:  # read(n) returns what there is without a word if the rest never comes
        raise http.client.IncompleteRead(body, response.length)
    if not body.strip():
        raise UnusableAnswer(Finding.ANSWER_EMPTY)
    try:
        return DomainList.decode(body)
    except ProtocolViolation as error:
        raise UnusableAnswer(Finding.ANSWER_UNEXPECTED, error.message) from error
    except ValueError as error:
        raise UnusableAnswer(Finding.ANSWER_MALFORMED, printable(str(error))) from error


def _result(
    situation: Situation,
    stream: TlsStream,
    client: x509.Certificate,
    answer: DomainList,
    times: tuple[float, float, float],
) -> ProbeResult:
    seen = situation.observer
    cipher = stream.tls.cipher()
    return ProbeResult(
        owner=answer.owner,
        domains=answer.domains,
        gateway=str(situation.endpoint),
        server_certificate=_peer_subject(stream.tls),
        client_certificate=client.subject.rfc4514_string(),
        tls_version=stream.tls.version() or "",
        cipher=cipher[0] if cipher else "",
        group=None if seen.group is None else code_name(NamedGroup, seen.group),
        server_signature=_scheme(seen.server_key_exchange),
        client_signature=_scheme(seen.certificate_verify),
        connect_ms=times[0],
        handshake_ms=times[1],
        request_ms=times[2],
    )


def _scheme(message: ServerKeyExchange | CertificateVerify | None) -> str | None:
    return None if message is None or message.scheme is None else code_name(SignatureScheme, message.scheme)


def _peer_subject(tls: ssl.SSLObject) -> str:
    certificate = tls.getpeercert(binary_form=True)
    return printable(x509.load_der_x509_certificate(certificate).subject.rfc4514_string()) if certificate else ""
