"""Protocol parameters (CCID 1.10, 6.1.7): the structures, and their values for a card."""

import dataclasses
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Final, TypeAlias

from demail_hw.ccid.code_points import ProtocolNumber
from demail_hw.ccid.messages import BadField, SetParameters
from demail_hw.errors import ReaderError
from demail_hw.iso7816.atr import Atr, Checksum, Convention

__all__ = ["ProtocolData", "T0ProtocolData", "T1ProtocolData", "parameters_for"]

_T0 = struct.Struct("<5B")
_T1 = struct.Struct("<7B")
_LENGTH_INDEX: Final = 1

_INVERSE_CONVENTION: Final = 0x02
_T1_FIXED: Final = 0x10
_T1_CRC: Final = 0x01


@dataclasses.dataclass(frozen=True, slots=True)
class T0ProtocolData:
    """abProtocolDataStructure for T=0, with the values of ISO 7816-3 as defaults."""

    protocol: ClassVar[ProtocolNumber] = ProtocolNumber.T0
    fi_di: int = 0x11
    convention: int = 0x00
    guard_time: int = 0
    waiting_integer: int = 10
    clock_stop: int = 0

    def encode(self) -> bytes:
        """5 bytes."""
        return _T0.pack(*dataclasses.astuple(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "T0ProtocolData":
        """Read 5 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`.
        """
        if len(encoded) != _T0.size:
            raise BadField(f"Parameters for T=0 have {_T0.size} bytes, not {len(encoded)}.", _LENGTH_INDEX)
        return cls(*_T0.unpack(encoded))


@dataclasses.dataclass(frozen=True, slots=True)
class T1ProtocolData:
    """abProtocolDataStructure for T=1, with the values of ISO 7816-3 as defaults.

    ``checksum_convention``: 0x10, plus 1 for CRC, plus 2 for the inverse convention. ``waiting_integers``:
    BWI in the upper four bits, CWI in the lower. ``ifsc`` in bytes.
    """

    protocol: ClassVar[ProtocolNumber] = ProtocolNumber.T1
    fi_di: int = 0x11
    checksum_convention: int = _T1_FIXED
    guard_time: int = 0
    waiting_integers: int = 0x4D
    clock_stop: int = 0
    ifsc: int = 32
    nad: int = 0

    def encode(self) -> bytes:
        """7 bytes."""
        return _T1.pack(*dataclasses.astuple(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "T1ProtocolData":
        """Read 7 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`.
        """
        if len(encoded) != _T1.size:
            raise BadField(f"Parameters for T=1 have {_T1.size} bytes, not {len(encoded)}.", _LENGTH_INDEX)
        return cls(*_T1.unpack(encoded))


ProtocolData: TypeAlias = T0ProtocolData | T1ProtocolData


def parameters_for(atr: Atr, protocol: int | None = None, fi_di: int | None = None) -> SetParameters:
    """SetParameters with what the card asks for in its ATR.

    ``protocol``: else its specific protocol, or the first that it offers; ``fi_di``: else Fi and Di of TA1.
    Errors: :class:`~demail_hw.errors.ReaderError` for a protocol that is neither T=0 nor T=1.
    """
    protocol = atr.first_protocol if protocol is None else protocol
    make = _MAKERS.get(protocol)
    if make is None:
        raise ReaderError(f"The card speaks T={protocol}, which no reader at this level understands.")
    data = make(atr, atr.ta1 if fi_di is None else fi_di)
    return SetParameters(data.protocol, data.encode())


def _t0(atr: Atr, fi_di: int) -> ProtocolData:
    return T0ProtocolData(fi_di, _convention(atr), atr.extra_guard_time, atr.wi)


def _t1(atr: Atr, fi_di: int) -> ProtocolData:
    t1 = atr.t1
    checksum = _T1_CRC if t1.checksum is Checksum.CRC else 0
    return T1ProtocolData(
        fi_di=fi_di,
        checksum_convention=_T1_FIXED | checksum | _convention(atr),
        guard_time=atr.extra_guard_time,
        waiting_integers=t1.bwi << 4 | t1.cwi,
        ifsc=t1.ifsc,
    )


def _convention(atr: Atr) -> int:
    return _INVERSE_CONVENTION if atr.convention is Convention.INVERSE else 0


_MAKERS: Final[Mapping[int, Callable[[Atr, int], ProtocolData]]] = MappingProxyType(
    {ProtocolNumber.T0: _t0, ProtocolNumber.T1: _t1}
)
