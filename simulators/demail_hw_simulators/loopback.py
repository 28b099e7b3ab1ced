"""A USB cable of no length: a transport and a device in one process."""

import threading
import time
from typing import Final, NamedTuple

from demail_hw.errors import DeadlineExceeded, DeviceLost, Outcome, TransferStalled
from demail_hw.interfaces import Buffers, Deadline, ExportedDevice, Transfer, TransferResult, UsbIdentity
from demail_hw.usb.descriptors import (
    LANGUAGE_ENGLISH_US,
    MAX_STRING_DESCRIPTOR,
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
    decode_string,
)
from demail_hw.usb.setup import SetupPacket, clear_endpoint_halt, get_descriptor, set_configuration
from demail_hw.usbip.messages import UrbStatus
from demail_hw.usbip.urb_errors import urb_error

__all__ = ["LoopbackCounters", "LoopbackTransport"]

_CONTROL_OUT: Final = 0x00
_CONTROL_IN: Final = 0x80
_OPEN_SECONDS: Final = 5.0


class LoopbackCounters(NamedTuple):
    """What a transport did since it was made. ``urbs``: transfers; ``round_trips``: waits for an answer."""

    urbs: int
    round_trips: int
    bytes_out: int
    bytes_in: int


class LoopbackTransport:
    """A :class:`~demail_hw.interfaces.UsbTransport` to a device in this process, claimed and configured.

    A device that answers at once does so in the caller's thread; only a transfer that stays pending is waited for.
    Closing it resets the device.
    """

    def __init__(self, device: ExportedDevice, *, bus_id: str = "1-1") -> None:
        self._device = device
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._closed = False
        self._urbs = self._round_trips = self._bytes_out = self._bytes_in = 0
        self._configuration = device.configuration_descriptor
        configuration = ConfigurationDescriptor.decode(self._configuration)
        self._bulk_out, self._bulk_in, self._interrupt_in = _endpoints(configuration.interfaces[0])
        deadline = time.monotonic() + _OPEN_SECONDS
        self.control(set_configuration(configuration.value).encode(), deadline=deadline)
        descriptor = DeviceDescriptor.decode(device.device_descriptor)
        self._identity = UsbIdentity(
            descriptor.vendor_id,
            descriptor.product_id,
            self._string(descriptor.serial_index, deadline),
            self._string(descriptor.product_index, deadline),
            bus_id,
            descriptor.device_version,
        )

    @property
    def identity(self) -> UsbIdentity:
        """Who the device is."""
        return self._identity

    @property
    def configuration(self) -> bytes:
        """The whole configuration descriptor (USB 2.0, 9.6.3)."""
        return self._configuration

    @property
    def counters(self) -> LoopbackCounters:
        """What it did so far."""
        return LoopbackCounters(self._urbs, self._round_trips, self._bytes_out, self._bytes_in)

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        """One control transfer."""
        packet = SetupPacket.decode(setup)
        endpoint = _CONTROL_IN if packet.direction_in else _CONTROL_OUT
        return self._one(Transfer(endpoint, packet.length, setup=setup, data=b"".join(data)), deadline)

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        """One bulk-OUT transfer."""
        self._one(Transfer(self._bulk_out, data=b"".join(data)), deadline)

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        """One bulk-IN transfer of at most ``length`` bytes."""
        return self._one(Transfer(self._bulk_in, length), deadline)

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        """``bulk_out`` and ``bulk_in`` as one round trip."""
        sent = Transfer(self._bulk_out, data=b"".join(out))
        received = Transfer(self._bulk_in, length)
        with self._lock:
            self._begin(deadline)
            first = self._submit(sent)
            second = self._submit(received)
        try:
            self._wait(sent, first, deadline)
        except BaseException:
            # Whatever it was: left behind, it would take the answer to the next command.
            self._cancel(received)
            raise
        return self._wait(received, second, deadline)

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        """The oldest interrupt-IN answer that was not handed out yet.

        Errors: :class:`~demail_hw.errors.TransferStalled` also if the interface has no interrupt endpoint.
        """
        endpoint = self._interrupt_in
        if endpoint is None:
            raise TransferStalled("The reader's interface has no interrupt endpoint.")
        return self._one(Transfer(endpoint.address, endpoint.max_packet_size), deadline)

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        """Clear a stalled endpoint (USB 2.0, 9.4.1)."""
        self.control(clear_endpoint_halt(endpoint).encode(), deadline=deadline)

    def close(self) -> None:
        """Unplug: the device is reset, and whoever waits gets :class:`~demail_hw.errors.DeviceLost`."""
        with self._lock:
            if self._closed:
                return
            self._device.reset()
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _string(self, index: int, deadline: Deadline) -> str | None:
        if not index:
            return None
        setup = get_descriptor(DescriptorType.STRING, index, MAX_STRING_DESCRIPTOR, language=LANGUAGE_ENGLISH_US)
        return decode_string(self.control(setup.encode(), deadline=deadline))

    def _one(self, transfer: Transfer, deadline: Deadline) -> bytes:
        with self._lock:
            self._begin(deadline)
            waiter = self._submit(transfer)
        return self._wait(transfer, waiter, deadline)

    def _begin(self, deadline: Deadline) -> None:
        if self._closed:
            raise DeviceLost("The device was unplugged.", outcome=Outcome.NOT_SENT)
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("The deadline was over before the transfer.", outcome=Outcome.NOT_SENT)
        self._round_trips += 1

    def _submit(self, transfer: Transfer) -> "_Waiter":
        self._urbs += 1
        self._bytes_out += len(transfer.data)
        waiter = _Waiter(self._changed)
        self._device.submit(transfer, waiter.complete)
        return waiter

    def _wait(self, transfer: Transfer, waiter: "_Waiter", deadline: Deadline) -> bytes:
        result = waiter.result
        if result is None:
            result = self._wait_pending(transfer, waiter, deadline)
        if result.status != UrbStatus.OK:
            # Before an IN transfer something was sent, and this was to be the answer.
            answer = transfer.endpoint & _CONTROL_IN and not transfer.setup
            raise urb_error(result.status, stalled=Outcome.UNKNOWN if answer else Outcome.REFUSED)
        self._bytes_in += len(result.data)
        return result.data

    def _wait_pending(self, transfer: Transfer, waiter: "_Waiter", deadline: Deadline) -> TransferResult:
        try:
            with self._changed:
                while waiter.result is None and not self._closed:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
        except BaseException:
            self._cancel(transfer)
            raise
        if waiter.result is None and self._cancel(transfer):
            raise DeadlineExceeded("The device did not answer before the deadline.")
        if waiter.result is None:
            raise DeviceLost("The device was unplugged.")
        return waiter.result

    def _cancel(self, transfer: Transfer) -> bool:
        """Take a pending transfer back; False if it was completed or dropped meanwhile."""
        with self._lock:
            return not self._closed and self._device.cancel(transfer)


class _Waiter:
    """Where the result of one transfer arrives, from any thread."""

    __slots__ = ("_changed", "result")

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.result: TransferResult | None = None

    def complete(self, result: TransferResult) -> None:
        with self._changed:
            self.result = result
            self._changed.notify_all()


def _endpoints(interface: InterfaceDescriptor) -> tuple[int, int, EndpointDescriptor | None]:
    bulk_out = interface.endpoint(TransferType.BULK, direction_in=False)
    bulk_in = interface.endpoint(TransferType.BULK, direction_in=True)
    if bulk_out is None or bulk_in is None:
        raise ValueError("the device's first interface has no bulk endpoints")
    return bulk_out.address, bulk_in.address, interface.endpoint(TransferType.INTERRUPT, direction_in=True)
