"""A reader of PC/SC, and a connection to the card in it, with a deadline for every call."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, TypeVar

from demail_hw.errors import CardRemoved, DeadlineExceeded, DeviceLost, HardwareError, Layer, Outcome, ReaderBusy
from demail_hw.interfaces import Buffers, CardLimits, Deadline, ShareMode
from demail_hw.lost_connection import CLOSED, LostConnection
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.pcsc_calls import CallThread
from demail_hw_drivers.pcsc_card import PcscCard
from demail_hw_drivers.pcsc_monitor import PcscMonitor
from demail_hw_drivers.pcsc_service import PcscService, Share, byte_list

__all__ = ["PcscConnection", "PcscReader"]

_Result = TypeVar("_Result")

_GRACE_SECONDS: Final = 2.0
"""For what nobody gives a deadline to: the end of a transaction, of a connection, of a wait."""
_SHARES: Final = {ShareMode.EXCLUSIVE: Share.EXCLUSIVE, ShareMode.SHARED: Share.SHARED}


class PcscReader:
    """A :class:`~demail_hw.interfaces.Reader`. Safe for several threads."""

    def __init__(self, service: PcscService, name: str, *, serial: str | None) -> None:
        self._service = service
        self._name = name
        self._serial = serial
        self._lock = TransactionLock()
        self._monitor = PcscMonitor(service, name, held=self._held)
        self._connection: PcscConnection | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """What PC/SC calls it."""
        return self._name

    @property
    def serial(self) -> str | None:
        """The serial number, if the reader's driver says it. While another program has the card it cannot be asked,
        and is known only after :meth:`connect`."""
        return self._serial

    def card_present(self, *, deadline: Deadline) -> bool:
        """Is a card in the reader now, as far as PC/SC has noticed? It asks some readers every 400 ms only."""
        return self._monitor.card_present(deadline=deadline)

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in the reader, or until there is none. A service that is started anew meanwhile is
        waited for, and so is a reader that is unplugged."""
        self._monitor.wait(present, deadline=deadline)

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> "PcscConnection":
        """Power the card.

        Another program that has it in use is not waited for, but for the end of a transaction.

        Errors: :class:`~demail_hw.errors.NoCard`, :class:`~demail_hw.errors.CardMute`;
        :class:`~demail_hw.errors.ReaderBusy` while another program has the card, or another connection of this
        reader is open and alive; :class:`~demail_hw.errors.DeviceLost` if the process that opened it is the parent.
        """
        with self._lock.alone(deadline=deadline):
            self._check_free(deadline)
            self._connection = connection = PcscConnection(
                PcscCard(self._service, self._name, _SHARES[share]), self._lock, deadline=deadline
            )
            self._serial = self._serial or connection.reader_serial
            if self._closed:  # meanwhile
                connection.close()
            return connection

    def close(self) -> None:
        """Let card and reader go; whoever waits for a card is woken. Never raises; closing twice is allowed."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
        self._monitor.close(deadline=_grace())

    def _check_free(self, deadline: Deadline) -> None:
        if self._closed:
            raise DeviceLost("The reader was closed.", outcome=Outcome.NOT_SENT)
        if self._connection is not None and self._connection.look(deadline=deadline):
            raise ReaderBusy("The card in this reader has a connection already.", outcome=Outcome.NOT_SENT)

    def _held(self, deadline: Deadline) -> bool | None:
        connection = self._connection
        if connection is None or not connection.alive:
            return None
        with self._lock.alone(deadline=deadline):
            return connection.look(deadline=deadline)


class PcscConnection:
    """A powered card; a :class:`~demail_hw.interfaces.CardConnection`.

    *Exclusive*: no other program has the card, its state stays ours, the epoch with it, and a transaction costs
    nothing. *Shared*: a transaction is one of PC/SC, and between two of them others may do with the card what they
    like. Therefore each begins a new epoch. And therefore **a PIN that was verified is verified for every program
    that shares the card, until the connection is closed**: a card has one state for all.

    Closing takes the power from the card. Where it is shared it is reset, if it got a command, and else left alone.

    PC/SC's calls have no deadline, so they are made in a thread of their own. One that is not back in time, and
    anything else that goes wrong between us and the card, ends the connection: :class:`~demail_hw.errors.CardRemoved`
    is raised from then on, or :class:`~demail_hw.errors.DeviceLost` if it was lost with service or reader; nothing
    was sent, and a new connection is needed. Only another program's reset does not: the epoch has changed then.
    """

    def __init__(self, card: PcscCard, lock: TransactionLock, *, deadline: Deadline) -> None:
        self._card = card
        self._lock = lock
        self._shared = card.share is Share.SHARED
        self._gone: LostConnection | None = None
        self._thread = CallThread("PC/SC card", at_end=card.release)
        try:
            self._call(card.open, deadline=deadline, late=_busy)
        except BaseException as error:
            self._bury(LostConnection.by(error))
            raise

    @property
    def atr(self) -> bytes:
        """The answer to reset (ISO 7816-3, 8.2)."""
        return self._card.atr

    @property
    def limits(self) -> CardLimits:
        """What fits through; extended length is taken for granted where the reader's driver says nothing."""
        return self._card.limits

    @property
    def epoch(self) -> int:
        """Changes with every reset, with every transaction where the card is shared, and when the card is lost."""
        return self._card.epoch + (not self.alive)

    @property
    def alive(self) -> bool:
        """False after the card was lost, and after :meth:`close`."""
        return self._gone is None

    @property
    def reader_serial(self) -> str | None:
        """The serial number of the reader, if its driver says it."""
        return self._card.serial

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block.

        Another program's transaction is waited for until the deadline; then the connection is lost, but nothing was
        sent.
        """
        return self._shared_transaction(deadline) if self._shared else self._lock.hold(deadline=deadline)

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU.

        ``RuntimeError`` outside a transaction of this thread; ``ValueError`` for a command over the limits.
        """
        if not self._lock.held:
            raise RuntimeError("a card command needs a transaction of this thread")
        self._check_alive()
        length = sum(map(len, command))
        if length > self._card.limits.max_command:
            raise ValueError(f"a command of {length} bytes is over the limit of {self._card.limits.max_command}")
        return self._call(partial(self._card.transmit, byte_list(command)), deadline=deadline, late=_no_answer)

    def reset(self, *, deadline: Deadline) -> None:
        """Power the card off and on again; the epoch changes."""
        with contextlib.nullcontext() if self._lock.held else self.transaction(deadline=deadline):
            self._check_alive()
            self._call(self._card.power_cycle, deadline=deadline, late=_no_answer)

    def look(self, *, deadline: Deadline) -> bool:
        """Is the card still there? Inside the lock of the reader.

        Errors: :class:`~demail_hw.errors.DeviceLost` in a process that was forked meanwhile: it is not for it to say.
        """
        if self.alive:
            self._thread.check_process()
            with contextlib.suppress(CardRemoved, DeviceLost):
                self._call(self._card.look, deadline=deadline, late=_busy)
        return self.alive

    def close(self) -> None:
        """Let the card go, and with it what was verified. Never raises; closing twice is allowed."""
        alive = self.alive
        self._gone = CLOSED
        if alive:
            self._end_thread()

    @contextlib.contextmanager
    def _shared_transaction(self, deadline: Deadline) -> Iterator[None]:
        with self._lock.hold(deadline=deadline):
            self._check_alive()
            try:
                self._call(self._card.begin, deadline=deadline, late=_busy)
                yield
            finally:
                self._end()

    def _end(self) -> None:
        """What was done in the transaction is done: that it cannot be ended is said by the next one."""
        if self.alive and self._card.in_transaction:
            try:
                self._call(self._card.end, deadline=_grace(), late=_busy)
            except HardwareError as error:
                # It may still be ours, and keep others out: giving the card back ends it for certain.
                if self.alive:
                    self._bury(LostConnection.by(error))

    def _call(
        self, function: Callable[[], _Result], *, deadline: Deadline, late: Callable[[], DeadlineExceeded]
    ) -> _Result:
        try:
            return self._thread.call(function, deadline=deadline, late=late)
        except BaseException as error:
            if self._thread.lost or not self._card.sound:
                self._bury(LostConnection.by(error))
            raise

    def _check_alive(self) -> None:
        if self._gone is not None:
            raise self._gone.error()

    def _bury(self, why: LostConnection) -> None:
        """From now on this is said, unless something was said before."""
        self._gone = self._gone or why
        self._end_thread()

    def _end_thread(self) -> None:
        """The thread gives the card back when it ends; that is waited for, unless it hangs."""
        self._thread.end(deadline=_grace())


def _grace() -> Deadline:
    return time.monotonic() + _GRACE_SECONDS


def _no_answer() -> DeadlineExceeded:
    return DeadlineExceeded("The card did not answer until the deadline.", layer=Layer.READER)


def _busy() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The card could not be had until the deadline: another program is busy with it, or its reader hangs.",
        layer=Layer.CARD,
        outcome=Outcome.NOT_SENT,
        remedy="End that program, for example GnuPG's scdaemon (gpgconf --kill scdaemon), or wait for it.",
        transient=True,
    )
