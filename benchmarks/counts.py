"""What is counted a signature, exactly, and what it has to be."""

from typing import NamedTuple, Self

from benchmarks.depth import Depth
from demail_hw.identity import KeyRole

__all__ = ["EXPECTED", "KEYS", "WIRE_LIMITS", "Counts"]

KEYS = {KeyRole.SIGNATURE: "80 CDS", KeyRole.AUTHENTICATION: "82 raw"}
"""The keys that are measured, and their names here: by reference, with what their card does."""

WIRE_LIMITS = {KeyRole.SIGNATURE: 560, KeyRole.AUTHENTICATION: 760}
"""Bytes of USB/IP, both ways together, without TCP/IP headers."""


class Counts(NamedTuple):
    """The client's counts. Where a depth has no such thing, 0. ``bytes_out``, ``bytes_in``: of the outermost layer,
    which is the APDU in process, the CCID message over a USB cable of no length, the USB/IP message over TCP."""

    apdus: int
    messages_out: int
    messages_in: int
    urbs: int
    round_trips: int
    sends: int
    bytes_out: int
    bytes_in: int

    def since(self, before: Self) -> "Counts":
        """The difference."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))

    def per(self, operations: int) -> "Counts":
        """Of one operation. ``ValueError`` if not every operation was the same."""
        if any(count % operations for count in self):
            raise ValueError(f"{operations} operations did not cost the same: {self}")
        return Counts(*(count // operations for count in self))


EXPECTED = {
    (KeyRole.SIGNATURE, Depth.IN_PROCESS): Counts(1, 0, 0, 0, 0, 0, 57, 258),
    (KeyRole.SIGNATURE, Depth.CCID): Counts(1, 1, 1, 2, 1, 0, 67, 268),
    (KeyRole.SIGNATURE, Depth.USB_IP): Counts(1, 1, 1, 2, 1, 1, 163, 364),
    (KeyRole.AUTHENTICATION, Depth.IN_PROCESS): Counts(1, 0, 0, 0, 0, 0, 266, 258),
    (KeyRole.AUTHENTICATION, Depth.CCID): Counts(1, 1, 1, 2, 1, 0, 276, 268),
    (KeyRole.AUTHENTICATION, Depth.USB_IP): Counts(1, 1, 1, 2, 1, 1, 372, 364),
}
"""One APDU: 57 bytes with a DigestInfo, 266 with a whole block. CCID adds 10 each way, USB/IP two headers of 48."""
