"""What stands between a kernel's USB/IP client (Linux, vhci_hcd) and a server that may lie, without I/O.

The kernel trusts its server: an answer of more bytes than were asked for has crashed it (bugzilla.kernel.org 215487).
So what the server sent is checked here, and only what was understood is written anew for the kernel. It also believes
what a device says that it is, each time that it asks: so the device is held to what it showed before.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from demail_hw.errors import HardwareError, Outcome, ProtocolViolation, TransportError
from demail_hw.interfaces import Buffer
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    CmdSubmit,
    CmdUnlink,
    Direction,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    decode_reply,
    decode_request,
)
from demail_hw.usbip.receive_buffer import ReceiveBuffer

__all__ = ["PumpCounters", "UrbPump"]

_IN: Final = int(Direction.IN)
_CONTROL: Final = 0
_STATUSES: Final = frozenset(map(int, UrbStatus))


class PumpCounters(NamedTuple):
    """What went through so far; ``bytes_out`` and ``bytes_in`` as the server sees them."""

    urbs: int = 0
    unlinks: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


class UrbPump:
    """One imported device, between the kernel that has it and the server. ``shown``: what it is.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` for what the server may not do,
    :class:`~demail_hw.errors.TransportError` for what the kernel asks and is not carried here; every later call
    raises it again. No byte of a message that was refused is handed on.
    """

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_error",
        "_kernel",
        "_pending",
        "_server",
        "_shown",
        "_unlinks",
        "_urbs",
        "_withdrawn",
    )

    def __init__(self, shown: ShownDescriptors) -> None:
        self._shown = shown
        self._kernel = ReceiveBuffer()
        self._server = ReceiveBuffer()
        self._pending: dict[int, CmdSubmit] = {}
        self._unlinks: dict[int, int] = {}
        self._urbs = self._withdrawn = self._bytes_out = self._bytes_in = 0
        self._error: HardwareError | None = None

    @property
    def pending(self) -> Sequence[int]:
        """The sequence numbers of the transfers that have no answer yet, oldest first."""
        return tuple(self._pending)

    @property
    def unlinking(self) -> Sequence[int]:
        """The sequence numbers of the unlinks that have no answer yet, oldest first. No device can hold one up."""
        return tuple(self._unlinks)

    @property
    def counters(self) -> PumpCounters:
        """What went through so far."""
        return PumpCounters(self._urbs, self._withdrawn, self._bytes_out, self._bytes_in)

    def from_kernel(self, data: bytes) -> Sequence[Buffer]:
        """What the server gets for what the kernel sent: whole messages, unchanged; the rest waits for more."""
        passed = self._pass_on(self._kernel, data, self._read_request)
        self._bytes_out += sum(map(len, passed))
        return passed

    def from_server(self, data: bytes) -> Sequence[Buffer]:
        """What the kernel gets for what the server sent: whole messages that it can trust."""
        self._bytes_in += len(data)
        return self._pass_on(self._server, data, self._read_reply)

    def _pass_on(
        self, buffer: ReceiveBuffer, data: bytes, read: Callable[[], Sequence[Buffer] | None]
    ) -> Sequence[Buffer]:
        if self._error is not None:
            raise _again(self._error)
        buffer.feed(data)
        passed: list[Buffer] = []
        try:
            while len(buffer) >= HEADER_SIZE and (message := read()) is not None:
                passed += message
        except HardwareError as error:
            self._error = error
            raise
        return passed

    def _read_request(self) -> Sequence[Buffer] | None:
        buffer = self._kernel
        try:
            command = decode_request(buffer.raw, buffer.offset)
        except ProtocolViolation as error:
            raise TransportError(
                f"The kernel asked for a transfer that is not carried here ({error.message}).",
                transient=False,
                remedy="Attach smartcard readers only.",
            ) from error
        if isinstance(command, CmdUnlink):
            self._withdrawn += 1
            self._unlinks[command.seqnum] = command.unlink_seqnum
            return (buffer.take(HEADER_SIZE),)
        size = HEADER_SIZE + (command.transfer_buffer_length if command.direction != _IN else 0)
        if len(buffer) < size:
            return None
        self._urbs += 1
        self._pending[command.seqnum] = command
        return (buffer.take(size),)

    def _read_reply(self) -> Sequence[Buffer] | None:
        reply = decode_reply(self._server.raw, self._server.offset)
        return self._read_ret_submit(reply) if isinstance(reply, RetSubmit) else self._read_ret_unlink(reply)

    def _read_ret_submit(self, reply: RetSubmit) -> Sequence[Buffer] | None:
        command = self._pending.get(reply.seqnum)
        if command is None:
            raise _violation(f"answered transfer {reply.seqnum}, which is not pending")
        asked, length = command.transfer_buffer_length, reply.actual_length
        if length > asked:
            raise _violation(f"answered a transfer of {asked} bytes with {length}")
        # An answer to an OUT transfer carries no data, whatever its length says.
        size = length if command.direction == _IN else 0
        if len(self._server) < HEADER_SIZE + size:
            return None
        del self._pending[reply.seqnum]
        data = self._server.take(size, after=HEADER_SIZE)
        if data and command.endpoint == _CONTROL and not self._shown.allow(command.setup, data):
            raise _violation("answered with another descriptor than before: its device is not what it showed first")
        head = RetSubmit(reply.seqnum, _known(reply.status), length).encode()
        return (head, data) if data else (head,)

    def _read_ret_unlink(self, reply: RetUnlink) -> Sequence[Buffer]:
        target = self._unlinks.pop(reply.seqnum, None)
        if target is None:
            raise _violation(f"answered unlink {reply.seqnum}, which is not pending")
        self._server.skip(HEADER_SIZE)
        status = _known(reply.status)
        if self._pending.pop(target, None) is not None and status == UrbStatus.OK:
            # Some servers say so of a transfer that they took back. The kernel would give it to its driver as one
            # that succeeded, with nothing in it.
            status = UrbStatus.ECONNRESET
        return (RetUnlink(reply.seqnum, status).encode(),)


def _known(status: int) -> int:
    """A status that Linux' own host drivers give; what a driver makes of any other nobody has tried."""
    return status if status in _STATUSES else UrbStatus.EPROTO


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"The USB/IP server {what}.", outcome=Outcome.UNKNOWN)


def _again(error: HardwareError) -> HardwareError:
    return type(error)(error.message, remedy=error.remedy, transient=error.transient, outcome=error.outcome)
