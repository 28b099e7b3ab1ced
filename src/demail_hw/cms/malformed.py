"""The error for a message that is not what RFC 5652 or RFC 8551 says; always found before a key was used."""

from demail_hw.errors import Layer, Outcome, ProtocolViolation

__all__ = ["malformed"]


def malformed(sentence: str) -> ProtocolViolation:
    """The sender broke the standard: ``sentence`` says how, and no card was asked."""
    return ProtocolViolation(sentence, layer=Layer.KEYS, outcome=Outcome.NOT_SENT)
