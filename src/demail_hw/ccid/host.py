"""The host's side of CCID, without any I/O.

Send a command, feed what comes, ask for the next event::

    buffers = host.send(GetSlotStatus())            # bulk-OUT
    host.receive_data(transfer)                     # bulk-IN, asked for with host.read_length
    event = host.next_event()                       # the response, TimeExtension, or NEED_DATA

The law: one command is outstanding at a time (bMaxCCIDBusySlots). It ends with the response that has its type,
slot and sequence number, or with an :class:`~demail_hw.ccid.messages.Abort` and the response to that. A message
with another number is a late answer to something given up: it is dropped, ten times at most. Whatever else comes is
a :class:`~demail_hw.errors.ProtocolViolation`, and the command stays outstanding: nothing can be sent until it was
aborted.
"""

import dataclasses
import enum
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from demail_hw.ccid.code_points import ClassRequest, CommandStatus, MessageType
from demail_hw.ccid.framing import MessageAssembler
from demail_hw.ccid.messages import Abort, Command, Header, Response, SlotStatus, decode_response
from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffers
from demail_hw.usb.setup import SetupPacket

__all__ = ["MAX_STALE_MESSAGES", "NEED_DATA", "CcidHost", "Event", "NeedData", "TimeExtension"]

MAX_STALE_MESSAGES: Final = 10
"""Late answers that are dropped for one command before the reader is given up."""

_CLASS_REQUEST_TO_INTERFACE: Final = 0x21
_MAX_SEQ: Final = 0xFF
_TIME_EXTENSION: Final = CommandStatus.TIME_EXTENSION

_RESPONSE_TYPES: Final[Mapping[int, MessageType]] = MappingProxyType(
    {
        MessageType.ICC_POWER_ON: MessageType.DATA_BLOCK,
        MessageType.ICC_POWER_OFF: MessageType.SLOT_STATUS,
        MessageType.GET_SLOT_STATUS: MessageType.SLOT_STATUS,
        MessageType.XFR_BLOCK: MessageType.DATA_BLOCK,
        MessageType.GET_PARAMETERS: MessageType.PARAMETERS,
        MessageType.RESET_PARAMETERS: MessageType.PARAMETERS,
        MessageType.SET_PARAMETERS: MessageType.PARAMETERS,
        MessageType.ESCAPE: MessageType.ESCAPE_DATA,
        MessageType.ICC_CLOCK: MessageType.SLOT_STATUS,
        MessageType.T0_APDU: MessageType.SLOT_STATUS,
        MessageType.SECURE: MessageType.DATA_BLOCK,
        MessageType.MECHANICAL: MessageType.SLOT_STATUS,
        MessageType.ABORT: MessageType.SLOT_STATUS,
        MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY: MessageType.DATA_RATE_AND_CLOCK_FREQUENCY,
    }
)


class NeedData(enum.Enum):
    """Nothing is complete yet: read on."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA


@dataclasses.dataclass(frozen=True, slots=True)
class TimeExtension:
    """The card needs longer: ``multiplier`` times its block or work waiting time (CCID 1.10, 6.2.6)."""

    multiplier: int


Event: TypeAlias = Response | TimeExtension
"""What the reader has to say."""


class CcidHost:
    """The state of one slot as the host sees it.

    ``max_message_length``: dwMaxCCIDMessageLength. ``packet_size``: wMaxPacketSize of the bulk-IN endpoint, or 1 for
    a stream. ``first_read``: see :class:`~demail_hw.ccid.framing.MessageAssembler`.
    """

    __slots__ = ("_assembler", "_awaited", "_messages", "_next_seq", "_seq", "_slot", "_stale")

    def __init__(
        self, *, max_message_length: int, packet_size: int, first_read: int | None = None, slot: int = 0
    ) -> None:
        self._assembler = MessageAssembler(max_message_length, packet_size=packet_size, first_read=first_read)
        self._messages: deque[bytes] = deque()
        self._slot = slot
        self._next_seq = 0
        self._seq = 0
        self._awaited: MessageType | None = None
        self._stale = 0

    @property
    def outstanding(self) -> bool:
        """True while a command waits for its response."""
        return self._awaited is not None

    @property
    def read_length(self) -> int:
        """How many bytes to ask of the bulk-IN endpoint next."""
        return self._assembler.read_length

    def send(self, command: Command) -> Buffers:
        """The message to send for a command. ``RuntimeError`` while another one is outstanding."""
        if self._awaited is not None:
            raise RuntimeError("the slot has a command outstanding")
        return self._number(command)

    def abort(self, interface: int) -> tuple[bytes, Buffers]:
        """Give the outstanding command up: the setup packet of the ABORT request, to be sent first, and the
        bulk message with the same number (CCID 1.10, 5.3.1 and 6.1.13)."""
        message = self._number(Abort())
        value = self._seq << 8 | self._slot
        return SetupPacket(_CLASS_REQUEST_TO_INTERFACE, ClassRequest.ABORT, value, interface).encode(), message

    def forget(self) -> None:
        """What has come of a message will not go on: its endpoint was halted."""
        self._assembler.clear()
        self._messages.clear()

    def withdraw(self) -> None:
        """The command given out last was certainly not sent: nothing is outstanding."""
        self._awaited = None

    def receive_data(self, transfer: bytes) -> None:
        """Take what one bulk-IN transfer brought."""
        message = self._assembler.add(transfer)
        if message is not None:
            self._messages.append(message)

    def next_event(self) -> Event | NeedData:
        """The next thing that the reader said, or :data:`NEED_DATA`.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`; the command stays outstanding.
        """
        while self._messages:
            message = self._messages.popleft()
            if len(message) > self._assembler.max_length:
                raise _violation(f"a message of {len(message)} bytes came, {self._assembler.max_length} are the most")
            header, response = decode_response(message)
            if self._answers(header, response):
                if response.status.command is _TIME_EXTENSION:
                    return TimeExtension(response.error)
                self._awaited = None
                return response
        return NEED_DATA

    def _number(self, command: Command) -> Buffers:
        self._seq = seq = self._next_seq
        self._next_seq = (seq + 1) & _MAX_SEQ
        self._awaited = _RESPONSE_TYPES[command.message_type]
        self._stale = 0
        return command.encode(self._slot, seq)

    def _answers(self, header: Header, response: Response) -> bool:
        """True for the answer to the outstanding command, False for a late one."""
        if header.slot != self._slot:
            raise _violation(f"slot {header.slot} answered for slot {self._slot}")
        if header.seq != self._seq or self._awaited is None:
            self._drop(header)
            return False
        if header.message_type != self._awaited and not _unsupported(response):
            raise _violation(f"message {header.message_type:02X} came where {self._awaited:02X} is due")
        return True

    def _drop(self, header: Header) -> None:
        self._stale += 1
        if self._stale > MAX_STALE_MESSAGES:
            raise _violation(f"message number {header.seq} came where {self._seq} is due, for the last of many times")


def _unsupported(response: Response) -> bool:
    """A command that a reader does not know is refused with a SlotStatus, whatever the answer would be."""
    return isinstance(response, SlotStatus) and response.status.command is CommandStatus.FAILED


def _violation(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"The reader broke the CCID protocol: {why}.", layer=Layer.READER)
