"""pcapng blocks and the frames in them."""

import struct

import pytest

from demail_hw.usbip.pcapng import MAX_SEGMENT, Endpoint, TcpFrames, packet_block, section_header

CLIENT, SERVER = Endpoint("192.168.0.1", 50000), Endpoint("192.168.0.199", 3240)


def words(data: bytes) -> int:
    """The one's complement sum, word by word (RFC 1071, 4.1)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_section_and_its_interface() -> None:
    assert section_header("x").hex() == (
        "0a0d0d0a 28000000 4d3c2b1a 0100 0000 ffffffffffffffff 0400 0100 78000000 0000 0000 28000000"
        "01000000 20000000 6500 0000 00000000 0900 0100 09000000 0000 0000 20000000"
    ).replace(" ", "")


def test_a_packet() -> None:
    block = packet_block(b"\x01\x02\x03", 0x1_0000_0002, "hé")
    assert block.hex() == (
        "06000000 30000000 00000000 01000000 02000000 03000000 03000000 010203 00"
        "0100 0300 68c3a900 0000 0000 30000000"
    ).replace(" ", "")
    assert len(block) == 0x30


def test_headers_have_right_checksums() -> None:
    (frame,) = TcpFrames(CLIENT, SERVER).segments(b"odd", to_server=True)
    assert words(frame[:20]) == 0xFFFF
    pseudo = frame[12:20] + struct.pack(">II", len(frame) - 20, 6)
    assert words(pseudo + frame[20:] + b"\0") == 0xFFFF


def test_the_header_of_ipv6() -> None:
    frames = TcpFrames(Endpoint("fe80::1", 50000), Endpoint("fe80::2", 3240))
    (frame,) = frames.segments(b"even", to_server=False)
    assert frame[:8].hex() == "6000000000180640"
    assert (frame[8:24][-1], frame[24:40][-1]) == (2, 1)
    assert words(frame[8:40] + struct.pack(">II", 24, 6) + frame[40:]) == 0xFFFF


def numbers(frame: bytes) -> tuple[int, int, int]:
    """Sequence number, acknowledgement, flags."""
    sequence, acknowledged, _, flags = struct.unpack_from(">IIBB", frame, 24)
    return sequence, acknowledged, flags


def test_each_side_acknowledges_what_the_other_sent() -> None:
    frames = TcpFrames(CLIENT, SERVER)
    opening = list(map(numbers, frames.opening()))
    assert opening == [(0, 0, 0x02), (0, 1, 0x12), (1, 1, 0x10)]
    assert [numbers(f) for f in frames.segments(b"12345", to_server=True)] == [(1, 1, 0x18)]
    assert [numbers(f) for f in frames.segments(b"123", to_server=False)] == [(1, 6, 0x18)]
    assert numbers(frames.ending(by_server=True)) == (4, 6, 0x11)
    assert numbers(frames.ending(by_server=False)) == (6, 5, 0x11)


def test_much_data_goes_in_several_frames() -> None:
    data = bytes(range(256)) * 1000
    frames = list(TcpFrames(CLIENT, SERVER).segments(data, to_server=True))
    assert len(frames) == -(-len(data) // MAX_SEGMENT)
    assert b"".join(frame[40:] for frame in frames) == data


def test_ends_of_two_kinds_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not of one kind"):
        TcpFrames(CLIENT, Endpoint("::1", 3240))
