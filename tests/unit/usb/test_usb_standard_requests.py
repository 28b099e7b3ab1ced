"""The device's answers to the standard requests (USB 2.0, 9.4), in the order of a Linux enumeration."""

import pytest

from demail_hw.usb.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
    decode_string,
)
from demail_hw.usb.setup import SetupPacket, clear_endpoint_halt, get_descriptor, set_configuration
from demail_hw.usb.standard_requests import StandardRequests

DEVICE = DeviceDescriptor(0x0200, 0, 0, 0, 8, 0x04E6, 0x5710, 0x0003, 1, 2, 3, 1).encode()
ENDPOINTS = (EndpointDescriptor(0x01, TransferType.BULK, 64, 0), EndpointDescriptor(0x82, TransferType.BULK, 64, 0))
CONFIGURATION = ConfigurationDescriptor(
    1, 0, 0xC0, 50, (InterfaceDescriptor(0, 0, 0x0B, 0, 0, 0, ENDPOINTS),)
).encode()


@pytest.fixture
def device() -> StandardRequests:
    return StandardRequests(DEVICE, CONFIGURATION, ("Identive", "CLOUD 2700 F", "53692013000000"))


def test_descriptors(device: StandardRequests) -> None:
    assert device.answer(get_descriptor(1, 0, 64)) == DEVICE
    assert device.answer(get_descriptor(1, 0, 8)) == DEVICE[:8]
    assert device.answer(get_descriptor(2, 0, 9)) == CONFIGURATION[:9]
    assert device.answer(get_descriptor(2, 0, 255)) == CONFIGURATION
    assert device.answer(get_descriptor(3, 0, 255)) == bytes.fromhex("04030904")
    assert decode_string(device.answer(get_descriptor(3, 3, 255, language=0x0409)) or b"") == "53692013000000"


@pytest.mark.parametrize(
    "setup",
    [
        get_descriptor(6, 0, 10),  # the device qualifier of a device that knows no high speed (9.6.2)
        get_descriptor(3, 4, 255),
        get_descriptor(2, 1, 9),
        set_configuration(2),
        SetupPacket(0x00, 0, 0, 0, 0),  # GET_STATUS in the wrong direction
        SetupPacket(0x00, 5, 7, 0, 0),  # SET_ADDRESS belongs to the bus
        SetupPacket(0x01, 11, 1, 0, 0),  # alternate setting 1
        SetupPacket(0x01, 11, 0, 3, 0),  # interface 3
        SetupPacket(0x02, 1, 0, 0x85, 0),  # CLEAR_FEATURE of no endpoint
        SetupPacket(0x02, 1, 1, 0x82, 0),  # another feature
        SetupPacket(0x82, 0, 0, 0x85, 2),
        SetupPacket(0x21, 1, 0, 0, 0),  # of the class
        SetupPacket(0xC0, 1, 0, 0, 8),  # of the vendor
        SetupPacket(0x80, 0x77, 0, 0, 8),
    ],
)
def test_everything_else_stalls(device: StandardRequests, setup: SetupPacket) -> None:
    assert device.answer(setup) is None


def test_no_request_here_takes_data(device: StandardRequests) -> None:
    assert device.answer(set_configuration(1), b"\0") is None


def test_configuration(device: StandardRequests) -> None:
    assert not device.configured
    assert device.answer(SetupPacket(0x80, 8, 0, 0, 1)) == b"\0"
    assert device.answer(set_configuration(1)) == b""
    assert device.configured
    assert device.answer(SetupPacket(0x80, 8, 0, 0, 1)) == b"\1"
    device.reset()
    assert not device.configured


def test_status_and_interface(device: StandardRequests) -> None:
    assert device.answer(SetupPacket(0x80, 0, 0, 0, 2)) == b"\x01\x00"
    assert device.answer(SetupPacket(0x81, 0, 0, 0, 2)) == b"\x00\x00"
    assert device.answer(SetupPacket(0x81, 10, 0, 0, 1)) == b"\x00"
    assert device.answer(SetupPacket(0x01, 11, 0, 0, 0)) == b""


def test_halt(device: StandardRequests) -> None:
    device.halt(0x82)
    assert device.halted(0x82)
    assert device.answer(SetupPacket(0x82, 0, 0, 0x82, 2)) == b"\x01\x00"
    assert device.answer(clear_endpoint_halt(0x82)) == b""
    assert not device.halted(0x82)
    assert device.answer(SetupPacket(0x02, 3, 0, 0x01, 0)) == b""
    assert device.halted(0x01)
    assert device.answer(set_configuration(1)) == b""
    assert not device.halted(0x01)
