"""Features and properties of a reader's driver. The vectors are libccid's answers for a CLOUD 2700 F."""

import pytest

from demail_hw.interfaces import CardLimits
from demail_hw_drivers.pcsc_properties import decode_features, decode_properties, limits_of, tlv_properties_code

FEATURES = bytes.fromhex("120442330012 130442000001")
PROPERTIES = bytes.fromhex("0102 0000 0301 00 0901 00 0B02 E604 0C02 1057 0A04 00000100")


def test_features_are_control_codes() -> None:
    assert decode_features(FEATURES) == {0x12: 0x42330012, 0x13: 0x42000001}
    assert tlv_properties_code(FEATURES) == 0x42330012


def test_properties_are_numbers() -> None:
    assert decode_properties(PROPERTIES) == {1: 0, 3: 0, 9: 0, 0x0B: 0x04E6, 0x0C: 0x5710, 0x0A: 65536}


@pytest.mark.parametrize(
    ("properties", "limits"),
    [
        ("", CardLimits(extended=True, max_command=65535, max_response=65535)),
        ("0B02E604", CardLimits(extended=True, max_command=65535, max_response=65535)),
        ("0A0400000000", CardLimits(extended=False, max_command=261, max_response=258)),
        ("0A0400040000", CardLimits(extended=True, max_command=1033, max_response=1026)),
        ("0A0400000100", CardLimits(extended=True, max_command=65535, max_response=65535)),
    ],
)
def test_limits(properties: str, limits: CardLimits) -> None:
    assert limits_of(bytes.fromhex(properties)) == limits


@pytest.mark.parametrize("malformed", ["12", "1205 4233", "1203 423300", "1204 423300"])
def test_what_is_malformed_is_left_out(malformed: str) -> None:
    assert tlv_properties_code(bytes.fromhex(malformed)) is None
