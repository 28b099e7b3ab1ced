"""The devices that a USB/IP server offers, and who has each."""

import re
import threading
from collections.abc import Mapping
from typing import Final, Protocol

from demail_hw.interfaces import ExportedDevice
from demail_hw.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor
from demail_hw.usbip.messages import MAX_BUS_ID, DevlistEntry, UsbDevice, UsbInterface

__all__ = ["Export", "Holder", "exports_of"]

_BUS_NUMBER: Final = re.compile(r"(\d{1,4})-")
_FIRST_DEVICE_NUMBER: Final = 2


class Holder(Protocol):
    """Whoever has a device."""

    @property
    def identity(self) -> str | None:
        """Who it is, or ``None`` if nobody can say."""
        ...

    def answers(self) -> bool:
        """Is its host still there? It takes seconds to find that it is not."""
        ...

    def take_away(self) -> None:
        """End its session; the device is released soon."""
        ...


class Export:
    """A device on offer, and who has it."""

    def __init__(self, bus_id: str, device: ExportedDevice, device_number: int) -> None:
        configuration = ConfigurationDescriptor.decode(device.configuration_descriptor)
        settings = {interface.number: interface for interface in reversed(configuration.interfaces)}
        self.device = device
        self.endpoints = frozenset(
            endpoint.address for interface in configuration.interfaces for endpoint in interface.endpoints
        )
        self.usb_device = _usb_device(bus_id, device, device_number, configuration.value, len(settings))
        self.entry = DevlistEntry(
            self.usb_device,
            tuple(
                UsbInterface(interface.interface_class, interface.interface_subclass, interface.interface_protocol)
                for _, interface in sorted(settings.items())
            ),
        )
        self._changed = threading.Condition()
        self._holder: Holder | None = None

    @property
    def bus_id(self) -> str:
        """What peers call it."""
        return self.usb_device.bus_id

    @property
    def busy(self) -> bool:
        """Somebody has it."""
        return self._holder is not None

    @property
    def holder(self) -> Holder | None:
        """Who has it."""
        return self._holder

    def claim(self, holder: Holder, *, seconds: float = 0.0) -> bool:
        """Take the device, at once or within ``seconds``; False if somebody has it."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._holder is None, seconds):
                return False
            self._holder = holder
            return True

    def release(self) -> None:
        """Let it go."""
        with self._changed:
            self._holder = None
            self._changed.notify_all()


def exports_of(devices: Mapping[str, ExportedDevice]) -> dict[str, Export]:
    """By bus id. ``ValueError`` for what is no bus id."""
    for bus_id in devices:
        if not bus_id.isascii() or not 0 < len(bus_id) <= MAX_BUS_ID:
            raise ValueError(f"{bus_id!r} is no bus id")
    numbered = enumerate(devices.items(), start=_FIRST_DEVICE_NUMBER)
    return {bus_id: Export(bus_id, device, number) for number, (bus_id, device) in numbered}


def _usb_device(
    bus_id: str, device: ExportedDevice, device_number: int, configuration: int, interfaces: int
) -> UsbDevice:
    descriptor = DeviceDescriptor.decode(device.device_descriptor)
    bus = _BUS_NUMBER.match(bus_id)
    return UsbDevice(
        path=f"/demail-hw/{bus_id}",
        bus_id=bus_id,
        bus_number=int(bus[1]) or 1 if bus else 1,
        device_number=device_number,
        speed=device.speed,
        vendor_id=descriptor.vendor_id,
        product_id=descriptor.product_id,
        device_version=descriptor.device_version,
        device_class=descriptor.device_class,
        device_subclass=descriptor.device_subclass,
        device_protocol=descriptor.device_protocol,
        configuration_value=configuration,
        configurations=descriptor.configurations,
        interface_count=interfaces,
    )
