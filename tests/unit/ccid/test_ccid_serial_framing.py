"""Frames of the GemPC Twin: what libccid sent on a serial line, and what goes wrong on lines."""

import pathlib

import pytest

from demail_hw.ccid.class_descriptor import ExchangeLevel
from demail_hw.ccid.host import NEED_DATA
from demail_hw.ccid.messages import decode_command, decode_response
from demail_hw.ccid.serial_framing import (
    GEMPC_TWIN,
    NAK_FRAME,
    FrameReader,
    FrameReceived,
    Garbled,
    NakReceived,
    SlotChanged,
    TimeRequested,
    encode_frame,
    is_command,
)
from demail_hw_simulators.reader_profiles import reader_profile

TRACE = (pathlib.Path(__file__).parent / "vectors" / "gempc-twin-serial.txt").read_text().splitlines()
SENT = [bytes.fromhex(line[3:]) for line in TRACE if line.startswith("->")]
SAID = [bytes.fromhex(line[3:]) for line in TRACE if line.startswith("<-")]
SLOT_STATUS = bytes.fromhex("81000000000002010000")


def frame(message: bytes) -> bytes:
    return b"".join(encode_frame((message,)))


def events(data: bytes) -> list[object]:
    reader = FrameReader()
    reader.receive_data(data)
    found: list[object] = []
    while (event := reader.next_event()) is not NEED_DATA:
        found.append(event)
    return found


def test_the_trace_has_both_sides() -> None:
    assert (len(SENT), len(SAID)) == (24, 24)


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.hex())
def test_what_libccid_sent_is_a_frame(sent: bytes) -> None:
    (event,) = events(sent)
    assert isinstance(event, FrameReceived)
    header, command = decode_command(event.message)
    assert b"".join(encode_frame(command.encode(header.slot, header.seq))) == sent
    assert is_command(event.message)


@pytest.mark.parametrize("message", SAID, ids=lambda message: message.hex())
def test_what_a_reader_said_comes_back_out_of_its_frame(message: bytes) -> None:
    decode_response(message)
    assert events(frame(message)) == [FrameReceived(message)]
    assert not is_command(message)


def test_no_buffer_of_a_message_is_joined_or_copied() -> None:
    secret = bytearray(b"\x01\x02")
    _, first, second, _ = encode_frame((SLOT_STATUS, secret))
    assert first is SLOT_STATUS
    assert second is secret


def test_what_may_be_the_echo_of_a_pin_is_not_shown() -> None:
    assert repr(FrameReceived(SLOT_STATUS)) == "FrameReceived(<10 bytes>)"


def test_the_card_and_its_time_stand_between_frames() -> None:
    said = b"\x50\x02" + frame(SLOT_STATUS) + b"\x50\x03\x81" + frame(SLOT_STATUS) + NAK_FRAME
    assert events(said) == [
        SlotChanged(b"\x50\x02"),
        FrameReceived(SLOT_STATUS),
        SlotChanged(b"\x50\x03"),
        TimeRequested(0x81),
        FrameReceived(SLOT_STATUS),
        NakReceived(),
    ]


def test_a_wrong_checksum_is_told_and_nothing_of_the_frame_is_used() -> None:
    good = frame(SLOT_STATUS)
    bad = good[:-1] + bytes((good[-1] ^ 1,))
    (event,) = events(bad)
    assert isinstance(event, Garbled)


def test_a_length_that_no_message_has_is_told_at_once() -> None:
    (event,) = events(bytes.fromhex("0306 80 FFFFFF7F 00 00 00 00 00"))
    assert isinstance(event, Garbled)


@pytest.mark.parametrize("noise", [b"\x00", b"\x06", b"\x03\x00", b"\x03\x03", b"\x15\x16"])
def test_noise_in_front_of_a_frame_is_dropped(noise: bytes) -> None:
    assert events(noise + frame(SLOT_STATUS)) == [FrameReceived(SLOT_STATUS)]


def test_what_is_missing_is_known_byte_by_byte() -> None:
    reader = FrameReader()
    rest = frame(SLOT_STATUS)
    wanted = []
    while rest:
        wanted.append(reader.wanted)
        piece, rest = rest[: reader.wanted], rest[reader.wanted :]
        reader.receive_data(piece)
        assert (reader.next_event() is NEED_DATA) == bool(rest)
    assert wanted == [1, 1, 10, 1]
    assert not reader.partial


def test_a_frame_without_its_end_is_given_up() -> None:
    reader = FrameReader()
    reader.receive_data(frame(SLOT_STATUS)[:-1])
    assert reader.next_event() is NEED_DATA
    assert reader.partial
    reader.give_up()
    reader.receive_data(frame(SLOT_STATUS))
    assert reader.next_event() == FrameReceived(SLOT_STATUS)


def test_what_is_known_of_the_reader_is_what_its_usb_sister_says() -> None:
    assert reader_profile("host_pps").descriptor == GEMPC_TWIN
    assert GEMPC_TWIN.features == 0x00010230
    assert GEMPC_TWIN.exchange_level is ExchangeLevel.TPDU
