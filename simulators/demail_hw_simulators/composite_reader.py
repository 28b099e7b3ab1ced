"""A simulated USB device with several CCID interfaces, such as the uTrust 4701 F: one for cards with contacts, one
for cards without."""

from collections.abc import Callable
from typing import Final, TypeAlias

from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.usb.setup import Recipient, RequestKind, SetupPacket, StandardRequest
from demail_hw.usb.standard_requests import StandardRequests
from demail_hw.usbip.messages import UrbStatus
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import configuration_of

__all__ = ["CompositeReader"]

_CONTROL: Final = frozenset({0x00, 0x80})

Complete: TypeAlias = Callable[[TransferResult], None]


class CompositeReader:
    """An :class:`~demail_hw.interfaces.ExportedDevice` of several simulated readers, an interface each.

    The first one says who the device is. ``ValueError`` for two of the same interface number: their profiles have
    ``number``.
    """

    def __init__(self, first: SimulatedUsbReader, *others: SimulatedUsbReader) -> None:
        profiles = [reader.profile for reader in (first, *others)]
        self._first = first
        self._readers = {reader.profile.number: reader for reader in (first, *others)}
        if len(self._readers) < len(profiles):
            raise ValueError("two interfaces of a device have the same number")
        self._configuration_descriptor = configuration_of(*profiles)
        self._of_endpoint = {
            address: reader
            for reader in self._readers.values()
            for address in (reader.profile.bulk_out, reader.profile.bulk_in, reader.profile.interrupt_in)
        }
        self._requests = StandardRequests(
            first.device_descriptor,
            self._configuration_descriptor,
            (*first.profile.strings(first.serial), *(profile.interface for profile in profiles[1:])),
        )

    @property
    def device_descriptor(self) -> bytes:
        """18 bytes (USB 2.0, 9.6.1)."""
        return self._first.device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        """The whole configuration (USB 2.0, 9.6.3)."""
        return self._configuration_descriptor

    @property
    def serial(self) -> str:
        """The serial number string."""
        return self._first.serial

    @property
    def speed(self) -> int:
        """Full speed."""
        return self._first.speed

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        """Begin a transfer."""
        if transfer.endpoint in _CONTROL:
            self._control(transfer, complete)
        elif transfer.endpoint in self._of_endpoint:
            self._of_endpoint[transfer.endpoint].submit(transfer, complete)
        else:
            complete(TransferResult(UrbStatus.EPIPE))

    def cancel(self, transfer: Transfer) -> bool:
        """Take back a pending transfer."""
        reader = self._of_endpoint.get(transfer.endpoint)
        return reader is not None and reader.cancel(transfer)

    def reset(self) -> None:
        """A bus reset."""
        self._requests.reset()
        for reader in self._readers.values():
            reader.reset()

    def _control(self, transfer: Transfer, complete: Complete) -> None:
        """A request goes to the interface or the endpoint that it names; what is the device's is answered here."""
        setup = SetupPacket.decode(transfer.setup)
        reader = self._asked(setup)
        if reader is not None:
            reader.submit(transfer, complete)
            return
        data = self._requests.answer(setup, transfer.data)
        if data is not None and setup.request == StandardRequest.SET_CONFIGURATION:
            for each in self._readers.values():
                each.submit(transfer, _nobody)
        complete(TransferResult(UrbStatus.EPIPE) if data is None else TransferResult(UrbStatus.OK, data))

    def _asked(self, setup: SetupPacket) -> SimulatedUsbReader | None:
        match setup.recipient:
            case Recipient.INTERFACE if setup.kind is RequestKind.CLASS:
                return self._readers.get(setup.index)
            case Recipient.ENDPOINT:
                return self._of_endpoint.get(setup.index)
            case _:
                return None


def _nobody(_: TransferResult) -> None:
    """The host asked the device."""
