"""The interface device's end of the protocol T=1, without any I/O (ISO/IEC 7816-3:2006, 11.6; rules 1 to 5 are in
11.6.2.3, the others in 11.6.3.2).

An exchange is a generator: it yields what to send, is sent what came, and returns the response APDU::

    exchange = T1(ifsc=254, checksum=Checksum.LRC).exchange(command)
    transmission = next(exchange)
    transmission = exchange.send(answer)          # or exchange.throw(BadBlock(...)) if no block came

Is a block ever sent twice? An I-block only when the card says that it did not get it: by an R-block with the N(S) of
that block, or by answering an R-block with its last block from before. It then has not acted on it, and would refuse
a second one by its N(S): what it carries (a VERIFY, a signature) is done once. A card that has asked for time has the
command, and does not get it again whatever it says. After silence or noise the card is asked by an R-block, which
makes it repeat its last block and nothing else (rules 7.1 and 7.2). When that does not help either, S(RESYNCH) brings
both ends into step, and then the command is *not* sent again, though the standard would allow it: the card may have
done it. The error says that nobody knows.

Between one block and the next there is no limit but the caller's deadline: a card may ask for time by S(WTX) as often
as it likes.
"""

import contextlib
from collections.abc import Generator
from typing import Final, TypeAlias, assert_never

from demail_hw.errors import CardMute, Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Buffers
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.limits import MAX_RESPONSE_APDU
from demail_hw.iso7816.t1_blocks import (
    MAX_INFORMATION,
    BadBlock,
    Block,
    IBlock,
    RBlock,
    SBlock,
    SKind,
    decode_block,
    encode_block,
)
from demail_hw.iso7816.tpdu import BufferQueue, Transmission, Transmissions

__all__ = ["DEFAULT_IFSD", "RESYNCHRONISATIONS", "RETRIES", "T1"]

DEFAULT_IFSD: Final = 32
"""The longest information field that the card may send before S(IFS) says otherwise (11.4.2)."""
RETRIES: Final = 2
"""How often in a row a block is asked for again, by us or by the card, before the two ends count as out of step
(rule 7.4.2)."""
RESYNCHRONISATIONS: Final = 3
"""S(RESYNCH request) that are sent before the card is given up (rule 6.4)."""

_RESYNCH: Final = SBlock(SKind.RESYNCH)

_Ask: TypeAlias = Generator[Transmission, bytes, Block]
_Steps: TypeAlias = Generator[Transmission, bytes, None]


class T1:
    """The state of T=1 since the card's reset: the numbers of the next blocks, and how long they may be.

    ``ifsc``: the card's, from its ATR; ``limit``: the longest information field that the reader takes in one piece.
    Both in bytes, 1 to 254. What comes may have any length: a card that overdoes what S(IFS) told it would send no
    shorter block if it was asked again.
    """

    __slots__ = ("_checksum", "_ifsc", "_limit", "_receive", "_send")

    def __init__(self, *, ifsc: int, checksum: Checksum, limit: int = MAX_INFORMATION) -> None:
        self._ifsc = ifsc
        self._limit = limit
        self._checksum = checksum
        self._send = 0
        self._receive = 0

    def negotiate_ifsd(self, size: int) -> _Steps:
        """Tell the card how long its information fields may be (11.4.2; rules 4 and 7.3).

        Errors: :class:`~demail_hw.errors.CardMute` if it does not agree; no command was sent.
        """
        request = SBlock(SKind.IFS, size)
        for _ in range(1 + RETRIES):
            with contextlib.suppress(BadBlock):
                if (yield from self._turn(request)) == request.reply():
                    return
        raise CardMute("The card does not answer S(IFS request).", outcome=Outcome.NOT_SENT)

    def exchange(self, command: Buffers) -> Transmissions:
        """One command APDU, chained where it is longer than a block (11.6.2.2; rules 2 and 5).

        Errors, with the outcome ``UNKNOWN``: :class:`~demail_hw.errors.ProtocolViolation` if the two ends fell out of
        step, or the card aborted; :class:`~demail_hw.errors.CardMute` if it says nothing intelligible any more.
        What else is thrown in goes through.
        """
        answer = yield from self._send_chain(command)
        response = bytearray()
        while isinstance(answer, IBlock):
            for buffer in answer.information:
                response += buffer
            if len(response) > MAX_RESPONSE_APDU:
                raise _violation(f"a response has more than {MAX_RESPONSE_APDU} bytes")
            if not answer.more:
                break
            answer = yield from self._ask(RBlock(self._receive))
        return bytes(response)

    def _send_chain(self, command: Buffers) -> _Ask:
        """The answer to the last block of the command."""
        rest = BufferQueue(command)
        while True:
            piece = rest.take(min(self._ifsc, self._limit))
            answer = yield from self._ask(IBlock(self._send, piece, more=bool(rest.length)))
            self._send ^= 1
            if not rest.length:
                return answer

    def _ask(self, block: IBlock | RBlock) -> _Ask:
        """Send a block until the card goes on: by its next I-block, or by an R-block that asks for ours."""
        last: Block = block
        noise = repeats = 0
        trouble: BadBlock | None = None
        granted: SBlock | None = None
        while True:
            try:
                answer = yield from self._turn(last)
                following = self._following(block, last, answer)
                if following is None:
                    return answer
                noise = 0
            except BadBlock as bad:
                trouble = bad
                following = last if isinstance(last, RBlock) else RBlock(self._receive, bad.error)
                noise += 1
            if isinstance(following, SBlock):
                yield from self._abort(following)
                if following.kind is SKind.WTX and isinstance(block, IBlock) and not block.more:
                    granted = following
                repeats = 0
            elif following is block:
                # If it asked for time to act on this block, it has it: what it lacks is our grant.
                following = granted or block
                repeats += 1
            if max(noise, repeats) > RETRIES:
                yield from self._resynchronise(trouble)
            last = following

    def _turn(self, block: Block) -> Generator[Transmission, bytes, Block]:
        """Send one block and read one. After S(WTX response) the card has the time that it asked for (rule 3)."""
        waiting = block.value if isinstance(block, SBlock) and block.kind is SKind.WTX else 0
        answer = decode_block((yield Transmission(encode_block(block, self._checksum), waiting)), self._checksum)
        if answer.nad:
            raise BadBlock(f"A block with the node address {answer.nad:02X} came, where none was named.")
        return answer

    def _following(self, asked: IBlock | RBlock, last: Block, answer: Block) -> Block | None:
        """What to send next; ``None`` where the answer is the one that was due.

        ``asked``: the block that it is due to; ``last``: what was sent last, to get it.
        """
        match answer:
            case IBlock(sequence) if sequence != self._receive:
                return _after_old_block(asked, last)
            case IBlock():
                self._take(asked, answer)
                return None
            case RBlock(sequence):
                return _after_r_block(asked, sequence)
            case SBlock():
                return self._after_s_block(answer)
            case _:
                assert_never(answer)

    def _take(self, asked: IBlock | RBlock, answer: IBlock) -> None:
        """An I-block is the answer to the end of a chain, or to the R-block that asked for it (rule 2)."""
        if isinstance(asked, IBlock) and asked.more:
            raise BadBlock("The card answers before it has the whole command.")
        if answer.more and not answer.information:
            raise BadBlock("A block of a chain brings nothing.")
        self._receive ^= 1

    def _after_s_block(self, request: SBlock) -> SBlock:
        """The response to a request of the card (rules 3, 4 and 9); only we may ask for RESYNCH."""
        if request.response or request.kind is SKind.RESYNCH:
            raise BadBlock(f"An S-block of PCB {request.pcb:02X} came out of turn.")
        if request.kind is SKind.IFS:
            self._ifsc = request.value
        return request.reply()

    def _abort(self, response: SBlock) -> _Steps:
        """If the card wants the chain to be aborted, agree and stop; the R-block that may follow says nothing new."""
        if response.kind is SKind.ABORT:
            with contextlib.suppress(BadBlock):
                yield from self._turn(response)
            raise _violation("it aborted the exchange")

    def _resynchronise(self, trouble: BadBlock | None) -> _Steps:
        """Bring both ends into step, and raise: the command is not sent again (rules 6 and 7.4.2)."""
        for _ in range(RESYNCHRONISATIONS):
            with contextlib.suppress(BadBlock):
                if (yield from self._turn(_RESYNCH)) == _RESYNCH.reply():
                    self._send = self._receive = 0
                    raise _violation("card and reader fell out of step") from trouble
        raise CardMute("The card sends nothing intelligible any more.") from trouble


def _after_old_block(asked: IBlock | RBlock, last: Block) -> Block:
    """An I-block that had come before, though an R-block asked for the next: the card did not get ours (rule 7)."""
    if isinstance(asked, IBlock) and isinstance(last, RBlock):
        return asked
    raise BadBlock("An I-block came a second time.")


def _after_r_block(asked: IBlock | RBlock, sequence: int) -> Block | None:
    """Goes on with the chain, or repeats an I-block that did not come through (rules 2.2, 5 and 7)."""
    if isinstance(asked, IBlock):
        if sequence == asked.sequence:
            return asked
        if asked.more:
            return None
    raise BadBlock("An R-block came that asks for nothing that was sent.")


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The card broke off the protocol T=1: {why}.", layer=Layer.CARD)
