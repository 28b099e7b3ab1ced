"""A card that takes no time: what is left of a signature is what the way to the card costs."""

from typing import NamedTuple

from demail_hw_simulators.interfaces import SimulatedCard

__all__ = ["CardCounters", "NullCard"]

_INS = 1
_PERFORM_SECURITY_OPERATION = 0x2A
_DONE = b"\x90\x00"


class CardCounters(NamedTuple):
    """What a card did: commands, and the bytes of their APDUs."""

    commands: int
    bytes_in: int
    bytes_out: int


class NullCard:
    """A :class:`~demail_hw_simulators.interfaces.SimulatedCard` around a real simulated one.

    What that one has signed once is answered from memory the next time the very same command comes, so a fixed
    digest costs one RSA operation in all. Everything else is passed on. It forgets with its power.
    """

    def __init__(self, card: SimulatedCard) -> None:
        self._card = card
        self._known: dict[bytes, bytes] = {}
        self._commands = self._bytes_in = self._bytes_out = 0

    @property
    def counters(self) -> CardCounters:
        """What it did so far."""
        return CardCounters(self._commands, self._bytes_in, self._bytes_out)

    def power_on(self) -> bytes:
        """Cold reset."""
        self._known.clear()
        return self._card.power_on()

    def power_off(self) -> None:
        """Everything volatile is forgotten."""
        self._known.clear()
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        """One command APDU, one response APDU."""
        response = self._known.get(command)
        if response is None:
            response = self._learn(command)
        self._commands += 1
        self._bytes_in += len(command)
        self._bytes_out += len(response)
        return response

    def _learn(self, command: bytes) -> bytes:
        response = self._card.transmit(command)
        if command[_INS] == _PERFORM_SECURITY_OPERATION and response.endswith(_DONE):
            self._known[command] = response
        return response
