"""What a reader of the TPDU level does with the line to its card (CCID 1.10, 3.2.2 and table 5.1-1).

It passes on what the host sends, and says nothing of its own, but for what its dwFeatures promise: PPS from the
parameters that the host proposes (0x80), and S(IFS request) behind it (0x400).
"""

from typing import Final

from demail_hw.ccid.class_descriptor import CcidDescriptor, Features
from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.atr import DEFAULT_FI_DI, Atr
from demail_hw.iso7816.pps import Pps
from demail_hw.iso7816.t1_blocks import SBlock, SKind, encode_block
from demail_hw_simulators.card.timing import TimedAnswer, waiting_time
from demail_hw_simulators.card_link import CardLink

__all__ = ["ReaderLine"]

_T1: Final = 1
_HERTZ: Final = 1000


class ReaderLine:
    """The reader's end of one card's line."""

    def __init__(self, link: CardLink, descriptor: CcidDescriptor) -> None:
        self._link = link
        self._features = descriptor.features
        self._ifsd = descriptor.max_ifsd
        self._clock = descriptor.default_clock * _HERTZ
        self._atr: Atr | None = None
        self._waiting = 0.0
        self._proposed = False

    @property
    def asks_itself(self) -> bool:
        """Does the card ask for more time where it needs it? In T=0 the reader tells the host."""
        return self._link.protocol == _T1

    def power_on(self) -> bytes:
        """The card's ATR."""
        atr = self._link.power_on()
        self._proposed = False
        self._waiting = waiting_time(atr, clock=self._clock)
        try:
            self._atr = Atr.decode(atr)
        except ProtocolViolation:
            self._atr = None
        return atr

    def power_off(self) -> None:
        """The card has no power."""
        self._link.power_off()

    def exchange(self, tpdu: bytes, waiting: int) -> TimedAnswer:
        """What the card answers. One that is silent for longer than it may is mute: the block waiting time, times
        ``waiting`` (bBWI) after an S(WTX response)."""
        answer = self._link.exchange(tpdu)
        limit = self._waiting * max(1, waiting)
        return TimedAnswer(b"", limit) if self.asks_itself and answer.seconds > limit else answer

    def propose(self, protocol: int, fi_di: int) -> bool:
        """The host's first parameters after a reset; False if the card does not agree."""
        if self._atr is None:
            return False
        if self._proposed:
            return protocol == self._link.protocol
        self._proposed = True
        if not self._agree(self._atr, Pps(protocol, None if fi_di == DEFAULT_FI_DI else fi_di)):
            return False
        return protocol != _T1 or Features.AUTO_IFSD not in self._features or self._tell_ifsd(self._atr)

    def _agree(self, atr: Atr, request: Pps) -> bool:
        if atr.specific_mode is not None or request == Pps(atr.first_protocol):
            return request.protocol == atr.first_protocol
        try:
            return Pps.decode(self._link.exchange(request.encode()).response).answers(request)
        except ProtocolViolation:
            return False

    def _tell_ifsd(self, atr: Atr) -> bool:
        """Silence is no answer, and neither is another block."""
        request = SBlock(SKind.IFS, self._ifsd)
        answer = self._link.exchange(b"".join(encode_block(request, atr.t1.checksum)))
        return answer.response == b"".join(encode_block(request.reply(), atr.t1.checksum))
