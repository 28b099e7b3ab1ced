"""What the handlers share: answers, and the checks of lengths and parameters."""

from collections.abc import Callable
from typing import Final, TypeAlias

from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["DONE", "Handler", "done", "field", "require_field", "require_no_field", "require_parameters"]

Handler: TypeAlias = Callable[[CardState, CommandApdu], ResponseApdu]
"""Does one command. :class:`~demail_hw_simulators.card.refusal.Refused` ends it with another status word."""

DONE: Final = ResponseApdu(b"", StatusWord.NORMAL_PROCESSING)


def done(data: bytes) -> ResponseApdu:
    """Data and 9000."""
    return ResponseApdu(data, StatusWord.NORMAL_PROCESSING)


def field(command: CommandApdu) -> bytes:
    """The command's data field."""
    return b"".join(command.data)


def require_field(command: CommandApdu) -> bytes:
    """The data field. :class:`Refused` with 6700 if there is none."""
    if not command.nc:
        raise Refused(StatusWord.WRONG_LENGTH)
    return field(command)


def require_no_field(command: CommandApdu) -> None:
    """:class:`Refused` with 6700 if there is a data field, or if no answer is expected."""
    if command.nc or not command.ne:
        raise Refused(StatusWord.WRONG_LENGTH)


def require_parameters(command: CommandApdu, p1: int, p2: int) -> None:
    """:class:`Refused` with 6A86 for any other P1-P2."""
    if (command.p1, command.p2) != (p1, p2):
        raise Refused(StatusWord.INCORRECT_P1_P2)
