"""What T=0 and T=1 share: one transmission over the card's line, and a gather list that is used up from its front."""

from collections.abc import Generator
from typing import NamedTuple, TypeAlias

from demail_hw.interfaces import Buffer, Buffers

__all__ = ["BufferQueue", "Transmission", "Transmissions"]


class Transmission(NamedTuple):
    """What goes to the card in one turn. ``waiting``: times the block waiting time that its answer may take; 0 for
    one, as there was no S(WTX request)."""

    data: Buffers
    waiting: int = 0


Transmissions: TypeAlias = Generator[Transmission, bytes, bytes]
"""One APDU under way: yields what to send, is sent what came, returns the response APDU.

What the reader said of a turn that failed is thrown in.
"""


class BufferQueue:
    """A gather list that is taken from its front; what is taken are views of the caller's buffers."""

    __slots__ = ("_buffers", "length")

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = [memoryview(buffer) for buffer in buffers]
        self.length = sum(map(len, self._buffers))
        """Bytes that are left."""

    def take(self, size: int) -> tuple[Buffer, ...]:
        """The next ``size`` bytes, or all there are if they are fewer."""
        taken: list[Buffer] = []
        while size and self._buffers:
            first = self._buffers[0]
            taken.append(first[:size])
            self._buffers[:1] = [first[size:]] if len(first) > size else []
            size -= len(taken[-1])
            self.length -= len(taken[-1])
        return tuple(taken)
