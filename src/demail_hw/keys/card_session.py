"""A reader, the card in it, and the time that each command is given."""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from demail_hw.address import Address
from demail_hw.errors import UnexpectedCard
from demail_hw.interfaces import CardConnection, Deadline, Reader, ShareMode, Timeouts
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.trace import LoggingTracer, ReaderOpened, SeveralTracers, Tracer
from demail_hw.keys.card_choice import open_demanded
from demail_hw.registry import open_reader
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.recognition import recognise

__all__ = ["CardSession"]

_APDU_LOG = logging.getLogger("demail_hw.apdu")


class CardSession:
    """An open card. ``serial``: its ICCSN; it is the card that the address demands, or opening failed.

    Whenever the connection's epoch has changed, and after every failure, ATR and ICCSN are read again before anything
    else is done: what is in the reader may be another card by then, and must not get the PIN of the first.

    ``uri``: its address, for the commands that remedies name.

    ``tracer``: what sees reader, ATR and every exchange, masked; beside the logger ``demail_hw.apdu``, if that takes
    DEBUG.

    A context manager; closing it powers the card off and lets the reader go.
    """

    __slots__ = ("_atr", "_epoch", "_resources", "card", "connection", "reader", "serial", "timeouts", "uri")

    def __init__(
        self,
        reader: Reader,
        connection: CardConnection,
        *,
        timeouts: Timeouts,
        tracer: Tracer | None = None,
        uri: str = "URI",
    ) -> None:
        self.uri = uri
        self.reader = reader
        self.connection = connection
        self.timeouts = timeouts
        channel = Channel(connection, tracer=_with_the_log(tracer))
        self._resources = contextlib.ExitStack()
        deadline = self.deadline()
        with connection.transaction(deadline=deadline):
            self._atr = connection.atr
            self._epoch: int | None = connection.epoch
            self.card = TcosCard(connection, recognise(channel, deadline=deadline), channel=channel)
            self.serial = self.card.serial_number(deadline=deadline)

    @classmethod
    def open(cls, address: Address | str, *, timeouts: Timeouts | None = None, tracer: Tracer | None = None) -> Self:
        """Open the card that an address means; of several readers, the one with the card of ``?card=``
        (:func:`~demail_hw.keys.card_choice.open_demanded`).

        Errors: :class:`~demail_hw.errors.UnexpectedCard` if ``?card=`` names another one, and whatever stands
        in the way: transport, reader, card.
        """
        parsed = Address.parse(address) if isinstance(address, str) else address
        times = timeouts or Timeouts()
        return open_demanded(parsed, functools.partial(cls._open, times=times, tracer=tracer), timeouts=times)

    @classmethod
    def _open(cls, parsed: Address, *, times: Timeouts, tracer: Tracer | None) -> Self:
        with contextlib.ExitStack() as resources:
            reader = open_reader(parsed, timeouts=times)
            resources.callback(reader.close)
            if tracer is not None:
                tracer.trace(ReaderOpened(reader.name, reader.serial))
            share = ShareMode(parsed.share or ShareMode.EXCLUSIVE.value)
            connection = reader.connect(share, deadline=time.monotonic() + times.command)
            resources.callback(connection.close)
            session = cls(reader, connection, timeouts=times, tracer=tracer, uri=str(parsed))
            _check_card(session.serial, parsed.card)
            session._resources = resources.pop_all()
        return session

    def deadline(self) -> Deadline:
        """The moment until which an operation that begins now may last."""
        return time.monotonic() + self.timeouts.command

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Deadline]:
        """Have the card alone; gives the deadline of what is done in the block.

        Errors: :class:`~demail_hw.errors.UnexpectedCard` if it is not the same card any more.
        """
        deadline = self.deadline()
        with self.connection.transaction(deadline=deadline):
            self.ensure_same_card(deadline=deadline)
            try:
                yield deadline
            except BaseException:
                self.suspect()
                raise

    def suspect(self) -> None:
        """Something went wrong with the card: the next transaction believes nothing of its state, and looks at it
        again before anything else."""
        self._epoch = None

    def ensure_same_card(self, *, deadline: Deadline) -> None:
        """Look at ATR and ICCSN again if the card may be another one; inside a transaction.

        Errors: :class:`~demail_hw.errors.UnexpectedCard`; no PIN was sent to it.
        """
        epoch = self.connection.epoch
        if epoch == self._epoch:
            return
        self.card.forget()
        if self.connection.atr != self._atr:
            raise UnexpectedCard(f"The card {self.serial} was replaced by one with another ATR.")
        serial = self.card.serial_number(deadline=deadline)
        if serial != self.serial:
            raise UnexpectedCard(f"The card {self.serial} was replaced by {serial}.")
        self._epoch = epoch

    def close(self) -> None:
        """Let card and reader go. Closing twice is allowed."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_the_log(tracer: Tracer | None) -> Tracer | None:
    """Looked at once, when the card is opened: a trace that nobody wants costs nothing afterwards."""
    if not _APDU_LOG.isEnabledFor(logging.DEBUG):
        return tracer
    log = LoggingTracer(_APDU_LOG)
    return log if tracer is None else SeveralTracers((tracer, log))


def _check_card(serial: str, demanded: str | None) -> None:
    if demanded is not None and demanded.upper() != serial:
        raise UnexpectedCard(f"The card in the reader is {serial}, and {demanded.upper()} was asked for.")
