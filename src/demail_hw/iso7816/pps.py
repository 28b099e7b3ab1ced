"""Protocol and parameters selection (ISO/IEC 7816-3:2006, 9): which protocol at which speed."""

import dataclasses
from functools import reduce
from operator import xor
from typing import Final

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816.atr import BAUD_RATES, DEFAULT_FI_DI, Atr

__all__ = ["Pps", "fastest"]

_PPSS: Final = 0xFF
_PPS1_FOLLOWS: Final = 0x10
_FLAGS: Final = 0xF0
_SHORTEST: Final = 3
_HERTZ: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Pps:
    """A request or its response. ``protocol``: T; ``fi_di``: PPS1, ``None`` if it is absent, which means 11."""

    protocol: int
    fi_di: int | None = None

    @property
    def agreed(self) -> int:
        """Fi and Di that hold after it, as one byte (9.3)."""
        return DEFAULT_FI_DI if self.fi_di is None else self.fi_di

    def encode(self) -> bytes:
        """PPSS, PPS0, PPS1 if it is present, PCK (9.2)."""
        flag = 0 if self.fi_di is None else _PPS1_FOLLOWS
        pps1 = () if self.fi_di is None else (self.fi_di,)
        body = (_PPSS, flag | self.protocol, *pps1)
        return bytes((*body, reduce(xor, body)))

    @classmethod
    def decode(cls, encoded: bytes) -> "Pps":
        """Read a PPS as we send it, or the card's answer to that: PPS2 and PPS3 were not proposed.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`; no command was sent yet.
        """
        if len(encoded) < _SHORTEST or encoded[0] != _PPSS or reduce(xor, encoded):
            raise _violation(f"{encoded.hex()} is none")
        flags, protocol = encoded[1] & _FLAGS, encoded[1] & ~_FLAGS
        if flags & ~_PPS1_FOLLOWS or len(encoded) != _SHORTEST + bool(flags):
            raise _violation(f"{encoded.hex()} has other fields than its PPS0 may name")
        return cls(protocol, encoded[2] if flags else None)

    def answers(self, request: "Pps") -> bool:
        """Is the exchange successful? The card takes the protocol, and PPS1 or the default (9.3)."""
        return self.protocol == request.protocol and self.fi_di in (request.fi_di, None)


def fastest(atr: Atr, *, clock: int, max_rate: int) -> int:
    """Fi and Di, as PPS1 has them: the fastest from TA1 down that the reader can follow (9.2).

    ``clock``: the reader's, in kHz; ``max_rate``: its highest, in bit/s. A reader that says 0 of one of them is taken
    to follow the card. Where TA1 is reserved, or nothing fits, it is 11.
    """
    conversion, most = atr.clock_rate, atr.di
    if conversion is None or most is None:
        return DEFAULT_FI_DI
    if not clock or not max_rate:
        return atr.ta1
    fitting = (
        (di, code)
        for code, di in BAUD_RATES.items()
        if di <= most and clock * _HERTZ * di // conversion.fi <= max_rate
    )
    _, code = max(fitting, default=(0, None))
    return DEFAULT_FI_DI if code is None else (atr.ta1 & 0xF0) | code


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The PPS is malformed: {why}.", layer=Layer.CARD)
