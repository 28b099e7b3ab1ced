"""The client's side of a USB/IP connection, without I/O.

``send`` gives the buffers to transmit, ``receive_data`` takes what came, ``next_event`` reports. What the server
may not do raises :class:`~demail_hw.errors.ProtocolViolation`, and the machine is dead from then on.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer, Buffers
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.events import NEED_DATA, Closed, NeedData, UrbCompleted, UrbUnlinked
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    MAX_SEQNUM,
    CmdSubmit,
    CmdUnlink,
    Direction,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    decode_reply,
)
from demail_hw.usbip.operations import OperationReader, parse_devlist, parse_import
from demail_hw.usbip.pump import UrbPump
from demail_hw.usbip.receive_buffer import ReceiveBuffer

__all__ = ["ClientEvent", "ClientRequest", "UsbIpClient"]

_IN: Final = int(Direction.IN)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__

ClientRequest: TypeAlias = OpReqDevlist | OpReqImport | CmdSubmit | CmdUnlink
ClientEvent: TypeAlias = OpRepDevlist | OpRepImport | UrbCompleted | UrbUnlinked | Closed


class UsbIpClient:
    """One connection: either one device list, or one import and the transfers after it.

    ``RuntimeError`` or ``ValueError`` if the caller breaks the protocol.
    """

    __slots__ = (
        "_asked",
        "_buffer",
        "_closed",
        "_imported",
        "_pending",
        "_reader",
        "_seqnum",
        "_unlinks",
        "_violation",
    )

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._reader: OperationReader[OpRepDevlist] | OperationReader[OpRepImport] | None = None
        self._asked = False
        self._imported = False
        self._closed = False
        self._violation: str | None = None
        self._seqnum = 0
        self._pending: dict[int, CmdSubmit] = {}
        self._unlinks: dict[int, int] = {}

    @property
    def pending(self) -> Sequence[int]:
        """The sequence numbers of the transfers that have no answer yet, oldest first."""
        return tuple(self._pending)

    @property
    def unlinking(self) -> bool:
        """True while the server owes the answer to an unlink."""
        return bool(self._unlinks)

    @property
    def unread(self) -> bool:
        """True while something was received that no event tells of yet: bytes, or the end of the connection."""
        return self._closed or self._buffer.offset < len(self._buffer.raw)

    def pump(self, shown: ShownDescriptors) -> UrbPump:
        """What carries on with this connection for a kernel, once it is the kernel's. ``shown``: by the device."""
        return UrbPump(shown)

    def next_seqnum(self) -> int:
        """A sequence number that nothing pending has, from 1 on."""
        self._seqnum = seqnum = self._seqnum % MAX_SEQNUM + 1
        if seqnum in self._pending or seqnum in self._unlinks:
            # They have wrapped round, and what is pending for days (an interrupt transfer) keeps its own.
            return self.next_seqnum()
        return seqnum

    def send(self, request: ClientRequest, data: Buffers = ()) -> Sequence[Buffer]:
        """The bytes of a request as a gather list; ``data`` of an OUT transfer is passed on uncopied."""
        if self._violation is not None:
            raise self._dead()
        match request:
            case CmdSubmit():
                return self._send_submit(request, data)
            case CmdUnlink():
                return self._send_unlink(request)
            case OpReqDevlist():
                self._begin(OperationReader(parse_devlist()))
            case OpReqImport():
                self._begin(OperationReader(parse_import(request.bus_id)))
        return (request.encode(),)

    def receive_data(self, data: bytes) -> None:
        """Take received bytes; empty means that the server closed the connection."""
        if data:
            self._buffer.feed(data)
        else:
            self._closed = True

    def next_event(self) -> ClientEvent | NeedData:
        """The next event, or :data:`~demail_hw.usbip.events.NEED_DATA`.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`; every later call raises it again.
        """
        if self._violation is not None:
            raise self._dead()
        try:
            event = self._read_urb() if self._imported else self._read_operation()
            return self._end() if event is NEED_DATA and self._closed else event
        except ProtocolViolation as error:
            self._violation = error.message
            raise

    def _begin(self, reader: OperationReader[OpRepDevlist] | OperationReader[OpRepImport]) -> None:
        if self._asked:
            raise RuntimeError("a connection takes one operation")
        self._asked = True
        self._reader = reader

    def _send_submit(self, command: CmdSubmit, data: Buffers) -> Sequence[Buffer]:
        if not self._imported:
            raise _no_import()
        seqnum, pending = command.seqnum, self._pending
        length = command.transfer_buffer_length if command.direction != _IN else 0
        if (sum(map(len, data)) if data else 0) != length:
            raise ValueError(f"a transfer of {length} bytes with other data")
        if seqnum in pending:
            raise ValueError(f"transfer {seqnum} is pending already")
        pending[seqnum] = command
        return (command.encode(), *data)

    def _send_unlink(self, command: CmdUnlink) -> Sequence[Buffer]:
        if not self._imported:
            raise _no_import()
        if command.seqnum in self._unlinks:
            raise ValueError(f"unlink {command.seqnum} is pending already")
        self._unlinks[command.seqnum] = command.unlink_seqnum
        return (command.encode(),)

    def _read_operation(self) -> ClientEvent | NeedData:
        if self._reader is None:
            if len(self._buffer):
                raise ProtocolViolation("The USB/IP server sent what nobody asked for.", outcome=Outcome.NOT_SENT)
            return NEED_DATA
        event = self._reader.read(self._buffer)
        if event is NEED_DATA:
            return NEED_DATA
        self._reader = None
        self._imported = isinstance(event, OpRepImport) and event.device is not None
        return event

    def _read_urb(self) -> ClientEvent | NeedData:
        buffer = self._buffer
        if len(buffer.raw) - buffer.offset < HEADER_SIZE:
            return NEED_DATA
        answer = decode_reply(buffer.raw, buffer.offset)
        return self._read_ret_submit(answer) if isinstance(answer, RetSubmit) else self._read_ret_unlink(answer)

    def _read_ret_submit(self, answer: RetSubmit) -> ClientEvent | NeedData:
        # Everything is checked before the data is waited for: a length that lies never costs memory.
        seqnum = answer.seqnum
        length = answer.actual_length
        command = self._pending.get(seqnum)
        if command is None:
            raise ProtocolViolation(f"The USB/IP server answered transfer {seqnum}, which is not pending.")
        if length > command.transfer_buffer_length:
            raise ProtocolViolation(
                f"The USB/IP server answered a transfer of {command.transfer_buffer_length} bytes with {length}."
            )
        if command.direction != _IN:
            # An answer to an OUT transfer carries no data, whatever its length says.
            length = 0
        buffer = self._buffer
        if len(buffer.raw) - buffer.offset < HEADER_SIZE + length:
            return NEED_DATA
        del self._pending[seqnum]
        return _new(UrbCompleted, (seqnum, answer.status, buffer.take(length, after=HEADER_SIZE)))

    def _read_ret_unlink(self, answer: RetUnlink) -> ClientEvent:
        target = self._unlinks.pop(answer.seqnum, None)
        if target is None:
            raise ProtocolViolation(f"The USB/IP server answered unlink {answer.seqnum}, which is not pending.")
        self._buffer.skip(HEADER_SIZE)
        # The transfer is over, whatever the status: Linux answers here, and with no RET_SUBMIT, for a transfer
        # that ended while it was being taken back. A RET_SUBMIT that still follows is a violation.
        pending = self._pending.pop(target, None) is not None
        return UrbUnlinked(target, answer.status, pending)

    def _end(self) -> Closed:
        inside = self._reader is not None and self._reader.begun
        if inside or len(self._buffer):
            raise ProtocolViolation(
                "The USB/IP server closed the connection in the middle of a message.",
                transient=True,  # a server that died, more likely than one that knows no better
                outcome=Outcome.UNKNOWN if self._imported else Outcome.NOT_SENT,
            )
        return Closed()

    def _dead(self) -> ProtocolViolation:
        return ProtocolViolation(self._violation or "", outcome=Outcome.NOT_SENT)


def _no_import() -> RuntimeError:
    return RuntimeError("a transfer needs an imported device")
