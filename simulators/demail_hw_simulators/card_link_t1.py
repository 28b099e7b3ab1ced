"""The card's end of the protocol T=1 (ISO/IEC 7816-3:2006, 11.6.2.3 and 11.6.3.2): what a simulated card
says to each block.

A card never begins and never repeats on its own: it answers a block with one block. A command is done when the last
block of its chain has come with the right number, once; asked by an R-block it says its last block again.
"""

import math
from collections.abc import Callable
from typing import Final, assert_never

from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import (
    BadBlock,
    Block,
    IBlock,
    RBlock,
    RError,
    SBlock,
    SKind,
    decode_block,
    encode_block,
)
from demail_hw_simulators.card.timing import TimedAnswer

__all__ = ["T1Card"]

_DEFAULT_IFSD: Final = 32
_LONGEST_EXTENSION: Final = 255
"""The most that the information field of S(WTX request) says."""


class T1Card:
    """``work``: does a command APDU. ``ifsc``: the longest information field that it takes, in bytes. ``waiting``:
    the block waiting time, in seconds: a command that takes longer than half of it makes the card ask for more."""

    def __init__(
        self, work: Callable[[bytes], TimedAnswer], *, checksum: Checksum, ifsc: int, waiting: float
    ) -> None:
        self._work = work
        self._checksum = checksum
        self._ifsc = ifsc
        self._ifsd = _DEFAULT_IFSD
        self._waiting = waiting
        self._last: Block | None = None
        self._reset()

    def _reset(self) -> None:
        self._send = self._expected = 0
        self._forget()

    def _forget(self) -> None:
        self._command = bytearray()
        self._response = b""
        self._last_piece: IBlock | None = None
        self._extension: SBlock | None = None
        self._left = 0.0

    def exchange(self, sent: bytes) -> TimedAnswer:
        """One block to the card, one from it."""
        try:
            return self._after(decode_block(sent, self._checksum))
        except BadBlock as bad:
            return self._after_bad_block(bad.error)

    def _after(self, block: Block) -> TimedAnswer:
        match block:
            case IBlock():
                return self._after_i_block(block)
            case RBlock():
                return self._after_r_block(block)
            case SBlock():
                return self._after_response(block) if block.response else self._after_request(block)
            case _:
                assert_never(block)

    def _after_bad_block(self, error: RError) -> TimedAnswer:
        """An R-block and a request are said again, anything else is answered by an R-block (rules 7.1 to 7.3)."""
        match self._last:
            case RBlock() | SBlock(response=False) as last:
                return self._say(last)
            case _:
                return self._say(RBlock(self._expected, error))

    # --- Blocks from the reader --------------------------------------------------------------------------------

    def _after_i_block(self, block: IBlock) -> TimedAnswer:
        """Rules 1, 2.1 and 5. One with a wrong number is refused, and nothing in it is done."""
        information = b"".join(block.information)
        if block.sequence != self._expected or self._extension is not None or len(information) > self._ifsc:
            return self._after_bad_block(RError.OTHER)
        self._response = b""
        self._expected ^= 1
        self._command += information
        if block.more:
            return self._say(RBlock(self._expected))
        command, self._command = bytes(self._command), bytearray()
        answer = self._work(command)
        self._response = answer.response
        return self._take_time(answer.seconds, self._waiting)

    def _after_r_block(self, block: RBlock) -> TimedAnswer:
        """The next piece of the response if it asks for that (rule 5), else what it names, or the last block, again:
        it says that this did not come through (rule 7.1)."""
        if block.sequence != self._send and self._last_piece is not None:
            return self._say(self._last_piece)
        if self._response and self._extension is None:
            return self._say_piece()
        return self._say(self._last or RBlock(self._expected, RError.OTHER))

    def _after_request(self, request: SBlock) -> TimedAnswer:
        """Rules 4, 6 and 9; only a card may ask for WTX."""
        match request.kind:
            case SKind.RESYNCH:
                self._reset()
            case SKind.ABORT:
                self._forget()
            case SKind.IFS:
                self._ifsd = request.value
            case SKind.WTX:
                return self._after_bad_block(RError.OTHER)
        return self._say(request.reply())

    def _after_response(self, response: SBlock) -> TimedAnswer:
        """Rules 3 and 9: what the card had asked for. After an abort it gives the word back by an R-block."""
        if response.kind is SKind.ABORT:
            self._forget()
            return self._say(RBlock(self._expected))
        if self._extension is None or response != self._extension.reply():
            return self._after_bad_block(RError.OTHER)
        self._extension = None
        return self._take_time(self._left, response.value * self._waiting)

    # --- Blocks of the card ------------------------------------------------------------------------------------

    def _take_time(self, seconds: float, granted: float) -> TimedAnswer:
        """The response if it is ready in time, else S(WTX request) before the time that was granted is over."""
        limit = granted - self._waiting / 2
        if seconds <= limit:
            return self._say_piece(seconds)
        self._left = seconds - limit
        multiplier = min(_LONGEST_EXTENSION, 1 + math.ceil(self._left / self._waiting))
        self._extension = SBlock(SKind.WTX, multiplier)
        return self._say(self._extension, limit)

    def _say_piece(self, seconds: float = 0.0) -> TimedAnswer:
        """As much of the response as the reader takes at once; a card that has none says nothing."""
        piece, self._response = self._response[: self._ifsd], self._response[self._ifsd :]
        if not piece:
            return TimedAnswer(b"", seconds)
        block = IBlock(self._send, (piece,), more=bool(self._response))
        self._send ^= 1
        self._last_piece = block
        return self._say(block, seconds)

    def _say(self, block: Block, seconds: float = 0.0) -> TimedAnswer:
        self._last = block
        return TimedAnswer(b"".join(encode_block(block, self._checksum)), seconds)
