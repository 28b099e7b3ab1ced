"""A reader of the CCID class over any USB transport, and the card in it."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from demail_hw.ccid.class_descriptor import CcidDescriptor, find_ccid_interface
from demail_hw.ccid.code_points import IccStatus
from demail_hw.ccid.quirks import quirk_for
from demail_hw.ccid.slot import Slot
from demail_hw.errors import DeadlineExceeded, HardwareError, Layer, Outcome, ReaderBusy
from demail_hw.interfaces import Buffers, CardLimits, CardLock, Deadline, ShareMode, UsbTransport
from demail_hw.lost_connection import CLOSED

__all__ = ["CcidConnection", "CcidReader"]

_CLOSED: Final = -1
"""An epoch that never comes."""


class CcidReader:
    """The slot of one reader; a :class:`~demail_hw.interfaces.Reader`. Safe for several threads.

    ``lock``: serialises everything that is done with the slot. ``grace``: the deadline for what nobody gives a
    deadline to, taking the power from the card when a connection is closed. ``pause``: waits a little, but not past
    its deadline, before a reader that cannot tell of its card is asked again. ``look_again``: when one that can is
    asked all the same, of a deadline; without it never. ``now``: the clock of :attr:`unheeded_seconds`; without it
    that is always 0.

    A command whose deadline was over is not aborted then: there is no time left to do it in. Its connection is dead,
    and the next operation with the reader (the next ``connect``, or ``close``) aborts it and takes the power from
    the card first, under its own deadline.

    Errors: :class:`~demail_hw.errors.ReaderError` for a reader of an exchange level that is not supported,
    :class:`~demail_hw.errors.ProtocolViolation` for a device that is no reader; nothing was sent.
    """

    def __init__(
        self,
        transport: UsbTransport,
        *,
        lock: CardLock,
        grace: Callable[[], Deadline],
        pause: Callable[[Deadline], None],
        look_again: Callable[[Deadline], Deadline] = float,
        now: Callable[[], float] = float,
        name: str | None = None,
    ) -> None:
        interface = find_ccid_interface(transport.configuration, transport.identity.interface)
        quirk = quirk_for(transport.identity)
        self._transport = transport
        self._lock = lock
        self._grace = grace
        self._pause = pause
        self._look_again = look_again
        self._tells = interface.interrupt_in is not None
        self._descriptor = interface.descriptor
        self._name = name or transport.identity.product or "CCID reader"
        self._slot = Slot(transport, interface, first_read=quirk.first_read if quirk else None, now=now)
        self._connection: CcidConnection | None = None

    @property
    def name(self) -> str:
        """What the reader calls itself."""
        return self._name

    @property
    def serial(self) -> str | None:
        """The USB serial number."""
        return self._transport.identity.serial

    @property
    def descriptor(self) -> CcidDescriptor:
        """What the reader says it can do."""
        return self._descriptor

    @property
    def unheeded_seconds(self) -> float:
        """How long it has heeded no ABORT, since the first one; 0 if it heeded the last. Some firmware does so only
        when the card is done; one that never does takes no command until it is imported or opened anew."""
        return self._slot.unheeded_seconds

    def card_present(self, *, deadline: Deadline) -> bool:
        """Is a card in the slot now?"""
        with self._lock.alone(deadline=deadline):
            return self._slot.card_status(deadline=deadline) is not IccStatus.ABSENT

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in the slot, or until there is none.

        The slot is asked each time: a NotifySlotChange only says when, and may be lost. A reader without an interrupt
        endpoint sends none (CCID 1.10, 6.3.1), and is asked again after a pause.
        """
        try:
            while self.card_present(deadline=deadline) is not present:
                if self._tells:
                    self._hear(deadline)
                else:
                    self._pause(deadline)
        except DeadlineExceeded as error:
            what = "inserted" if present else "taken out"
            raise DeadlineExceeded(
                f"No card was {what} before the deadline.", layer=Layer.READER, outcome=Outcome.NOT_SENT
            ) from error

    def _hear(self, deadline: Deadline) -> None:
        """Wait for news, but not longer than until the slot is to be asked again."""
        look = self._look_again(deadline)
        try:
            self._transport.interrupt_in(deadline=look)
        except DeadlineExceeded:
            if look >= deadline:
                raise

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> "CcidConnection":  # noqa: ARG002
        """Power the card. The USB interface is claimed, so every connection is exclusive.

        Errors: :class:`~demail_hw.errors.NoCard`; :class:`~demail_hw.errors.ReaderBusy` while another connection is
        open and alive.
        """
        with self._lock.alone(deadline=deadline):
            # First the status: a card that went away unseen is in nobody's way.
            status = self._slot.card_status(deadline=deadline)
            if self._connection is not None and self._connection.alive:
                raise ReaderBusy("The card in this reader has a connection already.", outcome=Outcome.NOT_SENT)
            if status is IccStatus.ACTIVE:
                self._slot.power_off(deadline=deadline)
            self._connection = CcidConnection(self._slot, self._lock, self._grace, deadline=deadline)
            return self._connection

    def escape(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """A command that the reader's vendor defines (CCID 1.10, 6.1.8)."""
        with self._lock.alone(deadline=deadline):
            return self._slot.escape(command, deadline=deadline)

    def close(self) -> None:
        """Take the power from the card and let the reader go. Never raises; closing twice is allowed."""
        if self._connection is not None:
            self._connection.close()
        owner = self._slot.owner
        if self._slot.powered and owner is not self._connection:
            # By a connection that did not come about.
            _take_power(self._slot, owner, self._lock, self._grace)
        self._transport.close()


class CcidConnection:
    """A powered card; a :class:`~demail_hw.interfaces.CardConnection`.

    It is dead after the card lost its power, and after a command whose answer did not come: then
    :class:`~demail_hw.errors.CardRemoved` is raised, or :class:`~demail_hw.errors.DeviceLost` if it was lost with the
    reader; nothing was sent, and a new connection is needed.
    """

    def __init__(self, slot: Slot, lock: CardLock, grace: Callable[[], Deadline], *, deadline: Deadline) -> None:
        self._slot = slot
        self._lock = lock
        self._grace = grace
        self._atr = b""
        self._limits = slot.limits
        self._epoch = _CLOSED
        self._power_on(deadline)

    @property
    def atr(self) -> bytes:
        """The answer to reset (ISO 7816-3, 8.2)."""
        return self._atr

    @property
    def limits(self) -> CardLimits:
        """What fits through."""
        return self._limits

    @property
    def epoch(self) -> int:
        """Changes with every reset, and when the card is lost."""
        return self._slot.epoch

    @property
    def alive(self) -> bool:
        """False after the card was lost, and after :meth:`close`."""
        return self._slot.epoch == self._epoch

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block."""
        return self._lock.hold(deadline=deadline)

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU.

        ``RuntimeError`` outside a transaction of this thread; ``ValueError`` for a command over the limits.
        """
        if not self._lock.held:
            raise RuntimeError("a card command needs a transaction of this thread")
        slot = self._slot
        if slot.epoch != self._epoch:
            raise self._gone()
        return slot.transmit(command, deadline=deadline)

    def reset(self, *, deadline: Deadline) -> None:
        """Power the card off and on again; the epoch changes."""
        with self._lock.alone(deadline=deadline):
            if not self.alive:
                raise self._gone()
            if self._slot.card_status(deadline=deadline) is not IccStatus.ACTIVE:
                # It was out, or is another one: whoever wants it must find out first which card it is.
                raise self._gone()
            self._slot.power_off(deadline=deadline)
            self._power_on(deadline)

    def close(self) -> None:
        """Take the power from the card and let it go. Never raises; closing twice is allowed."""
        if self._epoch == _CLOSED:
            return
        _take_power(self._slot, self, self._lock, self._grace)
        self._epoch = _CLOSED

    def _power_on(self, deadline: Deadline) -> None:
        self._slot.owner = self
        self._atr = self._slot.power_on(deadline=deadline)
        self._limits = self._slot.limits
        self._epoch = self._slot.epoch

    def _gone(self) -> HardwareError:
        return (CLOSED if self._epoch == _CLOSED else self._slot.lost).error()


def _take_power(slot: Slot, owner: object, lock: CardLock, grace: Callable[[], Deadline]) -> None:
    """From the card, if it is still this owner's. What fails is nobody's business any more."""
    with contextlib.suppress(HardwareError):
        deadline = grace()
        with lock.alone(deadline=deadline):
            if slot.owner is owner:
                slot.power_off(deadline=deadline)
