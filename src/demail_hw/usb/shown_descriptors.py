"""What a device showed of itself first, to hold it to that: an operating system picks drivers by its descriptors."""

import dataclasses
from typing import Final

from demail_hw.interfaces import Buffer
from demail_hw.usb.descriptors import (
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    InterfaceDescriptor,
)
from demail_hw.usb.setup import RequestKind, SetupPacket, StandardRequest

__all__ = ["ShownDescriptors"]

_BY_INTERFACE: Final = 0x00
_MISCELLANEOUS: Final = 0xEF
_VENDOR: Final = 0xFF
# USB-IF, Defined Class Codes. No driver takes a device for one of these but those for readers; one of a vendor's own
# is known by its numbers too.
_DEVICE_CLASSES: Final = frozenset({_BY_INTERFACE, SMART_CARD_CLASS, _MISCELLANEOUS, _VENDOR})
_INTERFACE_CLASSES: Final = frozenset({SMART_CARD_CLASS, _VENDOR})
_FIRMWARE_UPDATE: Final = (0xFE, 0x01)
"""Class and subclass of Device Firmware Upgrade (DFU 1.1, 4.1.2): no driver of a kernel takes it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShownDescriptors:
    """The device descriptor and every configuration descriptor, whole, in the order of their indexes."""

    device: bytes
    configurations: tuple[bytes, ...] = ()

    def foreign_class(self) -> int | None:
        """A class code, of the device or of any setting of an interface, that makes it more than a smartcard reader;
        None for a reader.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if a descriptor is malformed.
        """
        device = {DeviceDescriptor.decode(self.device).device_class}
        interfaces = {
            interface.interface_class
            for whole in self.configurations
            for interface in ConfigurationDescriptor.decode(whole).interfaces
            if not _is_of_reader(interface)
        }
        return min((device - _DEVICE_CLASSES) | interfaces, default=None)

    def allow(self, setup: Buffer, answer: bytes) -> bool:
        """May the device answer this control request so? False where GET_DESCRIPTOR (USB 2.0, 9.4.3) asks what was
        shown, and it says anything else; whoever asks for less, or gets less, has the beginning."""
        packet = SetupPacket.decode(setup)
        if (packet.kind, packet.request) != (RequestKind.STANDARD, StandardRequest.GET_DESCRIPTOR):
            return True
        kind, index = divmod(packet.value, 0x100)
        if kind == DescriptorType.DEVICE:
            return self.device.startswith(answer)
        if kind == DescriptorType.CONFIGURATION:
            shown = self.configurations[index] if index < len(self.configurations) else b""
            return shown.startswith(answer)
        return True


def _is_of_reader(interface: InterfaceDescriptor) -> bool:
    known = (interface.interface_class, interface.interface_subclass)
    return known[0] in _INTERFACE_CLASSES or known == _FIRMWARE_UPDATE
