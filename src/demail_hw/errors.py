"""The one error tree. Each error says what happened in one sentence, in which layer, and what mends it.

::

    HardwareError             .layer  .transient  .outcome  .remedy
    +-- TransportError        DeviceNotFound DeviceBusy DeviceLost TransferTimeout TransferStalled
    |                         ServerRefused
    +-- ReaderError           NoCard CardRemoved CardMute ReaderBusy SlotError(.code)
    +-- CardError             (.status .command)
    |                         PinIncorrect(.retries_left) PinBlocked PinNotInitialized SecurityStatus
    |                         FileNotFound UnexpectedCard UnknownCard
    +-- KeyProviderError      KeyNotFound AlgorithmNotSupported PinRequired PinRefused CertificateError
    |                         SignatureInvalid DecryptionFailed WrongRecipient (a KeyNotFound)
    +-- ProtocolViolation     the peer broke the standard
    +-- DeadlineExceeded      the time that the caller gave is over
    +-- GatewayError          (.finding) TLS and HTTP findings of the De-Mail connector
    +-- TlsKeyUnsupported     this Python's ssl module cannot take a card's key
    +-- ConfigurationError    (.file .line)

A caller's own mistake is a ``ValueError`` or a ``TypeError`` and not in this tree.
No error text, argument or attribute ever holds a PIN.
"""

import enum
from typing import ClassVar

__all__ = [
    "AlgorithmNotSupported",
    "CardError",
    "CardMute",
    "CardRemoved",
    "CertificateError",
    "ConfigurationError",
    "DeadlineExceeded",
    "DecryptionFailed",
    "DeviceBusy",
    "DeviceLost",
    "DeviceNotFound",
    "FileNotFound",
    "GatewayError",
    "HardwareError",
    "KeyNotFound",
    "KeyProviderError",
    "Layer",
    "NoCard",
    "Outcome",
    "PinBlocked",
    "PinIncorrect",
    "PinNotInitialized",
    "PinRefused",
    "PinRequired",
    "ProtocolViolation",
    "ReaderBusy",
    "ReaderError",
    "SecurityStatus",
    "ServerRefused",
    "SignatureInvalid",
    "SlotError",
    "TlsKeyUnsupported",
    "TransferStalled",
    "TransferTimeout",
    "TransportError",
    "UnexpectedCard",
    "UnknownCard",
    "WrongRecipient",
]


class Layer(enum.Enum):
    """Where in the stack an error was found, from the cable up to the gateway."""

    TRANSPORT = "transport"
    READER = "reader"
    CARD = "card"
    KEYS = "keys"
    TLS = "tls"
    GATEWAY = "gateway"
    CONFIGURATION = "configuration"


class Outcome(enum.Enum):
    """Did the card do it? Only after ``NOT_SENT`` and ``REFUSED`` is the answer a plain no."""

    NOT_SENT = "not sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class HardwareError(Exception):
    """Everything that can go wrong between the caller and the card.

    ``layer``: where it was found. ``transient``: may generic retry code try it again, with what was lost opened anew?
    ``outcome``: may the card have acted? ``remedy``: what a person can do, one sentence or empty.
    """

    default_layer: ClassVar[Layer] = Layer.KEYS
    default_transient: ClassVar[bool] = False
    default_outcome: ClassVar[Outcome] = Outcome.NOT_SENT
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        layer: Layer | None = None,
        transient: bool | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = self.default_remedy if remedy is None else remedy
        self.layer = self.default_layer if layer is None else layer
        self.transient = self.default_transient if transient is None else transient
        self.outcome = self.default_outcome if outcome is None else outcome

    def __str__(self) -> str:
        text = f"{self.message} [{self.layer.value}]"
        if self.outcome is Outcome.UNKNOWN:
            text += " (whether the card acted is unknown)"
        return f"{text} Remedy: {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


class TransportError(HardwareError):
    """The wire between us and the reader."""

    default_layer = Layer.TRANSPORT
    default_transient = True


class DeviceNotFound(TransportError):
    """No such host, server or device."""


class DeviceBusy(TransportError):
    """Somebody else holds the device."""

    default_remedy = "Find and stop the other holder, or wait until it lets go."


class DeviceLost(TransportError):
    """The connection or the device went away."""

    default_outcome = Outcome.UNKNOWN
    default_remedy = "Check server and network, then open the provider anew."


class TransferTimeout(TransportError):
    """The device reported that a transfer timed out on the bus."""

    default_outcome = Outcome.UNKNOWN


class TransferStalled(TransportError):
    """The endpoint answered STALL: the device does not support or refuses the request."""

    default_transient = False
    default_outcome = Outcome.REFUSED


class ServerRefused(TransportError):
    """The USB server answered with an error status."""


class ReaderError(HardwareError):
    """The reader and its slot."""

    default_layer = Layer.READER


class NoCard(ReaderError):
    """No card in the slot."""

    default_remedy = "Insert the card."


class CardRemoved(ReaderError):
    """The card was taken out, or lost its power, while it was in use."""

    default_outcome = Outcome.UNKNOWN
    default_remedy = "See that the card is in the reader, then open the provider anew."


class CardMute(ReaderError):
    """The card does not answer."""

    default_outcome = Outcome.UNKNOWN
    default_remedy = "Check that the card is the right way round and its contacts are clean."


class ReaderBusy(ReaderError):
    """The slot is busy with another command."""

    default_transient = True


class SlotError(ReaderError):
    """Any other error code of a slot. ``code``: bError (CCID 1.10, 6.2.6)."""

    default_outcome = Outcome.UNKNOWN

    def __init__(self, message: str, *, code: int, outcome: Outcome | None = None, remedy: str | None = None) -> None:
        super().__init__(message, outcome=outcome, remedy=remedy)
        self.code = code


class CardError(HardwareError):
    """The card answered, and its status word says no.

    ``status``: SW1-SW2 as an int, or ``None`` where there was no status. ``command``: its name, never its data.
    """

    default_layer = Layer.CARD
    default_outcome = Outcome.REFUSED

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        command: str = "",
        remedy: str | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, outcome=outcome)
        self.status = status
        self.command = command


class PinIncorrect(CardError):
    """The card refused the PIN. ``retries_left``: tries before it blocks."""

    default_remedy = "Check the PIN at its source before anything else: it is not sent again on its own."

    def __init__(self, message: str, *, retries_left: int, status: int | None = None, command: str = "") -> None:
        super().__init__(message, status=status, command=command)
        self.retries_left = retries_left


class PinBlocked(CardError):
    """No tries are left."""

    default_remedy = "See which PIN unblocks it: demail-hw pin status; no PIN is tried until then."


class PinNotInitialized(CardError):
    """The card still has its transport PIN (NullPIN)."""

    default_remedy = "See what to do first: demail-hw pin status."


class SecurityStatus(CardError):
    """The access rule is not fulfilled: no PIN, or the wrong one for this key."""


class FileNotFound(CardError):
    """No such file or application on the card."""


class UnexpectedCard(CardError):
    """Another card than the one that was asked for is in the reader; no PIN was sent to it."""

    default_outcome = Outcome.NOT_SENT
    default_remedy = "Put the right card in, or mend ?card= in the address."


class UnknownCard(CardError):
    """No profile knows this card."""

    default_outcome = Outcome.NOT_SENT


class KeyProviderError(HardwareError):
    """Keys, certificates, and what they can do."""


class KeyNotFound(KeyProviderError):
    """The provider has no such key."""


class WrongRecipient(KeyNotFound):
    """The message is encrypted for other keys."""


class AlgorithmNotSupported(KeyProviderError):
    """The key cannot do this algorithm, or not through this reader."""


class PinRequired(KeyProviderError):
    """The key needs a PIN and no source was given, or the source gave none."""

    default_remedy = "Give a PIN source, for example pin='credential:demail-pin'."


class PinRefused(KeyProviderError):
    """The PIN guard said no; nothing was sent to the card."""


class CertificateError(KeyProviderError):
    """A certificate is broken, missing, or belongs to another key."""


class SignatureInvalid(KeyProviderError):
    """The card returned a signature that its own certificate does not accept; it was thrown away."""

    default_outcome = Outcome.UNKNOWN
    default_remedy = "Take the card out of service: it, its reader or the way to it is broken."


class DecryptionFailed(KeyProviderError, ValueError):
    """The message is not for this key, or is damaged. It never says which of the two.

    A ``ValueError`` too, because that is what code written for cryptography's own keys expects of ``decrypt``.
    """

    default_outcome = Outcome.REFUSED


class ProtocolViolation(HardwareError):
    """The peer broke the standard: its bytes were not used."""

    default_layer = Layer.TRANSPORT
    default_outcome = Outcome.UNKNOWN


class DeadlineExceeded(HardwareError):
    """The time that the caller gave is over."""

    default_layer = Layer.TRANSPORT
    default_outcome = Outcome.UNKNOWN
    default_remedy = "Check server, reader and network, then open the provider anew."


class GatewayError(HardwareError):
    """What the De-Mail connector found in TLS or HTTP. ``finding``: its stable code."""

    default_layer = Layer.GATEWAY

    def __init__(
        self,
        message: str,
        *,
        finding: str = "",
        remedy: str | None = None,
        transient: bool | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, transient=transient, outcome=outcome)
        self.finding = finding


class TlsKeyUnsupported(HardwareError):
    """The OpenSSL of this Python cannot be given a card's key."""

    default_layer = Layer.TLS
    default_remedy = "Use a Python whose ssl module is linked with a shared OpenSSL 3 library."


class ConfigurationError(HardwareError):
    """Something in a setting. ``file`` and ``line`` where they are known."""

    default_layer = Layer.CONFIGURATION

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.file = file
        self.line = line


def _rebuild(cls: type[HardwareError], state: dict[str, object]) -> HardwareError:
    error = cls.__new__(cls, str(state["message"]))
    error.args = (state["message"],)
    error.__dict__.update(state)
    return error
