"""The card's end of the protocol T=0 (ISO/IEC 7816-3:2006, 10.3 and 12.2), as a reader passes its TPDUs on.

The procedure bytes stay between card and reader. A TPDU does not say which way its data go: the card knows it by the
instruction. What a command with data returns waits for GET RESPONSE. After a 6Cxx the command comes once more, so
only reading, which changes nothing in the card, is answered so: whatever else returns data is done as if all were
asked for, and its data wait too.
"""

from collections.abc import Callable
from typing import Final

from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.table import Instruction
from demail_hw_simulators.card.timing import TimedAnswer

__all__ = ["T0Card"]

_HEADER: Final = 4
_INS: Final = 1
_P3: Final = 4
_STATUS: Final = 2
_LONGEST: Final = 256
_EXTENDED_HEADER: Final = 7
"""Header, 00, two bytes Lc."""
_EXTENDED_LE: Final = 2
_GET_RESPONSE: Final = 0xC0
_ENVELOPE: Final = 0xC2
_GET_DATA: Final = 0xCA
_INTERNAL_AUTHENTICATE: Final = 0x88
_MORE, _RIGHT_LENGTH = 0x61, 0x6C
_DONE: Final = StatusWord.NORMAL_PROCESSING.to_bytes(_STATUS, "big")
_WRONG_LENGTH: Final = b"\x67\x00"
_NOTHING_TO_FETCH: Final = b"\x69\x85"

_READS: Final = frozenset(
    {
        Instruction.GET_CHALLENGE,
        Instruction.LIST,
        Instruction.READ_BINARY,
        Instruction.READ_RECORD,
        _GET_DATA,
    }
)
"""Case 2: P3 = 00 asks for 256 bytes. For any other instruction without data it means that there are none."""
_RETURNS: Final = frozenset({Instruction.SELECT, Instruction.PERFORM_SECURITY_OPERATION, _INTERNAL_AUTHENTICATE})
"""Case 4: the card does it as if all were asked for, and keeps what comes."""
_TAKES: Final = frozenset(Instruction) - _READS - _RETURNS
"""Cases 1 and 3: P3 counts bytes that come to the card."""


class T0Card:
    """``work``: does a command APDU."""

    def __init__(self, work: Callable[[bytes], TimedAnswer]) -> None:
        self._work = work
        self._kept = b""
        self._envelope = bytearray()

    def exchange(self, sent: bytes) -> TimedAnswer:
        """One TPDU: header, P3, data or none; data and status word come back."""
        header, length, data = sent[:_HEADER], sent[_P3 : _P3 + 1] or b"\0", sent[_P3 + 1 :]
        if len(header) < _HEADER or (data and len(data) != length[0]):
            return _now(_WRONG_LENGTH)
        instruction = header[_INS]
        if instruction == _GET_RESPONSE:
            return _now(self._fetch(length[0] or _LONGEST))
        self._kept = b""
        if instruction == _ENVELOPE:
            return self._open(data)
        self._envelope.clear()
        if instruction in _RETURNS:
            return self._keep(header + (length + data if data else b"") + b"\0")
        if data or (not length[0] and instruction not in _READS):
            return self._work(header + (length + data if data else b""))
        if instruction in _READS:
            return self._read(header, length[0])
        return _now(_WRONG_LENGTH) if instruction in _TAKES else self._keep(header + b"\0")

    def _read(self, header: bytes, p3: int) -> TimedAnswer:
        """Case 2 (12.2.3), of a command that changes nothing."""
        answer = self._work(header + bytes((p3,)))
        count = len(answer.response) - _STATUS
        if 0 < count != (p3 or _LONGEST):
            return _now(bytes((_RIGHT_LENGTH, count & 0xFF)))
        return answer

    def _keep(self, apdu: bytes) -> TimedAnswer:
        """Case 4 (12.2.5): data is fetched by GET RESPONSE."""
        response, seconds = self._work(apdu)
        if len(response) <= _STATUS:
            return TimedAnswer(response, seconds)
        self._kept = response
        return TimedAnswer(self._more(), seconds)

    def _more(self) -> bytes:
        count = len(self._kept) - _STATUS
        return bytes((_MORE, count if count < _LONGEST else 0))

    def _fetch(self, count: int) -> bytes:
        """GET RESPONSE (ISO 7816-4, 11.4.3)."""
        left = len(self._kept) - _STATUS
        if left <= 0:
            return _NOTHING_TO_FETCH
        if count > left:
            return bytes((_RIGHT_LENGTH, left & 0xFF))
        data, self._kept = self._kept[:count], self._kept[count:]
        if len(self._kept) > _STATUS:
            return data + self._more()
        status, self._kept = self._kept, b""
        return data + status

    def _open(self, piece: bytes) -> TimedAnswer:
        """ENVELOPE (12.2.7): an APDU in pieces; it is done when its last one is there."""
        self._envelope += piece
        apdu = bytes(self._envelope)
        if not _whole(apdu):
            return _now(_DONE)
        self._envelope.clear()
        return self._keep(apdu)


def _whole(apdu: bytes) -> bool:
    """Is it all there? Whether Le follows the data only the instruction tells."""
    if len(apdu) < _EXTENDED_HEADER:
        return False
    end = _EXTENDED_HEADER + int.from_bytes(apdu[_P3 + 1 : _EXTENDED_HEADER], "big")
    return len(apdu) >= end + (_EXTENDED_LE if apdu[_INS] in _RETURNS else 0)


def _now(response: bytes) -> TimedAnswer:
    return TimedAnswer(response, 0.0)
