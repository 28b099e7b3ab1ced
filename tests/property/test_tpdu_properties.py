"""PPS, T=0 and the uTrust family's reader information for every value and any bytes."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.ccid.utrust_escape import ReaderInfo, ReaderModes
from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffers
from demail_hw.iso7816 import t0
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.atr import BAUD_RATES, Atr
from demail_hw.iso7816.pps import Pps, fastest
from demail_hw.iso7816.tpdu import BufferQueue

BYTE = st.integers(0, 0xFF)
WORD = st.integers(0, 0xFFFF)
VERSION = st.integers(0, 99)
PPS = st.builds(Pps, st.integers(0, 15), st.none() | BYTE)
INFO = st.builds(
    ReaderInfo,
    st.tuples(VERSION, VERSION),
    st.sampled_from(ReaderModes),
    WORD,
    WORD,
    BYTE,
    BYTE,
    st.text("0123456789ABCDEFäß", max_size=60),
)


@given(PPS)
def test_pps_round_trip(pps: Pps) -> None:
    assert Pps.decode(pps.encode()) == pps


@given(st.binary(max_size=8) | st.binary(max_size=6).map(lambda data: b"\xff" + data))
def test_any_bytes_are_a_pps_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        assert Pps.decode(encoded).encode() == encoded


@given(BYTE, st.integers(0, 20000), st.integers(0, 1_000_000))
def test_speed_is_within_what_both_can(ta1: int, clock: int, max_rate: int) -> None:
    atr = Atr.decode(bytes((0x3B, 0x10, ta1)))
    speed = fastest(atr, clock=clock, max_rate=max_rate)
    if speed in (0x11, ta1):
        return
    assert speed >> 4 == ta1 >> 4
    assert atr.clock_rate is not None
    assert atr.di is not None
    assert BAUD_RATES[speed & 0x0F] < atr.di
    assert clock * 1000 * BAUD_RATES[speed & 0x0F] // atr.clock_rate.fi <= max_rate


@given(INFO)
def test_reader_information_round_trip(info: ReaderInfo) -> None:
    assert ReaderInfo.decode(info.encode()) == info


@given(st.binary(max_size=80))
def test_any_bytes_are_reader_information_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        ReaderInfo.decode(encoded)


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 30), max_size=8))
def test_what_is_taken_from_a_queue_is_what_was_put_in(buffers: list[bytes], sizes: list[int]) -> None:
    queue = BufferQueue(buffers)
    taken = b"".join(b"".join(queue.take(size)) for size in sizes)
    whole = b"".join(buffers)
    assert taken == whole[: sum(sizes)]
    assert queue.length == len(whole) - len(taken)


class T0Card:
    """A card with T=0: does a command once, names the right Le, and has its response fetched in pieces."""

    def __init__(self, answer: bytes, piece: int) -> None:
        self.done: list[CommandApdu] = []
        self._answer = answer
        self._piece = piece
        self._left = b""
        self._envelope = b""

    def tpdu(self, sent: bytes) -> bytes:
        header, p3, data = sent[:4], sent[4], sent[5:]
        if header[1] == 0xC0:
            return self._fetch(p3 or 256)
        if header[1] == 0xC2:
            self._envelope += data
            whole = len(self._envelope) >= 7 + int.from_bytes(self._envelope[5:7], "big")
            return self._do(self._envelope) if whole else b"\x90\0"
        if data:
            return self._do(sent)
        if p3 and len(self._answer) < p3:
            return b"\x6c" + bytes((len(self._answer) & 0xFF,))
        return self._do(header + bytes((p3,)), p3)

    def _do(self, command: bytes, now: int = 0) -> bytes:
        self.done.append(CommandApdu.decode(command))
        self._left = self._answer
        return self._fetch(now) if now else self._status()

    def _fetch(self, size: int) -> bytes:
        part, self._left = self._left[: min(size, self._piece)], self._left[min(size, self._piece) :]
        return part + self._status()

    def _status(self) -> bytes:
        left = min(len(self._left), 256, self._piece)
        return b"\x61" + bytes((left & 0xFF,)) if left else b"\x90\0"


@given(st.binary(max_size=600), st.sampled_from([0, 1, 100, 256, 1000]), st.binary(min_size=1, max_size=900), BYTE)
def test_command_is_done_once_and_its_response_comes_up_to_ne(
    data: bytes, ne: int, answer: bytes, piece: int
) -> None:
    card = T0Card(answer, piece + 1)
    command = CommandApdu(0, 0xCA, 1, 2, (data,) if data else (), ne)
    response = ResponseApdu.decode(exchange(command.encode(), card))
    assert len(card.done) == 1
    assert b"".join(card.done[0].data) == data
    assert response.data == answer[: min(ne, len(answer))]
    assert (response.status == 0x9000) == (len(answer) <= ne)


def exchange(command: Buffers, card: T0Card) -> bytes:
    steps = t0.exchange(command)
    transmission = next(steps)
    while True:
        try:
            transmission = steps.send(card.tpdu(b"".join(transmission.data)))
        except StopIteration as done:
            response: bytes = done.value
            return response
