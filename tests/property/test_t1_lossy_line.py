"""T=1 on a line that loses and garbles blocks, with a card that does what ISO/IEC 7816-3:2006, 11.6 wants of it.

Whatever the line does, a command is done once at most; its response comes and is the right one, or a typed error says
that nobody knows; and there is always an end.
"""

import enum
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import HardwareError, Outcome
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.limits import MAX_RESPONSE_APDU
from demail_hw.iso7816.t1 import RESYNCHRONISATIONS, RETRIES, T1
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
from demail_hw.iso7816.tpdu import Transmissions

STATUS = b"\x90\0"


class Fault(enum.Enum):
    NONE = enum.auto()
    LOST_ON_THE_WAY_OUT = enum.auto()
    GARBLED_ON_THE_WAY_OUT = enum.auto()
    LOST_ON_THE_WAY_BACK = enum.auto()
    GARBLED_ON_THE_WAY_BACK = enum.auto()
    PARITY_ERROR_ON_THE_WAY_BACK = enum.auto()


class Card:
    """The card's end: echoes what it is sent behind a status word of its own, and counts what it did.

    ``requests``: S-block requests that it makes before its answers, until there are none left. ``patient``: asked to
    go on where there is nothing, it asks for a block; otherwise it repeats its last one.
    """

    def __init__(self, ifsc: int, edc: Checksum, requests: list[SBlock], *, patient: bool = True) -> None:
        self.done: list[bytes] = []
        self._ifsd = 32
        self._ifsc = ifsc
        self._edc = edc
        self._requests = requests
        self._patient = patient
        self._reset()

    def _reset(self) -> None:
        self._send = self._receive = 0
        self._command = b""
        self._response = b""
        self._last: Block = RBlock(0)
        self._last_piece: IBlock | None = None
        self._held: Block | None = None

    def receive(self, encoded: bytes) -> bytes:
        try:
            answer = self._answer(decode_block(encoded, self._edc))
        except BadBlock as bad:
            answer = self._last if isinstance(self._last, (RBlock, SBlock)) else RBlock(self._receive, bad.error)
        if self._requests and isinstance(answer, IBlock):
            self._held, answer = answer, self._requests.pop()
        if not isinstance(answer, SBlock) or not answer.response:
            self._last = answer
        return b"".join(encode_block(answer, self._edc))

    def _answer(self, block: Block) -> Block:
        match block:
            case IBlock():
                return self._after_i(block)
            case RBlock(sequence):
                return self._after_r(sequence)
            case SBlock(SKind.RESYNCH, response=False):
                self._reset()
                return block.reply()
            case SBlock(SKind.IFS, value, response=False):
                self._ifsd = value
                return block.reply()
            case SBlock() if self._held and isinstance(self._last, SBlock) and block == self._last.reply():
                held, self._held = self._held, None
                return held
            case _:
                raise BadBlock("out of turn")

    def _after_i(self, block: IBlock) -> Block:
        if block.sequence != self._receive:
            raise BadBlock("twice")
        self._receive ^= 1
        self._command += b"".join(block.information)
        assert sum(map(len, block.information)) <= self._ifsc
        if block.more:
            return RBlock(self._receive)
        self.done.append(self._command)
        self._response, self._command = self._command + STATUS, b""
        return self._piece()

    def _after_r(self, sequence: int) -> Block:
        piece = self._last_piece
        if piece is None or self._held:
            return self._last
        if sequence == piece.sequence:
            return piece
        if piece.more:
            return self._piece()
        return RBlock(self._receive) if self._patient else self._last

    def _piece(self) -> IBlock:
        piece, self._response = self._response[: self._ifsd], self._response[self._ifsd :]
        block = IBlock(self._send, (piece,), more=bool(self._response))
        self._send ^= 1
        self._last_piece = block
        return block


def run(t1: T1, card: Card, command: bytes, faults: Iterator[tuple[Fault, int]]) -> bytes:
    """One command over the line."""
    exchange = t1.exchange((command,))
    transmission = next(exchange)
    while True:
        try:
            answer = cross(card, b"".join(transmission.data), *next(faults, (Fault.NONE, 0)))
            transmission = exchange.throw(answer) if isinstance(answer, BadBlock) else exchange.send(answer)
        except StopIteration as done:
            response: bytes = done.value
            return response


def attempt(t1: T1, card: Card, command: bytes, faults: Iterator[tuple[Fault, int]]) -> bytes | HardwareError:
    """The response, or why there is none."""
    try:
        return run(t1, card, command, faults)
    except HardwareError as error:
        return error


def cross(card: Card, block: bytes, fault: Fault, position: int) -> bytes | BadBlock:
    """To the card and back; a reader says so when it hears nothing."""
    if fault is Fault.LOST_ON_THE_WAY_OUT:
        return BadBlock("mute")
    answer = card.receive(garbled(block, position) if fault is Fault.GARBLED_ON_THE_WAY_OUT else block)
    match fault:
        case Fault.LOST_ON_THE_WAY_BACK:
            return BadBlock("mute")
        case Fault.PARITY_ERROR_ON_THE_WAY_BACK:
            return BadBlock("parity", RError.EDC)
        case Fault.GARBLED_ON_THE_WAY_BACK:
            return garbled(answer, position)
        case _:
            return answer


def garbled(block: bytes, position: int) -> bytes:
    """One byte is another."""
    index = position % len(block)
    return block[:index] + bytes((block[index] ^ (1 + position % 255),)) + block[index + 1 :]


POSITIONS = st.integers(0, 2000)
NONE = st.just((Fault.NONE, 0))
FAULTS = st.lists(st.tuples(st.sampled_from(Fault), POSITIONS), max_size=60)
RARE_FAULT = st.tuples(st.sampled_from(Fault), POSITIONS)
SIZES = st.integers(1, 254)
COMMANDS = st.lists(st.binary(min_size=4, max_size=120), min_size=1, max_size=4)
REQUESTS = st.lists(
    st.builds(SBlock, st.just(SKind.WTX), st.integers(1, 255)) | st.builds(SBlock, st.just(SKind.IFS), SIZES),
    max_size=4,
)
EDC = st.sampled_from(Checksum)


def numbered(commands: list[bytes]) -> list[bytes]:
    """No two are alike, so that a command that was done twice is seen."""
    return [bytes((index,)) + command for index, command in enumerate(commands)]


@given(SIZES, EDC, REQUESTS, COMMANDS, FAULTS, st.booleans())
def test_command_is_done_once_or_nobody_knows(
    ifsc: int,
    edc: Checksum,
    requests: list[SBlock],
    commands: list[bytes],
    faults: list[tuple[Fault, int]],
    patient: bool,
) -> None:
    # The card takes any length: it may have asked for a longer one by S(IFS request).
    card = Card(254, edc, requests, patient=patient)
    t1 = T1(ifsc=ifsc, checksum=edc)
    line = iter(faults)
    for index, command in enumerate(numbered(commands)):
        response = attempt(t1, card, command, line)
        if isinstance(response, HardwareError):
            assert response.outcome is Outcome.UNKNOWN
            assert card.done[:index] == numbered(commands)[:index]
            assert card.done[index:] in ([], [command])
            return
        assert response == command + STATUS
        assert card.done == numbered(commands)[: index + 1]


@given(SIZES, EDC, REQUESTS, COMMANDS, RARE_FAULT, st.integers(0, 60))
def test_one_fault_anywhere_is_healed(
    ifsc: int, edc: Checksum, requests: list[SBlock], commands: list[bytes], fault: tuple[Fault, int], when: int
) -> None:
    card = Card(254, edc, requests)
    t1 = T1(ifsc=ifsc, checksum=edc)
    line = iter([(Fault.NONE, 0)] * when + [fault])
    for command in numbered(commands):
        assert run(t1, card, command, line) == command + STATUS
    assert card.done == numbered(commands)


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("fault", list(Fault)[1:])
@pytest.mark.parametrize("when", range(17))
def test_a_fault_in_every_place_is_healed(when: int, fault: Fault, patient: bool) -> None:
    card = Card(254, Checksum.LRC, [], patient=patient)
    t1 = T1(ifsc=50, checksum=Checksum.LRC)
    line = iter([(Fault.NONE, 0)] * when + [(fault, 1)])
    commands = numbered([bytes(10), bytes(120), bytes(10), bytes(160)])
    assert [run(t1, card, command, line) for command in commands] == [command + STATUS for command in commands]
    assert card.done == commands
    assert next(line, None) is None, "the fault came to nobody"


@given(SIZES, st.integers(1, 254), st.binary(min_size=4, max_size=2000))
def test_agreed_sizes_are_kept(ifsc: int, ifsd: int, command: bytes) -> None:
    card = Card(ifsc, Checksum.LRC, [])
    t1 = T1(ifsc=ifsc, checksum=Checksum.LRC)
    steps = t1.negotiate_ifsd(ifsd)
    with pytest.raises(StopIteration):
        steps.send(card.receive(b"".join(next(steps).data)))
    assert run(t1, card, command, iter(())) == command + STATUS


def say(exchange: Transmissions, answers: Iterable[bytes | BadBlock]) -> None:
    """Let a card say all this."""
    next(exchange)
    for answer in answers:
        if isinstance(answer, BadBlock):
            exchange.throw(answer)
        else:
            exchange.send(answer)


@given(st.lists(st.binary(max_size=12) | st.just(b"\0\x80\0\x80"), max_size=40))
def test_any_answers_come_to_an_end(answers: list[bytes]) -> None:
    """A card that says anything, and then nothing: T=1 gives up, and soon."""
    silence = [BadBlock("mute")] * (1 + RETRIES + RESYNCHRONISATIONS)
    exchange = T1(ifsc=32, checksum=Checksum.LRC).exchange((b"\0\xa4\0\0",))
    with pytest.raises((HardwareError, StopIteration)):
        say(exchange, [*answers, *silence])


def test_endless_response_has_an_end() -> None:
    exchange = T1(ifsc=32, checksum=Checksum.LRC).exchange((b"\0\xb0\0\0\0",))
    blocks = (IBlock(number & 1, (bytes(254),), more=True) for number in range(MAX_RESPONSE_APDU // 254 + 2))
    with pytest.raises(HardwareError, match="more than 65538 bytes"):
        say(exchange, (b"".join(encode_block(block)) for block in blocks))
