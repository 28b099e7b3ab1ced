"""Frames on a serial line: they come back however they are cut, and no bytes whatever are a surprise."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.ccid.host import NEED_DATA
from demail_hw.ccid.serial_framing import (
    MAX_MESSAGE,
    FrameReader,
    FrameReceived,
    Garbled,
    NakReceived,
    SlotChanged,
    TimeRequested,
    encode_frame,
)

HEADER_SIZE = 10


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(max_size=MAX_MESSAGE - HEADER_SIZE))
    rest = draw(st.binary(min_size=5, max_size=5))
    return bytes((draw(st.integers(0, 255)),)) + len(payload).to_bytes(4, "little") + rest + payload


def read(pieces: list[bytes]) -> list[object]:
    reader = FrameReader()
    events: list[object] = []
    for piece in pieces:
        reader.receive_data(piece)
        while (event := reader.next_event()) is not NEED_DATA:
            events.append(event)
    return events


@given(st.lists(messages(), max_size=3), st.integers(1, 64))
def test_messages_come_back_however_they_are_cut(sent: list[bytes], size: int) -> None:
    line = b"".join(b"".join(encode_frame((message[:10], message[10:]))) for message in sent)
    pieces = [line[at : at + size] for at in range(0, len(line), size)]
    assert read(pieces) == [FrameReceived(message) for message in sent]


@given(messages(), st.integers(0, 7), st.data())
def test_a_flipped_bit_is_never_taken_for_the_message(message: bytes, bit: int, data: st.DataObject) -> None:
    line = bytearray(b"".join(encode_frame((message,))))
    line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << bit
    assert FrameReceived(message) not in read([bytes(line)])


@given(st.binary(max_size=600))
def test_any_bytes_are_events_and_bounded(noise: bytes) -> None:
    events = read([noise])
    kinds = (FrameReceived, Garbled, NakReceived, SlotChanged, TimeRequested)
    assert all(isinstance(event, kinds) for event in events)
    taken = sum(len(event.message) for event in events if isinstance(event, FrameReceived))
    assert taken <= len(noise)


@given(st.binary(max_size=64), messages())
def test_after_noise_that_was_given_up_a_message_is_read(noise: bytes, message: bytes) -> None:
    reader = FrameReader()
    reader.receive_data(noise)
    while reader.next_event() is not NEED_DATA:
        pass
    reader.give_up()
    reader.receive_data(b"".join(encode_frame((message,))))
    assert reader.next_event() == FrameReceived(message)
