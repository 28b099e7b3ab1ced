"""Command and response APDUs (ISO 7816-4, 5.1), short and extended."""

import dataclasses
import struct
from typing import Final, NamedTuple

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer

__all__ = [
    "MAX_EXTENDED_LC",
    "MAX_EXTENDED_NE",
    "MAX_SHORT_LC",
    "MAX_SHORT_NE",
    "SECRET_INSTRUCTIONS",
    "CommandApdu",
    "ResponseApdu",
    "data_field",
]

MAX_SHORT_LC: Final = 255
MAX_SHORT_NE: Final = 256
MAX_EXTENDED_LC: Final = 65535
MAX_EXTENDED_NE: Final = 65536

SECRET_INSTRUCTIONS: Final = frozenset({0x20, 0x21, 0x24, 0x25, 0x2C, 0x2D, 0x26, 0x28})
"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER, each with the odd code of its BER-TLV form; DISABLE and
ENABLE VERIFICATION REQUIREMENT (ISO 7816-4, 11.5)."""

_HEADER = struct.Struct(">BBBB")
_EXTENDED_LENGTH = struct.Struct(">BH")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class CommandApdu:
    """A command as a value.

    ``data``: the data field as a gather list, empty for none. ``ne``: the greatest number of response bytes
    that is expected, 0 for none, 256 for all that a short response holds. ``name``: the standard's word for it,
    for errors and traces. ``ValueError`` if a field is out of range.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: tuple[Buffer, ...] = ()
    ne: int = 0
    name: str = dataclasses.field(default="", compare=False)
    nc: int = dataclasses.field(init=False, compare=False)
    """The length of the data field, in bytes."""

    def __post_init__(self) -> None:
        length = sum(map(len, self.data))
        object.__setattr__(self, "nc", length)
        if (self.cla | self.ins | self.p1 | self.p2) & ~0xFF:
            raise ValueError("CLA, INS, P1 and P2 are one byte each")
        if length > MAX_EXTENDED_LC or not 0 <= self.ne <= MAX_EXTENDED_NE:
            raise ValueError(f"Nc={length}, Ne={self.ne} do not fit into an APDU")

    @property
    def extended(self) -> bool:
        """True if it needs extended length fields."""
        return self.nc > MAX_SHORT_LC or self.ne > MAX_SHORT_NE

    @property
    def secret(self) -> bool:
        """True if its data field may hold a PIN."""
        return self.ins in SECRET_INSTRUCTIONS

    @property
    def label(self) -> str:
        """Its name, or its header in hexadecimal: for errors."""
        return self.name or _HEADER.pack(self.cla, self.ins, self.p1, self.p2).hex()

    def encode(self) -> tuple[Buffer, ...]:
        """The APDU as a gather list (ISO 7816-4, 5.1, cases 1 to 4); the data buffers are passed on uncopied."""
        header = _HEADER.pack(self.cla, self.ins, self.p1, self.p2)
        nc, ne = self.nc, self.ne
        if nc > MAX_SHORT_LC or ne > MAX_SHORT_NE:
            return self._encode_extended(header)
        le = bytes((ne & 0xFF,)) if ne else b""
        if not nc:
            return (header + le,)
        lc = bytes((nc,))
        return (header + lc, *self.data, le) if le else (header + lc, *self.data)

    def _encode_extended(self, header: bytes) -> tuple[Buffer, ...]:
        le = (self.ne & 0xFFFF).to_bytes(2, "big") if self.ne else b""
        if not self.nc:
            return (header + b"\0" + le,)
        lc = _EXTENDED_LENGTH.pack(0, self.nc)
        return (header + lc, *self.data, le) if le else (header + lc, *self.data)

    @classmethod
    def decode(cls, encoded: Buffer) -> "CommandApdu":
        """Read an APDU, as a card does.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if its length fields contradict its length.
        """
        raw = memoryview(encoded)
        if len(raw) < _HEADER.size:
            raise _malformed("it is shorter than its header")
        cla, ins, p1, p2 = _HEADER.unpack_from(raw)
        data, ne = _split_body(raw[_HEADER.size :])
        return cls(cla, ins, p1, p2, (bytes(data),) if data else (), ne)

    def __repr__(self) -> str:
        data = f"<{self.nc} secret bytes>" if self.secret and self.nc else b"".join(self.data).hex()
        head = _HEADER.pack(self.cla, self.ins, self.p1, self.p2).hex()
        return f"CommandApdu({self.label}: {head} data={data} ne={self.ne})"


def data_field(encoded: memoryview) -> tuple[int, int]:
    """Where the data field of an encoded command begins and ends, so that it can be masked unread.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` as in :meth:`CommandApdu.decode`.
    """
    if len(encoded) < _HEADER.size:
        raise _malformed("it is shorter than its header")
    body = encoded[_HEADER.size :]
    data, _ = _split_body(body)
    lc_size = 0 if not data else 1 if body[0] else _EXTENDED_LENGTH.size
    start = _HEADER.size + lc_size
    return start, start + len(data)


def _split_body(body: memoryview) -> tuple[memoryview, int]:
    """Data field and Ne of what follows the header (ISO 7816-4, 5.1, table 1 and 2)."""
    length = len(body)
    if length == 0:
        return body, 0
    if length == 1:
        return body[:0], body[0] or MAX_SHORT_NE
    if body[0]:
        return _split_data(body[1:], body[0], le_size=1, most=MAX_SHORT_NE)
    if length < _EXTENDED_LENGTH.size:
        raise _malformed("its extended length field is cut off")
    (_, number) = _EXTENDED_LENGTH.unpack_from(body)
    if length == _EXTENDED_LENGTH.size:
        return body[:0], number or MAX_EXTENDED_NE
    return _split_data(body[_EXTENDED_LENGTH.size :], number, le_size=2, most=MAX_EXTENDED_NE)


def _split_data(rest: memoryview, nc: int, *, le_size: int, most: int) -> tuple[memoryview, int]:
    if nc == 0:
        raise _malformed("Lc is zero")
    data, le = rest[:nc], rest[nc:]
    if len(data) == nc and not le:
        return data, 0
    if len(data) == nc and len(le) == le_size:
        return data, int.from_bytes(le, "big") or most
    raise _malformed(f"Lc says {nc} bytes and {len(rest)} follow")


def _malformed(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The command APDU is malformed: {why}.", layer=Layer.CARD)


class ResponseApdu(NamedTuple):
    """A response: ``data`` and ``status``, which is SW1-SW2 as an int (see :mod:`demail_hw.iso7816.status`)."""

    data: bytes
    status: int

    def encode(self) -> bytes:
        """Data, SW1, SW2."""
        return self.data + self.status.to_bytes(2, "big")

    @classmethod
    def decode(cls, encoded: bytes) -> "ResponseApdu":
        """Read a response.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if it is shorter than a status word.
        """
        if len(encoded) < 2:
            raise ProtocolViolation(
                f"The card answered with {len(encoded)} bytes, which hold no status word.", layer=Layer.CARD
            )
        return cls(encoded[:-2], int.from_bytes(encoded[-2:], "big"))
