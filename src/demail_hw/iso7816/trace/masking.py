"""Commands fit to be shown: what may be a PIN is masked."""

from typing import Final

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffers
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS, data_field

__all__ = ["MASKED", "mask"]

MASKED: Final = "**"
"""What stands for a byte that is not shown."""

_HEADER_SIZE: Final = 4
_ENVELOPES: Final = frozenset({0xC2, 0xC3})
_MASKED_INSTRUCTIONS: Final = SECRET_INSTRUCTIONS | _ENVELOPES
"""ENVELOPE holds another command (ISO 7816-4, 11.7.2): it may be one with a PIN."""


def mask(command: Buffers) -> str:
    """An encoded command APDU in hexadecimal, fit to be shown.

    For the commands that carry PINs (see :data:`~demail_hw.iso7816.apdu.SECRET_INSTRUCTIONS`), and for ENVELOPE,
    which carries any command, whatever their class, and so in every piece of a chain, each byte of the data field is
    ``**``; of a malformed one, each byte behind the header.
    """
    joined = bytearray().join(command)
    try:
        return _masked(memoryview(joined))
    finally:
        joined[:] = bytes(len(joined))


def _masked(encoded: memoryview) -> str:
    if len(encoded) < 2 or encoded[1] not in _MASKED_INSTRUCTIONS:
        return encoded.hex()
    try:
        start, stop = data_field(encoded)
    except ProtocolViolation:
        start, stop = _HEADER_SIZE, max(_HEADER_SIZE, len(encoded))
    return encoded[:start].hex() + MASKED * (stop - start) + encoded[stop:].hex()
