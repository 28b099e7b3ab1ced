"""A transparent EF that is selected: its length, and reading and writing at any place in it."""

from typing import Final

from demail_hw.errors import CardRemoved, Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Deadline
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.apdu import MAX_SHORT_LC, MAX_SHORT_NE, CommandApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.status import StatusWord
from demail_hw.tcos import commands
from demail_hw.tcos.answers import check

__all__ = ["LONGEST_UPDATE", "OpenFile", "size_of"]

LONGEST_UPDATE: Final = MAX_SHORT_LC
"""What one UPDATE BINARY writes at most, in bytes; OpenSC writes to these cards in pieces as long."""

_FCP_TEMPLATES: Final = (0x62, 0x6F)
_SIZES: Final = (0x80, 0x81)
"""Data bytes without, and with structural information (ISO 7816-4, 7.4.3)."""
_MAX_SIZE: Final = 0x8000  # the offset of READ BINARY ends there
_END_OF_FILE: Final = frozenset({StatusWord.END_OF_FILE_REACHED, StatusWord.WRONG_P1_P2})


def size_of(parameters: bytes) -> int:
    """How many bytes an EF holds, by its control parameters (ISO 7816-4, 7.4).

    Errors: :class:`~demail_hw.errors.ProtocolViolation` if they do not tell.
    """
    try:
        template = next((each for each in tlv.decode_all(parameters) if each.tag in _FCP_TEMPLATES), None)
    except ProtocolViolation as error:
        raise _no_size() from error
    found = {each.tag: each.value for each in (template.children if template else ())}
    value = next((found[tag] for tag in _SIZES if found.get(tag)), None)
    if value is None:
        raise _no_size()
    return min(int.from_bytes(value, "big"), _MAX_SIZE)


def _no_size() -> ProtocolViolation:
    return ProtocolViolation(
        "The card's control parameters of a file do not say how long it is.",
        layer=Layer.CARD,
        outcome=Outcome.REFUSED,
    )


class OpenFile:
    """``size``: in bytes. Every method belongs into the transaction in which the file was opened.

    Once the card may have changed its state, nothing more is sent: another file could be the current one by then.
    """

    __slots__ = ("_channel", "_epoch", "size")

    def __init__(self, channel: Channel, size: int) -> None:
        self.size = size
        self._channel = channel
        self._epoch = channel.connection.epoch

    def read(self, offset: int, length: int, *, deadline: Deadline) -> bytes:
        """READ BINARY: at most ``length`` bytes and at most 256; none at the end."""
        return self._send(commands.read_binary(offset, min(length, MAX_SHORT_NE)), deadline, also=_END_OF_FILE)

    def update(self, offset: int, data: bytes, *, deadline: Deadline) -> None:
        """UPDATE BINARY of at most :data:`LONGEST_UPDATE` bytes.

        Errors: :class:`~demail_hw.errors.SecurityStatus` without the PIN that it needs.
        """
        self._send(commands.update_binary(offset, data), deadline)

    def _send(self, command: CommandApdu, deadline: Deadline, *, also: frozenset[int] = frozenset()) -> bytes:
        if self._channel.connection.epoch != self._epoch:
            raise CardRemoved("The card lost its state while a file of it was open.", outcome=Outcome.NOT_SENT)
        return check(self._channel.send(command, deadline=deadline), command, also=also)
