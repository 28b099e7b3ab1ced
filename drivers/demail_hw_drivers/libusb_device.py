"""A reader that is plugged in here, claimed through libusb, as what the USB/IP server exports."""

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from demail_hw.ccid.class_descriptor import CcidInterface, find_ccid_interface
from demail_hw.interfaces import Buffer, Transfer, TransferResult
from demail_hw.usb.descriptors import (
    CONFIGURATION_HEADER_SIZE,
    DEVICE_DESCRIPTOR_SIZE,
    LANGUAGE_ENGLISH_US,
    MAX_STRING_DESCRIPTOR,
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    configuration_total_length,
    decode_string,
)
from demail_hw.usb.setup import (
    Feature,
    Recipient,
    RequestKind,
    SetupPacket,
    StandardRequest,
    get_descriptor,
)
from demail_hw.usbip.messages import UrbStatus
from demail_hw_drivers.libusb_library import error_status

__all__ = ["LibusbDevice", "read_string"]

_LOG = logging.getLogger(__name__)

Complete: TypeAlias = Callable[[TransferResult], None]

_IN: Final = 0x80
_CONTROL_MS: Final = 2000
"""For what is asked before anybody has a deadline."""
_EVENT_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 2.0
_SUPER_SPEED: Final = 4
_LINUX_SUPER_SPEED: Final = 5
_UNKNOWN_STATUS: Final = UrbStatus.EPROTO


class LibusbDevice:
    """An :class:`~demail_hw.interfaces.ExportedDevice`. ``context`` and ``device``: of the module ``usb1``, open from
    here on until :meth:`close`, with its first CCID interface claimed, or the one of the number ``interface``.

    One thread handles libusb's events; transfers complete in it. They have no time limit of their own: whoever waits
    has a deadline, and cancels. What is pending is cancelled and waited for before the device is closed.

    ``usb1.USBError`` leaves the constructor: who opens knows what that means.
    """

    def __init__(self, usb1: Any, context: Any, device: Any, interface: int | None = None) -> None:
        self._usb1 = usb1
        self._context = context
        self._statuses: Mapping[int, int] = {
            usb1.TRANSFER_COMPLETED: UrbStatus.OK,
            usb1.TRANSFER_CANCELLED: UrbStatus.ECONNRESET,
            usb1.TRANSFER_STALL: UrbStatus.EPIPE,
            usb1.TRANSFER_NO_DEVICE: UrbStatus.ENODEV,
            usb1.TRANSFER_OVERFLOW: UrbStatus.EOVERFLOW,
            usb1.TRANSFER_TIMED_OUT: UrbStatus.ETIMEDOUT,
        }
        self._lock = threading.Lock()
        self._flights: dict[Transfer, _Flight] = {}
        self._closed = self._stopping = False
        self._speed = int(device.getDeviceSpeed())
        self._handle = device.open()
        try:
            self._read_descriptors(interface)
            self._handle.claimInterface(self._interface.number)
        except BaseException:
            self._handle.close()
            raise
        self._thread = threading.Thread(target=self._handle_events, name="libusb events", daemon=True)
        self._thread.start()
        # Left open, libusb1 would wait for the interrupt transfer at the end of the process, and for ever.
        atexit.register(self.close)

    @property
    def device_descriptor(self) -> bytes:
        """18 bytes (USB 2.0, 9.6.1)."""
        return self._device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        """The whole configuration (USB 2.0, 9.6.3)."""
        return self._configuration_descriptor

    @property
    def interface(self) -> CcidInterface:
        """The interface that is claimed."""
        return self._interface

    @property
    def serial(self) -> str:
        """The serial number string; empty if there is none."""
        return self._serial

    @property
    def product(self) -> str:
        """The product string; empty if there is none."""
        return self._product

    @property
    def speed(self) -> int:
        """In the numbers of Linux' usb_device_speed."""
        return _LINUX_SUPER_SPEED if self._speed == _SUPER_SPEED else self._speed

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        """Begin a transfer. What the operating system wants to hear of, not only the device, is done at once."""
        result = self._done_by_the_system(transfer) if transfer.setup else None
        if result is None:
            result = self._begin(_Flight(transfer, complete))
        if result is not None:
            complete(result)

    def cancel(self, transfer: Transfer) -> bool:
        """Take back a pending transfer; it waits until libusb has done so, unless it is libusb's own thread."""
        with self._lock:
            flight = self._flights.get(transfer)
        if flight is None:
            return False
        return self._cancel(flight)

    def reset(self) -> None:
        """The host went away: what is pending is dropped, and a reset of the port takes the card's power."""
        self._drop_all()
        if self._closed:
            return
        try:
            self._handle.resetDevice()
        except (self._usb1.USBErrorNotFound, self._usb1.USBErrorNoDevice):
            _LOG.info("the reader %s is gone, or came back as another device", self._serial)
        except self._usb1.USBError as error:
            _LOG.warning("a reader could not be reset (%s); its card may still have power", error)
            # libusb let it go for that.
            with contextlib.suppress(self._usb1.USBError):
                self._handle.claimInterface(self._interface.number)

    def close(self) -> None:
        """Let the reader go. Never raises; closing twice is allowed."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        atexit.unregister(self.close)
        self._drop_all()
        self._stopping = True
        self._context.interruptEventHandler()
        self._thread.join()
        if self._flights:
            # To close it would wait for them without end.
            _LOG.error("the system does not give back transfers of the reader %s; it stays open", self._serial)
            return
        with contextlib.suppress(self._usb1.USBError):
            self._handle.releaseInterface(self._interface.number)
        self._handle.close()
        self._context.close()

    # --- Transfers ---------------------------------------------------------------------------------------------

    def _begin(self, flight: "_Flight") -> TransferResult | None:
        """None once it is under way."""
        with self._lock:
            if self._closed:
                return TransferResult(UrbStatus.ESHUTDOWN)
            flight.native = self._fill(flight)
            try:
                flight.native.submit()
            except self._usb1.USBError as error:
                flight.native.close()
                return TransferResult(error_status(error.value))
            self._flights[flight.transfer] = flight
        return None

    def _fill(self, flight: "_Flight") -> Any:
        transfer, native = flight.transfer, self._handle.getTransfer()
        content = transfer.length if transfer.endpoint & _IN else flight.content
        if transfer.setup:
            packet = SetupPacket.decode(transfer.setup)
            content = packet.length if packet.direction_in else flight.content
            fields = (packet.request_type, packet.request, packet.value, packet.index)
            native.setControl(*fields, content, callback=self._completed, user_data=flight)
        elif self._interface.interrupt_in and transfer.endpoint == self._interface.interrupt_in.address:
            native.setInterrupt(transfer.endpoint, content, callback=self._completed, user_data=flight)
        else:
            native.setBulk(transfer.endpoint, content, callback=self._completed, user_data=flight)
        return native

    def _completed(self, native: Any) -> None:
        """In libusb's thread."""
        flight: _Flight = native.getUserData()
        status = self._statuses.get(native.getStatus(), _UNKNOWN_STATUS)
        length = native.getActualLength() if flight.transfer.endpoint & _IN else 0
        data = bytes(native.getBuffer()[:length])
        flight.wipe()
        native.doom()
        with self._lock:
            self._flights.pop(flight.transfer, None)
            taken_back = flight.withdrawn and (flight.dropped or status == UrbStatus.ECONNRESET)
        flight.taken_back = taken_back
        if not taken_back:
            flight.complete(TransferResult(status, b"" if status else data))
        flight.over.set()

    def _cancel(self, flight: "_Flight") -> bool:
        flight.withdrawn = True
        if threading.current_thread() is self._thread:
            flight.dropped = True
        # It may be over already: then its completion is on its way.
        with contextlib.suppress(self._usb1.USBError):
            flight.native.cancel()
        if flight.dropped:
            return True
        if not flight.over.wait(_CANCEL_SECONDS):
            flight.dropped = True
        return flight.dropped or flight.taken_back

    def _drop_all(self) -> None:
        with self._lock:
            flights = list(self._flights.values())
        for flight in flights:
            flight.dropped = True
            self._cancel(flight)
        if threading.current_thread() is not self._thread:
            for flight in flights:
                flight.over.wait(_CANCEL_SECONDS)

    def _handle_events(self) -> None:
        while not self._stopping:
            try:
                self._context.handleEventsTimeout(_EVENT_SECONDS)
            except self._usb1.USBErrorInterrupted:
                continue
            except self._usb1.USBError as error:
                _LOG.warning("libusb cannot wait for the reader any more (%s)", error)
                return

    # --- Requests ----------------------------------------------------------------------------------------------

    def _done_by_the_system(self, transfer: Transfer) -> TransferResult | None:
        """Requests that change what the operating system knows of the device (USB 2.0, 9.4): they go through it."""
        packet = SetupPacket.decode(transfer.setup)
        if packet.kind is not RequestKind.STANDARD:
            return None
        match packet:
            case SetupPacket(request=StandardRequest.SET_CONFIGURATION):
                return TransferResult(UrbStatus.OK if packet.value == self._configuration else UrbStatus.EPIPE)
            case SetupPacket(request=StandardRequest.SET_INTERFACE):
                return TransferResult(UrbStatus.EPIPE if packet.value else UrbStatus.OK)
            case SetupPacket(request=StandardRequest.CLEAR_FEATURE, value=Feature.ENDPOINT_HALT):
                return self._clear_halt(packet.index) if packet.recipient == Recipient.ENDPOINT else None
            case _:
                return None

    def _clear_halt(self, endpoint: int) -> TransferResult:
        try:
            self._handle.clearHalt(endpoint)
        except self._usb1.USBError as error:
            return TransferResult(error_status(error.value))
        return TransferResult(UrbStatus.OK)

    def _read_descriptors(self, interface: int | None) -> None:
        self._device_descriptor = self._descriptor(DescriptorType.DEVICE, DEVICE_DESCRIPTOR_SIZE)
        head = self._descriptor(DescriptorType.CONFIGURATION, CONFIGURATION_HEADER_SIZE)
        whole = self._descriptor(DescriptorType.CONFIGURATION, configuration_total_length(head))
        self._configuration_descriptor = whole
        self._configuration = ConfigurationDescriptor.decode(whole).value
        self._interface = find_ccid_interface(whole, interface)
        device = DeviceDescriptor.decode(self._device_descriptor)
        self._serial = read_string(self._usb1, self._handle, device.serial_index)
        self._product = read_string(self._usb1, self._handle, device.product_index)

    def _descriptor(self, kind: DescriptorType, length: int) -> bytes:
        return _control_in(self._handle, get_descriptor(kind, 0, length))


class _Flight:
    """A transfer under way. ``withdrawn``: somebody wants it back; ``dropped``: whatever becomes of it, nobody is
    told; ``content``: what an OUT transfer carries, wiped when it is over."""

    __slots__ = ("complete", "content", "dropped", "native", "over", "taken_back", "transfer", "withdrawn")

    def __init__(self, transfer: Transfer, complete: Complete) -> None:
        self.transfer = transfer
        self.complete = complete
        self.content = _wipeable(transfer.data)
        self.native: Any = None
        self.withdrawn = self.dropped = self.taken_back = False
        self.over = threading.Event()

    def wipe(self) -> None:
        """It may have been a PIN."""
        self.content[:] = bytes(len(self.content))


def _wipeable(data: Buffer) -> bytearray:
    return data if isinstance(data, bytearray) else bytearray(data)


def read_string(usb1: Any, handle: Any, index: int) -> str:
    """A string of the device (USB 2.0, 9.6.7), printable; empty if there is none."""
    if not index:
        return ""
    setup = get_descriptor(DescriptorType.STRING, index, MAX_STRING_DESCRIPTOR, language=LANGUAGE_ENGLISH_US)
    try:
        text = decode_string(_control_in(handle, setup))
    except usb1.USBErrorPipe:
        return ""
    # It is shown to people, and some firmware pads it with NULs: no control characters.
    return "".join(filter(str.isprintable, text))


def _control_in(handle: Any, setup: SetupPacket) -> bytes:
    fields = (setup.request_type, setup.request, setup.value, setup.index, setup.length)
    return bytes(handle.controlRead(*fields, timeout=_CONTROL_MS))
