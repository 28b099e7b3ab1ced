"""Reading the operation phase, piece by piece: no piece is read twice, however the bytes come.

A parser is a generator that yields how many bytes it wants next and is sent exactly those.
"""

from collections.abc import Generator
from typing import Generic, TypeAlias, TypeVar

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.usbip.events import NEED_DATA, NeedData
from demail_hw.usbip.messages import (
    BUS_ID_SIZE,
    COUNT_SIZE,
    DEVICE_SIZE,
    INTERFACE_SIZE,
    OP_HEADER_SIZE,
    DevlistEntry,
    OpCode,
    OpHeader,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    UsbDevice,
    UsbInterface,
    UsbipStatus,
    decode_bus_id,
    decode_count,
)
from demail_hw.usbip.receive_buffer import ReceiveBuffer

__all__ = ["OperationReader", "Parser", "parse_devlist", "parse_import", "parse_request"]

_Message = TypeVar("_Message")
Parser: TypeAlias = Generator[int, bytes, _Message]


class OperationReader(Generic[_Message]):
    """Runs a parser over a buffer, once. ``begun``: the first piece was read."""

    __slots__ = ("_need", "_parser", "begun")

    def __init__(self, parser: Parser[_Message]) -> None:
        self._parser = parser
        self._need = next(parser)
        self.begun = False

    def read(self, buffer: ReceiveBuffer) -> _Message | NeedData:
        """The message, if enough of it is there."""
        while len(buffer) >= self._need:
            piece = buffer.take(self._need)
            self.begun = True
            try:
                self._need = self._parser.send(piece)
            except StopIteration as stop:
                message: _Message = stop.value
                return message
        return NEED_DATA


def _parse_reply_header(code: OpCode) -> Parser[int]:
    header = OpHeader.decode((yield OP_HEADER_SIZE))
    if header.code != code:
        raise ProtocolViolation(
            f"The USB/IP server answered with code 0x{header.code:04x} instead of {code.name}.",
            outcome=Outcome.NOT_SENT,
        )
    return header.status


def parse_devlist() -> Parser[OpRepDevlist]:
    """OP_REP_DEVLIST."""
    status = yield from _parse_reply_header(OpCode.OP_REP_DEVLIST)
    if status != UsbipStatus.OK:
        return OpRepDevlist(status=status)
    entries: list[DevlistEntry] = []
    for _ in range(decode_count((yield COUNT_SIZE))):
        entry = yield from _parse_devlist_entry()
        entries.append(entry)
    return OpRepDevlist(tuple(entries))


def _parse_devlist_entry() -> Parser[DevlistEntry]:
    device = UsbDevice.decode((yield DEVICE_SIZE))
    raw = memoryview((yield INTERFACE_SIZE * device.interface_count))
    interfaces = (UsbInterface.decode(raw[start:]) for start in range(0, len(raw), INTERFACE_SIZE))
    return DevlistEntry(device, tuple(interfaces))


def parse_import(bus_id: str) -> Parser[OpRepImport]:
    """OP_REP_IMPORT to a request for ``bus_id``."""
    status = yield from _parse_reply_header(OpCode.OP_REP_IMPORT)
    if status != UsbipStatus.OK:
        return OpRepImport(None, status)
    device = UsbDevice.decode((yield DEVICE_SIZE))
    if device.bus_id != bus_id:
        raise ProtocolViolation(
            f"The USB/IP server exported {device.bus_id!r} instead of {bus_id!r}.", outcome=Outcome.NOT_SENT
        )
    return OpRepImport(device)


def parse_request() -> Parser[OpReqDevlist | OpReqImport]:
    """OP_REQ_DEVLIST or OP_REQ_IMPORT."""
    header = OpHeader.decode((yield OP_HEADER_SIZE))
    match header.code:
        case OpCode.OP_REQ_DEVLIST:
            return OpReqDevlist()
        case OpCode.OP_REQ_IMPORT:
            return OpReqImport(decode_bus_id((yield BUS_ID_SIZE)))
        case code:
            raise ProtocolViolation(
                f"The USB/IP client asked for the unknown operation 0x{code:04x}.", outcome=Outcome.NOT_SENT
            )
