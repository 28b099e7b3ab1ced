"""Addresses of the scheme ``sim:``: a simulated card in this process, behind the same seams as any other.

``sim:`` and ``sim:netkey3`` open a NetKey 3 card; every opening is a new card, as it left its maker.
``sim:netkey3?profile=tpdu`` puts a whole simulated USB reader before it, and the driver for such readers.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import ConfigurationError, DeadlineExceeded, Layer, NoCard, Outcome, ReaderBusy
from demail_hw.interfaces import Buffers, CardLimits, Deadline, Reader, ReaderInfo, ShareMode, Timeouts
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.lost_connection import CLOSED, LostConnection
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.card.personalities import PERSONALITIES, open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.reader_profiles import reader_profile, reader_profiles

__all__ = ["DEFAULT_PERSONALITY", "SimulatedConnection", "SimulatedReader", "SimulatedReaders"]

DEFAULT_PERSONALITY: Final = "netkey3"
"""What ``sim:`` alone means."""

_GRACE_SECONDS: Final = 2.0
"""For what a reader is told after the caller's deadline."""


class SimulatedReader:
    """A :class:`~demail_hw.interfaces.Reader` with a card in it, or none. Safe for several threads."""

    def __init__(
        self, card: SimulatedCard | None, *, name: str = "Simulated reader", serial: str | None = None
    ) -> None:
        self._name = name
        self._serial = serial
        self._card = card
        self._lock = TransactionLock()
        self._changed = threading.Condition()
        self._connection: SimulatedConnection | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def serial(self) -> str | None:
        """The reader's serial number."""
        return self._serial

    def insert(self, card: SimulatedCard) -> None:
        """Put a card in. ``RuntimeError`` if there is one."""
        with self._changed:
            if self._card is not None:
                raise RuntimeError("there is a card in the slot")
            self._card = card
            self._changed.notify_all()

    def remove(self) -> SimulatedCard:
        """Take the card out, whatever it is doing; its connection is dead. ``RuntimeError`` if there is none."""
        with self._changed:
            card, self._card = self._card, None
            if card is None:
                raise RuntimeError("there is no card in the slot")
            if self._connection is not None and self._connection.alive:
                self._connection.lose(LostConnection.by())
            self._changed.notify_all()
        return card

    def card_present(self, *, deadline: Deadline) -> bool:  # noqa: ARG002
        """Is a card in the slot now?"""
        return self._card is not None

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in the slot, or until there is none."""
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: (self._card is not None) is present, left):
                what = "inserted" if present else "taken out"
                raise _over(f"No card was {what} before the deadline.")

    def connect(
        self,
        share: ShareMode = ShareMode.EXCLUSIVE,  # noqa: ARG002
        *,
        deadline: Deadline,
    ) -> "SimulatedConnection":
        """Power the card. Every connection is exclusive, as with a reader whose USB interface is claimed.

        Errors: :class:`~demail_hw.errors.NoCard`; :class:`~demail_hw.errors.ReaderBusy` while another connection is
        open and alive.
        """
        with self._lock.alone(deadline=deadline), self._changed:
            if self._card is None:
                raise NoCard(f"No card is in the reader {self._name!r}.")
            if self._connection is not None and self._connection.alive:
                raise ReaderBusy("The card in this reader has a connection already.", outcome=Outcome.NOT_SENT)
            self._connection = SimulatedConnection(self._card, self._lock)
            return self._connection

    def close(self) -> None:
        """Take the power from the card. Never raises; closing twice is allowed."""
        if self._connection is not None:
            self._connection.close()


class SimulatedConnection:
    """A powered simulated card; a :class:`~demail_hw.interfaces.CardConnection`."""

    __slots__ = ("_atr", "_card", "_epoch", "_gone", "_lock")

    def __init__(self, card: SimulatedCard, lock: TransactionLock) -> None:
        self._card = card
        self._lock = lock
        self._epoch = 0
        self._gone: LostConnection | None = None
        self._atr = card.power_on()

    @property
    def atr(self) -> bytes:
        """The answer to reset."""
        return self._atr

    @property
    def limits(self) -> CardLimits:
        """Everything fits through."""
        return EXTENDED_LIMITS

    @property
    def epoch(self) -> int:
        """Changes with every reset, and when the card is lost."""
        return self._epoch

    @property
    def alive(self) -> bool:
        """False after the card was taken out, and after :meth:`close`."""
        return self._gone is None

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block."""
        return self._lock.hold(deadline=deadline)

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU.

        ``RuntimeError`` outside a transaction of this thread; ``ValueError`` for a command over the limits.
        """
        if not self._lock.held:
            raise RuntimeError("a card command needs a transaction of this thread")
        if self._gone is not None:
            raise self._gone.error()
        if time.monotonic() >= deadline:
            raise _over("The deadline was over before the command was sent.")
        apdu = b"".join(command)
        if len(apdu) > EXTENDED_LIMITS.max_command:
            raise ValueError(f"a command of {len(apdu)} bytes is over the limit of {EXTENDED_LIMITS.max_command}")
        return self._card.transmit(apdu)

    def reset(self, *, deadline: Deadline) -> None:
        """Power the card off and on again; the epoch changes."""
        with self._lock.alone(deadline=deadline):
            if self._gone is not None:
                raise self._gone.error()
            self._epoch += 1
            self._card.power_off()
            self._atr = self._card.power_on()

    def lose(self, why: LostConnection) -> None:
        """It is gone. A card that was taken out forgets everything when it is powered the next time."""
        self._gone = why
        self._epoch += 1

    def close(self) -> None:
        """Power the card off and let it go. Never raises; closing twice is allowed."""
        alive = self.alive
        self.lose(CLOSED)
        if alive:
            self._card.power_off()


class SimulatedReaders:
    """The driver of ``sim:`` (:class:`~demail_hw.interfaces.ReaderDriver`)."""

    in_process: Final = True
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset({"profile"})

    def open(self, address: Address, *, timeouts: Timeouts) -> Reader:  # noqa: ARG002
        """A reader with a new card of the personality that the address names.

        Errors: :class:`~demail_hw.errors.ConfigurationError` if there is no such personality, or no such profile.
        """
        name = _personality(address)
        info = _info(name)
        if address.profile is not None:
            return _usb_reader(name, address.profile, info)
        return SimulatedReader(open_card(name), name=info.name, serial=info.serial)

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:  # noqa: ARG002
        """A reader for each personality, or for the one that the address names."""
        names = (_personality(address),) if address.selector or address.host else tuple(PERSONALITIES)
        return [info for info in map(_info, names) if address.reader in (None, info.serial)]


def _personality(address: Address) -> str:
    name = address.host or address.selector or DEFAULT_PERSONALITY
    if name not in PERSONALITIES:
        raise ConfigurationError(
            f"There is no simulated card {name!r}.",
            remedy=f"Use one of these: {', '.join(f'sim:{known}' for known in PERSONALITIES)}. "
            "A file of your own goes with demail-hw simulate ... --personality FILE.toml only.",
        )
    return name


def _usb_reader(personality: str, profile: str, info: ReaderInfo) -> Reader:
    try:
        device = SimulatedUsbReader(open_card(personality), serial=info.serial or "", profile=reader_profile(profile))
    except ValueError as error:
        raise ConfigurationError(
            f"There is no simulated reader {profile!r}.",
            remedy=f"Use one of these as profile=: {', '.join(reader_profiles())}.",
        ) from error
    return CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=_grace, pause=pause)


def _grace() -> Deadline:
    return time.monotonic() + _GRACE_SECONDS


def _info(name: str) -> ReaderInfo:
    return ReaderInfo(
        address=f"sim:{name}",
        name=f"Simulated reader with the card {name}",
        serial=f"SIM-{name.upper()}",
        card=True,
        in_use=False,
    )


def _over(message: str) -> DeadlineExceeded:
    return DeadlineExceeded(message, layer=Layer.READER, outcome=Outcome.NOT_SENT)
