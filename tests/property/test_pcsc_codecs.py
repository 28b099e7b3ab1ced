"""What a reader's driver says of itself: any objects come back, and no bytes whatever are a surprise."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw_drivers.pcsc_properties import decode_features, decode_properties, limits_of, tlv_properties_code

TAGS = st.integers(0, 255)
CODES = st.integers(0, 2**32 - 1)


@given(st.dictionaries(TAGS, CODES))
def test_features_come_back(features: dict[int, int]) -> None:
    encoded = b"".join(bytes((tag, 4)) + code.to_bytes(4, "big") for tag, code in features.items())
    assert decode_features(encoded) == features
    assert tlv_properties_code(encoded) == features.get(0x12)


@given(st.dictionaries(TAGS, CODES), st.binary(max_size=1))
def test_properties_come_back_whatever_is_cut_off_behind_them(properties: dict[int, int], rest: bytes) -> None:
    encoded = b"".join(bytes((tag, 4)) + number.to_bytes(4, "little") for tag, number in properties.items())
    assert decode_properties(encoded + rest) == properties


@given(st.binary(max_size=64))
def test_limits_are_limits_whatever_a_driver_says(data: bytes) -> None:
    limits = limits_of(data)
    assert 261 <= limits.max_command <= 65535 or limits.extended
    assert limits.max_command - limits.max_response in {0, 3, 7} or limits.max_command == 65535
