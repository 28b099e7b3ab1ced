"""The channel: commands and responses as values, over a connection that carries bytes."""

from collections.abc import Sequence
from typing import Final

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import CardConnection, Deadline
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.processors import ApduProcessor, Send, default_processors
from demail_hw.iso7816.trace import TracedExchange, Tracer

__all__ = ["Channel"]

_STATUS_SIZE: Final = 2


class Channel:
    """Sends commands to a card through a stack of processors, the first of them on top.

    ``processors``: by default what the connection's limits ask for. ``tracer`` sees every command and response as
    they are on the wire, with secrets masked.
    """

    __slots__ = ("_exchange", "_send", "connection")

    def __init__(
        self,
        connection: CardConnection,
        processors: Sequence[ApduProcessor] | None = None,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self.connection: Final = connection
        self._exchange = connection.transmit if tracer is None else TracedExchange(connection, tracer)
        stack = default_processors(connection.limits) if processors is None else processors
        send: Send = self._transmit
        for processor in reversed(stack):
            send = _stacked(processor, send)
        self._send = send

    def send(self, command: CommandApdu, *, deadline: Deadline) -> ResponseApdu:
        """Have a command done. No status word is an error here: the caller judges it.

        Errors: what the connection raises; :class:`~demail_hw.errors.ProtocolViolation` if a response is longer
        than Ne and a status word, or shorter than a status word.
        """
        return self._send(command, deadline)

    def _transmit(self, command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        response = self._exchange(command.encode(), deadline=deadline)
        if len(response) > command.ne + _STATUS_SIZE:
            raise _too_long(command, len(response))
        return ResponseApdu.decode(response)


def _stacked(processor: ApduProcessor, below: Send) -> Send:
    process = processor.process

    def send(command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        return process(command, below, deadline)

    return send


def _too_long(command: CommandApdu, length: int) -> ProtocolViolation:
    return ProtocolViolation(
        f"The card answered {command.label} with {length} bytes, where {command.ne + _STATUS_SIZE} are the most.",
        layer=Layer.CARD,
    )
