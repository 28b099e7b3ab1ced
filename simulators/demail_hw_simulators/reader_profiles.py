"""What simulated readers are: models with a firmware, by name. The table is ``reader_profiles.toml``, which says of
each value whether it is documented or assumed.

``ext_apdu``, the uTrust 2700 F as its public dump shows it, is what a simulated reader is unless told otherwise.
"""

import dataclasses
import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from demail_hw.ccid.class_descriptor import CcidDescriptor, Features
from demail_hw.usb.descriptors import (
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
)

__all__ = [
    "BULK_PACKET",
    "DEFAULT_PROFILE",
    "INTERRUPT_PACKET",
    "ReaderProfile",
    "configuration_of",
    "reader_profile",
    "reader_profiles",
]

DEFAULT_PROFILE: Final = "ext_apdu"

BULK_PACKET: Final = 64
INTERRUPT_PACKET: Final = 16
_INTERRUPT_INTERVAL: Final = 16
_BULK_OUT, _BULK_IN, _INTERRUPT_IN = 0x01, 0x82, 0x83
_ENDPOINTS: Final = 3
_CONTROL_PACKET: Final = 8
_USB_2_0: Final = 0x0200
_BUS_POWERED: Final = 0x80
_MAX_POWER: Final = 50
_MANUFACTURER, _PRODUCT, _SERIAL, _INTERFACE = range(1, 5)

_TABLE: Final = "reader_profiles.toml"
_MARKS: Final = ("documented", "assumed")


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderProfile:
    """What one model with one firmware is. ``version``: bcdDevice. ``number``: bInterfaceNumber.

    ``zero_length_packets``: False for firmware that omits the packet of no length which ends a transfer of whole
    packets. ``escapes``: does it know the escape commands of the uTrust family? ``interrupts``: does it have an
    interrupt endpoint? ``aborts``: does it know ABORT?
    """

    vendor_id: int
    product_id: int
    version: int
    manufacturer: str
    product: str
    interface: str
    descriptor: CcidDescriptor
    number: int = 0
    zero_length_packets: bool = True
    escapes: bool = True
    interrupts: bool = True
    aborts: bool = True

    @property
    def bulk_out(self) -> int:
        """The address of the endpoint for commands. The interfaces of a device share the numbers of endpoints."""
        return _BULK_OUT + _ENDPOINTS * self.number

    @property
    def bulk_in(self) -> int:
        """The address of the endpoint for answers."""
        return _BULK_IN + _ENDPOINTS * self.number

    @property
    def interrupt_in(self) -> int:
        """The address of the endpoint for news; there is none without ``interrupts``."""
        return _INTERRUPT_IN + _ENDPOINTS * self.number

    def strings(self, serial: str) -> tuple[str, ...]:
        """The string descriptors, from index 1 on."""
        return self.manufacturer, self.product, serial, self.interface

    def device_descriptor(self) -> bytes:
        """18 bytes (USB 2.0, 9.6.1)."""
        return DeviceDescriptor(
            usb_version=_USB_2_0,
            device_class=0,
            device_subclass=0,
            device_protocol=0,
            max_packet_size=_CONTROL_PACKET,
            vendor_id=self.vendor_id,
            product_id=self.product_id,
            device_version=self.version,
            manufacturer_index=_MANUFACTURER,
            product_index=_PRODUCT,
            serial_index=_SERIAL,
            configurations=1,
        ).encode()

    def configuration_descriptor(self) -> bytes:
        """One interface of the CCID class with its endpoints (CCID 1.10, 4 and 5)."""
        return configuration_of(self)

    def interface_descriptor(self, string_index: int) -> InterfaceDescriptor:
        """The interface with its endpoints; its string has this index, if it has one."""
        endpoints = [
            EndpointDescriptor(self.bulk_out, TransferType.BULK, BULK_PACKET, 0),
            EndpointDescriptor(self.bulk_in, TransferType.BULK, BULK_PACKET, 0),
        ]
        if self.interrupts:
            news = TransferType.INTERRUPT
            endpoints.append(EndpointDescriptor(self.interrupt_in, news, INTERRUPT_PACKET, _INTERRUPT_INTERVAL))
        return InterfaceDescriptor(
            number=self.number,
            alternate_setting=0,
            interface_class=SMART_CARD_CLASS,
            interface_subclass=0,
            interface_protocol=0,
            string_index=string_index if self.interface else 0,
            endpoints=tuple(endpoints),
            extra=self.descriptor.encode(),
        )


def configuration_of(*profiles: ReaderProfile) -> bytes:
    """The configuration of a device with these interfaces, whose strings stand behind the device's own."""
    interfaces = tuple(profile.interface_descriptor(_INTERFACE + index) for index, profile in enumerate(profiles))
    return ConfigurationDescriptor(1, 0, _BUS_POWERED, _MAX_POWER, interfaces).encode()


@functools.cache
def reader_profiles() -> Mapping[str, ReaderProfile]:
    """All of them, by name, in the order of the table."""
    table = tomllib.loads(importlib.resources.files(__package__).joinpath(_TABLE).read_text(encoding="utf-8"))
    return MappingProxyType({name: _profile(_values(table, name)) for name in table})


def reader_profile(name: str) -> ReaderProfile:
    """The profile of this name. ``ValueError`` if there is none."""
    profile = reader_profiles().get(name)
    if profile is None:
        raise ValueError(f"there is no reader profile {name!r}; there are {', '.join(reader_profiles())}")
    return profile


def _values(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a profile says, over what the one says that it extends."""
    own = table[name]
    values = _values(table, own["extends"]) if "extends" in own else {}
    for mark in _MARKS:
        values |= own.get(mark, {})
    return values


def _profile(values: dict[str, Any]) -> ReaderProfile:
    features = Features(values.pop("features"))
    names = {field.name for field in dataclasses.fields(CcidDescriptor)} - {"features"}
    descriptor = CcidDescriptor(features=features, **{name: values.pop(name) for name in names})
    return ReaderProfile(version=values.pop("device_version"), descriptor=descriptor, **values)
