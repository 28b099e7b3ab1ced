"""The TPDU level (CCID 1.10, 3.2.2): the reader passes on what T=0 or T=1 sends, and the host runs the protocol."""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from demail_hw.ccid.exchange_levels import ApduExchange, check_length
from demail_hw.ccid.messages import DataBlock, Response, XfrBlock
from demail_hw.ccid.slot_errors import SlotErrorCode
from demail_hw.errors import CardMute, ReaderError, SlotError
from demail_hw.interfaces import Buffers, CardLimits
from demail_hw.iso7816 import t0
from demail_hw.iso7816.limits import EXTENDED_LIMITS, MAX_COMMAND_APDU, SHORT_LIMITS
from demail_hw.iso7816.t1 import T1
from demail_hw.iso7816.t1_blocks import BadBlock, RError
from demail_hw.iso7816.tpdu import Transmission

__all__ = ["T0Level", "T1Level", "t1_blocks_through"]

_NOISE: Final[Mapping[int, RError]] = MappingProxyType(
    {SlotErrorCode.XFR_PARITY_ERROR: RError.EDC, SlotErrorCode.XFR_OVERRUN: RError.OTHER}
)
"""Where a reader says that the card sent something, and what T=1 says of that to the card."""

_Returned = TypeVar("_Returned")


class T1Level:
    """Blocks of T=1, of any card that has agreed on how long they are. Its state is that of the card since its reset:
    after an error that leaves the card's state unknown it is of no use any more."""

    __slots__ = ("_t1",)

    def __init__(self, t1: T1) -> None:
        self._t1 = t1

    @property
    def limits(self) -> CardLimits:
        """All that ISO 7816-4 can say: T=1 chains."""
        return EXTENDED_LIMITS

    def exchange(self, command: Buffers) -> ApduExchange:
        """As many blocks as it takes."""
        check_length(command, MAX_COMMAND_APDU)
        return (yield from t1_blocks_through(self._t1.exchange(command)))


class T0Level:
    """TPDUs of T=0. ``extended``: the card understands extended length fields, which come to it by ENVELOPE."""

    __slots__ = ("_limits",)

    def __init__(self, *, extended: bool) -> None:
        self._limits = EXTENDED_LIMITS if extended else SHORT_LIMITS

    @property
    def limits(self) -> CardLimits:
        """Short APDUs, or all that ISO 7816-4 can say."""
        return self._limits

    def exchange(self, command: Buffers) -> ApduExchange:
        """One block for the command, and one for each GET RESPONSE."""
        check_length(command, self._limits.max_command)
        return (yield from _through(t0.exchange(command), lambda error: error))


def t1_blocks_through(steps: Generator[Transmission, bytes, _Returned]) -> Generator[XfrBlock, Response, _Returned]:
    """T=1 in XfrBlocks. Where the reader heard noise or nothing, T=1 is told so; any other error ends it."""
    return _through(steps, _heard)


def _heard(error: ReaderError) -> Exception:
    match error:
        case CardMute():
            what = RError.OTHER
        case SlotError(code=code) if code in _NOISE:
            what = _NOISE[code]
        case _:
            return error
    bad = BadBlock(error.message, what)
    bad.__cause__ = error
    return bad


def _through(
    steps: Generator[Transmission, bytes, _Returned], heard: Callable[[ReaderError], Exception]
) -> Generator[XfrBlock, Response, _Returned]:
    answer: bytes | Exception | None = None
    while True:
        try:
            data, waiting = _step(steps, answer)
        except StopIteration as done:
            returned: _Returned = done.value
            return returned
        try:
            block = yield XfrBlock(data, waiting=waiting)
            answer = block.data if isinstance(block, DataBlock) else b""
        except ReaderError as error:
            answer = heard(error)


def _step(steps: Generator[Transmission, bytes, object], answer: bytes | Exception | None) -> Transmission:
    """Go on with what came; with nothing at the beginning."""
    match answer:
        case None:
            return next(steps)
        case Exception():
            return steps.throw(answer)
        case _:
            return steps.send(answer)
