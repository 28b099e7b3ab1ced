"""The URB phase of a USB/IP server: an imported device and its one client."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Final

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer, Transfer, TransferResult
from demail_hw.usbip.events import NEED_DATA, Submitted
from demail_hw.usbip.messages import (
    CmdSubmit,
    CmdUnlink,
    Direction,
    RetSubmit,
    RetUnlink,
    TransferFlag,
    UrbStatus,
)
from demail_hw.usbip.server import UsbIpServerConnection
from demail_hw_drivers.usbip_server_counters import ServerCounters, ServerLimits
from demail_hw_drivers.usbip_server_exports import Export
from demail_hw_drivers.usbip_server_stream import ServerStream

__all__ = ["Session"]

_MAX_GATHER: Final = 256
_CONTROL_ENDPOINT: Final = 0
_DIRECTION_SHIFT: Final = 7
_IN: Final = int(Direction.IN)
_OK: Final = int(UrbStatus.OK)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__
_SHORT_NOT_OK: Final = int(TransferFlag.SHORT_NOT_OK)


class Session:
    """An import, from its grant to its end. ``hang_up``: ends the connection, from any thread.

    ``_lock`` keeps the machine and the order on the wire. It is never held while the device is called, because
    the device may complete a transfer in any thread, holding locks of its own.
    """

    def __init__(
        self,
        stream: ServerStream,
        machine: UsbIpServerConnection,
        export: Export,
        limits: ServerLimits,
        hang_up: Callable[[], None],
    ) -> None:
        self._receive = stream.receive
        self._send = stream.send
        self._hang_up = hang_up
        self._most_in_hand = limits.bytes_in_hand
        # Bytes that transfers asked for, ever: all of them, the answered ones, those whose answers have left.
        self._asked = self._answered = self._settled = 0
        self._machine = machine
        self._device = export.device
        self._endpoints = export.endpoints
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False
        self._outgoing: list[Buffer] = []
        self._transfers: dict[int, Transfer] = {}
        self._late_unlinks: dict[int, list[int]] = {}
        self._urbs = self._unlinks = self._sends = self._bytes_in = self._bytes_out = 0

    @property
    def counters(self) -> ServerCounters:
        """What it did so far. No lock: one is held in a send, for as long as the peer takes nothing."""
        return ServerCounters(1, 0, self._urbs, self._unlinks, self._sends, self._bytes_in, self._bytes_out)

    def run(self) -> None:
        """Serve until the client goes away."""
        while self._serve_batch():
            data = self._receive()
            if data is not None:
                self._bytes_in += len(data)
                self._machine.receive_data(data)

    def end(self) -> None:
        """Whatever the device still completes is nobody's any more."""
        with self._lock:
            self._over = True
        self._device.reset()

    def _serve_batch(self) -> bool:
        """Everything that was received; the answers that are ready go out in one send."""
        while True:
            with self._lock:
                event = self._machine.next_event()
                if event is NEED_DATA:
                    self._flush()
                    return True
            match event:
                case Submitted():
                    self._submit(event.command, event.data)
                case CmdUnlink():
                    self._unlink(event)
                case _:
                    return False

    def _submit(self, command: CmdSubmit, data: bytes) -> None:
        self._urbs += 1
        endpoint = command.endpoint
        address = endpoint | command.direction << _DIRECTION_SHIFT
        asked = command.transfer_buffer_length
        length = asked if command.direction == _IN else 0
        self._asked += asked
        if self._asked - self._settled > self._most_in_hand:
            raise ProtocolViolation(
                f"The USB/IP client has transfers of more than {self._most_in_hand} bytes pending.",
                outcome=Outcome.UNKNOWN,
            )
        setup = command.setup if endpoint == _CONTROL_ENDPOINT else b""
        transfer = self._transfers[command.seqnum] = Transfer(address, length, setup=setup, data=data)
        complete = functools.partial(self._complete, command)
        if endpoint == _CONTROL_ENDPOINT or address in self._endpoints:
            self._device.submit(transfer, complete)
        else:
            complete(TransferResult(UrbStatus.EPIPE))

    def _complete(self, command: CmdSubmit, result: TransferResult) -> None:
        """Called by the device, from any thread."""
        status, length, data = _outcome(command, result)
        seqnum = command.seqnum
        with self._lock:
            if self._over or self._transfers.pop(seqnum, None) is None:
                return
            self._answered += command.transfer_buffer_length
            self._outgoing += self._machine.send(_new(RetSubmit, (seqnum, status, length, 0, 0, 0)), data)
            if self._late_unlinks:
                for unlink in self._late_unlinks.pop(seqnum, ()):
                    self._outgoing += self._machine.send(RetUnlink(unlink, UrbStatus.OK))
            # The connection's own thread is in a batch and sends at its end.
            if threading.get_ident() != self._thread:
                with contextlib.suppress(OSError):
                    self._flush()

    def _unlink(self, command: CmdUnlink) -> None:
        self._unlinks += 1
        target = command.unlink_seqnum
        transfer = self._transfers.get(target)
        cancelled = transfer is not None and self._device.cancel(transfer)
        with self._lock:
            if target in self._transfers and not cancelled:
                # It is being completed: the RET_SUBMIT comes first.
                self._late_unlinks.setdefault(target, []).append(command.seqnum)
                return
            if self._transfers.pop(target, None) is not None and transfer is not None:
                self._answered += transfer.length + len(transfer.data)
            status = UrbStatus.ECONNRESET if cancelled else UrbStatus.OK
            self._outgoing += self._machine.send(RetUnlink(command.seqnum, status))

    def _flush(self) -> None:
        """Send what is ready; the lock is held."""
        while self._outgoing:
            batch, self._outgoing = self._outgoing[:_MAX_GATHER], self._outgoing[_MAX_GATHER:]
            # Counted before: whoever has an answer sees it counted.
            self._sends += 1
            self._bytes_out += sum(map(len, batch))
            try:
                self._sends += self._send(batch) - 1
            except OSError:
                # The stream has a hole now. Nobody may write behind it, and the reading thread must notice.
                self._over = True
                self._hang_up()
                raise
        self._settled = self._answered


def _outcome(command: CmdSubmit, result: TransferResult) -> tuple[int, int, bytes]:
    """Status, actual length and data of a RET_SUBMIT: never more than the client asked for."""
    asked = command.transfer_buffer_length
    if command.direction != _IN:
        return result.status, asked if result.status == _OK else 0, b""
    length = len(result.data)
    if length > asked:
        # More than asked for once crashed client kernels; to USB it is a babble.
        return UrbStatus.EOVERFLOW, 0, b""
    if length < asked and command.transfer_flags & _SHORT_NOT_OK and result.status == _OK:
        return UrbStatus.EREMOTEIO, length, result.data
    return result.status, length, result.data
