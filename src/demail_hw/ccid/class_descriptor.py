"""The smart card device class descriptor (CCID 1.10, 5.1): what a reader says it can do."""

import dataclasses
import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from demail_hw.ccid.code_points import PowerSelect
from demail_hw.errors import Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Buffer
from demail_hw.usb.descriptors import (
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
)

__all__ = [
    "CCID_DESCRIPTOR_SIZE",
    "CCID_DESCRIPTOR_TYPE",
    "CcidDescriptor",
    "CcidInterface",
    "ExchangeLevel",
    "Features",
    "ccid_interfaces",
    "find_ccid_interface",
]

CCID_DESCRIPTOR_SIZE: Final = 54
CCID_DESCRIPTOR_TYPE: Final = 0x21
_LONGEST_MESSAGE: Final = 65554
"""The most that dwMaxCCIDMessageLength may say: the longest command APDU and a header (CCID 1.10, table 5.1-1)."""
_VENDOR_INTERFACE_CLASS: Final = 0xFF

_VOLTAGES: Final = ((0x04, PowerSelect.VOLTAGE_1_8), (0x02, PowerSelect.VOLTAGE_3_0), (0x01, PowerSelect.VOLTAGE_5_0))
"""Bits of bVoltageSupport, from class C up to class A (CCID 1.10, table 5.1-1; ISO/IEC 7816-3:2006, 5.1.3)."""

_LAYOUT = struct.Struct("<BBHBBIIIBIIBIIIIIBBHBB")


class Features(enum.IntFlag):
    """dwFeatures (CCID 1.10, table 5.1-1)."""

    AUTO_PARAMETERS_FROM_ATR = 0x0000_0002
    AUTO_ACTIVATION = 0x0000_0004
    AUTO_VOLTAGE = 0x0000_0008
    AUTO_CLOCK = 0x0000_0010
    AUTO_BAUD_RATE = 0x0000_0020
    AUTO_PARAMETERS_NEGOTIATION = 0x0000_0040
    AUTO_PPS = 0x0000_0080
    CLOCK_STOP = 0x0000_0100
    NAD_ACCEPTED = 0x0000_0200
    AUTO_IFSD = 0x0000_0400
    TPDU_LEVEL = 0x0001_0000
    SHORT_APDU_LEVEL = 0x0002_0000
    EXTENDED_APDU_LEVEL = 0x0004_0000
    USB_WAKE_UP = 0x0010_0000


class ExchangeLevel(enum.Enum):
    """What one XfrBlock carries (CCID 1.10, 3.2)."""

    CHARACTER = "characters"
    TPDU = "TPDUs"
    SHORT_APDU = "short APDUs"
    EXTENDED_APDU = "short and extended APDUs"


_CHOOSES_VOLTAGE: Final = Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION

_LEVELS: Final = (
    (Features.EXTENDED_APDU_LEVEL, ExchangeLevel.EXTENDED_APDU),
    (Features.SHORT_APDU_LEVEL, ExchangeLevel.SHORT_APDU),
    (Features.TPDU_LEVEL, ExchangeLevel.TPDU),
)


@dataclasses.dataclass(frozen=True, slots=True)
class CcidDescriptor:
    """The class descriptor, 54 bytes. Clocks in kHz, rates in bit/s, lengths in bytes, versions in BCD."""

    version: int
    max_slot_index: int
    voltage_support: int
    protocols: int
    default_clock: int
    maximum_clock: int
    clocks_supported: int
    data_rate: int
    max_data_rate: int
    data_rates_supported: int
    max_ifsd: int
    synchronous_protocols: int
    mechanical: int
    features: Features
    max_message_length: int
    class_get_response: int
    class_envelope: int
    lcd_layout: int
    pin_support: int
    max_busy_slots: int

    @property
    def exchange_level(self) -> ExchangeLevel:
        """The highest level that the reader works at."""
        return next((level for flag, level in _LEVELS if flag in self.features), ExchangeLevel.CHARACTER)

    @property
    def message_limit(self) -> int:
        """The longest message to expect, in bytes: dwMaxCCIDMessageLength, unless it says more than it may."""
        return min(self.max_message_length, _LONGEST_MESSAGE)

    @property
    def power_selects(self) -> tuple[PowerSelect, ...]:
        """bPowerSelect to try in this order: what the reader chooses itself, or each voltage that it can give, the
        lowest first, which harms no card (CCID 1.10, 6.1.1; ISO/IEC 7816-3:2006, 6.2.4). 5 V if it names none."""
        if _CHOOSES_VOLTAGE & self.features:
            return (PowerSelect.AUTOMATIC,)
        offered = tuple(select for bit, select in _VOLTAGES if bit & self.voltage_support)
        return offered or (PowerSelect.VOLTAGE_5_0,)

    def encode(self) -> bytes:
        """54 bytes."""
        return _LAYOUT.pack(CCID_DESCRIPTOR_SIZE, CCID_DESCRIPTOR_TYPE, *dataclasses.astuple(self))

    @classmethod
    def decode(cls, encoded: Buffer) -> "CcidDescriptor":
        """Read 54 bytes.

        Errors: :class:`~demail_hw.errors.ProtocolViolation`, nothing was sent yet.
        """
        if len(encoded) != CCID_DESCRIPTOR_SIZE:
            raise _malformed(f"it has {len(encoded)} bytes, not {CCID_DESCRIPTOR_SIZE}")
        length, kind, *fields = _LAYOUT.unpack(encoded)
        if (length, kind) != (CCID_DESCRIPTOR_SIZE, CCID_DESCRIPTOR_TYPE):
            raise _malformed(f"its header says length {length}, type {kind:#04x}")
        descriptor = cls(*fields)
        return dataclasses.replace(descriptor, features=Features(descriptor.features))


class CcidInterface(NamedTuple):
    """A reader's interface: its number, its class descriptor and its endpoints."""

    number: int
    descriptor: CcidDescriptor
    bulk_out: EndpointDescriptor
    bulk_in: EndpointDescriptor
    interrupt_in: EndpointDescriptor | None


def find_ccid_interface(configuration: Buffer, number: int | None = None) -> CcidInterface:
    """The first CCID interface of a whole configuration descriptor, or the one of this number.

    Errors: :class:`~demail_hw.errors.ProtocolViolation` if there is none, nothing was sent yet.
    """
    for interface in ccid_interfaces(configuration):
        if number in (None, interface.number):
            return interface
    which, remedy = ("", None) if number is None else (f" {number}", "Name another interface, or none.")
    raise ProtocolViolation(
        f"The USB device has no smart card reader interface{which}.",
        layer=Layer.READER,
        outcome=Outcome.NOT_SENT,
        remedy=remedy,
    )


def ccid_interfaces(configuration: Buffer) -> Iterator[CcidInterface]:
    """The CCID interfaces of a whole configuration descriptor: a device with several is as many readers.

    The class descriptor stands behind the interface descriptor; some readers put it behind the last endpoint.
    Interfaces of class FF that have one are readers from before the standard.

    Errors: :class:`~demail_hw.errors.ProtocolViolation`, nothing was sent yet.
    """
    for interface in ConfigurationDescriptor.decode(configuration).interfaces:
        encoded = _class_descriptor(interface)
        if encoded is not None and interface.interface_class in (SMART_CARD_CLASS, _VENDOR_INTERFACE_CLASS):
            yield _read_interface(interface, encoded)


def _class_descriptor(interface: InterfaceDescriptor) -> bytes | None:
    extras = (interface.extra, *(endpoint.extra for endpoint in interface.endpoints))
    found = (block for extra in extras for block in _split(extra))
    return next((block for block in found if block[1] == CCID_DESCRIPTOR_TYPE), None)


def _split(extra: bytes) -> Iterator[bytes]:
    """The descriptors in a row; their lengths were checked with the configuration."""
    while extra:
        yield extra[: extra[0]]
        extra = extra[extra[0] :]


def _read_interface(interface: InterfaceDescriptor, encoded: bytes) -> CcidInterface:
    bulk_out = interface.endpoint(TransferType.BULK, direction_in=False)
    bulk_in = interface.endpoint(TransferType.BULK, direction_in=True)
    if bulk_out is None or bulk_in is None:
        raise _malformed("its interface lacks a bulk endpoint")
    if not bulk_in.max_packet_size:
        raise _malformed("its bulk endpoint has packets of no size")
    return CcidInterface(
        interface.number,
        CcidDescriptor.decode(encoded),
        bulk_out,
        bulk_in,
        interface.endpoint(TransferType.INTERRUPT, direction_in=True),
    )


def _malformed(why: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The reader's class descriptor is malformed: {why}.", layer=Layer.READER, outcome=Outcome.NOT_SENT
    )
