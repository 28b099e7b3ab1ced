"""A claimed device of this machine as a UsbTransport: transfers that complete elsewhere, and deadlines."""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, cast

from demail_hw.ccid.class_descriptor import CcidInterface
from demail_hw.errors import DeadlineExceeded, DeviceLost, Outcome, TransferStalled
from demail_hw.interfaces import Buffers, Deadline, ExportedDevice, Transfer, TransferResult, UsbIdentity
from demail_hw.usb.setup import checked_request, clear_endpoint_halt
from demail_hw.usbip.messages import MAX_TRANSFER_LENGTH, UrbStatus
from demail_hw.usbip.urb_errors import urb_error

__all__ = ["DeviceTransport"]

_CONTROL_OUT: Final = 0x00
_CONTROL_IN: Final = 0x80
_PACKET_SIZE: Final = 0x07FF
_MOST_NEWS: Final = 16
_MOST_STALE: Final = 16
_GONE: Final = frozenset({UrbStatus.ENODEV, UrbStatus.ESHUTDOWN})


class DeviceTransport:
    """A :class:`~demail_hw.interfaces.UsbTransport` to a device of this process. ``let_go``: closes the device.

    One interrupt-IN transfer is always posted beside the bulk transfers, so that no news is lost between two that ask
    for it; and one thread at a time has the bulk pipes, from its command to its answer. In a forked child it is dead,
    and the parent's goes on.
    """

    def __init__(
        self, device: ExportedDevice, interface: CcidInterface, identity: UsbIdentity, let_go: Callable[[], None]
    ) -> None:
        self._device = device
        self._interface = interface
        self._identity = identity
        self._let_go = let_go
        self._pid = os.getpid()
        self._turns = threading.Lock()
        self._changed = threading.Condition()
        self._news: collections.deque[TransferResult] = collections.deque()
        self._posted = False
        self._dead = ""

    @property
    def identity(self) -> UsbIdentity:
        """Who the device is."""
        return self._identity

    @property
    def configuration(self) -> bytes:
        """The whole configuration descriptor (USB 2.0, 9.6.3)."""
        return self._device.configuration_descriptor

    def drain(self, *, deadline: Deadline) -> None:
        """Throw away what the reader has still to say to whoever had it before, until it is silent for so long."""
        with contextlib.suppress(DeadlineExceeded):
            for _ in range(_MOST_STALE):
                self.bulk_in(self._interface.descriptor.message_limit, deadline=deadline)

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        """One control transfer; ``ValueError`` if ``data`` does not match the setup packet."""
        packet = checked_request(setup, data)
        endpoint = _CONTROL_IN if packet.direction_in else _CONTROL_OUT
        transfer = Transfer(endpoint, packet.length, setup=setup, data=b"".join(data))
        with self._turn(deadline):
            return self._finish(self._begin(transfer), deadline, stalled=Outcome.REFUSED)

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        """One bulk-OUT transfer."""
        with self._turn(deadline):
            self._finish(self._begin(self._out(data)), deadline, stalled=Outcome.REFUSED)

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        """One bulk-IN transfer of at most ``length`` bytes."""
        with self._turn(deadline):
            return self._finish(self._begin(self._in(length)), deadline, stalled=Outcome.UNKNOWN)

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        """Both bulk transfers at once, and one wait for both."""
        sent, received = self._out(out), self._in(length)
        with self._turn(deadline):
            first, second = self._begin(sent), self._begin(received)
            try:
                self._finish(first, deadline, stalled=Outcome.REFUSED)
            except BaseException:
                # Whatever it was: left behind, it would take the answer to the next command.
                self._device.cancel(received)
                raise
            return self._finish(second, deadline, stalled=Outcome.UNKNOWN)

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        """The oldest interrupt-IN answer that was not handed out yet.

        Errors: :class:`~demail_hw.errors.TransferStalled` also if the interface has no interrupt endpoint.
        """
        if self._interface.interrupt_in is None:
            raise TransferStalled("The reader's interface has no interrupt endpoint.")
        self._check(deadline)
        self._post_interrupt()
        with self._changed:
            while not self._news:
                if self._dead:
                    raise DeviceLost(f"The reader is lost: {self._dead}.", outcome=Outcome.NOT_SENT)
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise DeadlineExceeded("The reader told nothing until the deadline.", outcome=Outcome.NOT_SENT)
            news = self._news.popleft()
        if news.status:
            raise urb_error(news.status, stalled=Outcome.NOT_SENT)
        return news.data

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        """Clear a stalled endpoint (USB 2.0, 9.4.1)."""
        self.control(clear_endpoint_halt(endpoint).encode(), deadline=deadline)

    def close(self) -> None:
        """Let the device go; whoever waits gets :class:`~demail_hw.errors.DeviceLost`. Closing twice is allowed."""
        if os.getpid() != self._pid:
            return  # the claim is the parent's
        with self._changed:
            if self._dead == _CLOSED:
                return
            self._dead = _CLOSED
            self._changed.notify_all()
        self._let_go()

    # --- Transfers ---------------------------------------------------------------------------------------------

    def _out(self, data: Buffers) -> Transfer:
        _check_length(sum(map(len, data)))
        # Joined in what the device can wipe when it has it: bytes could not be.
        return Transfer(self._interface.bulk_out.address, data=cast("bytes", bytearray().join(data)))

    def _in(self, length: int) -> Transfer:
        return Transfer(self._interface.bulk_in.address, _check_length(length))

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        if not self._turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _too_late()
        try:
            self._check(deadline)
            self._post_interrupt()
            yield
        finally:
            self._turns.release()

    def _check(self, deadline: Deadline) -> None:
        if os.getpid() != self._pid:
            raise DeviceLost("The reader belongs to the process that opened it.", outcome=Outcome.NOT_SENT)
        if self._dead:
            raise DeviceLost(
                f"The reader is lost: {self._dead}.", remedy="Open the reader again.", outcome=Outcome.NOT_SENT
            )
        if time.monotonic() >= deadline:
            raise _too_late()

    def _begin(self, transfer: Transfer) -> "_Pending":
        pending = _Pending(transfer, self._changed)
        self._device.submit(transfer, pending.complete)
        return pending

    def _finish(self, pending: "_Pending", deadline: Deadline, *, stalled: Outcome) -> bytes:
        result = self._wait(pending, deadline)
        if result.status in _GONE:
            self._die("it was unplugged")
        if result.status:
            raise urb_error(result.status, stalled=stalled)
        return result.data

    def _wait(self, pending: "_Pending", deadline: Deadline) -> TransferResult:
        try:
            with self._changed:
                while pending.result is None and not self._dead:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
        except BaseException:
            self._device.cancel(pending.transfer)
            raise
        if pending.result is None and not self._dead:
            taken_back = self._device.cancel(pending.transfer)
            if taken_back or pending.result is None:
                raise DeadlineExceeded("The reader did not answer until the deadline.")
        if pending.result is None:
            raise DeviceLost(f"The reader is lost: {self._dead}.", outcome=Outcome.UNKNOWN)
        return pending.result

    def _post_interrupt(self) -> None:
        endpoint = self._interface.interrupt_in
        with self._changed:
            if endpoint is None or self._posted or self._dead or len(self._news) >= _MOST_NEWS:
                return
            self._posted = True
        self._device.submit(Transfer(endpoint.address, endpoint.max_packet_size & _PACKET_SIZE), self._heard)

    def _heard(self, news: TransferResult) -> None:
        """In whichever thread. After an error the next one who asks posts anew."""
        with self._changed:
            self._posted = False
            self._news.append(news)
            self._changed.notify_all()
        if not news.status:
            self._post_interrupt()

    def _die(self, reason: str) -> None:
        with self._changed:
            self._dead = self._dead or reason
            self._changed.notify_all()


_CLOSED: Final = "it was closed"


class _Pending:
    """Where the result of one transfer arrives, from any thread."""

    __slots__ = ("_changed", "result", "transfer")

    def __init__(self, transfer: Transfer, changed: threading.Condition) -> None:
        self.transfer = transfer
        self._changed = changed
        self.result: TransferResult | None = None

    def complete(self, result: TransferResult) -> None:
        with self._changed:
            self.result = result
            self._changed.notify_all()


def _check_length(length: int) -> int:
    if not 0 <= length <= MAX_TRANSFER_LENGTH:
        raise ValueError(f"a transfer of {length} bytes; {MAX_TRANSFER_LENGTH} are the most")
    return length


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline was over before anything was sent to the reader.", outcome=Outcome.NOT_SENT, transient=True
    )
