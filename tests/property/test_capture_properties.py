"""Captures of anything: nothing is lost, nothing raises, and no PIN is shown."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from captured import capture_to, flows, no_mask
from demail_hw.ccid.capture_mask import CcidMask
from demail_hw.interfaces import Buffers
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import IBlock, encode_block
from demail_hw.usb.setup import get_descriptor
from demail_hw.usbip.messages import CmdSubmit, Direction, OpRepImport, OpReqImport, RetSubmit, UsbDevice
from demail_hw_simulators.reader_profiles import reader_profile

DEVICE = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 3, 0, 0, 0, 1, 1, 1)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def submit(direction: Direction, endpoint: int, length: int, setup: bytes = bytes(8)) -> CmdSubmit:
    return CmdSubmit(1, DEVICE.devid, direction, endpoint, 0, length, 0, 0, 0, setup)


@given(st.lists(st.binary(max_size=64)), st.lists(st.binary(max_size=64)))
def test_arbitrary_bytes_keep_their_length(to_server: list[bytes], to_client: list[bytes]) -> None:
    blocks: list[bytes] = []
    capture = capture_to(blocks, CcidMask())
    for piece in to_server:
        capture.to_server(piece or b"x")
    for piece in to_client:
        capture.to_client(piece or b"x")
    capture.to_server(b"")
    capture.to_client(b"")
    for way, pieces in ((True, to_server), (False, to_client)):
        assert len(flows(b"".join(blocks))[way]) == sum(len(piece or b"x") for piece in pieces)


@given(st.binary(max_size=80), st.binary(max_size=80), st.lists(st.integers(0, 999)), st.lists(st.integers(0, 999)))
def test_how_the_bytes_come_makes_no_difference(
    sent: bytes, answer: bytes, out_cuts: list[int], in_cuts: list[int]
) -> None:
    up = OpReqImport("1-1").encode() + submit(Direction.OUT, 1, len(sent)).encode() + sent
    up += submit(Direction.IN, 2, 80)._replace(seqnum=2).encode()
    down = OpRepImport(DEVICE).encode() + RetSubmit(1, 0, len(sent)).encode() + RetSubmit(2, 0, len(answer)).encode()
    blocks: list[bytes] = []
    capture = capture_to(blocks, no_mask)
    for piece in cut(up, out_cuts):
        capture.to_server(piece)
    for piece in cut(down + answer, in_cuts):
        capture.to_client(piece)
    assert flows(b"".join(blocks)) == {True: up, False: down + answer}


@given(st.lists(st.tuples(st.sampled_from(Direction), st.integers(0, 3), st.binary(max_size=40)), max_size=20))
def test_any_transfers_can_be_masked(transfers: list[tuple[Direction, int, bytes]]) -> None:
    mask = CcidMask()
    for direction, endpoint, data in transfers:
        masked = mask(submit(direction, endpoint, len(data)), data)
        assert len(masked) == len(data)
        assert all(shown in (true, 0x2A) for shown, true in zip(masked, data, strict=True))


def joined(buffers: Buffers) -> bytes:
    return b"".join(map(bytes, buffers))


LEVELS = {"": True, "tpdu": True, "ext_apdu": False, "short_apdu": False}
"""Profile of a reader, or none that was seen -> may blocks be sent to it?"""
CONFIGURATIONS = {name: reader_profile(name).configuration_descriptor() for name in LEVELS if name}


class Way(NamedTuple):
    """How a command is sent: to which reader, in blocks or not, and cut into which pieces."""

    profile: str
    blocks: bool
    edc: Checksum
    cuts: list[int]

    def pieces(self, head: bytes, rest: bytes) -> list[bytes]:
        """A chain is cut behind the header: before it nobody knows what it will be."""
        chained = self.blocks or self.profile in ("", "ext_apdu")
        first, *more = cut(rest, self.cuts if chained else [])
        return [head + first, *more]

    def messages(self, pieces: list[bytes]) -> Iterator[bytes]:
        for index, piece in enumerate(pieces):
            more = index < len(pieces) - 1
            if self.blocks:
                yield xfr(joined(encode_block(IBlock(index % 2, (piece,), more), self.edc)), 0)
            else:
                yield xfr(piece, (index > 0) * 2 ^ more if len(pieces) > 1 else 0)

    def shown(self, head: bytes, rest: bytes) -> list[bytes]:
        mask = CcidMask()
        if self.profile:
            data = CONFIGURATIONS[self.profile]
            mask(submit(Direction.IN, 0, len(data), get_descriptor(2, 0, len(data)).encode()), data)
        return [
            mask(submit(Direction.OUT, 1, len(message)), message)
            for message in self.messages(self.pieces(head, rest))
        ]


def xfr(data: bytes, level: int) -> bytes:
    return bytes((0x6F, *len(data).to_bytes(4, "little"), 0, 0, 0, *level.to_bytes(2, "little"))) + data


WAYS = st.builds(
    Way,
    st.sampled_from(sorted(LEVELS)),
    st.booleans(),
    st.sampled_from(Checksum),
    st.lists(st.integers(0, 99), max_size=3),
).map(lambda way: way._replace(blocks=way.blocks and LEVELS[way.profile]))
SECRET_INS = [0x20, 0x21, 0x24, 0x25, 0x2C, 0x2D, 0x26, 0x28, 0xC2, 0xC3]


@given(WAYS, st.sampled_from(SECRET_INS), st.booleans(), st.binary(min_size=1, max_size=30), st.booleans())
def test_what_is_shown_does_not_depend_on_the_secret(
    way: Way, ins: int, extended: bool, secret: bytes, with_le: bool
) -> None:
    lc = b"\x00" + len(secret).to_bytes(2, "big") if extended else bytes((len(secret),))
    le = bytes(2 if extended else 1) if with_le else b""
    head = bytes((0, ins, 0, 0x81)) + lc
    shown = way.shown(head, secret + le)
    assert shown == way.shown(head, bytes(len(secret)) + le)
    # A first piece shows its header, in a block or not, if it is known what the reader takes.
    start = 10 + 3 * way.blocks
    assert shown[0][start : start + 4] == head[:4] or not way.profile


@given(WAYS, st.binary(max_size=30))
def test_a_signature_is_shown(way: Way, data: bytes) -> None:
    head = bytes((0, 0x2A, 0x9E, 0x9A, len(data) + 1))
    rest = b"\x00" + data
    one = way._replace(cuts=[], profile=way.profile or ("tpdu" if way.blocks else "ext_apdu"))
    assert one.shown(head, rest) == list(one.messages(one.pieces(head, rest)))
