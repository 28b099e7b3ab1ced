"""The card's end of the line to its reader (ISO/IEC 7816-3:2006): what a reader of the TPDU level passes on.

A :class:`CardLine` makes of a simulated card, which takes APDUs, one that takes what really goes over the contacts:
PPS, blocks of T=1, TPDUs of T=0. For what goes wrong there: :mod:`demail_hw_simulators.card_link_faults`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from demail_hw.ccid.code_points import PowerSelect
from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.atr import BAUD_RATES, DEFAULT_FI_DI, Atr
from demail_hw.iso7816.pps import Pps
from demail_hw_simulators.card.timing import DEFAULT_CLOCK, TimedAnswer, TimedCard, waiting_time
from demail_hw_simulators.card_link_t0 import T0Card
from demail_hw_simulators.card_link_t1 import T1Card
from demail_hw_simulators.interfaces import SimulatedCard

__all__ = ["SILENCE", "CardLine", "CardLink", "CardOfClasses", "CardWithAtr"]

SILENCE: Final = TimedAnswer(b"", 0.0)
"""The card says nothing, for ever."""

_PPSS: Final = b"\xff"
"""No block and no TPDU begins so: FF is reserved as NAD and as CLA."""
_FI_MASK, _DI_MASK = 0xF0, 0x0F


class CardLink(Protocol):
    """A card as its reader has it: a line that takes something and answers it."""

    @property
    def protocol(self) -> int:
        """T of the protocol that the card speaks now."""
        ...

    def power_on(self) -> bytes:
        """Cold reset; the ATR comes back."""
        ...

    def power_off(self) -> None:
        """Everything volatile is forgotten."""
        ...

    def exchange(self, sent: bytes) -> TimedAnswer:
        """What the card says to a PPS request, a block or a TPDU, and when; empty for a card that says nothing."""
        ...


class _End(Protocol):
    def exchange(self, sent: bytes) -> TimedAnswer: ...


_Work: TypeAlias = Callable[[bytes], TimedAnswer]


def _t0(work: _Work, _atr: Atr, _waiting: float) -> _End:
    return T0Card(work)


def _t1(work: _Work, atr: Atr, waiting: float) -> _End:
    return T1Card(work, checksum=atr.t1.checksum, ifsc=atr.t1.ifsc, waiting=waiting)


_ENDS: Final[Mapping[int, Callable[[_Work, Atr, float], _End]]] = MappingProxyType({0: _t0, 1: _t1})


class CardLine:
    """A :class:`CardLink` to a simulated card. ``clock``: the reader's, in Hz."""

    def __init__(self, card: SimulatedCard, *, clock: int = DEFAULT_CLOCK) -> None:
        self._card = card
        self._clock = clock
        self._atr: Atr | None = None
        self._waiting = 0.0
        self._protocol = 0
        self._end: _End | None = None
        self._fresh = False

    @property
    def protocol(self) -> int:
        """The first that the card offers, or the one that a PPS has chosen (ISO 7816-3, 6.3.1 and 9)."""
        return self._protocol

    def power_on(self) -> bytes:
        """Cold reset; the ATR comes back. A card whose ATR is none says nothing after it."""
        atr = self._card.power_on()
        self._end = None
        try:
            self._atr = Atr.decode(atr)
        except ProtocolViolation:
            return atr
        self._waiting = waiting_time(atr, clock=self._clock)
        self._fresh = True
        self._speak(self._atr.first_protocol)
        return atr

    def power_off(self) -> None:
        """Everything volatile is forgotten."""
        self._end = None
        self._card.power_off()

    def exchange(self, sent: bytes) -> TimedAnswer:
        """A PPS request is one only as the first thing after the reset (ISO 7816-3, 6.3.1)."""
        fresh, self._fresh = self._fresh, False
        if self._end is None:
            return SILENCE
        if sent.startswith(_PPSS):
            return self._agree(sent) if fresh else SILENCE
        return self._end.exchange(sent)

    def _speak(self, protocol: int) -> None:
        make = _ENDS.get(protocol)
        self._protocol = protocol
        self._end = None if make is None or self._atr is None else make(self._work, self._atr, self._waiting)

    def _agree(self, sent: bytes) -> TimedAnswer:
        """The PPS response (ISO 7816-3, 9.3): silence where the card cannot, and no PPS1 for a speed it has not."""
        assert self._atr is not None
        try:
            request = Pps.decode(sent)
        except ProtocolViolation:
            return SILENCE
        if self._atr.specific_mode is not None or request.protocol not in self._atr.protocols:
            return SILENCE
        self._speak(request.protocol)
        fi_di = request.fi_di if _offers(self._atr, request.agreed) else None
        return TimedAnswer(Pps(request.protocol, fi_di).encode(), 0.0)

    def _work(self, apdu: bytes) -> TimedAnswer:
        if isinstance(self._card, TimedCard):
            return self._card.work(apdu)
        return TimedAnswer(self._card.transmit(apdu), 0.0)


def _offers(atr: Atr, fi_di: int) -> bool:
    """Any D up to the one that TA1 names, with its F (ISO 7816-3, 9.2)."""
    if fi_di == DEFAULT_FI_DI:
        return True
    di = BAUD_RATES.get(fi_di & _DI_MASK)
    return fi_di & _FI_MASK == atr.ta1 & _FI_MASK and di is not None and di <= (atr.di or 1)


class _SameCard:
    """A :class:`~demail_hw_simulators.interfaces.SimulatedCard` that does what another one does."""

    def __init__(self, card: SimulatedCard) -> None:
        self._card = card

    def power_on(self) -> bytes:
        """As the card does it."""
        return self._card.power_on()

    def power_off(self) -> None:
        """As the card does it."""
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        """As the card does it."""
        return self._card.transmit(command)


class CardWithAtr(_SameCard):
    """A card that says another ATR: of another protocol, say."""

    def __init__(self, card: SimulatedCard, atr: bytes) -> None:
        super().__init__(card)
        self._atr = atr

    def power_on(self) -> bytes:
        """Cold reset; the other ATR."""
        super().power_on()
        return self._atr


class CardOfClasses(_SameCard):
    """A card that is mute at other voltages than these (ISO/IEC 7816-3:2006, 5.1.3). A reader that chooses the
    voltage itself finds one."""

    def __init__(self, card: SimulatedCard, *voltages: PowerSelect) -> None:
        super().__init__(card)
        self._voltages = frozenset((*voltages, PowerSelect.AUTOMATIC))

    def answers_at(self, power_select: int) -> bool:
        """Does it answer to a reset at this voltage?"""
        return power_select in self._voltages
