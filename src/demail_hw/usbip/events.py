"""What the two state machines report besides messages."""

import enum
from typing import Final, Literal, NamedTuple

from demail_hw.usbip.messages import CmdSubmit

__all__ = ["NEED_DATA", "Closed", "NeedData", "Submitted", "UrbCompleted", "UrbUnlinked"]


class _Signal(enum.Enum):
    NEED_DATA = "need data"


NEED_DATA: Final = _Signal.NEED_DATA
"""No event yet: receive more."""

NeedData = Literal[_Signal.NEED_DATA]


class Closed(NamedTuple):
    """The peer closed the connection, between two messages."""


class UrbCompleted(NamedTuple):
    """A RET_SUBMIT with its data. ``status``: :class:`~demail_hw.usbip.messages.UrbStatus`."""

    seqnum: int
    status: int
    data: bytes


class UrbUnlinked(NamedTuple):
    """A RET_UNLINK. ``seqnum``: of the transfer that was to be taken back.

    ``pending``: True if the transfer ended with this, False if its :class:`UrbCompleted` came before.
    """

    seqnum: int
    status: int
    pending: bool


class Submitted(NamedTuple):
    """A CMD_SUBMIT with its data."""

    command: CmdSubmit
    data: bytes
