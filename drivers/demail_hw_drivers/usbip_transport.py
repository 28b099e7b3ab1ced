"""The CCID interface of a device that was imported over USB/IP, as a UsbTransport."""

import collections
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Outcome,
    ProtocolViolation,
    TransferStalled,
)
from demail_hw.interfaces import Buffer, Buffers, Deadline, UsbIdentity
from demail_hw.usb.descriptors import (
    CONFIGURATION_HEADER_SIZE,
    DEVICE_DESCRIPTOR_SIZE,
    LANGUAGE_ENGLISH_US,
    MAX_STRING_DESCRIPTOR,
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    InterfaceDescriptor,
    TransferType,
    configuration_total_length,
    decode_string,
)
from demail_hw.usb.setup import checked_request, clear_endpoint_halt, get_descriptor, set_configuration
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.client import ClientEvent, UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Closed, UrbCompleted
from demail_hw.usbip.messages import (
    MAX_TRANSFER_LENGTH,
    NO_SETUP,
    CmdSubmit,
    CmdUnlink,
    Direction,
    UsbDevice,
)
from demail_hw.usbip.pump import UrbPump
from demail_hw.usbip.urb_errors import urb_error
from demail_hw_drivers.tcp import Wire

__all__ = ["TransportCounters", "UsbIpTransport"]

_LINGER_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 0.05
_MAX_INTERRUPTS: Final = 16
_CONTROL_ENDPOINT: Final = 0
_ENDPOINT_NUMBER: Final = 0x0F
_PACKET_SIZE: Final = 0x07FF
_OUT: Final = Direction.OUT
_IN: Final = Direction.IN
_NONE: Final = 0
_ALIVE: Final = ""
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__


class TransportCounters(NamedTuple):
    """What a transport did since it was connected. ``sends`` are system calls, ``round_trips`` waits for answers."""

    urbs: int
    round_trips: int
    sends: int
    bytes_out: int
    bytes_in: int


class _Endpoints(NamedTuple):
    """The pipes of a CCID interface (CCID 1.10, 4.2), by number."""

    bulk_out: int = _NONE
    bulk_in: int = _NONE
    interrupt: int = _NONE
    interrupt_size: int = 0


class UsbIpTransport:
    """A :class:`~demail_hw.interfaces.UsbTransport`. Made by :func:`demail_hw_drivers.usbip_client.connect`.

    The thread that exchanges reads the socket until its own answers are there, and files interrupt answers on the
    way; a thread that waits for an interrupt answer reads only while nobody exchanges. So no answer is handed from
    one thread to another on the hot path.

    After a loss or a violation of the protocol it is dead: every call raises
    :class:`~demail_hw.errors.DeviceLost`. In a forked child it is dead too, and the parent's goes on.
    """

    def __init__(self, wire: Wire, machine: UsbIpClient, device: UsbDevice) -> None:
        self._wire = wire
        self._machine = machine
        self._device = device
        self._devid = device.devid
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._dead = _ALIVE
        self._tell_loss: Callable[[str], None] | None = None
        self._entered = 0.0
        self._sent_before = 0
        self._turn = _Turn(self)
        self._urbs = 0
        self._round_trips = 0
        # Apart from the lock of a turn, so that whoever stops watching need not wait for the end of an exchange.
        self._watch_lock = threading.Lock()
        self._watchers = 0
        self._interrupt_seqnum = _NONE
        self._interrupts: collections.deque[UrbCompleted] = collections.deque()
        self._endpoints = _Endpoints()
        self._shown = ShownDescriptors(b"", (b"",))
        self._identity = UsbIdentity(
            device.vendor_id, device.product_id, None, None, device.bus_id, device.device_version
        )

    @property
    def identity(self) -> UsbIdentity:
        """Who the device is."""
        return self._identity

    @property
    def configuration(self) -> bytes:
        """The whole configuration descriptor (USB 2.0, 9.6.3)."""
        return self._shown.configurations[0]

    @property
    def counters(self) -> TransportCounters:
        """What it did so far."""
        wire = self._wire
        return TransportCounters(self._urbs, self._round_trips, wire.sends, wire.bytes_out, wire.bytes_in)

    @property
    def lost(self) -> str:
        """Why it is dead; empty while it is not."""
        return self._dead

    def when_lost(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the reason when it dies, from whichever thread finds out, and once more at the
        most; at once if it is dead. It is called in the middle of a turn, and must not use the transport."""
        self._tell_loss = tell
        if self._dead:
            tell(self._dead)

    def watch_end(self, *, deadline: Deadline) -> None:
        """Wait, without receiving and beside those who exchange, until the server has hung up, at most to the
        deadline. :class:`~demail_hw.errors.DeviceLost` if it has."""
        with self._watch_lock:
            if self._dead:
                raise self._refusal()
            self._watchers += 1
        try:
            ended = self._wire.hung_up(deadline=deadline)
        finally:
            self._watch(-1)
        if ended:
            with self._begin(time.monotonic() + _LINGER_SECONDS):
                self._read_what_is_there()

    def configure(self, *, deadline: Deadline, interface: int | None = None) -> None:
        """Read who the device is, set its configuration and choose its CCID interface: the first, or the one of this
        number; called once, by the driver.

        Errors: :class:`~demail_hw.errors.DeviceNotFound` if it has no such interface with bulk endpoints.
        """
        shown = self._descriptor(DescriptorType.DEVICE, 0, DEVICE_DESCRIPTOR_SIZE, deadline)
        device = DeviceDescriptor.decode(shown)
        whole = self._read_configuration(0, deadline)
        configuration = ConfigurationDescriptor.decode(whole)
        serial = self._string(device.serial_index, deadline)
        product = self._string(device.product_index, deadline)
        self._identity = UsbIdentity(
            device.vendor_id, device.product_id, serial, product, self._identity.bus_id, device.device_version
        )
        self._shown = ShownDescriptors(shown, (whole,))
        readers = _readers(configuration)
        number = next(iter(readers), None) if interface is None else interface
        if number not in readers:
            raise self._no_reader(interface, readers)
        self._identity = self._identity._replace(interface=number)
        endpoints = readers[number]
        self.control(set_configuration(configuration.value).encode(), deadline=deadline)
        self._endpoints = endpoints

    def _no_reader(self, interface: int | None, readers: Collection[int]) -> DeviceNotFound:
        device = self._identity
        text = f"Device {device.bus_id} ({device.vendor_id:04x}:{device.product_id:04x}) is no CCID reader"
        if interface is None or not readers:
            return DeviceNotFound(f"{text}.", transient=False)
        numbers = ", ".join(map(str, readers))
        return DeviceNotFound(
            f"{text} at its interface {interface}; it is at {numbers}.",
            remedy="Mend ?interface= in the address, or leave it out.",
            transient=False,
        )

    def _read_configuration(self, index: int, deadline: Deadline) -> bytes:
        head = self._descriptor(DescriptorType.CONFIGURATION, index, CONFIGURATION_HEADER_SIZE, deadline)
        return self._descriptor(DescriptorType.CONFIGURATION, index, configuration_total_length(head), deadline)

    def _descriptor(self, kind: DescriptorType, index: int, length: int, deadline: Deadline) -> bytes:
        return self.control(get_descriptor(kind, index, length).encode(), deadline=deadline)

    def _string(self, index: int, deadline: Deadline) -> str | None:
        if index == _NONE:
            return None
        setup = get_descriptor(DescriptorType.STRING, index, MAX_STRING_DESCRIPTOR, language=LANGUAGE_ENGLISH_US)
        try:
            text = decode_string(self.control(setup.encode(), deadline=deadline))
        except TransferStalled:
            return None
        # It is shown to people, and some firmware pads it with NULs: no control characters.
        return "".join(filter(str.isprintable, text))

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        """One control transfer; ``ValueError`` if ``data`` does not match the setup packet."""
        packet = checked_request(setup, data)
        direction = _IN if packet.direction_in else _OUT
        with self._begin(deadline):
            seqnum, buffers = self._submit(direction, _CONTROL_ENDPOINT, packet.length, data, setup)
            return self._round_trip(buffers, (seqnum,), deadline)

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        """One bulk-OUT transfer."""
        size = _checked(sum(map(len, data)))
        with self._begin(deadline):
            seqnum, buffers = self._submit(_OUT, self._endpoints.bulk_out, size, data)
            self._round_trip(buffers, (seqnum,), deadline)

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        """One bulk-IN transfer of at most ``length`` bytes."""
        _checked(length)
        with self._begin(deadline):
            seqnum, buffers = self._submit(_IN, self._endpoints.bulk_in, length)
            return self._round_trip(buffers, (seqnum,), deadline, stall=Outcome.UNKNOWN)

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        """Both bulk transfers in one segment, and one wait for both answers."""
        size = _checked(sum(map(len, out)))
        _checked(length)
        with self._begin(deadline):
            sent, head = self._submit(_OUT, self._endpoints.bulk_out, size, out)
            received, tail = self._submit(_IN, self._endpoints.bulk_in, length)
            return self._round_trip((*head, *tail), (sent, received), deadline)

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        """The oldest interrupt-IN answer that was not handed out yet.

        Errors: :class:`~demail_hw.errors.TransferStalled` also if the interface has no interrupt endpoint.
        """
        if self._endpoints.interrupt == _NONE:
            raise TransferStalled("The reader's interface has no interrupt endpoint.")
        while True:
            with self._begin(deadline):
                self._read_what_is_there()
                if self._interrupts:
                    return _interrupt_data(self._interrupts.popleft())
                # Only now: while there is news, it wakes whoever else watches.
                self._wire.forget_wake()
                self._send(self._post_interrupt(), deadline)
                self._watch(1)
            try:
                self._wire.watch(deadline=deadline)
            finally:
                self._watch(-1)

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        """Clear a stalled endpoint (USB 2.0, 9.4.1)."""
        self.control(clear_endpoint_halt(endpoint).encode(), deadline=deadline)

    def close(self) -> None:
        """Hang up, and wait shortly until the server has let the device go, so that it can be imported again."""
        if os.getpid() != self._pid:
            # The connection is the parent's: only this process' share of it is closed.
            self._wire.close()
            return
        if not self._dead and self._lock.acquire(blocking=False):
            try:
                self._wire.finish(_LINGER_SECONDS)
            finally:
                self._lock.release()
        self._wire.hang_up()
        if self._lock.acquire(timeout=_LINGER_SECONDS):
            self._die("it was closed")
            self._lock.release()

    def hand_over(self, *, deadline: Deadline) -> tuple[Wire, UsbDevice, UrbPump]:
        """Give the connection to whoever speaks USB/IP on it from now on, with nothing pending, and the pump that it
        goes through; this transport is dead then, and does not close it. ``RuntimeError`` if something is pending.
        After an error it is only fit to be closed.

        Errors: :class:`~demail_hw.errors.ConfigurationError` for a device that is more than a reader,
        :class:`~demail_hw.errors.ProtocolViolation` for a server that has sent more than it was asked for.
        """
        shown = self._shown_to_kernel(deadline)
        with self._begin(deadline):
            if self._machine.pending or self._machine.unlinking:
                raise RuntimeError("a connection is handed over with nothing pending on it")
            self._read_what_is_there()
            if self._machine.unread:
                raise ProtocolViolation("The USB/IP server sent what nobody asked for.")
            self._dead = "its connection was handed over"
            return self._wire, self._device, self._machine.pump(shown)

    def _shown_to_kernel(self, deadline: Deadline) -> ShownDescriptors:
        """All that a kernel reads to choose drivers. It takes the configuration that it likes best."""
        self._endpoints = _Endpoints()  # else an interrupt transfer is posted on the way, and pending at the end
        count = DeviceDescriptor.decode(self._shown.device).configurations
        more = tuple(self._read_configuration(index, deadline) for index in range(1, count))
        shown = ShownDescriptors(self._shown.device, self._shown.configurations + more)
        foreign = shown.foreign_class()
        if foreign is None:
            return shown
        raise ConfigurationError(  # not one of those that a service is started anew for
            f"Device {self._identity.bus_id} is more than a smartcard reader: it has class 0x{foreign:02x} too.",
            remedy="Use the reader by its usbip: address, without the kernel.",
        )

    # --- Inside a turn -----------------------------------------------------------------------------------------

    def _submit(
        self, direction: Direction, endpoint: int, length: int, data: Buffers = (), setup: bytes = NO_SETUP
    ) -> tuple[int, Sequence[Buffer]]:
        """The sequence number and the buffers of a transfer."""
        self._urbs += 1
        seqnum = self._machine.next_seqnum()
        command = _new(CmdSubmit, (seqnum, self._devid, direction, endpoint, 0, length, 0, 0, 0, setup))
        return seqnum, self._machine.send(command, data)

    def _post_interrupt(self) -> Sequence[Buffer]:
        """One interrupt-IN transfer is kept posted, as long as somebody takes the answers."""
        endpoints = self._endpoints
        if self._interrupt_seqnum or not endpoints.interrupt or len(self._interrupts) >= _MAX_INTERRUPTS:
            return ()
        self._interrupt_seqnum, buffers = self._submit(_IN, endpoints.interrupt, endpoints.interrupt_size)
        return buffers

    def _round_trip(
        self,
        buffers: Sequence[Buffer],
        seqnums: tuple[int, ...],
        deadline: Deadline,
        *,
        stall: Outcome = Outcome.REFUSED,
    ) -> bytes:
        """Send, wait for the answers, and give the data of the IN transfer.

        ``stall``: what a stall of the first transfer means. Once that one has arrived, a stall of the next does not
        say whether the card acted.
        """
        if self._entered - self._wire.last_wait > _IDLE_SECONDS:
            # A server that went away meanwhile is noticed before anything is sent to it.
            self._read_what_is_there()
        self._round_trips += 1
        self._send((*buffers, *self._post_interrupt()), deadline)
        missing = list(seqnums)
        data = b""
        machine = self._machine
        while True:
            event = machine.next_event() if machine.unread else NEED_DATA
            if event is NEED_DATA:
                if not missing:
                    return data
                self._receive(missing, deadline)
            elif isinstance(event, UrbCompleted) and event.seqnum in missing:
                seqnum, status, received = event
                missing.remove(seqnum)
                # The answers come in any order, and only that of an IN transfer has data.
                data = received or data
                if status:
                    self._withdraw(missing, deadline)
                    raise urb_error(status, stalled=stall if seqnum == seqnums[0] else Outcome.UNKNOWN)
            else:
                self._file(event)

    def _send(self, buffers: Buffers, deadline: Deadline) -> None:
        if buffers and not self._wire.send(buffers, deadline=deadline):
            self._die("a transfer could not be sent in time")
            raise DeadlineExceeded("The USB server took no data until the deadline.", outcome=self._outcome)

    def _receive(self, missing: Sequence[int], deadline: Deadline) -> None:
        """Receive something, or take back what is missing.

        A server that has not even taken back what was missing the last time is given up.
        """
        data = self._wire.receive(deadline=deadline)
        if data is None:
            if self._machine.unlinking:
                self._die("the USB server did not take back a transfer")
            else:
                self._withdraw(missing, deadline)
            raise DeadlineExceeded("The reader did not answer until the deadline.")
        self._machine.receive_data(data)

    def _withdraw(self, seqnums: Sequence[int], deadline: Deadline) -> None:
        """Unlink transfers. What the server says to it is read in the next turn, because the time may be over: a late
        answer has another number than those of that turn, and is dropped."""
        machine = self._machine
        unlinks = [CmdUnlink(machine.next_seqnum(), self._devid, seqnum) for seqnum in seqnums]
        self._send([buffer for unlink in unlinks for buffer in machine.send(unlink)], deadline)

    def _read_what_is_there(self) -> None:
        while True:
            event = self._machine.next_event()
            if event is not NEED_DATA:
                self._file(event)
                continue
            data = self._wire.receive_now()
            if data is None:
                return
            self._machine.receive_data(data)

    def _file(self, event: ClientEvent) -> None:
        """What is not the answer that a turn waits for."""
        if isinstance(event, Closed):
            raise ConnectionResetError("the USB server closed it")
        if isinstance(event, UrbCompleted) and event.seqnum == self._interrupt_seqnum:
            self._interrupt_seqnum = _NONE
            self._interrupts.append(event)
            if self._watchers:
                self._wire.wake()

    # --- Life --------------------------------------------------------------------------------------------------

    @property
    def _outcome(self) -> Outcome:
        """Of a turn that fails now. A send that succeeded proves nothing: the peer may be gone or not."""
        return Outcome.NOT_SENT if self._wire.bytes_out == self._sent_before else Outcome.UNKNOWN

    def _begin(self, deadline: Deadline) -> "_Turn":
        """Begin a turn; the ``with`` block ends it."""
        if os.getpid() != self._pid:
            raise DeviceLost("The reader belongs to the process that opened it.", outcome=Outcome.NOT_SENT)
        if not self._lock.acquire(blocking=False):
            self._wait_for_turn(deadline)
        self._entered = time.monotonic()
        self._sent_before = self._wire.bytes_out
        if self._dead or self._entered >= deadline:
            self._lock.release()
            raise self._refusal()
        return self._turn

    def _wait_for_turn(self, deadline: Deadline) -> None:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _too_late()

    def _refusal(self) -> HardwareError:
        if not self._dead:
            return _too_late()
        return DeviceLost(
            f"The reader is lost: {self._dead}.", remedy="Open the reader again.", outcome=Outcome.NOT_SENT
        )

    def leave(self, error: BaseException | None) -> None:
        """End a turn. Foreign exceptions are mapped here, and only here."""
        try:
            if error is not None:
                self._settle(error)
        finally:
            self._lock.release()

    def _settle(self, error: BaseException) -> None:
        match error:
            case ProtocolViolation():
                error.outcome = self._outcome
                self._die(error.message)
            case DeviceLost():
                self._die(error.message)
            case HardwareError():
                pass  # What was pending was withdrawn: the next turn finds a clean pipe.
            case OSError():
                self._die(f"the connection broke ({error.strerror or error})")
                raise DeviceLost(
                    f"The connection to the USB server broke: {error.strerror or error}.",
                    outcome=self._outcome,
                    remedy="Open the reader again.",
                ) from error
            case _:
                self._die("a transfer was interrupted")

    def _die(self, reason: str) -> None:
        if not self._dead:
            self._dead = reason.rstrip(".")
            self._wire.hang_up()
            if self._tell_loss is not None:
                self._tell_loss(self._dead)
        self._watch(0)

    def _watch(self, change: int) -> None:
        """So many more watch the socket; once it is dead, the last one closes it."""
        with self._watch_lock:
            self._watchers += change
            if self._dead and not self._watchers:
                self._wire.close()


class _Turn:
    """The transport is one thread's to the end of the ``with`` block."""

    __slots__ = ("_transport",)

    def __init__(self, transport: UsbIpTransport) -> None:
        self._transport = transport

    def __enter__(self) -> None:
        """It was begun when this was handed out."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._transport.leave(error)


def _interrupt_data(answer: UrbCompleted) -> bytes:
    if answer.status:
        raise urb_error(answer.status, stalled=Outcome.NOT_SENT)
    return answer.data


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline was over before anything was sent to the reader.", outcome=Outcome.NOT_SENT, transient=True
    )


def _checked(length: int) -> int:
    if not 0 <= length <= MAX_TRANSFER_LENGTH:
        raise ValueError(f"a transfer of {length} bytes; {MAX_TRANSFER_LENGTH} are the most")
    return length


def _readers(configuration: ConfigurationDescriptor) -> dict[int, _Endpoints]:
    """The pipes of the CCID interfaces, by number: of the first setting, because no other one is ever chosen."""
    settings: dict[int, InterfaceDescriptor] = {}
    for each in configuration.interfaces:
        settings.setdefault(each.number, each)
    return {number: found for number, each in settings.items() if (found := _endpoints(each))}


def _endpoints(interface: InterfaceDescriptor) -> _Endpoints | None:
    """The pipes of a CCID interface; None if it is none, or has no bulk pipes."""
    if interface.interface_class != SMART_CARD_CLASS:
        return None
    bulk_out = interface.endpoint(TransferType.BULK, direction_in=False)
    bulk_in = interface.endpoint(TransferType.BULK, direction_in=True)
    if bulk_out is None or bulk_in is None:
        return None
    numbers = bulk_out.address & _ENDPOINT_NUMBER, bulk_in.address & _ENDPOINT_NUMBER
    interrupt = interface.endpoint(TransferType.INTERRUPT, direction_in=True)
    if interrupt is None:
        return _Endpoints(*numbers)
    return _Endpoints(*numbers, interrupt.address & _ENDPOINT_NUMBER, interrupt.max_packet_size & _PACKET_SIZE)
