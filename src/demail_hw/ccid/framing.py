"""From USB transfers to CCID messages: where a message ends (CCID 1.10, 4.2; USB 2.0, 5.8.3)."""

from typing import Final

__all__ = ["HEADER_SIZE", "MessageAssembler"]

HEADER_SIZE: Final = 10
"""Bytes in front of the data of every bulk message (CCID 1.10, 6.1 and 6.2)."""

_LENGTH_FIELD: Final = slice(1, 5)


class MessageAssembler:
    """Puts a message together from the transfers that it came in.

    A message is over when dwLength says so, when a packet is short, or when it is longer than it may be. What
    comes out is not checked: decoding it is where lengths are compared. A zero-length packet in front of a
    message is noise that some firmware sends.

    ``packet_size``: wMaxPacketSize of the endpoint in bytes, 1 for a stream that has no packets.
    ``first_read``: what to ask for in the first transfer of a message, or ``None`` for all that can come.
    """

    __slots__ = ("_buffer", "_first_read", "_packet_size", "max_length")

    def __init__(self, max_length: int, *, packet_size: int, first_read: int | None = None) -> None:
        self.max_length = max_length
        self._packet_size = packet_size
        self._first_read = self._whole_packets(max_length) if first_read is None else first_read
        self._buffer = b""

    @property
    def read_length(self) -> int:
        """How many bytes to ask for next: whole packets, so that no packet is cut."""
        if not self._buffer:
            return self._first_read
        return self._whole_packets(self._expected(self._buffer) - len(self._buffer))

    def add(self, transfer: bytes) -> bytes | None:
        """The message that this transfer completes, or ``None`` while there is more to come."""
        message = self._buffer + transfer if self._buffer else transfer
        if not message:
            return None
        if transfer and not len(transfer) % self._packet_size and len(message) < self._expected(message):
            self._buffer = message
            return None
        self._buffer = b""
        return message

    def clear(self) -> None:
        """Forget what has come of a message."""
        self._buffer = b""

    def _expected(self, message: bytes) -> int:
        """The length of a message of which this much is there; 0 for one that is too long anyway."""
        if len(message) < HEADER_SIZE:
            return HEADER_SIZE
        length = HEADER_SIZE + int.from_bytes(message[_LENGTH_FIELD], "little")
        return length if length <= self.max_length else 0

    def _whole_packets(self, length: int) -> int:
        return -(-length // self._packet_size) * self._packet_size
