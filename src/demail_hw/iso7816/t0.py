"""APDUs over the protocol T=0 where the reader takes TPDUs (ISO/IEC 7816-3:2006, 12.2), without any I/O.

The procedure bytes are the reader's matter: what comes back is data and status. A TPDU carries data in one direction
only, so that a response to a command with data is fetched by GET RESPONSE, and data that P3 cannot count go in
pieces, by ENVELOPE.
"""

from collections.abc import Generator
from typing import Final, NamedTuple, TypeAlias

from demail_hw.interfaces import Buffers
from demail_hw.iso7816.apdu import MAX_EXTENDED_NE, MAX_SHORT_LC, MAX_SHORT_NE, SECRET_INSTRUCTIONS, ResponseApdu
from demail_hw.iso7816.processors import get_response
from demail_hw.iso7816.status import StatusWord, bytes_available, correct_ne
from demail_hw.iso7816.tpdu import BufferQueue, Transmission, Transmissions

__all__ = ["exchange"]

_HEADER: Final = 4
_INS: Final = 1
_ENVELOPE: Final = b"\xc2\0\0"

_Turn: TypeAlias = Generator[Transmission, bytes, ResponseApdu]


class _Parts(NamedTuple):
    """A command APDU taken apart: CLA INS P1 P2, the data field uncopied, Ne."""

    header: bytes
    data: Buffers
    nc: int
    ne: int


def exchange(command: Buffers) -> Transmissions:
    """One command APDU of any case, short or extended.

    Cases 1, 2 and 3 are one TPDU. A 61xx makes it fetch what Ne allows; what is left stays in the card, and so does
    the status (case 4; 12.2.5). A 6Cxx says that the command was not done and which Le is right (12.2.3): it is
    sent once more with that, unless it is more than was asked for or the command may carry a PIN.

    Errors: what is thrown in; ``ProtocolViolation`` for an answer without a status word; ``ValueError`` for bytes
    that are no command APDU.
    """
    parts = _take_apart(command)
    if parts.nc > MAX_SHORT_LC:
        response = yield from _envelope(parts.header[:1], command)
    elif parts.nc:
        response = yield from _turn(parts.header + bytes((parts.nc,)), parts.data)
    else:
        response = yield from _receive(parts)
    return (yield from _fetch(parts, response)).encode()


def _turn(header: bytes, data: Buffers = ()) -> _Turn:
    return ResponseApdu.decode((yield Transmission((header, *data))))


def _receive(parts: _Parts) -> _Turn:
    """Cases 1 and 2 (12.2.2 and 12.2.3)."""
    header, ne = parts.header, min(parts.ne, MAX_SHORT_NE)
    response = yield from _turn(header + bytes((ne & 0xFF,)))
    exact = correct_ne(response.status)
    if exact is None or exact >= ne or header[_INS] in SECRET_INSTRUCTIONS:
        return response
    return (yield from _turn(header + bytes((exact & 0xFF,))))


def _fetch(parts: _Parts, response: ResponseApdu) -> _Turn:
    """GET RESPONSE as long as more may come, and each brings something (case 4; 12.2.5)."""
    data, status = response
    while (available := bytes_available(status)) and (room := min(parts.ne - len(data), MAX_SHORT_NE)) > 0:
        command = get_response(parts.header[0], min(available, room))
        part = yield from _receive(_take_apart(command.encode()))
        if not part.data:
            return ResponseApdu(data, part.status)
        data, status = data + part.data, part.status
    return ResponseApdu(data, status)


def _envelope(cla: bytes, command: Buffers) -> _Turn:
    """The whole APDU in pieces (12.2.7 and 12.2.8); a piece that is refused is the last one."""
    rest = BufferQueue(command)
    while True:
        length = min(rest.length, MAX_SHORT_LC)
        response = yield from _turn(cla + _ENVELOPE + bytes((length,)), rest.take(length))
        if not rest.length or response.status != StatusWord.NORMAL_PROCESSING:
            return response


# --- Taking a command APDU apart (ISO 7816-4, 5.1) ----------------------------------------------------------------


def _take_apart(command: Buffers) -> _Parts:
    """Header, data and Ne. Only the lengths are copied."""
    queue = BufferQueue(command)
    header = _bytes(queue, _HEADER)
    if len(header) < _HEADER:
        raise _malformed()
    if queue.length <= 1:
        le = _bytes(queue, 1)
        return _Parts(header, (), 0, _number(le, MAX_SHORT_NE))
    nc = _number(_bytes(queue, 1), 0)
    if nc:
        return _with_data(header, queue, nc, most=MAX_SHORT_NE, le_size=1)
    number = _bytes(queue, 2)
    if len(number) < 2:
        raise _malformed()
    if queue.length:
        return _with_data(header, queue, _number(number, 0), most=MAX_EXTENDED_NE, le_size=2)
    return _Parts(header, (), 0, _number(number, MAX_EXTENDED_NE))


def _with_data(header: bytes, queue: BufferQueue, nc: int, *, most: int, le_size: int) -> _Parts:
    if not nc or queue.length not in (nc, nc + le_size):
        raise _malformed()
    data = queue.take(nc)
    return _Parts(header, data, nc, _number(_bytes(queue, le_size), most))


def _bytes(queue: BufferQueue, size: int) -> bytes:
    return b"".join(queue.take(size))


def _number(field: bytes, zero: int) -> int:
    """A length field: absent is none, zeros mean ``zero``."""
    return (int.from_bytes(field, "big") or zero) if field else 0


def _malformed() -> ValueError:
    return ValueError("the lengths in a command APDU contradict its length")
