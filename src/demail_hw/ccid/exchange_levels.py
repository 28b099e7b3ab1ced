"""Exchange levels (CCID 1.10, 3.2): how a card's APDU travels in XfrBlocks, where they carry whole APDUs.

A level is chosen by the reader's class descriptor and the card's ATR (:mod:`demail_hw.ccid.activation`). It does no
I/O and knows no slot: ``exchange`` is a generator that yields the blocks to send, is sent the blocks that came, and
returns the response APDU. What the reader says of a block that failed is thrown in, as an error.
"""

from collections.abc import Generator
from typing import Final, Protocol

from demail_hw.ccid.class_descriptor import CcidDescriptor
from demail_hw.ccid.code_points import ChainParameter, LevelParameter
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import DataBlock, XfrBlock
from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffers, CardLimits
from demail_hw.iso7816.limits import EXTENDED_LIMITS, MAX_COMMAND_APDU, MAX_RESPONSE_APDU, SHORT_LIMITS
from demail_hw.iso7816.tpdu import BufferQueue

__all__ = [
    "ApduExchange",
    "ExtendedApduLevel",
    "Level",
    "ShortApduLevel",
    "check_length",
]

_WHOLE: Final = int(ChainParameter.WHOLE)
_WHOLE_COMMAND: Final = int(LevelParameter.WHOLE)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__

ApduExchange = Generator[XfrBlock, DataBlock, bytes]
"""One APDU under way."""


class Level(Protocol):
    """One exchange level of one powered card."""

    @property
    def limits(self) -> CardLimits:
        """What fits through."""
        ...

    def exchange(self, command: Buffers) -> ApduExchange:
        """Send one command APDU.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`; ``ValueError`` for a command that does not fit.
        """
        ...


class ExtendedApduLevel:
    """Whole APDUs, short and extended; longer ones than a message holds are chained (CCID 1.10, 6.1.4)."""

    __slots__ = ("_capacity",)

    def __init__(self, descriptor: CcidDescriptor) -> None:
        self._capacity = descriptor.message_limit - HEADER_SIZE

    @property
    def limits(self) -> CardLimits:
        """All that ISO 7816-4 can say."""
        return EXTENDED_LIMITS

    def exchange(self, command: Buffers) -> ApduExchange:
        """One block each way if the APDUs fit into a message."""
        length = sum(map(len, command))
        if length <= self._capacity:
            block = yield _new(XfrBlock, (command, _WHOLE_COMMAND, 0))
        elif length <= MAX_COMMAND_APDU:
            block = yield from self._send_chain(command)
        else:
            raise ValueError(f"a command APDU has at most {MAX_COMMAND_APDU} bytes, not {length}")
        if block.chain == _WHOLE:
            return block.data
        return (yield from _receive_chain(block))

    def _send_chain(self, command: Buffers) -> Generator[XfrBlock, DataBlock, DataBlock]:
        rest = BufferQueue(command)
        level = LevelParameter.BEGINS
        while rest.length > self._capacity:
            block = yield XfrBlock(rest.take(self._capacity), level)
            if block.chain != ChainParameter.NEXT or block.data:
                raise _violation("it answers before it has the whole command")
            level = LevelParameter.CONTINUES
        return (yield XfrBlock(rest.take(self._capacity), LevelParameter.ENDS))


def _receive_chain(block: DataBlock) -> ApduExchange:
    if block.chain != ChainParameter.BEGINS:
        raise _violation("a response begins in the middle")
    response = bytearray(block.data)
    while block.chain != ChainParameter.ENDS:
        block = yield XfrBlock((), LevelParameter.NEXT)
        if block.chain not in (ChainParameter.CONTINUES, ChainParameter.ENDS) or not block.data:
            raise _violation("a response does not go on")
        response += block.data
        if len(response) > MAX_RESPONSE_APDU:
            raise _violation(f"a response has more than {MAX_RESPONSE_APDU} bytes")
    return bytes(response)


class ShortApduLevel:
    """Short APDUs, one in a message; a longer command is cut into several above, by command chaining."""

    __slots__ = ("_limits",)

    def __init__(self, descriptor: CcidDescriptor) -> None:
        capacity = descriptor.message_limit - HEADER_SIZE
        self._limits = CardLimits(
            extended=False,
            max_command=min(SHORT_LIMITS.max_command, capacity),
            max_response=min(SHORT_LIMITS.max_response, capacity),
        )

    @property
    def limits(self) -> CardLimits:
        """All that a short APDU and a message hold."""
        return self._limits

    def exchange(self, command: Buffers) -> ApduExchange:
        """One block each way."""
        check_length(command, self._limits.max_command)
        block = yield XfrBlock(command)
        return block.data


def check_length(command: Buffers, most: int) -> None:
    """``ValueError`` for a command APDU that is longer than it may be."""
    length = sum(map(len, command))
    if length > most:
        raise ValueError(f"a command APDU has at most {most} bytes here, not {length}")


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The reader broke the CCID protocol: {why}.", layer=Layer.READER)
