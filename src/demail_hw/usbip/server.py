"""The server's side of a USB/IP connection, without I/O; the mirror of :mod:`demail_hw.usbip.client`."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffer
from demail_hw.usbip.events import NEED_DATA, Closed, NeedData, Submitted
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    MAX_PENDING,
    CmdSubmit,
    CmdUnlink,
    Direction,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    decode_request,
)
from demail_hw.usbip.operations import OperationReader, parse_request
from demail_hw.usbip.receive_buffer import ReceiveBuffer

__all__ = ["ServerEvent", "ServerReply", "UsbIpServerConnection"]

_IN: Final = int(Direction.IN)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__

ServerReply: TypeAlias = OpRepDevlist | OpRepImport | RetSubmit | RetUnlink
ServerEvent: TypeAlias = OpReqDevlist | OpReqImport | Submitted | CmdUnlink | Closed


class UsbIpServerConnection:
    """One connection: one operation, and after an import that was granted, transfers.

    ``next_event`` raises :class:`~demail_hw.errors.ProtocolViolation` for what the client may not do, and the
    machine is dead from then on. ``RuntimeError`` or ``ValueError`` if the caller breaks the protocol.
    """

    __slots__ = ("_asked", "_buffer", "_closed", "_devid", "_pending", "_reader", "_unlinks", "_violation")

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._reader = OperationReader(parse_request())
        self._asked: OpReqDevlist | OpReqImport | None = None
        self._devid: int | None = None
        self._closed = False
        self._violation: str | None = None
        self._pending: dict[int, CmdSubmit] = {}
        self._unlinks: dict[int, int] = {}

    @property
    def pending(self) -> Sequence[int]:
        """The sequence numbers of the transfers that have no answer yet, oldest first."""
        return tuple(self._pending)

    def send(self, reply: ServerReply, data: Buffer = b"") -> Sequence[Buffer]:
        """The bytes of a reply as a gather list; ``data`` of an IN transfer is passed on uncopied."""
        match reply:
            case RetSubmit():
                return self._send_ret_submit(reply, data)
            case RetUnlink():
                self._check_ret_unlink(reply)
            case OpRepDevlist():
                self._check_reply(OpReqDevlist)
            case OpRepImport():
                self._check_reply(OpReqImport)
                self._devid = None if reply.device is None else reply.device.devid
        return (reply.encode(),)

    def receive_data(self, data: bytes) -> None:
        """Take received bytes; empty means that the client closed the connection."""
        if data:
            self._buffer.feed(data)
        else:
            self._closed = True

    def next_event(self) -> ServerEvent | NeedData:
        """The next event, or :data:`~demail_hw.usbip.events.NEED_DATA`."""
        if self._violation is not None:
            raise ProtocolViolation(self._violation)
        try:
            event = self._read_operation() if self._devid is None else self._read_urb(self._devid)
            return self._end() if event is NEED_DATA and self._closed else event
        except ProtocolViolation as error:
            self._violation = error.message
            raise

    def _check_reply(self, request: type[OpReqDevlist | OpReqImport]) -> None:
        if not isinstance(self._asked, request) or self._devid is not None:
            raise RuntimeError(f"nobody waits for an answer to {request.__name__}")

    def _send_ret_submit(self, reply: RetSubmit, data: Buffer) -> Sequence[Buffer]:
        seqnum, length = reply.seqnum, reply.actual_length
        command = self._pending.get(seqnum)
        if command is None:
            raise ValueError(f"transfer {seqnum} is not pending")
        if length > command.transfer_buffer_length:
            raise ValueError(f"{length} bytes for a transfer of {command.transfer_buffer_length}")
        if len(data) != (length if command.direction == _IN else 0):
            raise ValueError(f"an answer of {length} bytes with {len(data)} bytes of data")
        del self._pending[seqnum]
        return (reply.encode(), data) if data else (reply.encode(),)

    def _check_ret_unlink(self, reply: RetUnlink) -> None:
        target = self._unlinks.get(reply.seqnum)
        if target is None:
            raise ValueError(f"unlink {reply.seqnum} is not pending")
        if reply.status == UrbStatus.OK and target in self._pending:
            raise ValueError(f"transfer {target} has no answer yet: its RET_SUBMIT comes before this RET_UNLINK")
        del self._unlinks[reply.seqnum]
        self._pending.pop(target, None)

    def _read_operation(self) -> ServerEvent | NeedData:
        if self._asked is not None:
            # What comes before the import is answered waits; after any other answer there is nothing to say.
            return NEED_DATA
        request = self._reader.read(self._buffer)
        if request is NEED_DATA:
            return NEED_DATA
        self._asked = request
        return request

    def _read_urb(self, devid: int) -> ServerEvent | NeedData:
        buffer = self._buffer
        if len(buffer.raw) - buffer.offset < HEADER_SIZE:
            return NEED_DATA
        command = decode_request(buffer.raw, buffer.offset)
        seqnum, pending, unlinks = command.seqnum, self._pending, self._unlinks
        if command.devid != devid:
            raise ProtocolViolation(f"The USB/IP client names device 0x{command.devid:08x} instead of 0x{devid:08x}.")
        if seqnum in pending or seqnum in unlinks:
            raise ProtocolViolation(f"The USB/IP client uses sequence number {seqnum} twice.")
        if len(pending) + len(unlinks) >= MAX_PENDING:
            raise ProtocolViolation(f"The USB/IP client has more than {MAX_PENDING} transfers pending.")
        if isinstance(command, CmdSubmit):
            return self._read_cmd_submit(command)
        buffer.skip(HEADER_SIZE)
        self._unlinks[command.seqnum] = command.unlink_seqnum
        return command

    def _read_cmd_submit(self, command: CmdSubmit) -> ServerEvent | NeedData:
        buffer = self._buffer
        length = command.transfer_buffer_length if command.direction != _IN else 0
        if len(buffer.raw) - buffer.offset < HEADER_SIZE + length:
            return NEED_DATA
        self._pending[command.seqnum] = command
        return _new(Submitted, (command, buffer.take(length, after=HEADER_SIZE)))

    def _end(self) -> Closed:
        if len(self._buffer) or (self._reader.begun and self._asked is None):
            raise ProtocolViolation("The USB/IP client closed the connection in the middle of a message.")
        return Closed()
