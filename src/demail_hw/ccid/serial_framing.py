"""CCID messages on a serial line, as the GemPC Twin frames them; no I/O.

::

    03 06 MESSAGE LRC     a message, either way; LRC is the exclusive or of all bytes before it
    03 15 16              the last frame did not arrive whole; from the host: say it again
    50 02, 50 03          between frames, from the reader: the card was taken out, put in (CCID 1.10, 6.3.1)
    80 ... FF             one byte in front of an answer: a T=0 card needs longer

The line has 115200 bit/s, 8 data bits, no parity, 2 stop bits. A GemPC Twin echoes each frame of the host before it
answers. It has no descriptors: :data:`GEMPC_TWIN` is what is known of it. (Source: observed between libccid 1.5.2's
serial driver and a simulated reader.)
"""

from functools import reduce
from operator import xor
from typing import Final, NamedTuple, TypeAlias

from demail_hw.ccid.class_descriptor import CcidDescriptor, Features
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.host import NEED_DATA, NeedData
from demail_hw.interfaces import Buffers

__all__ = [
    "BAUD_RATE",
    "GEMPC_TWIN",
    "MAX_MESSAGE",
    "NAK_FRAME",
    "READ_FIRMWARE",
    "REPORT_SLOT_CHANGES",
    "FrameReader",
    "FrameReceived",
    "Garbled",
    "NakReceived",
    "SerialEvent",
    "SlotChanged",
    "TimeRequested",
    "encode_frame",
    "is_command",
]

BAUD_RATE: Final = 115200
READ_FIRMWARE: Final = b"\x02"
"""The escape command that a reader answers with the name of its firmware."""
REPORT_SLOT_CHANGES: Final = b"\x01\x01\x01"
"""The escape command after which the reader tells of the card in front of its answers."""
MAX_MESSAGE: Final = 271
NAK_FRAME: Final = b"\x03\x15\x16"

_START: Final = b"\x03\x06"
_SYNC, _ACK, _SLOT_CHANGE = 0x03, 0x06, 0x50
_FIRST_ANSWER: Final = 0x80
_SLOT_CHANGE_SIZE: Final = 2
_LRC_SIZE: Final = 1
_HEADER_END: Final = len(_START) + HEADER_SIZE
_LENGTH_FIELD: Final = slice(3, 7)
_LONGEST_FRAME: Final = len(_START) + MAX_MESSAGE + _LRC_SIZE

GEMPC_TWIN: Final = CcidDescriptor(
    version=0x0100,
    max_slot_index=0,
    voltage_support=0x07,
    protocols=0x0000_0003,
    default_clock=4000,
    maximum_clock=4000,
    clocks_supported=0,
    data_rate=10752,
    max_data_rate=344086,
    data_rates_supported=0,
    max_ifsd=254,
    synchronous_protocols=0,
    mechanical=0,
    features=Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE | Features.NAD_ACCEPTED | Features.TPDU_LEVEL,
    max_message_length=MAX_MESSAGE,
    class_get_response=0,
    class_envelope=0,
    lcd_layout=0,
    pin_support=0,
    max_busy_slots=1,
)
"""dwFeatures 0x00010230: TPDUs, and PPS is the host's."""


class FrameReceived(NamedTuple):
    """A whole CCID message. Its ``repr`` shows no data, because it may be the echo of a PIN."""

    message: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.message)} bytes>)"


class NakReceived(NamedTuple):
    """The other end did not get the last frame whole."""


class SlotChanged(NamedTuple):
    """The card came or went: what the interrupt pipe of a USB reader would say (CCID 1.10, 6.3.1)."""

    notification: bytes


class TimeRequested(NamedTuple):
    """The card needs longer."""

    multiplier: int


class Garbled(NamedTuple):
    """A frame was damaged on the line. What came with it was dropped."""

    why: str


SerialEvent: TypeAlias = FrameReceived | NakReceived | SlotChanged | TimeRequested | Garbled


def encode_frame(message: Buffers) -> Buffers:
    """A message in its frame, nothing joined."""
    lrc = _SYNC ^ _ACK
    for buffer in message:
        lrc = reduce(xor, buffer, lrc)
    return (_START, *message, bytes((lrc,)))


def is_command(message: bytes) -> bool:
    """Is it a message of the host? From the reader it is the echo of one."""
    return message[0] < _FIRST_ANSWER


class FrameReader:
    """Bytes in, events out; the same at both ends of the line. Noise between frames is dropped."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """True while something that has begun is not over."""
        return bool(self._buffer)

    @property
    def wanted(self) -> int:
        """So many bytes are missing at least."""
        return max(1, self._size() - len(self._buffer))

    def receive_data(self, data: bytes) -> None:
        """Take what came from the line."""
        self._buffer += data

    def give_up(self) -> None:
        """The rest of what has begun does not come: forget it."""
        self._buffer.clear()

    def next_event(self) -> SerialEvent | NeedData:
        """The next thing that the line said, or :data:`~demail_hw.ccid.host.NEED_DATA`."""
        while self._buffer:
            size = self._size()
            if size > _LONGEST_FRAME:
                self._buffer.clear()
                return Garbled("it is longer than a message may be")
            if len(self._buffer) < size:
                return NEED_DATA
            event = _read(bytes(self._buffer[:size]))
            if isinstance(event, Garbled):
                self._buffer.clear()
                return event
            del self._buffer[:size]
            if event is not None:
                return event
        return NEED_DATA

    def _size(self) -> int:
        """Of what the buffer begins with, as far as that is known already."""
        match bytes(self._buffer[: len(_START)]):
            case b"":
                return 0
            case b"\x03" | b"\x50":
                return 2
            case b"\x03\x06":
                return _HEADER_END + self._length + _LRC_SIZE if len(self._buffer) >= _HEADER_END else _HEADER_END
            case b"\x03\x15":
                return len(NAK_FRAME)
            case pair:
                return _SLOT_CHANGE_SIZE if pair[0] == _SLOT_CHANGE else 1

    @property
    def _length(self) -> int:
        return int.from_bytes(self._buffer[_LENGTH_FIELD], "little")


def _read(item: bytes) -> SerialEvent | None:
    """One item of the line that is whole; None for noise."""
    if item.startswith(_START):
        if reduce(xor, item):
            return Garbled("its checksum is wrong")
        return FrameReceived(item[len(_START) : -_LRC_SIZE])
    if item == NAK_FRAME:
        return NakReceived()
    if item[0] == _SLOT_CHANGE:
        return SlotChanged(item)
    return TimeRequested(item[0]) if item[0] >= _FIRST_ANSWER else None
