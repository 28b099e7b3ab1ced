"""The cards that are known, each in a module of its own."""

from typing import Final

from demail_hw.tcos.idkey import IDKEY
from demail_hw.tcos.netkey import NETKEY2, NETKEY3
from demail_hw.tcos.signature_card import SIGNATURE_CARD_V2

__all__ = ["IDKEY", "NETKEY2", "NETKEY3", "PROFILES", "SIGNATURE_CARD_V2"]

PROFILES: Final = (NETKEY3, IDKEY, NETKEY2, SIGNATURE_CARD_V2)
"""In the order in which they are tried where an ATR leaves several."""
