"""The error for a message that is not what RFC 5652 or RFC 8551 says; always found before a key was used."""

from typing import Final

from demail_hw.errors import Layer, Outcome, ProtocolViolation

__all__ = ["malformed"]

_REMEDY: Final = "See that the whole message is there as it was sent, or ask its sender to send it anew."


def malformed(sentence: str, *, remedy: str = _REMEDY) -> ProtocolViolation:
    """The sender broke the standard: ``sentence`` says how, and no card was asked."""
    return ProtocolViolation(sentence, layer=Layer.KEYS, outcome=Outcome.NOT_SENT, remedy=remedy)
