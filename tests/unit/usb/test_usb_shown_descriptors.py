"""A device is held to the descriptors that it showed first."""

import dataclasses

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.usb.descriptors import ConfigurationDescriptor, DescriptorType, DeviceDescriptor, InterfaceDescriptor
from demail_hw.usb.setup import SetupPacket, get_descriptor, set_configuration
from demail_hw.usb.shown_descriptors import ShownDescriptors

HID, HUB, READER, APPLICATION, VENDOR = 0x03, 0x09, 0x0B, 0xFE, 0xFF
DFU, MEASUREMENT = 1, 3
DEVICE = DeviceDescriptor(0x0200, 0, 0, 0, 8, 0x04E6, 0x5710, 0x0003, 1, 2, 3, 2)


def configuration(*classes: int, value: int = 1, subclass: int = 0) -> bytes:
    """An interface of each class; every second one is another setting of the one before."""
    interfaces = tuple(InterfaceDescriptor(n // 2, n % 2, code, subclass, 0, 0) for n, code in enumerate(classes))
    return ConfigurationDescriptor(value, 0, 0x80, 50, interfaces).encode()


def shown(*configurations: bytes, device_class: int = 0) -> ShownDescriptors:
    return ShownDescriptors(dataclasses.replace(DEVICE, device_class=device_class).encode(), configurations)


FIRST, SECOND = configuration(READER), configuration(READER, VENDOR, value=2)
SHOWN = shown(FIRST, SECOND)


@pytest.mark.parametrize("length", [0, 8, 18])
def test_less_is_asked_for(length: int) -> None:
    assert SHOWN.allow(get_descriptor(DescriptorType.DEVICE, 0, length).encode(), SHOWN.device[:length])


@pytest.mark.parametrize(
    ("kind", "index", "answer"),
    [
        (DescriptorType.DEVICE, 0, SHOWN.device[:4] + bytes((HID,))),
        (DescriptorType.DEVICE, 0, SHOWN.device + b"\0"),
        (DescriptorType.CONFIGURATION, 0, configuration(HID)),
        (DescriptorType.CONFIGURATION, 0, FIRST + configuration(HID)),
        (DescriptorType.CONFIGURATION, 1, FIRST),
        (DescriptorType.CONFIGURATION, 2, configuration(HID, value=3)),
    ],
)
def test_another_answer_than_before(kind: DescriptorType, index: int, answer: bytes) -> None:
    assert not SHOWN.allow(get_descriptor(kind, index, 255).encode(), answer)


def test_each_configuration_has_its_index() -> None:
    assert SHOWN.allow(get_descriptor(DescriptorType.CONFIGURATION, 0, 255).encode(), FIRST)
    assert SHOWN.allow(get_descriptor(DescriptorType.CONFIGURATION, 1, 255).encode(), SECOND)


@pytest.mark.parametrize(
    "setup",
    [
        get_descriptor(DescriptorType.STRING, 2, 255),
        set_configuration(1),
        SetupPacket(0xA1, 6, 0x0100, 0, 18),  # of the class, not of the standard
    ],
)
def test_of_anything_else_nothing_was_shown(setup: SetupPacket) -> None:
    assert SHOWN.allow(setup.encode(), b"anything")


@pytest.mark.parametrize(
    ("device", "foreign"),
    [
        (SHOWN, None),
        (shown(FIRST, device_class=VENDOR), None),
        (shown(FIRST, device_class=HUB), HUB),
        (shown(configuration(READER, READER, HID)), HID),
        (shown(configuration(READER, HID)), HID),
        (shown(configuration(READER, APPLICATION, subclass=DFU)), None),
        (shown(configuration(READER, APPLICATION, subclass=MEASUREMENT)), APPLICATION),
        (shown(configuration(READER, HID, subclass=DFU)), HID),
        (shown(FIRST, configuration(HID, value=2)), HID),
    ],
)
def test_what_is_more_than_a_reader(device: ShownDescriptors, foreign: int | None) -> None:
    assert device.foreign_class() == foreign


def test_what_cannot_be_read_is_no_reader() -> None:
    with pytest.raises(ProtocolViolation):
        shown(FIRST[:-1]).foreign_class()
