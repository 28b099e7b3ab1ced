"""What stands between a command and the wire, stacked (ISO 7816-4, 5.3): each processor has one method and one task.

A processor gets the command and ``send``, the way down through those that stand below it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer, CardLimits, Deadline
from demail_hw.iso7816.apdu import (
    MAX_EXTENDED_LC,
    MAX_EXTENDED_NE,
    MAX_SHORT_LC,
    MAX_SHORT_NE,
    CommandApdu,
    ResponseApdu,
)
from demail_hw.iso7816.status import StatusWord, bytes_available, correct_ne

__all__ = [
    "ApduProcessor",
    "CommandChaining",
    "EndlessResponse",
    "LeCorrection",
    "ResponseChaining",
    "Send",
    "default_processors",
    "get_response",
]

Send: TypeAlias = Callable[[CommandApdu, Deadline], ResponseApdu]

_GET_RESPONSE: Final = 0xC0
_FURTHER_INTERINDUSTRY: Final = 0x40
_FURTHER_CHANNEL_MASK: Final = 0x0F
_FIRST_CHANNEL_MASK: Final = 0x03
_CHAINED: Final = 0x10

_SHORT_OVERHEAD: Final = 6
"""Header, Lc and Le of a short command."""
_EXTENDED_OVERHEAD: Final = 9
"""Header, Lc and Le of an extended command."""
_STATUS_SIZE: Final = 2


class ApduProcessor(Protocol):
    """One behaviour of the card or the way to it."""

    def process(self, command: CommandApdu, send: Send, deadline: Deadline) -> ResponseApdu:
        """Have ``command`` done by as many calls of ``send`` as it takes."""
        ...


class EndlessResponse(ProtocolViolation):
    """The card says 61xx without end, or holds back what it promised with it."""

    default_layer = Layer.CARD


def default_processors(limits: CardLimits) -> tuple[ApduProcessor, ...]:
    """The stack for a link with these limits, the topmost first.

    Le is corrected above the chaining of commands, because a chain that was refused begins anew; GET RESPONSE
    passes all of them.
    """
    chaining = CommandChaining.for_limits(limits)
    if chaining.max_nc >= MAX_EXTENDED_LC and chaining.max_ne >= MAX_EXTENDED_NE:
        return ResponseChaining(), LeCorrection()
    return ResponseChaining(), LeCorrection(), chaining


# --- Response chaining -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseChaining:
    """Fetches the rest of a response by GET RESPONSE (ISO 7816-4, 5.3.4 and 11.4.3).

    It fetches up to the Ne of the command; an Ne of 256 means all there is, since a short command cannot ask for
    more. What is left then stays in the card, and the status remains 61xx. ``max_commands``: GET RESPONSE a
    response may take; ``max_total``: its greatest size in bytes.
    Errors: :class:`EndlessResponse` above them, or when a GET RESPONSE brings nothing and asks for another.
    """

    max_commands: int = 512
    max_total: int = MAX_EXTENDED_NE

    def process(self, command: CommandApdu, send: Send, deadline: Deadline) -> ResponseApdu:
        """Send the command and put its response together."""
        response = send(command, deadline)
        if bytes_available(response.status) is None:
            return response
        most = self.max_total if command.ne == MAX_SHORT_NE else min(command.ne, self.max_total)
        return self._fetch(command, response, most, send, deadline)

    def _fetch(
        self, command: CommandApdu, response: ResponseApdu, most: int, send: Send, deadline: Deadline
    ) -> ResponseApdu:
        parts, size, status = [response.data], len(response.data), response.status
        while (available := bytes_available(status)) and size < most:
            if len(parts) > self.max_commands:
                raise _endless(command, f"it still has data after {self.max_commands} GET RESPONSE")
            ne = min(available, most - size)
            part = send(get_response(command.cla, ne), deadline)
            parts.append(part.data)
            size, status = size + len(part.data), part.status
            if not part.data and bytes_available(status):
                raise _endless(command, "GET RESPONSE brought no data and asked for another")
        if bytes_available(status) and size >= self.max_total:
            raise _endless(command, f"it still has data after {size} bytes")
        return ResponseApdu(b"".join(parts), status)


def get_response(cla: int, ne: int) -> CommandApdu:
    """GET RESPONSE on the logical channel of ``cla`` (ISO 7816-4, 5.4.1 and 11.4.3)."""
    further = cla & _FURTHER_INTERINDUSTRY
    channel = cla & (_FURTHER_CHANNEL_MASK if further else _FIRST_CHANNEL_MASK)
    return CommandApdu(further | channel, _GET_RESPONSE, 0, 0, ne=ne, name="GET RESPONSE")


def _endless(command: CommandApdu, why: str) -> EndlessResponse:
    return EndlessResponse(f"The card's response to {command.label} has no end: {why}.")


# --- Le --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class LeCorrection:
    """Repeats a command once with the Le that 6Cxx names (ISO 7816-4, 5.6).

    Not a command that carries a PIN, for it is never sent twice; and not when more is named than the caller
    asked for. Then the caller gets the 6Cxx.
    """

    def process(self, command: CommandApdu, send: Send, deadline: Deadline) -> ResponseApdu:
        """Send the command, at most twice."""
        response = send(command, deadline)
        ne = correct_ne(response.status)
        if ne is None or ne >= command.ne or command.secret:
            return response
        return send(dataclasses.replace(command, ne=ne), deadline)


# --- Command chaining ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class CommandChaining:
    """Splits a command whose data field is too long for the link (ISO 7816-4, 5.3.3).

    ``max_nc``: longest data field of one command; ``max_ne``: greatest Ne of one command; ``piece``: length of
    the pieces of a longer one, in bytes.
    """

    max_nc: int
    max_ne: int
    piece: int

    @classmethod
    def for_limits(cls, limits: CardLimits) -> "CommandChaining":
        """The lengths that these limits leave. ``ValueError`` if they leave no room for data."""
        piece = min(MAX_SHORT_LC, limits.max_command - _SHORT_OVERHEAD)
        max_nc, max_ne = piece, MAX_SHORT_NE
        if limits.extended:
            max_nc, max_ne = min(MAX_EXTENDED_LC, limits.max_command - _EXTENDED_OVERHEAD), MAX_EXTENDED_NE
        max_ne = min(max_ne, limits.max_response - _STATUS_SIZE)
        if max_nc < 1 or max_ne < 1:
            raise ValueError(f"no data fit through {limits}")
        return cls(max_nc, max_ne, piece)

    def process(self, command: CommandApdu, send: Send, deadline: Deadline) -> ResponseApdu:
        """Send the command, in pieces if it has to be; a piece that is refused is the last one."""
        if command.nc <= self.max_nc and command.ne <= self.max_ne:
            return send(command, deadline)
        ne = min(command.ne, self.max_ne)
        if command.nc <= self.max_nc:
            return send(dataclasses.replace(command, ne=ne), deadline)
        *chained, last = _pieces(command.data, self.piece)
        for data in chained:
            piece = dataclasses.replace(command, cla=command.cla | _CHAINED, data=data, ne=0)
            response = send(piece, deadline)
            if response.status != StatusWord.NORMAL_PROCESSING:
                return response
        return send(dataclasses.replace(command, data=last, ne=min(ne, MAX_SHORT_NE)), deadline)


def _pieces(data: tuple[Buffer, ...], size: int) -> Iterator[tuple[Buffer, ...]]:
    """The gather list cut into pieces of ``size`` bytes; nothing is copied."""
    piece: list[Buffer] = []
    room = size
    for buffer in data:
        rest = memoryview(buffer)
        while len(rest) > room:
            yield (*piece, rest[:room])
            piece, rest, room = [], rest[room:], size
        piece.append(rest)
        room -= len(rest)
    yield tuple(piece)
