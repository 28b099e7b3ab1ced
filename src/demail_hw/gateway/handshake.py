"""What can be read of a TLS handshake from the wire: who offered what, what was picked, who sent which alert.

Python's ``ssl`` names neither the curve nor the signature schemes, and tells little about a handshake that failed.
The messages before encryption do: all of TLS 1.2 up to ChangeCipherSpec (RFC 5246), the two Hellos of TLS 1.3
(RFC 8446). OpenSSL stays the judge of the handshake; what is not understood here is only not reported.
Pure: bytes in, values out.
"""

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from demail_hw.errors import ProtocolViolation

__all__ = [
    "Alert",
    "AlertDescription",
    "CertificateMessage",
    "CertificateRequest",
    "CertificateVerify",
    "ClientHello",
    "ContentType",
    "CurveType",
    "ExtensionType",
    "HandshakeMessage",
    "HandshakeObserver",
    "HandshakeType",
    "NamedGroup",
    "Record",
    "Sender",
    "ServerHello",
    "ServerKeyExchange",
    "TlsVersion",
    "code_name",
]

_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_MAX_RECORD: Final = (1 << 14) + 2048
"""RFC 5246, 6.2.3."""
_MAX_MESSAGE: Final = 1 << 17
_RANDOM: Final = 32


class ContentType(enum.IntEnum):
    """RFC 5246, 6.2.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(enum.IntEnum):
    """RFC 5246, 7.4."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15


class ExtensionType(enum.IntEnum):
    """RFC 8446, 4.2."""

    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    SUPPORTED_VERSIONS = 43
    KEY_SHARE = 51


class TlsVersion(enum.IntEnum):
    """RFC 8446, 4.1.2."""

    TLS_1_0 = 0x0301
    TLS_1_1 = 0x0302
    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304


class NamedGroup(enum.IntEnum):
    """RFC 8446, 4.2.7."""

    SECP256R1 = 23
    SECP384R1 = 24
    SECP521R1 = 25
    X25519 = 29
    X448 = 30


class CurveType(enum.IntEnum):
    """RFC 8422, 5.4."""

    NAMED_CURVE = 3


class AlertDescription(enum.IntEnum):
    """RFC 8446, 6."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


def code_name(kind: type[enum.IntEnum], code: int) -> str:
    """The standard's name of a code point, or its number."""
    try:
        return kind(code).name.lower()
    except ValueError:
        return f"{code:#06x}"


class Sender(enum.Enum):
    """Who sent it."""

    US = "us"
    GATEWAY = "the gateway"


class _Fields:
    """Reads a message from front to back (RFC 8446, 3)."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def more(self) -> bool:
        return self._position < len(self._data)

    def opaque(self, length: int) -> bytes:
        start, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise ProtocolViolation("A TLS handshake message is shorter than it says.")
        return self._data[start : self._position]

    def integer(self, length: int) -> int:
        return int.from_bytes(self.opaque(length), "big")

    def vector(self, length: int) -> "_Fields":
        """A vector whose own length is ``length`` bytes long."""
        return _Fields(self.opaque(self.integer(length)))

    def integers(self, length: int) -> tuple[int, ...]:
        """All that is left, as numbers of ``length`` bytes."""
        return tuple(self._integers(length))

    def _integers(self, length: int) -> Iterator[int]:
        while self.more:
            yield self.integer(length)

    def extensions(self) -> dict[int, "_Fields"]:
        """The extensions at the end of a Hello (RFC 8446, 4.2); none at all is allowed in TLS 1.2."""
        found: dict[int, _Fields] = {}
        if self.more:
            block = self.vector(2)
            while block.more:
                kind = block.integer(2)
                found[kind] = block.vector(2)
        return found


def _list_of(extension: _Fields | None, *, prefix: int) -> tuple[int, ...]:
    return () if extension is None else extension.vector(prefix).integers(2)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """RFC 5246, 6.2.1: plaintext only."""

    content_type: int
    fragment: bytes

    @classmethod
    def decode(cls, data: bytearray) -> Self | None:
        """The first record, or ``None`` while there is none as a whole. ``ProtocolViolation`` if it is not TLS."""
        if len(data) < _RECORD_HEADER:
            return None
        header = _Fields(bytes(data[:_RECORD_HEADER]))
        content_type, major, _minor, length = (header.integer(size) for size in (1, 1, 1, 2))
        if major != TlsVersion.TLS_1_2 >> 8 or length > _MAX_RECORD:
            raise ProtocolViolation("These bytes are not a TLS record.")
        end = _RECORD_HEADER + length
        return cls(content_type, bytes(data[_RECORD_HEADER:end])) if len(data) >= end else None

    @property
    def size(self) -> int:
        """With its header."""
        return _RECORD_HEADER + len(self.fragment)


@dataclasses.dataclass(frozen=True, slots=True)
class HandshakeMessage:
    """RFC 5246, 7.4."""

    kind: int
    body: bytes

    @classmethod
    def decode(cls, data: bytearray) -> Self | None:
        """The first message, or ``None`` while there is none as a whole. ``ProtocolViolation`` if it is huge."""
        if len(data) < _MESSAGE_HEADER:
            return None
        header = _Fields(bytes(data[:_MESSAGE_HEADER]))
        kind, length = header.integer(1), header.integer(3)
        if length > _MAX_MESSAGE:
            raise ProtocolViolation("A TLS handshake message is too long.")
        end = _MESSAGE_HEADER + length
        return cls(kind, bytes(data[_MESSAGE_HEADER:end])) if len(data) >= end else None

    @property
    def size(self) -> int:
        """With its header."""
        return _MESSAGE_HEADER + len(self.body)


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """RFC 5246, 7.2."""

    level: int
    description: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is too short."""
        fields = _Fields(data)
        return cls(fields.integer(1), fields.integer(1))


@dataclasses.dataclass(frozen=True, slots=True)
class ClientHello:
    """RFC 5246, 7.4.1.2: what was offered."""

    versions: tuple[int, ...]
    suites: tuple[int, ...]
    groups: tuple[int, ...]
    schemes: tuple[int, ...]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        fields = _Fields(data)
        version = fields.integer(2)
        fields.opaque(_RANDOM)
        fields.vector(1)
        suites = fields.vector(2).integers(2)
        fields.vector(1)
        extensions = fields.extensions()
        return cls(
            _list_of(extensions.get(ExtensionType.SUPPORTED_VERSIONS), prefix=1) or (version,),
            suites,
            _list_of(extensions.get(ExtensionType.SUPPORTED_GROUPS), prefix=2),
            _list_of(extensions.get(ExtensionType.SIGNATURE_ALGORITHMS), prefix=2),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ServerHello:
    """RFC 5246, 7.4.1.3; RFC 8446, 4.1.3 and 4.1.4: what was picked. ``group``: TLS 1.3 only."""

    version: int
    suite: int
    group: int | None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        fields = _Fields(data)
        version = fields.integer(2)
        fields.opaque(_RANDOM)
        fields.vector(1)
        suite = fields.integer(2)
        fields.opaque(1)
        extensions = fields.extensions()
        chosen = extensions.get(ExtensionType.SUPPORTED_VERSIONS)
        share = extensions.get(ExtensionType.KEY_SHARE)
        return cls(
            version if chosen is None else chosen.integer(2), suite, None if share is None else share.integer(2)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ServerKeyExchange:
    """RFC 8422, 5.4: the curve, and what the server signed with; ``None`` if it is not ECDHE with a named curve."""

    group: int | None
    scheme: int | None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        fields = _Fields(data)
        if fields.integer(1) != CurveType.NAMED_CURVE:
            return cls(None, None)
        group = fields.integer(2)
        fields.vector(1)
        return cls(group, fields.integer(2))


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateMessage:
    """RFC 5246, 7.4.2: certificates in DER, the sender's own first; a client may send none."""

    certificates: tuple[bytes, ...]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        entries = _Fields(data).vector(3)
        certificates = []
        while entries.more:
            certificates.append(entries.opaque(entries.integer(3)))
        return cls(tuple(certificates))


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateRequest:
    """RFC 5246, 7.4.4: the signature schemes that the server accepts of the client."""

    schemes: tuple[int, ...]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        fields = _Fields(data)
        fields.vector(1)
        return cls(fields.vector(2).integers(2))


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateVerify:
    """RFC 5246, 7.4.8: what the client signed with."""

    scheme: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """``ProtocolViolation`` if it is broken."""
        return cls(_Fields(data).integer(2))


class _Direction:
    """One direction of the connection: bytes in, messages out, until it is encrypted or not understood."""

    __slots__ = ("_messages", "_readable", "_records")

    def __init__(self) -> None:
        self._records = bytearray()
        self._messages = bytearray()
        self._readable = True

    def receive_data(self, data: bytes) -> Iterator[HandshakeMessage | Alert]:
        if self._readable:
            self._records += data
        try:
            while self._readable and (record := Record.decode(self._records)) is not None:
                del self._records[: record.size]
                yield from self._read(record)
        except ProtocolViolation:
            self.stop()

    def stop(self) -> None:
        self._readable = False
        self._records.clear()
        self._messages.clear()

    def _read(self, record: Record) -> Iterator[HandshakeMessage | Alert]:
        match record.content_type:
            case ContentType.HANDSHAKE:
                self._messages += record.fragment
                while (message := HandshakeMessage.decode(self._messages)) is not None:
                    del self._messages[: message.size]
                    yield message
            case ContentType.ALERT:
                yield Alert.decode(record.fragment)
            case _:
                self.stop()


class HandshakeObserver:
    """Collects what the handshake of one connection shows. Never raises; what is not seen stays ``None``.

    ``alert`` and ``alert_sender``: the last alert that could be read.
    """

    __slots__ = (
        "_directions",
        "alert",
        "alert_sender",
        "certificate_request",
        "certificate_verify",
        "client_certificates",
        "client_hello",
        "server_certificates",
        "server_hello",
        "server_key_exchange",
    )

    def __init__(self) -> None:
        self._directions = {sender: _Direction() for sender in Sender}
        self.client_hello: ClientHello | None = None
        self.server_hello: ServerHello | None = None
        self.server_certificates: tuple[bytes, ...] | None = None
        self.server_key_exchange: ServerKeyExchange | None = None
        self.certificate_request: CertificateRequest | None = None
        self.client_certificates: tuple[bytes, ...] | None = None
        self.certificate_verify: CertificateVerify | None = None
        self.alert: Alert | None = None
        self.alert_sender: Sender | None = None

    @property
    def version(self) -> int | None:
        """The version that the server picked."""
        return None if self.server_hello is None else self.server_hello.version

    @property
    def group(self) -> int | None:
        """The group of the key exchange."""
        if self.server_key_exchange is not None:
            return self.server_key_exchange.group
        return None if self.server_hello is None else self.server_hello.group

    def note(self, sender: Sender, data: bytes) -> None:
        """These bytes went over the wire."""
        direction = self._directions[sender]
        for item in direction.receive_data(data):
            match item:
                case Alert():
                    self.alert, self.alert_sender = item, sender
                case HandshakeMessage():
                    self._note_message(direction, sender, item)

    def _note_message(self, direction: _Direction, sender: Sender, message: HandshakeMessage) -> None:
        keep = _KEEP.get((sender, message.kind))
        if keep is not None:
            try:
                keep(self, message.body)
            except ProtocolViolation:
                direction.stop()


def _client_hello(seen: HandshakeObserver, body: bytes) -> None:
    seen.client_hello = ClientHello.decode(body)


def _server_hello(seen: HandshakeObserver, body: bytes) -> None:
    seen.server_hello = ServerHello.decode(body)


def _server_certificates(seen: HandshakeObserver, body: bytes) -> None:
    seen.server_certificates = CertificateMessage.decode(body).certificates


def _server_key_exchange(seen: HandshakeObserver, body: bytes) -> None:
    seen.server_key_exchange = ServerKeyExchange.decode(body)


def _certificate_request(seen: HandshakeObserver, body: bytes) -> None:
    seen.certificate_request = CertificateRequest.decode(body)


def _client_certificates(seen: HandshakeObserver, body: bytes) -> None:
    seen.client_certificates = CertificateMessage.decode(body).certificates


def _certificate_verify(seen: HandshakeObserver, body: bytes) -> None:
    seen.certificate_verify = CertificateVerify.decode(body)


_KEEP: Final[Mapping[tuple[Sender, int], Callable[[HandshakeObserver, bytes], None]]] = {
    (Sender.US, HandshakeType.CLIENT_HELLO): _client_hello,
    (Sender.GATEWAY, HandshakeType.SERVER_HELLO): _server_hello,
    (Sender.GATEWAY, HandshakeType.CERTIFICATE): _server_certificates,
    (Sender.GATEWAY, HandshakeType.SERVER_KEY_EXCHANGE): _server_key_exchange,
    (Sender.GATEWAY, HandshakeType.CERTIFICATE_REQUEST): _certificate_request,
    (Sender.US, HandshakeType.CERTIFICATE): _client_certificates,
    (Sender.US, HandshakeType.CERTIFICATE_VERIFY): _certificate_verify,
}
