"""Received bytes that were not read yet: no copy as long as whole messages come, amortised O(1) otherwise."""

from typing import Final

__all__ = ["ReceiveBuffer"]

_COMPACT_AFTER: Final = 1 << 16


class ReceiveBuffer:
    """A queue of bytes. ``raw`` from ``offset`` on is what was not taken yet."""

    __slots__ = ("offset", "raw")

    def __init__(self) -> None:
        self.raw: bytes | bytearray = b""
        self.offset = 0

    def __len__(self) -> int:
        return len(self.raw) - self.offset

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        if self.offset == len(self.raw):
            self.raw = data
            self.offset = 0
            return
        if not isinstance(self.raw, bytearray) or self.offset > _COMPACT_AFTER:
            self.raw = bytearray(memoryview(self.raw)[self.offset :])
            self.offset = 0
        self.raw += data

    def take(self, count: int, *, after: int = 0) -> bytes:
        """The ``count`` bytes that follow the next ``after`` ones, which are dropped; all must be there."""
        start = self.offset + after
        self.offset = end = start + count
        return bytes(self.raw[start:end])

    def skip(self, count: int) -> None:
        """Drop the next ``count`` bytes, which must be there."""
        self.offset += count
