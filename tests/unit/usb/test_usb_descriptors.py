"""Descriptors (USB 2.0, 9.6), with those of a CLOUD 2700 F as libccid's dump has them."""

import pytest

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.usb.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
    configuration_total_length,
    decode_string,
    encode_languages,
    encode_string,
)

CCID_CLASS = bytes.fromhex(
    "36211001000703000000c0120000e02e00000067320000e74c060000fe0000000000000000000000ba0404000a040000ffff00000001"
)
DEVICE = bytes.fromhex("12 01 00 02 00 00 00 08 e6 04 10 57 03 00 01 02 03 01")
CONFIGURATION = (
    bytes.fromhex("09 02 5d 00 01 01 00 80 3209 04 00 00 03 0b 00 00 04")
    + CCID_CLASS
    + bytes.fromhex("07 05 01 02 40 00 0007 05 82 02 40 00 0007 05 83 03 10 00 10")
)


def test_device_descriptor() -> None:
    device = DeviceDescriptor.decode(DEVICE)

    assert device == DeviceDescriptor(0x0200, 0, 0, 0, 8, 0x04E6, 0x5710, 0x0003, 1, 2, 3, 1)
    assert device.encode() == DEVICE


@pytest.mark.parametrize("broken", [b"", DEVICE[:-1], DEVICE + b"\0", b"\x11" + DEVICE[1:], b"\x12\x02" + DEVICE[2:]])
def test_broken_device_descriptor(broken: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        DeviceDescriptor.decode(broken)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_configuration_descriptor() -> None:
    configuration = ConfigurationDescriptor.decode(CONFIGURATION)
    (interface,) = configuration.interfaces

    assert configuration.value == 1
    assert not configuration.self_powered
    assert interface.interface_class == 0x0B
    assert interface.extra == CCID_CLASS
    assert [endpoint.address for endpoint in interface.endpoints] == [0x01, 0x82, 0x83]
    assert interface.endpoint(TransferType.BULK, direction_in=True) == EndpointDescriptor(0x82, 2, 64, 0)
    assert interface.endpoint(TransferType.INTERRUPT, direction_in=False) is None
    assert configuration.encode() == CONFIGURATION
    assert configuration_total_length(CONFIGURATION[:9]) == len(CONFIGURATION)


def test_class_descriptors_stay_where_they_stand() -> None:
    endpoint = EndpointDescriptor(0x82, 2, 64, 0, b"\x03\x25\x01")
    settings = tuple(InterfaceDescriptor(0, n, 0x0B, 0, 0, 0, (endpoint,), b"\x02\x21") for n in range(2))
    configuration = ConfigurationDescriptor(1, 0, 0xC0, 0, settings, b"\x08\x0b\0\0\0\0\0\0")

    assert configuration.encode()[4] == 1
    assert configuration.self_powered
    assert ConfigurationDescriptor.decode(configuration.encode()) == configuration


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, 8),  # bLength of the configuration
        (1, 4),  # bDescriptorType of the configuration
        (2, 0x5C),  # wTotalLength: one less than there is
        (2, 0x08),  # wTotalLength: less than the header
        (4, 2),  # bNumInterfaces
        (9, 0),  # bLength 0 would never end
        (9, 1),
        (9, 8),  # an interface descriptor that is too short
        (9 + 4, 2),  # bNumEndpoints: fewer than there are
        (9 + 4, 4),
        (72, 6),  # an endpoint descriptor that is too short
        (86, 8),  # one that ends after the configuration
        (10, 5),  # an endpoint outside any interface
    ],
)
def test_broken_configuration_descriptor(offset: int, value: int) -> None:
    broken = bytearray(CONFIGURATION)
    broken[offset] = value
    with pytest.raises(ProtocolViolation):
        ConfigurationDescriptor.decode(broken)


def test_strings() -> None:
    assert encode_languages() == bytes.fromhex("04 03 09 04")
    assert encode_string("Ü1") == bytes.fromhex("06 03 dc 00 31 00")
    assert decode_string(bytes.fromhex("06 03 dc 00 31 00")) == "Ü1"
    with pytest.raises(ValueError):
        encode_string("x" * 127)


@pytest.mark.parametrize("broken", ["", "02", "04 03 31", "02 01", "03 03 31", "04 03 00 d8"])
def test_broken_strings(broken: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode_string(bytes.fromhex(broken))
