"""Blocks of the protocol T=1 (ISO/IEC 7816-3:2006, 11.3), for both ends of the line.

A block is NAD, PCB, LEN, the information field, and the error detection code over all of it. ``encode_block`` gives a
gather list, whose information field is passed on uncopied; ``decode_block`` says of a bad block which R-block answers
it. No ``repr`` shows an information field, because it may hold a PIN.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from functools import reduce
from operator import xor
from types import MappingProxyType
from typing import Final, TypeAlias

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer, Buffers
from demail_hw.iso7816.atr import Checksum

__all__ = [
    "BLOCK_OVERHEAD",
    "MAX_INFORMATION",
    "BadBlock",
    "Block",
    "IBlock",
    "RBlock",
    "RError",
    "SBlock",
    "SKind",
    "checksum_of",
    "checksum_size",
    "decode_block",
    "encode_block",
]

MAX_INFORMATION: Final = 254
"""The most that an information field holds; LEN = FF is reserved (11.3.2.3)."""

BLOCK_OVERHEAD: Final = 5
"""Bytes around an information field: NAD, PCB, LEN and the longer of the two codes (11.3.1)."""

_PROLOGUE: Final = 3
_R_BLOCK: Final = 0x80
_S_BLOCK: Final = 0xC0
_KIND_MASK: Final = 0xC0
_MORE: Final = 0x20
_SEND_SEQUENCE_SHIFT: Final = 6
_RECEIVE_SEQUENCE_SHIFT: Final = 4
_RESPONSE: Final = 0x20
_LOW_BITS: Final = 0x1F
_ERROR_BITS: Final = 0x2F
_CRC_INITIAL: Final = 0xFFFF
_CRC_POLYNOMIAL: Final = 0x8408


class RError(enum.IntEnum):
    """What an R-block says of the block before it (11.3.2.2)."""

    NONE = 0
    EDC = 1
    OTHER = 2


class SKind(enum.IntEnum):
    """What an S-block is about (11.3.2.2)."""

    RESYNCH = 0
    IFS = 1
    ABORT = 2
    WTX = 3


_HAS_VALUE: Final = frozenset({SKind.IFS, SKind.WTX})


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class IBlock:
    """Carries information. ``sequence``: N(S), 0 or 1. ``more``: the M-bit, the chain goes on."""

    sequence: int
    information: Buffers = ()
    more: bool = False
    nad: int = 0

    @property
    def pcb(self) -> int:
        """0, N(S), M, five zeros (11.3.2.2)."""
        return self.sequence << _SEND_SEQUENCE_SHIFT | (_MORE if self.more else 0)

    def __repr__(self) -> str:
        length = sum(map(len, self.information))
        return f"IBlock({self.sequence}, <{length} bytes>, more={self.more}, nad={self.nad})"


@dataclasses.dataclass(frozen=True, slots=True)
class RBlock:
    """Acknowledges or refuses. ``sequence``: N(R), the N(S) of the I-block that is expected next."""

    sequence: int
    error: RError = RError.NONE
    nad: int = 0

    @property
    def information(self) -> Buffers:
        """None."""
        return ()

    @property
    def pcb(self) -> int:
        """1, 0, 0, N(R), error code (11.3.2.2)."""
        return _R_BLOCK | self.sequence << _RECEIVE_SEQUENCE_SHIFT | self.error


@dataclasses.dataclass(frozen=True, slots=True)
class SBlock:
    """Control. ``value``: the size for IFS, 1 to 254; the multiplier for WTX, 1 to 255; else 0."""

    kind: SKind
    value: int = 0
    response: bool = False
    nad: int = 0

    @property
    def information(self) -> Buffers:
        """One byte for IFS and WTX, else none."""
        return (bytes((self.value,)),) if self.kind in _HAS_VALUE else ()

    @property
    def pcb(self) -> int:
        """1, 1, response, kind (11.3.2.2)."""
        return _S_BLOCK | (_RESPONSE if self.response else 0) | self.kind

    def reply(self) -> "SBlock":
        """The S(... response) to this request: it has the same value (11.6.2.3)."""
        return dataclasses.replace(self, response=True)


Block: TypeAlias = IBlock | RBlock | SBlock


class BadBlock(ProtocolViolation):
    """Bytes that are no block. ``error``: what an R-block has to say of it."""

    default_layer = Layer.CARD

    def __init__(self, message: str, error: RError = RError.OTHER) -> None:
        super().__init__(message)
        self.error = error


# --- Error detection codes (11.3.4) -----------------------------------------------------------------------------


def checksum_size(edc: Checksum) -> int:
    """Bytes of the epilogue field: 1 for LRC, 2 for CRC (11.3.4)."""
    return len(_CHECKSUMS[edc](()))


def checksum_of(buffers: Buffers, edc: Checksum) -> bytes:
    """The error detection code over prologue and information field (11.3.4). Nothing is copied.

    LRC is the exclusive-or of all bytes. CRC is that of ISO/IEC 13239 in the form that OpenCT and libccid send: not
    complemented at the end, the upper byte first. No card with CRC was at hand to prove it.
    """
    return _CHECKSUMS[edc](buffers)


def _lrc(buffers: Buffers) -> bytes:
    return bytes((reduce(lambda value, buffer: reduce(xor, buffer, value), buffers, 0),))


def _crc(buffers: Buffers) -> bytes:
    value = _CRC_INITIAL
    for buffer in buffers:
        for byte in buffer:
            value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "big")


def _crc_entry(byte: int) -> int:
    return reduce(lambda value, _: value >> 1 ^ (_CRC_POLYNOMIAL if value & 1 else 0), range(8), byte)


_CRC_TABLE: Final = tuple(map(_crc_entry, range(256)))
_CHECKSUMS: Final[Mapping[Checksum, Callable[[Buffers], bytes]]] = MappingProxyType(
    {Checksum.LRC: _lrc, Checksum.CRC: _crc}
)


# --- Encoding ---------------------------------------------------------------------------------------------------


def encode_block(block: Block, edc: Checksum = Checksum.LRC) -> Buffers:
    """The block as a gather list (11.3). ``ValueError`` for more than 254 bytes of information."""
    length = sum(map(len, block.information))
    if length > MAX_INFORMATION:
        raise ValueError(f"an information field has at most {MAX_INFORMATION} bytes, not {length}")
    buffers = (bytes((block.nad, block.pcb, length)), *block.information)
    return (*buffers, checksum_of(buffers, edc))


# --- Decoding ---------------------------------------------------------------------------------------------------


def decode_block(encoded: Buffer, edc: Checksum = Checksum.LRC) -> Block:
    """Read one block; the data of an I-block comes as one buffer, or as none if it is empty.

    Errors: :class:`BadBlock`, whose ``error`` tells a wrong error detection code from all else.
    """
    raw = memoryview(encoded)
    end = len(raw) - checksum_size(edc)
    if end < _PROLOGUE or end - _PROLOGUE != raw[2]:
        raise BadBlock(f"A block of {len(raw)} bytes came, which is not the length that it names.")
    if checksum_of((raw[:end],), edc) != raw[end:]:
        raise BadBlock("The error detection code of a block is wrong.", RError.EDC)
    if end - _PROLOGUE > MAX_INFORMATION:
        raise BadBlock("A block has the reserved length FF.")
    nad, pcb, _ = raw[:_PROLOGUE]
    return _DECODERS.get(pcb & _KIND_MASK, _decode_i)(nad, pcb, bytes(raw[_PROLOGUE:end]))


def _decode_i(nad: int, pcb: int, information: bytes) -> IBlock:
    if pcb & _LOW_BITS:
        raise _reserved(pcb)
    return IBlock(pcb >> _SEND_SEQUENCE_SHIFT, (information,) if information else (), bool(pcb & _MORE), nad)


def _decode_r(nad: int, pcb: int, information: bytes) -> RBlock:
    error = pcb & _ERROR_BITS
    if error > RError.OTHER:
        raise _reserved(pcb)
    if information:
        raise BadBlock("An R-block has an information field.")
    return RBlock(pcb >> _RECEIVE_SEQUENCE_SHIFT & 1, RError(error), nad)


def _decode_s(nad: int, pcb: int, information: bytes) -> SBlock:
    kind = pcb & _LOW_BITS
    if kind > SKind.WTX:
        raise _reserved(pcb)
    if len(information) != (kind in _HAS_VALUE):
        raise BadBlock(f"An S-block of PCB {pcb:02X} has {len(information)} bytes of information.")
    value = information[0] if information else 0
    if (information and not value) or (kind == SKind.IFS and value > MAX_INFORMATION):
        raise BadBlock(f"An S-block of PCB {pcb:02X} has the reserved value {value:02X}.")
    return SBlock(SKind(kind), value, bool(pcb & _RESPONSE), nad)


_DECODERS: Final[Mapping[int, Callable[[int, int, bytes], Block]]] = MappingProxyType(
    {_R_BLOCK: _decode_r, _S_BLOCK: _decode_s}
)


def _reserved(pcb: int) -> BadBlock:
    return BadBlock(f"A block has the reserved PCB {pcb:02X}.")
