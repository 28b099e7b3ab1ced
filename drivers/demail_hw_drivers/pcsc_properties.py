"""What a reader's driver says of itself (PC/SC part 10, version 2.02.09): its features, and its properties."""

from collections.abc import Iterator, Mapping
from typing import Final

from demail_hw.interfaces import CardLimits

__all__ = ["GET_FEATURE_REQUEST", "decode_features", "decode_properties", "limits_of", "tlv_properties_code"]

GET_FEATURE_REQUEST: Final = 3400
"""The function of the control request that asks for the features (2.2)."""

_GET_TLV_PROPERTIES: Final = 0x12
_MAX_APDU_DATA_SIZE: Final = 0x0A
_CODE_SIZE: Final = 4
_HEADER_SIZE: Final = 2

_LENGTHS_OF_EXTENDED: Final = 9
"""Header, three bytes Lc, two bytes Le (ISO 7816-4, 5.2)."""
_STATUS_WORD: Final = 2
_LONGEST: Final = 0xFFFF
"""vpcd counts the bytes of an APDU in 16 bits, and ejects the card over a longer one."""
_SHORT: Final = CardLimits(extended=False, max_command=261, max_response=258)
_EXTENDED: Final = CardLimits(extended=True, max_command=_LONGEST, max_response=_LONGEST)


def decode_features(data: bytes) -> Mapping[int, int]:
    """Features and their control codes (2.3): tag, length 4, and the code, most significant byte first. What is
    malformed is left out."""
    return {tag: int.from_bytes(value, "big") for tag, value in _objects(data) if len(value) == _CODE_SIZE}


def decode_properties(data: bytes) -> Mapping[int, int]:
    """Properties that are numbers (2.6.14): tag, length, and the number, least significant byte first."""
    return {tag: int.from_bytes(value, "little") for tag, value in _objects(data)}


def tlv_properties_code(features: bytes) -> int | None:
    """The control code that asks for the properties."""
    return decode_features(features).get(_GET_TLV_PROPERTIES)


def limits_of(properties: bytes) -> CardLimits:
    """What fits through a reader that says this of itself.

    dwMaxAPDUDataSize is 0 for short APDUs only, or the longest data field. Many drivers do not say it, Debian's vpcd
    among them; extended length works all the same, and is taken for granted.
    """
    size = decode_properties(properties).get(_MAX_APDU_DATA_SIZE)
    if size is None:
        return _EXTENDED
    if size == 0:
        return _SHORT
    return CardLimits(
        extended=True,
        max_command=min(_LONGEST, size + _LENGTHS_OF_EXTENDED),
        max_response=min(_LONGEST, size + _STATUS_WORD),
    )


def _objects(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and values, as far as they are complete."""
    while len(data) >= _HEADER_SIZE:
        tag, length = data[:_HEADER_SIZE]
        data = data[_HEADER_SIZE:]
        if length > len(data):
            return
        yield tag, data[:length]
        data = data[length:]
