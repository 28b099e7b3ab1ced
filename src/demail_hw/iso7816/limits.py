"""What the length fields of an APDU allow (ISO/IEC 7816-4, 5.2)."""

from typing import Final

from demail_hw.interfaces import CardLimits
from demail_hw.iso7816.apdu import MAX_EXTENDED_LC, MAX_EXTENDED_NE, MAX_SHORT_LC, MAX_SHORT_NE

__all__ = ["EXTENDED_LIMITS", "MAX_COMMAND_APDU", "MAX_RESPONSE_APDU", "SHORT_LIMITS"]

MAX_COMMAND_APDU: Final = MAX_EXTENDED_LC + 9
"""Header, extended Lc, 65535 bytes, extended Le; also the limit of CCID 1.10, 6.1.4."""

MAX_RESPONSE_APDU: Final = MAX_EXTENDED_NE + 2
"""65536 bytes and the status word."""

EXTENDED_LIMITS: Final = CardLimits(extended=True, max_command=MAX_COMMAND_APDU, max_response=MAX_RESPONSE_APDU)
"""The longest APDUs that there are."""

SHORT_LIMITS: Final = CardLimits(extended=False, max_command=MAX_SHORT_LC + 6, max_response=MAX_SHORT_NE + 2)
"""The longest short ones: header, Lc, 255 bytes, Le; 256 bytes and the status word."""
