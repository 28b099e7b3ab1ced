"""A simulated De-Mail gateway: HTTPS with the client certificate of a card, and the domains of its owner.

The interface of the real gateways is not public (BSI TR 01201 part 1.4 leaves it to the provider), so this one is
**ours**: ``GET /domains`` answers ``{"owner": "...", "domains": ["...", ...]}``. What is real is the transport: TLS
with a required client certificate (TR 01201, gateways), and the profile that such gateways are known for: TLS 1.2,
ECDHE-RSA-AES256-SHA384, secp521r1, and nothing else.

A :class:`Fault` makes it fail on purpose, each in one way.
"""

import contextlib
import enum
import http
import http.server
import json
import logging
import pathlib
import socket
import socketserver
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias

from cryptography import x509
from cryptography.x509.oid import NameOID

from demail_hw.address import netloc
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.structures import SslCtrl
from demail_hw_simulators import ca

__all__ = ["DEFAULT_DOMAINS", "DOMAINS_PATH", "Fault", "SimulatedGateway", "TlsMode"]

DEFAULT_DOMAINS: Final = ("beispiel.de-mail.de", "rechnung.beispiel.de-mail.de", "personal.beispiel.de-mail.de")
"""The domains of the default card's holder."""

DOMAINS_PATH: Final = "/domains"

_SUITE: Final = "ECDHE-RSA-AES256-SHA384"
_CURVE: Final = "secp521r1"
_IDLE: Final = 10.0
"""How long a client may be silent, in seconds."""
_FAREWELL: Final = 1.0
"""How long the server waits for the client to read the last bytes, in seconds."""
_POLL: Final = 0.05
_DRIP: Final = 0.02
_CHUNK: Final = 4096
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close with a reset."""

_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]
_Peer: TypeAlias = tuple[str, int] | str
"""What socketserver hands round; here always a stream socket."""

_log = logging.getLogger(__name__)


class TlsMode(enum.Enum):
    """Which TLS the gateway speaks, alone."""

    TLS12 = ssl.TLSVersion.TLSv1_2
    TLS13 = ssl.TLSVersion.TLSv1_3


class Fault(enum.Enum):
    """What the gateway does wrong on purpose."""

    NONE = "none"
    RESET = "reset"
    """It resets the connection instead of a handshake."""
    SILENT = "silent"
    """It takes the connection and never says a word."""
    NOT_TLS = "not-tls"
    """It speaks HTTP without TLS."""
    WRONG_CA = "wrong-ca"
    """Its certificate comes from an authority that nobody trusts."""
    WRONG_HOST = "wrong-host"
    """Its certificate is for another name."""
    OTHER_SUITE = "other-suite"
    """It takes only ECDHE-RSA-AES128-GCM-SHA256."""
    OTHER_CURVE = "other-curve"
    """It takes only prime256v1."""
    PSS_ONLY = "pss-only"
    """It takes only RSA-PSS of the client."""
    NO_REPLY = "no-reply"
    """It never answers the request."""
    SLOW_REPLY = "slow-reply"
    """It answers a byte at a time, for ever."""
    HANG_UP = "hang-up"
    """It closes the connection after the request."""
    NOT_HTTP = "not-http"
    """What it answers is not HTTP."""
    HTTP_500 = "http-500"
    EMPTY_REPLY = "empty-reply"
    """Status 200, no body."""
    MALFORMED_JSON = "malformed-json"
    WRONG_JSON = "wrong-json"
    """Good JSON, but not what was agreed."""
    TRUNCATED_REPLY = "truncated-reply"
    """It announces more than it sends."""
    TOO_LARGE = "too-large"
    """2 MiB of answer."""


class _Shape(NamedTuple):
    """What the TLS of a gateway looks like; a fault changes one thing."""

    suite: str = _SUITE
    curve: str = _CURVE
    authority: Callable[[], ca.GatewayCa] = ca.gateway_ca
    names: tuple[str, ...] = ()
    client_schemes: bytes = b""


_SHAPES: Final[Mapping[Fault, _Shape]] = {
    Fault.WRONG_CA: _Shape(authority=ca.other_ca),
    Fault.WRONG_HOST: _Shape(names=("elsewhere.example",)),
    Fault.OTHER_SUITE: _Shape(suite="ECDHE-RSA-AES128-GCM-SHA256"),
    Fault.OTHER_CURVE: _Shape(curve="prime256v1"),
    Fault.PSS_ONLY: _Shape(client_schemes=b"rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512"),
}


class _Reply(NamedTuple):
    """An answer; ``missing``: bytes that are announced and not sent."""

    status: http.HTTPStatus
    body: bytes
    missing: int = 0

    @classmethod
    def of(cls, status: http.HTTPStatus, value: object) -> Self:
        """With this value as JSON."""
        return cls(status, json.dumps(value, ensure_ascii=False).encode())


_REPLIES: Final[Mapping[Fault, _Reply]] = {
    Fault.HTTP_500: _Reply.of(http.HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "on purpose"}),
    Fault.EMPTY_REPLY: _Reply(http.HTTPStatus.OK, b""),
    Fault.MALFORMED_JSON: _Reply(http.HTTPStatus.OK, b'{"owner": "Beispiel'),
    Fault.WRONG_JSON: _Reply.of(http.HTTPStatus.OK, {"owner": ca.DEFAULT_HOLDER, "domains": 3}),
    Fault.TRUNCATED_REPLY: _Reply(http.HTTPStatus.OK, b'{"owner": "', missing=100),
    Fault.TOO_LARGE: _Reply(http.HTTPStatus.OK, b" " * (2 << 20)),
}


class SimulatedGateway:
    """A De-Mail gateway on a TCP port of its own; ``start`` it, or use it as a context manager.

    ``domains``: owner (the O of the client certificate) -> domains. ``revoked``: serial numbers of card
    certificates that are on the revocation list from the start. ``names``: what its certificate says.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        mode: TlsMode = TlsMode.TLS12,
        domains: Mapping[str, Sequence[str]] | None = None,
        revoked: Iterable[int] = (),
        fault: Fault = Fault.NONE,
        names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    ) -> None:
        self.mode = mode
        self.fault = fault
        self.domains = {ca.DEFAULT_HOLDER: DEFAULT_DOMAINS} if domains is None else dict(domains)
        self._names = tuple(names) if host in names else (*names, host)
        self._revoked = set(revoked)
        self._address = host, port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen. ``OSError`` if the port is taken, ``RuntimeError`` if it was started before."""
        if self._server is not None:
            raise RuntimeError("the gateway was started before")
        context = self._server_context()
        self._server = server = _Server(self._address, self)
        server.tls = context
        self._thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name="simulated-gateway")
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, end every connection, wait for the threads. Closing twice is allowed."""
        thread, self._thread = self._thread, None
        if self._server is None or thread is None:
            return
        self._server.shutdown()
        thread.join()
        self._server.end_connections()
        self._server.server_close()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        if self._server is None:
            raise RuntimeError("the gateway was not started")
        return self._server.server_port

    @property
    def url(self) -> str:
        """Its address: ``https://HOST:PORT``."""
        host = self._address[0]
        return f"https://{netloc(host, self.port)}"

    @property
    def connections(self) -> int:
        """How many connections it has taken so far."""
        return self._server.connections if self._server is not None else 0

    def revoke(self, serial: int) -> None:
        """Put a card certificate on the revocation list; it counts from the next connection on."""
        self._revoked.add(serial)
        if self._server is not None:
            self._server.tls = self._server_context()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reply(self, path: str, certificate: x509.Certificate) -> "_Reply":
        """What a request is answered with: the owner's domains, or why not."""
        if path != DOMAINS_PATH:
            return _Reply.of(http.HTTPStatus.NOT_FOUND, {"error": "no such resource"})
        owner = _owner(certificate)
        if owner not in self.domains:
            return _Reply.of(http.HTTPStatus.FORBIDDEN, {"error": "unknown owner"})
        return _Reply.of(http.HTTPStatus.OK, {"owner": owner, "domains": list(self.domains[owner])})

    def _server_context(self) -> ssl.SSLContext:
        shape = _SHAPES.get(self.fault, _Shape())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = self.mode.value
        context.set_ciphers(shape.suite)
        context.set_ecdh_curve(shape.curve)
        context.verify_mode = ssl.CERT_REQUIRED
        if shape.client_schemes:
            _limit_client_schemes(context, shape.client_schemes)
        with tempfile.TemporaryDirectory() as folder:
            _load_certificate(context, shape, self._names, pathlib.Path(folder))
            _load_trust(context, self._revoked, pathlib.Path(folder))
        return context


def _owner(certificate: x509.Certificate) -> str:
    attributes = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(attributes[0].value) if attributes else ""


def _load_certificate(context: ssl.SSLContext, shape: _Shape, names: Sequence[str], folder: pathlib.Path) -> None:
    key = ca.load_test_key("gateway-server")
    certificate = shape.authority().issue_server_certificate(key.public_key(), shape.names or names)
    file = folder / "server.pem"
    file.write_bytes(ca.pem(certificate) + ca.pem_key(key))
    context.load_cert_chain(file)


def _load_trust(context: ssl.SSLContext, revoked: set[int], folder: pathlib.Path) -> None:
    """The root is what is trusted; the CA under it is known too, as a provider knows its cards' issuer."""
    telesec = ca.telesec_ca()
    file = folder / "trust.pem"
    file.write_bytes(b"".join(map(ca.pem, telesec.chain)) + ca.pem(telesec.revocation_list(revoked)))
    context.load_verify_locations(file)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _limit_client_schemes(context: ssl.SSLContext, schemes: bytes) -> None:
    """What the CertificateRequest names (SSL_CTX_set1_client_sigalgs_list(3)); Python's ssl has it from 3.15 on."""
    library = OpenSsl.find()
    library.functions.SSL_CTX_ctrl(ssl_ctx_of(context, library), SslCtrl.SET_CLIENT_SIGALGS_LIST, 0, schemes)


class _Server(http.server.ThreadingHTTPServer):
    """One thread a connection; the handshake is done in that thread, so that a slow client holds up nobody."""

    daemon_threads = False
    request_queue_size = 128
    tls: ssl.SSLContext

    def __init__(self, address: tuple[str, int], gateway: SimulatedGateway) -> None:
        self.gateway = gateway
        self.connections = 0
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # http.server looks up the host's full name here, which can take seconds and is of no use.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def end_connections(self) -> None:
        """Wake every thread that waits for its client."""
        self.closing.set()
        with self._lock:
            for connection in self._open:
                _shut_down(connection, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def tracked(self, connection: socket.socket) -> Iterator[None]:
        """Known to ``end_connections`` while it is used, closed at the end."""
        with self._lock:
            self._open.add(connection)
        if self.closing.is_set():
            _shut_down(connection, socket.SHUT_RDWR)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def process_request(self, request: _Request, client_address: _Peer) -> None:
        """Count, and hand it to a thread."""
        self.connections += 1
        super().process_request(request, client_address)

    def finish_request(self, request: _Request, client_address: _Peer) -> None:
        """One connection, in its own thread."""
        assert isinstance(request, socket.socket)
        request.settimeout(_IDLE)
        scene = _BEFORE_TLS.get(self.gateway.fault)
        if scene is not None:
            with self.tracked(request):
                scene(self, request)
            return
        tls = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with self.tracked(tls):
            self._serve(tls, client_address)

    def _serve(self, tls: ssl.SSLSocket, client_address: _Peer) -> None:
        try:
            tls.do_handshake()
            super().finish_request(tls, client_address)
        except OSError as error:
            _log.info("connection of %s ended: %s", client_address, error)
        with contextlib.suppress(OSError):
            tls.setblocking(False)
            tls.unwrap()  # sends close_notify (RFC 5246, 7.2.1); the client's own is not waited for
        _say_goodbye(tls)

    def handle_error(self, request: _Request, client_address: _Peer) -> None:  # noqa: ARG002 - socketserver's
        """To the log, not to standard error."""
        _log.exception("connection of %s", client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "demail-hw-simulated-gateway"
    sys_version = ""
    timeout = _IDLE
    server: _Server
    connection: ssl.SSLSocket

    def do_GET(self) -> None:
        gateway = self.server.gateway
        scene = _INSTEAD_OF_REPLY.get(gateway.fault)
        if scene is not None:
            self.close_connection = True
            scene(self)
            return
        encoded = self.connection.getpeercert(binary_form=True)
        assert encoded is not None
        reply = gateway.reply(self.path, x509.load_der_x509_certificate(encoded))
        self._send(_REPLIES.get(gateway.fault, reply))

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply.body) + reply.missing))
        self.end_headers()
        self.wfile.write(reply.body)
        self.close_connection = self.close_connection or bool(reply.missing)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """To the log, not to standard error."""
        _log.debug(format, *args)


def _reset(_server: _Server, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def _keep_silent(server: _Server, _connection: socket.socket) -> None:
    server.closing.wait(_IDLE)


def _speak_http(_server: _Server, connection: socket.socket) -> None:
    connection.recv(_CHUNK)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    _say_goodbye(connection)


_BEFORE_TLS: Final[Mapping[Fault, Callable[[_Server, socket.socket], None]]] = {
    Fault.RESET: _reset,
    Fault.SILENT: _keep_silent,
    Fault.NOT_TLS: _speak_http,
}


def _never_reply(handler: _Handler) -> None:
    handler.server.closing.wait(_IDLE)


def _drip(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(round(_IDLE / _DRIP)):
        if handler.server.closing.wait(_DRIP):
            return
        handler.wfile.write(b".")


def _hang_up(_handler: _Handler) -> None:
    """The connection is closed when the handler is done."""


def _babble(handler: _Handler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")


_INSTEAD_OF_REPLY: Final[Mapping[Fault, Callable[[_Handler], None]]] = {
    Fault.NO_REPLY: _never_reply,
    Fault.SLOW_REPLY: _drip,
    Fault.HANG_UP: _hang_up,
    Fault.NOT_HTTP: _babble,
}


def _shut_down(connection: socket.socket, how: int) -> None:
    # SSLSocket.shutdown also drops the TLS state, under the feet of the thread that uses it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, how)


def _say_goodbye(connection: socket.socket) -> None:
    """End our side and read what is left, so that the last alert is not lost in a reset (RFC 9112, 9.6)."""
    _shut_down(connection, socket.SHUT_WR)
    with contextlib.suppress(OSError):
        connection.settimeout(_FAREWELL)
        while socket.socket.recv(connection, _CHUNK):
            pass
