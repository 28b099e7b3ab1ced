"""Exchanges with a card, shown to a tracer."""

from demail_hw.errors import HardwareError
from demail_hw.foreign_text import printable
from demail_hw.interfaces import Buffers, CardConnection, Deadline
from demail_hw.iso7816.trace.deciphered import DecipherMask
from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.events import CardPowered, CommandSent
from demail_hw.iso7816.trace.masking import mask
from demail_hw.iso7816.trace.tracers import Tracer, fit_for

__all__ = ["TracedExchange"]


class TracedExchange:
    """:meth:`~demail_hw.interfaces.CardConnection.transmit` of a connection, shown to a tracer: exchanges that failed
    included, and before the first one, and whenever the connection's epoch has changed, the card's ATR.

    What a DECIPHER returns is masked, unless the tracer asks for it (see :class:`Tracer`)."""

    __slots__ = ("_connection", "_epoch", "_mask", "_tracer")

    def __init__(self, connection: CardConnection, tracer: Tracer) -> None:
        self._connection = connection
        self._tracer = tracer
        self._epoch: int | None = None
        self._mask = DecipherMask()

    def __call__(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU."""
        tracer = self._tracer
        if not tracer.enabled:
            self._mask.lose_sight()
            return self._connection.transmit(command, deadline=deadline)
        self._look_at_the_card()
        masked = mask(command)
        tracer.trace(CommandSent(masked))
        try:
            response = self._connection.transmit(command, deadline=deadline)
        except BaseException as error:
            self._end(TraceEntry(masked, "", failure=_told(error)))
            raise
        self._end(TraceEntry(masked, response.hex()))
        return response

    def _end(self, entry: TraceEntry) -> None:
        self._tracer.trace(fit_for(self._tracer, self._mask.mark(entry)))

    def _look_at_the_card(self) -> None:
        epoch = self._connection.epoch
        if epoch != self._epoch:
            self._epoch = epoch
            self._tracer.trace(CardPowered(self._connection.atr))


def _told(error: BaseException) -> str:
    """Only our own errors are known to hold no secret."""
    name = type(error).__name__
    return printable(f"{name}: {error.message}" if isinstance(error, HardwareError) else name)
