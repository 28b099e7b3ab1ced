"""Faults on the line between a card and its reader: a :class:`FaultyLink` has one, in the place of the card's link::

    SimulatedUsbReader(card, profile=profile, link=lambda card: FaultyLink(CardLine(card), WrongEdc(), after=3))

Nothing here waits or is random: the same blocks give the same faults.
"""

import dataclasses
from functools import reduce
from operator import xor
from typing import ClassVar, Final

from demail_hw_simulators.card.timing import TimedAnswer
from demail_hw_simulators.card_link import SILENCE, CardLink

__all__ = [
    "AbortRequest",
    "DroppedAnswer",
    "DroppedBlock",
    "ExtensionForEver",
    "FaultyLink",
    "LineFault",
    "NoiseToCard",
    "RepeatedAnswer",
    "WrongEdc",
    "WrongMultiplier",
    "WrongSendSequence",
]

_PCB: Final = 1
_NOT_AN_I_BLOCK: Final = 0x80
_SEND_SEQUENCE: Final = 0x40
_INFORMATION: Final = 3
_WTX_REQUEST: Final = b"\0\xc3\1"


class LineFault:
    """What becomes of a block to the card, and of the one that it answers. This one leaves all as it is.

    ``endless``: once it has happened it happens to every block, until the card is reset.
    """

    endless: ClassVar[bool] = False
    __slots__ = ()

    def to_card(self, block: bytes) -> bytes | None:
        """What the card gets; ``None``: nothing."""
        return block

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """What the reader gets; empty: nothing. ``before``: what it got the last time."""
        del before
        return answer


@dataclasses.dataclass(frozen=True, slots=True)
class DroppedBlock(LineFault):
    """The card never gets the block."""

    def to_card(self, block: bytes) -> bytes | None:
        """Nothing."""
        del block
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class NoiseToCard(LineFault):
    """The last byte of the block to the card is wrong: with T=1 its error detection code."""

    def to_card(self, block: bytes) -> bytes | None:
        """Change it."""
        return _with_wrong_end(block)


@dataclasses.dataclass(frozen=True, slots=True)
class DroppedAnswer(LineFault):
    """The card has acted, and its answer is lost."""

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """Nothing."""
        del answer, before
        return b""


@dataclasses.dataclass(frozen=True, slots=True)
class WrongEdc(LineFault):
    """The card has acted, and the last byte of its answer is wrong: with T=1 its error detection code."""

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """Change it."""
        del before
        return _with_wrong_end(answer)


@dataclasses.dataclass(frozen=True, slots=True)
class RepeatedAnswer(LineFault):
    """The reader gets what it got the last time."""

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """That; the answer if there was none."""
        return before or answer


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSendSequence(LineFault):
    """An I-block of T=1 with LRC has the other N(S). Other blocks are left alone."""

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """Change N(S)."""
        del before
        if len(answer) <= _PCB or answer[_PCB] & _NOT_AN_I_BLOCK:
            return answer
        return _with_lrc(answer[:_PCB] + bytes((answer[_PCB] ^ _SEND_SEQUENCE,)) + answer[_PCB + 1 : -1])


@dataclasses.dataclass(frozen=True, slots=True)
class AbortRequest(LineFault):
    """The card has acted, and breaks off with S(ABORT request) of T=1 with LRC."""

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """That block."""
        del answer, before
        return bytes.fromhex("00c200c2")


@dataclasses.dataclass(frozen=True, slots=True)
class ExtensionForEver(LineFault):
    """The card asks for more time by S(WTX request) of T=1 with LRC, and again, whatever the reader says."""

    endless: ClassVar[bool] = True

    def to_card(self, block: bytes) -> bytes | None:
        """It comes through, though the card has no say any more."""
        return block

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """That block, for one waiting time more."""
        del answer, before
        return bytes.fromhex("00c30101c3")


@dataclasses.dataclass(frozen=True, slots=True)
class WrongMultiplier(LineFault):
    """An S(WTX request) of T=1 with LRC asks for another time; 0 is reserved. Other blocks are left alone."""

    multiplier: int = 0xFF

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        """Change it."""
        del before
        if answer[:_INFORMATION] != _WTX_REQUEST:
            return answer
        return _with_lrc(_WTX_REQUEST + bytes((self.multiplier,)))


def _with_lrc(body: bytes) -> bytes:
    return body + bytes((reduce(xor, body),))


def _with_wrong_end(block: bytes) -> bytes:
    return block[:-1] + bytes((block[-1] ^ 0xFF,)) if block else block


class FaultyLink:
    """A :class:`~demail_hw_simulators.card_link.CardLink` with a fault.

    ``after``: so many blocks of each session of the card go well before; ``times``: then it strikes so often, as soon
    as there is a block that it changes, ``None`` for always. ``struck``: how often it has, in all sessions.
    """

    def __init__(self, link: CardLink, fault: LineFault, *, after: int = 0, times: int | None = 1) -> None:
        self._link = link
        self._fault = fault
        self._after = after
        self._times = None if fault.endless else times
        self._passed = 0
        self._left = self._times
        self._before = b""
        self.struck = 0

    @property
    def protocol(self) -> int:
        """That of the link."""
        return self._link.protocol

    def power_on(self) -> bytes:
        """As the link does it. The fault counts anew."""
        self._passed = 0
        self._left = self._times
        self._before = b""
        return self._link.power_on()

    def power_off(self) -> None:
        """As the link does it."""
        self._link.power_off()

    def exchange(self, sent: bytes) -> TimedAnswer:
        """The link's answer, with the fault."""
        answer = self._damaged(sent) if self._due() else self._link.exchange(sent)
        self._before = answer.response
        return answer

    def _due(self) -> bool:
        self._passed += 1
        return self._passed > self._after and self._left != 0

    def _damaged(self, sent: bytes) -> TimedAnswer:
        block = self._fault.to_card(sent)
        said = SILENCE if block is None else self._link.exchange(block)
        answer = said._replace(response=self._fault.to_reader(said.response, self._before))
        if (block, answer) != (sent, said):
            self.struck += 1
            self._left = None if self._left is None else self._left - 1
        return answer
