"""The answer to reset (ISO 7816-3, 8.2) and its historical bytes (ISO 7816-4, 12.1.1)."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import xor
from types import MappingProxyType
from typing import Final, NamedTuple

from demail_hw.errors import Layer, Outcome, ProtocolViolation

__all__ = [
    "BAUD_RATES",
    "DEFAULT_FI_DI",
    "MAX_ATR",
    "Atr",
    "CardCapabilities",
    "Checksum",
    "ClockRate",
    "CompactTlv",
    "Convention",
    "HistoricalBytes",
    "InterfaceBytes",
    "SpecificMode",
    "T1Parameters",
]

MAX_ATR: Final = 33
"""TS and at most 32 further characters (ISO 7816-3, 8.2.1)."""

DEFAULT_FI_DI: Final = 0x11
"""Fd and Dd as one byte: what holds after a reset where TA1 is absent or not yet agreed on (8.1)."""

_T0: Final = 0
_T1: Final = 1
_GLOBAL: Final = 15
"""Not a protocol: T=15 qualifies global interface bytes."""
_CLASSES: Final = 0x07
_DEFAULT_WI: Final = 10
_DEFAULT_IFSC: Final = 32
_MAX_IFSC: Final = 254
_DEFAULT_TB: Final = 0x4D
"""BWI 4 and CWI 13 (ISO 7816-3, 11.4.3)."""


class Convention(enum.IntEnum):
    """TS: how the card codes its characters (ISO 7816-3, 8.1)."""

    DIRECT = 0x3B
    INVERSE = 0x3F


class Checksum(enum.Enum):
    """The error detection code of T=1 (ISO 7816-3, 11.4.4)."""

    LRC = "LRC"
    CRC = "CRC"


class ClockRate(NamedTuple):
    """A row of ISO 7816-3, table 7. ``fi``: clock rate conversion integer; ``f_max``: in kHz."""

    fi: int
    f_max: int


_CLOCK_RATES: Final[Mapping[int, ClockRate]] = MappingProxyType(
    {
        0b0000: ClockRate(372, 4000),
        0b0001: ClockRate(372, 5000),
        0b0010: ClockRate(558, 6000),
        0b0011: ClockRate(744, 8000),
        0b0100: ClockRate(1116, 12000),
        0b0101: ClockRate(1488, 16000),
        0b0110: ClockRate(1860, 20000),
        0b1001: ClockRate(512, 5000),
        0b1010: ClockRate(768, 7500),
        0b1011: ClockRate(1024, 10000),
        0b1100: ClockRate(1536, 15000),
        0b1101: ClockRate(2048, 20000),
    }
)
BAUD_RATES: Final[Mapping[int, int]] = MappingProxyType(
    {
        0b0001: 1,
        0b0010: 2,
        0b0011: 4,
        0b0100: 8,
        0b0101: 16,
        0b0110: 32,
        0b0111: 64,
        0b1000: 12,
        0b1001: 20,
    }
)
"""Di by its code (table 8)."""


@dataclasses.dataclass(frozen=True, slots=True)
class InterfaceBytes:
    """TA(i) to TD(i). ``index``: i, from 1. ``qualifier``: T of TD(i-1), ``None`` for i = 1."""

    index: int
    qualifier: int | None
    ta: int | None = None
    tb: int | None = None
    tc: int | None = None
    td: int | None = None

    @property
    def present(self) -> int:
        """Y(i): which of the four follow, as the upper four bits of T0 and TD(i) say it."""
        return sum(bit for bit, byte in zip(_Y_BITS, self._four(), strict=True) if byte is not None)

    def encode(self) -> bytes:
        """Those that are present, in order."""
        return bytes(byte for byte in self._four() if byte is not None)

    def _four(self) -> tuple[int | None, ...]:
        return self.ta, self.tb, self.tc, self.td


_Y_BITS: Final = (0x10, 0x20, 0x40, 0x80)


class SpecificMode(NamedTuple):
    """TA2 (ISO 7816-3, 8.3). ``protocol``: the only one that the card speaks now; ``implicit``: Fi and Di are
    not those of TA1; ``changeable``: a warm reset may bring negotiable mode back."""

    protocol: int
    implicit: bool
    changeable: bool


class T1Parameters(NamedTuple):
    """The specific interface bytes of T=1 (ISO 7816-3, 11.4). ``ifsc``: 1 to 254 bytes."""

    ifsc: int
    bwi: int
    cwi: int
    checksum: Checksum


@dataclasses.dataclass(frozen=True, slots=True)
class Atr:
    """An answer to reset. ``interface``: groups TA(i) to TD(i), i from 1; ``tck``: ``None`` if it has none."""

    convention: Convention
    interface: tuple[InterfaceBytes, ...]
    historical: bytes
    tck: int | None

    @classmethod
    def decode(cls, encoded: bytes) -> "Atr":
        """Read an answer to reset whose characters the reader has already put into the direct convention.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if TS is unknown, the length is not what it says
        or above 33 bytes, or TCK is missing, needless or wrong; no command was sent yet.
        """
        if len(encoded) > MAX_ATR:
            raise _violation(f"it has {len(encoded)} bytes, at most {MAX_ATR} are allowed")
        if len(encoded) < 2:
            raise _violation("it is shorter than TS and T0")
        convention = _decode_ts(encoded[0])
        groups, start = _decode_interface(encoded)
        end = start + (encoded[1] & 0x0F)
        tck = _decode_tck(encoded, end, required=any(group.qualifier for group in groups))
        return cls(convention, groups, encoded[start:end], tck)

    def encode(self) -> bytes:
        """TS, T0, interface bytes, historical bytes, TCK."""
        t0 = self.interface[0].present | len(self.historical)
        body = b"".join(group.encode() for group in self.interface) + self.historical
        tail = b"" if self.tck is None else bytes((self.tck,))
        return bytes((self.convention, t0)) + body + tail

    @property
    def protocols(self) -> tuple[int, ...]:
        """T of every protocol offered, in order, the first offered first; T=0 if none is named (8.2.3)."""
        named = dict.fromkeys(group.qualifier for group in self.interface)
        return tuple(t for t in named if t is not None and t != _GLOBAL) or (_T0,)

    @property
    def specific_mode(self) -> SpecificMode | None:
        """What TA2 says; ``None`` if it is absent: the mode is negotiable (6.3.1)."""
        ta2 = self._second.ta
        return None if ta2 is None else SpecificMode(ta2 & 0x0F, bool(ta2 & 0x10), not ta2 & 0x80)

    @property
    def first_protocol(self) -> int:
        """T after a reset where nothing was agreed on: the specific one, or the first that is offered (6.3.1)."""
        mode = self.specific_mode
        return self.protocols[0] if mode is None else mode.protocol

    @property
    def ta1(self) -> int:
        """Fi and Di as one byte, as PPS1 takes it; 11 if TA1 is absent (8.3, 9.2)."""
        ta1 = self.interface[0].ta
        return DEFAULT_FI_DI if ta1 is None else ta1

    @property
    def clock_rate(self) -> ClockRate | None:
        """Fi and the highest clock, from TA1 (table 7); ``None`` for a value reserved for future use."""
        return _CLOCK_RATES.get(self.ta1 >> 4)

    @property
    def di(self) -> int | None:
        """Di, baud rate adjustment integer, from TA1 (table 8); ``None`` for a value reserved for future use."""
        return BAUD_RATES.get(self.ta1 & 0x0F)

    @property
    def extra_guard_time(self) -> int:
        """N of TC1, in etu; 255 means the least that the protocol allows (8.3); 0 if absent."""
        return self.interface[0].tc or 0

    @property
    def wi(self) -> int:
        """Waiting time integer of T=0, from TC2 (10.2); 10 if absent or 0, which is reserved."""
        return self._second.tc or _DEFAULT_WI

    @property
    def t1(self) -> T1Parameters:
        """What the first TA, TB and TC for T=1 (i > 2) say, with the defaults for absent ones (11.4).

        The reserved IFSC values are read as what cards with them mean: 0 as 32, 255 as 254.
        """
        groups = [group for group in self.interface if group.index > 2 and group.qualifier == _T1]
        ta = _first(group.ta for group in groups) or _DEFAULT_IFSC
        tb = _first(group.tb for group in groups)
        waiting = _DEFAULT_TB if tb is None else tb
        crc = (_first(group.tc for group in groups) or 0) & 0x01
        return T1Parameters(min(ta, _MAX_IFSC), waiting >> 4, waiting & 0x0F, Checksum.CRC if crc else Checksum.LRC)

    @property
    def classes(self) -> int | None:
        """Classes of operating conditions, from the first TA for T=15 (8.3): the sum of 1 for A, 5 V, 2 for B, 3 V,
        and 4 for C, 1.8 V; ``None`` if it names none."""
        ta = _first(group.ta for group in self.interface if group.index > 2 and group.qualifier == _GLOBAL)
        return (ta or 0) & _CLASSES or None

    @property
    def _second(self) -> InterfaceBytes:
        return self.interface[1] if len(self.interface) > 1 else InterfaceBytes(2, None)


def _first(values: Iterator[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _decode_ts(ts: int) -> Convention:
    try:
        return Convention(ts)
    except ValueError:
        raise _violation(f"TS is {ts:02X}, neither 3B nor 3F") from None


def _decode_interface(encoded: bytes) -> tuple[tuple[InterfaceBytes, ...], int]:
    """The groups, and where the historical bytes begin."""
    groups: list[InterfaceBytes] = []
    qualifier, present, offset = None, encoded[1] & 0xF0, 2
    while True:
        group = _decode_group(encoded, offset, present, len(groups) + 1, qualifier)
        groups.append(group)
        offset += present.bit_count()
        if group.td is None:
            return tuple(groups), offset
        qualifier, present = group.td & 0x0F, group.td & 0xF0


def _decode_group(encoded: bytes, offset: int, present: int, index: int, qualifier: int | None) -> InterfaceBytes:
    following = iter(encoded[offset : offset + present.bit_count()])
    try:
        four = [next(following) if present & bit else None for bit in _Y_BITS]
    except StopIteration:
        raise _violation(f"its interface bytes are cut off at i={index}") from None
    return InterfaceBytes(index, qualifier, *four)


def _decode_tck(encoded: bytes, end: int, *, required: bool) -> int | None:
    """TCK, which is there if and only if another protocol than T=0 is named (8.2.5)."""
    expected = end + 1 if required else end
    if len(encoded) != expected:
        raise _violation(f"it has {len(encoded)} bytes where {expected} are announced")
    if not required:
        return None
    if reduce(xor, encoded[1:]):
        raise _violation("its check character TCK is wrong")
    return encoded[end]


# --- Historical bytes ------------------------------------------------------------------------------------------


class CompactTlv(NamedTuple):
    """A COMPACT-TLV data object: tag 0 to 15, value of up to 15 bytes (ISO 7816-4, 12.1.1.2)."""

    tag: int
    value: bytes


class CardCapabilities(NamedTuple):
    """The third software function table of COMPACT-TLV object 7 (ISO 7816-4, 12.1.1.9)."""

    command_chaining: bool
    extended_length: bool


class _Category(enum.IntEnum):
    """The category indicator byte (ISO 7816-4, 12.1.1.1)."""

    STATUS_AT_THE_END = 0x00
    STATUS_MAY_BE_INSIDE = 0x80


_CAPABILITIES: Final = 7
_STATUS_SIZE: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class HistoricalBytes:
    """Historical bytes of the categories 00 and 80.

    ``status``: the status indicator behind the objects, at most 3 bytes: life cycle status, SW1, SW2. TCOS 2 cards
    leave the first of them out, so it is what stands there and not always three bytes.
    """

    category: int
    objects: tuple[CompactTlv, ...]
    status: bytes = b""

    @classmethod
    def decode(cls, encoded: bytes) -> "HistoricalBytes":
        """Read historical bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if they are of another category or an object does
        not fit.
        """
        category = encoded[0] if encoded else None
        if category == _Category.STATUS_AT_THE_END:
            objects, rest = _decode_compact(encoded[1:], spare=_STATUS_SIZE)
            return cls(category, objects, rest)
        if category == _Category.STATUS_MAY_BE_INSIDE:
            objects, _ = _decode_compact(encoded[1:], spare=0)
            return cls(category, objects)
        raise _violation("its historical bytes are not COMPACT-TLV")

    def encode(self) -> bytes:
        """Category, objects, status indicator."""
        objects = b"".join(bytes((tag << 4 | len(value),)) + value for tag, value in self.objects)
        return bytes((self.category,)) + objects + self.status

    @property
    def card_capabilities(self) -> CardCapabilities | None:
        """What object 7 says; ``None`` if the card does not say it."""
        value = next((each.value for each in self.objects if each.tag == _CAPABILITIES), b"")
        if len(value) < 3:
            return None
        return CardCapabilities(command_chaining=bool(value[2] & 0x80), extended_length=bool(value[2] & 0x40))


def _decode_compact(raw: bytes, *, spare: int) -> tuple[tuple[CompactTlv, ...], bytes]:
    """Objects until at most ``spare`` bytes are left, and these."""
    objects: list[CompactTlv] = []
    while len(raw) > spare:
        end = 1 + (raw[0] & 0x0F)
        if end > len(raw):
            raise _violation("an object in its historical bytes is cut off")
        objects.append(CompactTlv(raw[0] >> 4, raw[1:end]))
        raw = raw[end:]
    return tuple(objects), raw


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The card's answer to reset is malformed: {why}.", layer=Layer.CARD, outcome=Outcome.NOT_SENT
    )
