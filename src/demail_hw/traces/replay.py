"""A recorded card in the place of a real one: the addresses of the scheme ``replay:``.

::

    replay:card.trace               the card of this trace; every opening begins at its beginning

It answers the commands of the trace in their order, and nothing else: a command that comes otherwise is told with the
line that has another. Any PIN of the recorded length is taken for the recorded one. A ``?`` in the file's name is
written %3F.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from demail_hw.address import Address
from demail_hw.errors import (
    CardMute,
    ConfigurationError,
    DeadlineExceeded,
    Layer,
    NoCard,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
)
from demail_hw.interfaces import Buffers, CardLimits, CardLock, Deadline, ReaderInfo, ShareMode, Timeouts
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.trace import MASKED, Trace, TraceEntry, mask
from demail_hw.lost_connection import CLOSED
from demail_hw.traces.files import read_trace
from demail_hw.transaction_lock import TransactionLock

__all__ = ["Playback", "ReplayConnection", "ReplayReader", "ReplayReaders"]

_LOG = logging.getLogger(__name__)
_SHOWN_DIGITS: Final = 32
_REMEDY: Final = (
    "Do what was done when the trace was recorded, with the same options and the same input; what hangs on chance or "
    "on the clock cannot be replayed."
)
_REMEDY_MASKED: Final = "Record it with --trace-decipher (deciphered=True), where what it deciphers may be seen."


class Playback:
    """A trace, and how much of it was replayed. Several connections may follow one another, as they were recorded."""

    def __init__(self, trace: Trace) -> None:
        self.trace: Final = trace
        self.position = 0
        self.atr = trace.atr
        self.epoch = 0
        self.diverged = False
        self._powered = 0

    @property
    def exhausted(self) -> bool:
        """True if every recorded exchange was replayed."""
        return self.position == len(self.trace.entries)

    def power(self) -> None:
        """The card is powered anew; the recorded conversation goes on where it was."""
        self.epoch += 1
        self._pass_power_ups()

    def catch_up(self) -> None:
        """What happened to the card without us when the trace was recorded happens again."""
        if self._pass_power_ups():
            self.epoch += 1

    def _pass_power_ups(self) -> bool:
        before = self._powered
        while self._powered < len(self.trace.powered) and self.trace.powered[self._powered].position <= self.position:
            self.atr = self.trace.powered[self._powered].atr
            self._powered += 1
        return self._powered > before

    def answer(self, command: str) -> bytes:
        """The recorded response to a masked command.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` names the line where the trace has another command or
        a response that is masked; :class:`~demail_hw.errors.CardMute` where it has none.
        """
        if self.exhausted:
            raise self._mismatch(f"The trace has ended, and {_shorten(command)} came.")
        entry = self.trace.entries[self.position]
        place = f"Line {entry.line}" if entry.line else f"Exchange {self.position + 1}"
        self._check(entry, command, place)
        self.position += 1
        if not entry.response:
            self.catch_up()
            raise CardMute(f"{place} of the trace has no response. {entry.failure}".rstrip(), remedy="")
        return bytes.fromhex(entry.response)

    def _check(self, entry: TraceEntry, command: str, place: str) -> None:
        if command != entry.command:
            expected, sent = _shorten(entry.command), _shorten(command)
            where = f", with another byte {_first_difference(entry.command, command)}" if expected == sent else ""
            raise self._mismatch(f"{place} of the trace has {expected}, and {sent} came{where}.")
        if MASKED in entry.response:
            raise self._mismatch(f"{place} of the trace has a masked response.", _REMEDY_MASKED)

    def _mismatch(self, message: str, remedy: str = _REMEDY) -> ProtocolViolation:
        self.diverged = True
        return ProtocolViolation(message, layer=Layer.CARD, outcome=Outcome.NOT_SENT, remedy=remedy)


def _shorten(command: str) -> str:
    return command if len(command) <= _SHOWN_DIGITS else f"{command[:_SHOWN_DIGITS]}..."


def _first_difference(one: str, other: str) -> int:
    """Counted in bytes, from 1."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other))) // 2 + 1


class ReplayConnection:
    """A :class:`~demail_hw.interfaces.CardConnection` to a recorded card: the same commands in the same order.

    ``lock``: what a transaction holds.
    """

    def __init__(self, playback: Playback, lock: CardLock, *, limits: CardLimits = EXTENDED_LIMITS) -> None:
        self._playback = playback
        self._lock = lock
        self._limits = limits
        self._alive = True

    @property
    def atr(self) -> bytes:
        """The recorded answer to reset."""
        return self._playback.atr

    @property
    def limits(self) -> CardLimits:
        """What fits through."""
        return self._limits

    @property
    def epoch(self) -> int:
        """Changes with every reset, and where it did in the trace."""
        return self._playback.epoch

    @property
    def alive(self) -> bool:
        """False after :meth:`close`."""
        return self._alive

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block."""
        turn = self._lock.hold(deadline=deadline)
        self._playback.catch_up()
        return turn

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """The recorded response.

        ``RuntimeError`` outside a transaction of this thread; ``ValueError`` for a command over the limits.
        Errors: as for :meth:`Playback.answer`.
        """
        if not self._lock.held:
            raise RuntimeError("a card command needs a transaction of this thread")
        self._check_alive()
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(
                "The deadline was over before the command was sent.", layer=Layer.READER, outcome=Outcome.NOT_SENT
            )
        length = sum(map(len, command))
        if length > self._limits.max_command:
            raise ValueError(f"a command of {length} bytes is over the limit of {self._limits.max_command}")
        return self._playback.answer(mask(command))

    def reset(self, *, deadline: Deadline) -> None:
        """A new epoch; the recorded conversation goes on where it was."""
        with self._lock.alone(deadline=deadline):
            self._check_alive()
            self._playback.power()

    def _check_alive(self) -> None:
        if not self._alive:
            raise CLOSED.error()

    def close(self) -> None:
        """Take no more commands. Never raises; closing twice is allowed."""
        self._alive = False


class ReplayReader:
    """A :class:`~demail_hw.interfaces.Reader` with a recorded card in it, which nobody can take out.

    It has the name and the serial number of the recorded reader. A second connection, after the first was closed,
    goes on in the trace where the first one was. Closing it warns if the trace goes on.
    """

    def __init__(self, trace: Trace, *, name: str = "Recorded card") -> None:
        self._name = trace.reader or name
        self._serial = trace.serial
        self._playback = Playback(trace)
        self._lock = TransactionLock()
        self._connection: ReplayConnection | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def serial(self) -> str | None:
        """The recorded reader's serial number."""
        return self._serial

    def card_present(self, *, deadline: Deadline) -> bool:  # noqa: ARG002 - it is known at once
        """Has the trace a card in it?"""
        trace = self._playback.trace
        return bool(trace.atr or trace.entries)

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait for what will not change.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded` at once, unless it is so already.
        """
        if self.card_present(deadline=deadline) is not present:
            what = "put into" if present else "taken out of"
            raise DeadlineExceeded(
                f"No card can be {what} a trace.", layer=Layer.READER, outcome=Outcome.NOT_SENT, remedy=""
            )

    def connect(
        self,
        share: ShareMode = ShareMode.EXCLUSIVE,  # noqa: ARG002
        *,
        deadline: Deadline,
    ) -> ReplayConnection:
        """Power the card. Every connection is exclusive.

        Errors: :class:`~demail_hw.errors.NoCard` if the trace has none; :class:`~demail_hw.errors.ReaderBusy` while
        another connection is open.
        """
        with self._lock.alone(deadline=deadline):
            if not self.card_present(deadline=deadline):
                raise NoCard("The trace has no card in it.", remedy="Record one with --trace FILE.")
            if self._connection is not None:
                if self._connection.alive:
                    raise ReaderBusy("The recorded card has a connection already.", outcome=Outcome.NOT_SENT)
                self._playback.power()
            self._connection = ReplayConnection(self._playback, self._lock)
            return self._connection

    def close(self) -> None:
        """Let the card go. Never raises; closing twice is allowed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.close()
        playback = self._playback
        if not (playback.exhausted or playback.diverged):
            left = len(playback.trace.entries) - playback.position
            line = playback.trace.entries[playback.position].line
            _LOG.warning("The trace goes on at line %d; of its exchanges %d were not replayed.", line, left)


class ReplayReaders:
    """The driver of ``replay:`` (:class:`~demail_hw.interfaces.ReaderDriver`)."""

    in_process: Final = True
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset()

    def open(self, address: Address, *, timeouts: Timeouts) -> ReplayReader:  # noqa: ARG002
        """A reader with the card of the trace.

        Errors: :class:`~demail_hw.errors.ConfigurationError` if the address names no file, or that is no trace.
        """
        path = _path(address)
        return ReplayReader(read_trace(path), name=f"Recorded card in {path}")

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The reader of the one trace that the address names."""
        reader = self.open(address, timeouts=timeouts)
        if address.reader not in (None, reader.serial):
            return ()
        present = reader.card_present(deadline=time.monotonic())
        return (ReaderInfo(str(address), reader.name, reader.serial, card=present, in_use=False),)


def _path(address: Address) -> str:
    if address.host:
        raise ConfigurationError(
            f"{str(address)!r} names a host, but a trace is a file here.", remedy="Write replay:FILE, without //."
        )
    if not address.selector:
        raise ConfigurationError("replay: names no trace.", remedy="Write replay:FILE.")
    return address.selector
