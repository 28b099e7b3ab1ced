"""Mutual TLS 1.3 (RFC 8446) around the bytes of USB/IP, for both ends: each has a certificate and checks the other's.

TLS runs over memory (``ssl.MemoryBIO``), so that the sockets stay ours: their waits, deadlines and dead peers are
those of :mod:`demail_hw_drivers.tcp`, with and without TLS. All that was received is decrypted at once; nothing stays
behind where poll would not see it.
"""

import contextlib
import hashlib
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, Self

from demail_hw.errors import ConfigurationError, HardwareError, Layer, Outcome, ServerRefused, TransportError
from demail_hw.interfaces import Buffers, Deadline
from demail_hw_drivers.tcp import Wire

__all__ = [
    "TLS_PORT",
    "TlsEngine",
    "TlsFiles",
    "TlsNames",
    "TlsWire",
    "client_context",
    "fingerprint",
    "server_context",
    "tls_refusal",
]

TLS_PORT: Final = 3241
"""Of ``usbips:``; no registry gives one."""

_CREDENTIAL: Final = "credential:"
_PEM_KIND: Final = re.compile(rb"^-----BEGIN ([^-]+)-----", re.MULTILINE)
_CRL: Final = b"X509 CRL"
_CERTIFICATE: Final = b"CERTIFICATE"
_KEY: Final = b"PRIVATE KEY"
_RECORD: Final = 1 << 14
"""The most plaintext of a record (RFC 8446, 5.1)."""


class TlsFiles(NamedTuple):
    """PEM files: our certificate with its chain, its key (or both in ``certificate``), and whom we trust.

    A client without ``ca`` trusts the system's authorities; a server needs one. ``crl``: of a server, the lists of
    certificates that these have revoked. Each may be ``credential:NAME``, a credential of the service.
    """

    certificate: str
    key: str | None = None
    ca: str | None = None
    crl: tuple[str, ...] = ()

    def located(self) -> Self:
        """With paths alone. Errors: :class:`~demail_hw.errors.ConfigurationError`."""
        key, ca = self.key and _located(self.key), self.ca and _located(self.ca)
        return type(self)(_located(self.certificate), key, ca, tuple(map(_located, self.crl)))


def _located(path: str) -> str:
    """A credential (systemd.exec(5), LoadCredential=) is a file in ``$CREDENTIALS_DIRECTORY``."""
    if not path.startswith(_CREDENTIAL):
        return path
    name, folder = path.removeprefix(_CREDENTIAL), os.environ.get("CREDENTIALS_DIRECTORY")
    if name != Path(name).name:
        raise ConfigurationError(f"{path} is not the name of a credential.", file=path, remedy="It has no slash.")
    if not folder:
        raise ConfigurationError(
            f"The TLS file {path} was asked for, but this process got no credentials.",
            file=path,
            remedy=f"Add LoadCredential={name}:FILE to the systemd unit, or name the file itself.",
        )
    return str(Path(folder) / name)


def client_context(files: TlsFiles | None, *, ca: str | None = None) -> ssl.SSLContext:
    """What a client offers: TLS 1.3 and its certificate. Without ``files`` it has none, and ``ca`` says whom it
    trusts.

    Errors: :class:`~demail_hw.errors.ConfigurationError`, with the file's name.
    """
    files = files and files.located()
    trusted = files.ca if files else ca and _located(ca)
    with _file_errors(trusted or "the system's certificates"):
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=trusted)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if files is not None:
        _load_own(context, files)
    return context


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a server takes: TLS 1.3 with a certificate that ``files.ca`` has issued, and that is on no list of
    ``files.crl``, nor its authority, shown anew in each connection.

    Errors: as :func:`client_context`; ``ValueError`` without ``files.ca``.
    """
    files = files.located()
    if files.ca is None:
        raise ValueError("a server without an authority would let nobody in")
    with _file_errors(files.ca):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # A session that is resumed shows no certificate; an import is one connection, so nothing is lost.
    context.num_tickets = 0
    _load_own(context, files)
    for path in files.crl:
        _load_revoked(context, path)
    return context


def _load_revoked(context: ssl.SSLContext, path: str) -> None:
    """From now on each authority between a client and the root, and the root, needs a list that is valid today (RFC
    5280, 6.3): without one nobody of it is let in."""
    kinds = _kinds_in(path)
    with _file_errors(path):
        if kinds != {_CRL}:  # a certificate in it would be an authority, unnoticed
            raise ConfigurationError(
                f"The file {path} does not hold lists of revoked certificates alone.",
                file=path,
                remedy="Give the authority's CRL in PEM: openssl crl -inform DER -in FILE -out FILE.pem",
            )
        context.load_verify_locations(path)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    key = files.key or files.certificate
    # Told apart here: OpenSSL does not say with which of the two something is wrong.
    _require(_CERTIFICATE, files.certificate, "certificate", "Give a certificate in PEM, with its chain.")
    _require(_KEY, key, "key", "Name the file of the key, in PEM: --key, ?key=, or key in the configuration.")
    _check_mode(key)
    with _file_errors(files.certificate, "" if files.key is None else f", or its key {key},"):
        context.load_cert_chain(files.certificate, files.key, password=lambda: _no_password(key))


def _require(kind: bytes, path: str, what: str, remedy: str) -> None:
    if not any(each.endswith(kind) for each in _kinds_in(path)):  # of each there are several: EC PRIVATE KEY
        raise ConfigurationError(f"The TLS file {path} holds no {what}.", file=path, remedy=remedy)


def _kinds_in(path: str) -> frozenset[bytes]:
    """What PEM says (RFC 7468, 2) that is in a file."""
    with _file_errors(path):
        return frozenset(_PEM_KIND.findall(Path(path).read_bytes()))


def _check_mode(path: str) -> None:
    """A group may have been given the key on purpose (Debian's ssl-cert, the mask of systemd's credentials)."""
    with _file_errors(path):
        mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & stat.S_IRWXO:
        raise ConfigurationError(
            f"The TLS key file {path} has mode {mode:04o}: others may read it.",
            file=path,
            remedy=f"chmod o-rwx {path}; of a container's secret, set its mode (0400, or 0440 for a group).",
        )


def _no_password(key: str) -> NoReturn:
    # Without this, OpenSSL would ask at the terminal, and a service would hang.
    raise ConfigurationError(
        f"The TLS key in {key} is encrypted, and nobody can be asked for its password.",
        file=key,
        remedy="Give a key without password that only the service's user can read.",
    )


@contextlib.contextmanager
def _file_errors(path: str, beside: str = "") -> Iterator[None]:
    """``beside``: what else it may be, for people."""
    try:
        yield
    except OSError as error:  # an ssl.SSLError is one
        why = _reason(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(
            f"The TLS file {path}{beside} cannot be used: {why}.",
            file=path,
            remedy="See that it is a PEM file that may be read, and that certificate and key belong together.",
        ) from error


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 fingerprint of a DER certificate, in lower-case hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


class TlsEngine:
    """One TLS connection over memory: bytes in, bytes out. Not safe for several threads; ``ssl.SSLError`` from all.

    Whatever a method did, and also when it raised, :meth:`to_send` gives what the peer has to get.
    """

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False, host: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate (DER), once the handshake is over."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def unread(self) -> bool:
        """Something came right behind the handshake: :meth:`read` it before anything else is received."""
        return self._incoming.pending > 0

    def shake(self, received: bytes = b"") -> bool:
        """Go on with the handshake; True once it is over on our side.

        A client does not know then whether the server takes its certificate (RFC 8446, 4.4.2.4): what it reads next
        says so.
        """
        self._incoming.write(received)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def to_send(self) -> bytes:
        """The records that are ready, once."""
        return self._outgoing.read()

    def encrypt(self, buffers: Buffers) -> bytes:
        """The records of a gather list. This is the one place that joins one, and the joined copy is wiped."""
        joined = bytearray().join(buffers)
        try:
            for start in range(0, len(joined), _RECORD):
                self._tls.write(memoryview(joined)[start : start + _RECORD])
        finally:
            joined[:] = bytes(len(joined))
        return self.to_send()

    def decrypt(self, received: bytes) -> bytes | None:
        """The data in what was received: empty if the peer closed, ``None`` if no record is whole yet."""
        if not received:
            return b""
        self._incoming.write(received)
        return self.read()

    def read(self) -> bytes | None:
        """The data in what is here, as :meth:`decrypt` gives it."""
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(_RECORD):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces) or None
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(pieces)

    def close_notify(self) -> bytes:
        """Say goodbye (RFC 8446, 6.1)."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self.to_send()


class TlsWire(Wire):
    """A :class:`~demail_hw_drivers.tcp.Wire` through TLS. Its counters are those of the socket: records."""

    __slots__ = ("_engine",)

    def __init__(self, sock: socket.socket, engine: TlsEngine) -> None:
        super().__init__(sock)
        self._engine = engine

    def shake(self, *, deadline: Deadline) -> bool:
        """The handshake. False if the time was over before it was."""
        done = self._engine.shake()
        while super().send((self._engine.to_send(),), deadline=deadline):
            if done:
                return True
            data = super().receive(deadline=deadline)
            if data is None:
                return False
            if not data:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the server hung up before TLS was agreed")
            done = self._shaken(data, deadline)
        return False

    def _shaken(self, data: bytes, deadline: Deadline) -> bool:
        try:
            return self._engine.shake(data)
        except ssl.SSLError:
            # The alert: so the server knows why too.
            with contextlib.suppress(OSError):
                super().send((self._engine.to_send(),), deadline=deadline)
            raise

    def send(self, buffers: Buffers, *, deadline: Deadline) -> bool:
        """As the plain one; the records of one gather list leave in one call if they fit."""
        return super().send((self._engine.encrypt(buffers),), deadline=deadline)

    def receive(self, *, deadline: Deadline) -> bytes | None:
        """What comes next: empty if the peer closed, ``None`` if the time is over."""
        if self._engine.unread and (early := self._engine.read()) is not None:
            return early
        while (data := super().receive(deadline=deadline)) is not None:
            plain = self._engine.decrypt(data)
            if plain is not None:
                return plain
        return None

    def receive_now(self) -> bytes | None:
        """What is there already: empty if the peer closed, ``None`` if nothing came, or no whole record."""
        while (data := super().receive_now()) is not None:
            plain = self._engine.decrypt(data)
            if plain is not None:
                return plain
        return None

    def finish(self, seconds: float) -> None:
        """Say goodbye to TLS first."""
        with contextlib.suppress(OSError):  # the peer may be gone
            self.send_now((self._engine.close_notify(),))
        super().finish(seconds)


_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_OLD_TLS: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})
_NO_CERTIFICATE: Final = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
_ALERT: Final = "ALERT_"
_NO_REASON: Final = "PEM lib"
_OF_CERTIFICATES: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""In the names of the alerts that are about the peer's certificate (RFC 8446, 6.2)."""


class TlsNames(NamedTuple):
    """What the user wrote the client's files by, for remedies."""

    certificate: str = "?cert="
    ca: str = "?ca="

    @classmethod
    def in_table(cls, table: str) -> "TlsNames":
        """Those of a table of the configuration; empty for an address."""
        return cls(f"{table}.certificate", f"{table}.ca") if table else cls()


_IN_ADDRESS: Final = TlsNames()


def tls_refusal(error: ssl.SSLError, server: str, names: TlsNames = _IN_ADDRESS) -> HardwareError:
    """Who refused whom, of a client's handshake with ``server`` (its name for people)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _refusal(
            f"The certificate of the USB server {server} was refused here: {error.verify_message}",
            f"See that the authority of {names.ca} issued it, that it is valid today, and that it has the server's "
            "name.",
        )
    if isinstance(error, ssl.SSLEOFError):  # as likely a server that is full as one that does not know TLS
        return TransportError(
            f"The USB server {server} hung up before TLS was agreed.",
            remedy="See that the port is that of a usbips: server (plain USB/IP is usbip:), and what its log says.",
            layer=Layer.TLS,
        )
    return _refused_by_server(error, server, names)


def _refused_by_server(error: ssl.SSLError, server: str, names: TlsNames) -> HardwareError:
    reason = error.reason or ""
    if reason == _NO_CERTIFICATE:
        return ServerRefused(
            f"The USB server {server} demands a client certificate.",
            remedy="Give one: ?cert=FILE&key=FILE in the address, or [tls] in the configuration.",
            transient=False,
            layer=Layer.TLS,
        )
    if reason in _NO_TLS:
        return _refusal(
            f"The USB server {server} does not speak TLS here",
            "See that it is a usbips: server and that the port is its TLS port (3241); plain USB/IP is usbip:.",
        )
    if reason in _OLD_TLS:
        return _refusal(
            f"The USB server {server} does not speak TLS 1.3", "Renew its TLS; older versions are not used."
        )
    if _ALERT in reason and any(name in reason for name in _OF_CERTIFICATES):
        return ServerRefused(
            f"The USB server {server} refused the client certificate: {_words(reason.partition(_ALERT)[2])}.",
            remedy=f"See that an authority that the server trusts issued {names.certificate} and has not revoked "
            "it, that it is valid today, and that it is meant for clients (extendedKeyUsage clientAuth).",
            transient=False,
            layer=Layer.TLS,
        )
    return _refusal(f"TLS with the USB server {server} broke: {_reason(error)}", "Look into the server's log.")


def _refusal(text: str, remedy: str) -> TransportError:
    return TransportError(
        f"{text.rstrip('.')}.", remedy=remedy, layer=Layer.TLS, transient=False, outcome=Outcome.NOT_SENT
    )


def _reason(error: ssl.SSLError) -> str:
    if error.reason is None and _NO_REASON in (error.strerror or ""):
        return "it is no PEM that can be read"
    return _words(error.reason or error.strerror or os.strerror(error.errno or 0))


def _words(name: str) -> str:
    return name.replace("_", " ").lower()
