"""T=1 blocks (ISO/IEC 7816-3:2006, 11.3) for every value and any bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import (
    MAX_INFORMATION,
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

BIT = st.integers(0, 1)
NAD = st.integers(0, 0xFF)
EDC = st.sampled_from(Checksum)
INFORMATION = st.binary(min_size=1, max_size=MAX_INFORMATION).map(lambda data: (data,)) | st.just(())
BLOCKS = st.one_of(
    st.builds(IBlock, BIT, INFORMATION, st.booleans(), NAD),
    st.builds(RBlock, BIT, st.sampled_from(RError), NAD),
    st.builds(SBlock, st.sampled_from([SKind.RESYNCH, SKind.ABORT]), st.just(0), st.booleans(), NAD),
    st.builds(SBlock, st.just(SKind.IFS), st.integers(1, MAX_INFORMATION), st.booleans(), NAD),
    st.builds(SBlock, st.just(SKind.WTX), st.integers(1, 0xFF), st.booleans(), NAD),
)


@given(BLOCKS, EDC)
def test_block_round_trip(block: Block, edc: Checksum) -> None:
    assert decode_block(b"".join(encode_block(block, edc)), edc) == block


@given(st.binary(max_size=270), EDC)
def test_any_bytes_are_a_block_or_a_bad_one(encoded: bytes, edc: Checksum) -> None:
    with contextlib.suppress(BadBlock):
        assert b"".join(encode_block(decode_block(encoded, edc), edc)) == encoded


@given(BLOCKS, EDC, st.data())
def test_one_wrong_byte_is_always_noticed(block: Block, edc: Checksum, data: st.DataObject) -> None:
    encoded = bytearray(b"".join(encode_block(block, edc)))
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] ^= data.draw(st.integers(1, 0xFF))
    with pytest.raises(BadBlock) as caught:
        decode_block(encoded, edc)
    # A wrong LEN is seen first: without it nobody knows where the code stands.
    assert caught.value.error is (RError.OTHER if index == 2 else RError.EDC)


@given(st.lists(st.binary(max_size=60), max_size=4), EDC)
def test_gather_list_and_joined_bytes_are_the_same_block(pieces: list[bytes], edc: Checksum) -> None:
    encoded = encode_block(IBlock(1, pieces), edc)
    assert all(piece is sent for piece, sent in zip(pieces, encoded[1:-1], strict=True))
    assert b"".join(encoded) == b"".join(encode_block(IBlock(1, (b"".join(pieces),)), edc))
