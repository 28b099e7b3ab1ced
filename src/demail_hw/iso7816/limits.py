"""What the length fields of an APDU allow (ISO/IEC 7816-4, 5.2)."""

from typing import Final

from demail_hw.interfaces import CardLimits
from demail_hw.iso7816.apdu import MAX_EXTENDED_LC, MAX_EXTENDED_NE

__all__ = ["EXTENDED_LIMITS"]

EXTENDED_LIMITS: Final = CardLimits(extended=True, max_command=MAX_EXTENDED_LC + 9, max_response=MAX_EXTENDED_NE + 2)
"""The longest APDUs that there are."""
