"""The class descriptor, with the dumped one of the uTrust 2700 F (libccid readers/Identive_CLOUD_2700_F.txt)."""

import dataclasses

import pytest

from demail_hw.ccid.class_descriptor import CcidDescriptor, ExchangeLevel, Features, find_ccid_interface
from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.usb.descriptors import ConfigurationDescriptor
from demail_hw_simulators.ccid_device import UTRUST_2700F

DUMP = bytes.fromhex(
    "36211001000703000000c0120000e02e00000067320000e74c060000fe0000000000000000000000ba0404000a040000ffff00000001"
)


def configuration(**changes: object) -> ConfigurationDescriptor:
    """The simulated reader's configuration, with changes in its interface."""
    whole = ConfigurationDescriptor.decode(UTRUST_2700F.configuration_descriptor())
    (interface,) = whole.interfaces
    return dataclasses.replace(whole, interfaces=(dataclasses.replace(interface, **changes),))


def test_dump_of_the_2700f_is_read_field_by_field() -> None:
    descriptor = CcidDescriptor.decode(DUMP)
    assert descriptor.version == 0x0110
    assert (descriptor.max_slot_index, descriptor.max_busy_slots) == (0, 1)
    assert descriptor.voltage_support == 7
    assert descriptor.protocols == 3
    assert (descriptor.default_clock, descriptor.maximum_clock, descriptor.clocks_supported) == (4800, 12000, 0)
    assert (descriptor.data_rate, descriptor.max_data_rate, descriptor.data_rates_supported) == (12903, 412903, 0)
    assert descriptor.max_ifsd == 254
    assert (descriptor.synchronous_protocols, descriptor.mechanical) == (0, 0)
    assert descriptor.features == 0x000404BA
    assert isinstance(descriptor.features, Features)
    assert descriptor.max_message_length == 1034
    assert (descriptor.class_get_response, descriptor.class_envelope) == (0xFF, 0xFF)
    assert (descriptor.lcd_layout, descriptor.pin_support) == (0, 0)


def test_simulated_reader_has_the_dumped_descriptor() -> None:
    assert UTRUST_2700F.descriptor.encode() == DUMP


def test_features_of_the_2700f_by_name() -> None:
    features = CcidDescriptor.decode(DUMP).features
    assert Features.AUTO_PPS in features
    assert Features.AUTO_VOLTAGE in features
    assert Features.AUTO_PARAMETERS_NEGOTIATION not in features
    assert Features.NAD_ACCEPTED not in features


@pytest.mark.parametrize("damaged", [b"", DUMP[:-1], DUMP + b"\0", b"\x35" + DUMP[1:], DUMP[:1] + b"\x22" + DUMP[2:]])
def test_malformed_descriptor_is_a_violation_and_nothing_was_sent(damaged: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        CcidDescriptor.decode(damaged)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_interface_is_found_with_its_endpoints() -> None:
    interface = find_ccid_interface(UTRUST_2700F.configuration_descriptor())
    assert interface.number == 0
    assert interface.descriptor == UTRUST_2700F.descriptor
    assert interface.bulk_out.address == 0x01
    assert interface.bulk_in.address == 0x82
    assert interface.interrupt_in is not None
    assert interface.interrupt_in.address == 0x83


def test_descriptor_behind_the_last_endpoint_is_found() -> None:
    whole = ConfigurationDescriptor.decode(UTRUST_2700F.configuration_descriptor())
    *first, last = whole.interfaces[0].endpoints
    moved = configuration(extra=b"", endpoints=(*first, dataclasses.replace(last, extra=b"\x03\x30\x00" + DUMP)))
    assert find_ccid_interface(moved.encode()).descriptor == UTRUST_2700F.descriptor


def test_vendor_class_with_a_ccid_descriptor_is_a_reader() -> None:
    assert find_ccid_interface(configuration(interface_class=0xFF).encode()).number == 0


@pytest.mark.parametrize(
    "changes", [{"interface_class": 3}, {"extra": b""}, {"endpoints": ()}, {"extra": b"\x03\x21\x00"}]
)
def test_device_that_is_no_reader_is_a_violation(changes: dict[str, object]) -> None:
    with pytest.raises(ProtocolViolation):
        find_ccid_interface(configuration(**changes).encode())


@pytest.mark.parametrize(
    ("features", "level"),
    [
        (0x000404BA, ExchangeLevel.EXTENDED_APDU),
        (0x00020000, ExchangeLevel.SHORT_APDU),
        (0x000100BA, ExchangeLevel.TPDU),
        (0x000104BA, ExchangeLevel.TPDU),
        (0x000000BA, ExchangeLevel.CHARACTER),
    ],
)
def test_exchange_level_is_read_from_the_features(features: int, level: ExchangeLevel) -> None:
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=Features(features))
    assert descriptor.exchange_level is level
