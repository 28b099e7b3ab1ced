"""T=1 blocks (ISO/IEC 7816-3:2006, 11.3); the vectors are what libccid sent to a card, and the card's answers."""

import pytest

from demail_hw.errors import Layer, Outcome
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import (
    BadBlock,
    Block,
    IBlock,
    RBlock,
    RError,
    SBlock,
    SKind,
    checksum_of,
    checksum_size,
    decode_block,
    encode_block,
)

RECORDED = [
    ("00c101fc3c", SBlock(SKind.IFS, 0xFC)),
    ("00e101fc1c", SBlock(SKind.IFS, 0xFC, response=True)),
    ("00000400a40400a4", IBlock(0, (b"\0\xa4\4\0",))),
    ("00400500b0000000f5", IBlock(1, (b"\0\xb0\0\0\0",))),
    ("000002900092", IBlock(0, (b"\x90\0",))),
    ("00800080", RBlock(0)),
    ("00900090", RBlock(1)),
    ("00c30103c1", SBlock(SKind.WTX, 3)),
    ("00e30103e1", SBlock(SKind.WTX, 3, response=True)),
]
STANDARD = [
    ("00200120 01", IBlock(0, (b"\x20",), more=True)),
    ("00600141 20", IBlock(1, (b"\x41",), more=True)),
    ("00810081", RBlock(0, RError.EDC)),
    ("00920092", RBlock(1, RError.OTHER)),
    ("00c000c0", SBlock(SKind.RESYNCH)),
    ("00e000e0", SBlock(SKind.RESYNCH, response=True)),
    ("00c200c2", SBlock(SKind.ABORT)),
    ("00e200e2", SBlock(SKind.ABORT, response=True)),
    ("21400061", IBlock(1, nad=0x21)),
]


@pytest.mark.parametrize(("encoded", "block"), RECORDED + STANDARD)
def test_block(encoded: str, block: Block) -> None:
    assert b"".join(encode_block(block)) == bytes.fromhex(encoded)
    assert decode_block(bytes.fromhex(encoded)) == block


def test_information_field_is_the_callers_buffer() -> None:
    secret = bytearray(b"12345678")
    encoded = encode_block(IBlock(0, (b"\0\x20\0\0\x08", secret)))
    assert encoded[2] is secret


def test_repr_shows_no_information() -> None:
    assert repr(IBlock(1, (b"1234", b"56"), more=True)) == "IBlock(1, <6 bytes>, more=True, nad=0)"


def test_crc_is_the_one_of_iso_13239_before_the_complement() -> None:
    """The check value of CRC-16/MCRF4XX over the digits 1 to 9: initial value FFFF, no complement."""
    assert checksum_of((b"1234", b"56789"), Checksum.CRC).hex() == "6f91"
    assert checksum_size(Checksum.CRC) == 2
    assert checksum_size(Checksum.LRC) == 1


@pytest.mark.parametrize(
    ("encoded", "error"),
    [
        ("", RError.OTHER),
        ("000000", RError.OTHER),  # No epilogue.
        ("00000190", RError.OTHER),  # LEN says one byte more.
        ("0000009090", RError.OTHER),  # A byte too many.
        ("00000001", RError.EDC),
        ("00010001", RError.OTHER),  # Reserved bits of an I-block.
        ("00830083", RError.OTHER),  # Reserved error code.
        ("00a000a0", RError.OTHER),  # Reserved bit of an R-block.
        ("0080019011", RError.OTHER),  # An R-block with information.
        ("00c400c4", RError.OTHER),  # Reserved kind of an S-block.
        ("00c100c1", RError.OTHER),  # IFS without its value.
        ("00c10100c0", RError.OTHER),  # IFS 0 is reserved.
        ("00c101ff3f", RError.OTHER),  # IFS 255 is reserved.
        ("00c30100c2", RError.OTHER),  # WTX 0.
        ("00c00101c0", RError.OTHER),  # RESYNCH with a value.
        ("0000ff" + "00" * 255 + "ff", RError.OTHER),  # LEN FF is reserved.
    ],
)
def test_bad_block_says_what_an_r_block_answers(encoded: str, error: RError) -> None:
    with pytest.raises(BadBlock) as caught:
        decode_block(bytes.fromhex(encoded))
    assert caught.value.error is error
    assert caught.value.layer is Layer.CARD
    assert caught.value.outcome is Outcome.UNKNOWN


def test_information_over_254_bytes_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not 255"):
        encode_block(IBlock(0, (bytes(200), bytes(55))))
