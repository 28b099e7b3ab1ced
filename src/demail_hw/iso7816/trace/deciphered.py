"""What a DECIPHER returns, masked: it may be the key of a message."""

import dataclasses
import re
from typing import Final

from demail_hw.iso7816.trace.entry import TraceEntry

__all__ = ["DecipherMask"]

_DECIPHER: Final = re.compile(r"..(?:2[ab]80|c[23])")
"""An ENVELOPE may hold a DECIPHER."""
_GET_RESPONSE: Final = re.compile(r"..c0")


class DecipherMask:
    """Masks what a DECIPHER returns, with the GET RESPONSE that follow it: it may be the key of a message."""

    def __init__(self) -> None:
        self._deciphering = False

    def hide(self, entry: TraceEntry) -> TraceEntry:
        """The exchange, fit to be shown. Every one has to come by, in its order."""
        marked = self.mark(entry)
        return marked.hidden() if marked.deciphered else marked

    def mark(self, entry: TraceEntry) -> TraceEntry:
        """The exchange, and whether it is what a DECIPHER returns. Every one has to come by, in its order."""
        fetches = self._deciphering and bool(_GET_RESPONSE.match(entry.command))
        self._deciphering = fetches or bool(_DECIPHER.match(entry.command))
        return dataclasses.replace(entry, deciphered=True) if self._deciphering else entry

    def lose_sight(self) -> None:
        """An exchange does not come by: it may be a DECIPHER."""
        self._deciphering = True
