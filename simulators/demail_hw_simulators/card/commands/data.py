"""Reading and writing EFs (ISO 7816-4, 11.2 and 11.3)."""

from typing import Final, TypeVar

from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.answers import (
    DONE,
    done,
    require_field,
    require_no_field,
    require_parameters,
)
from demail_hw_simulators.card.file_system import ElementaryFile, LifeCycle, RecordFile, TransparentFile
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["append_record", "read_binary", "read_record", "update_binary", "update_record"]

_SHORT_IDENTIFIER: Final = 0x80
"""Set in P1 if the other bits are a short EF identifier, which no file here has."""
_BY_NUMBER: Final = 0x04
"""P2: the record of the number in P1, in the current EF."""
_MODE_MASK: Final = 0x07

_Kind = TypeVar("_Kind", TransparentFile, RecordFile)


def read_binary(card: CardState, command: CommandApdu) -> ResponseApdu:
    """READ BINARY (11.2.3): 6282 with the data if the file ends before Ne, 6B00 at its end and after."""
    require_no_field(command)
    offset = _offset(command)
    file = _current(card, TransparentFile)
    card.require(file.rules.read)
    if offset >= file.size:
        raise Refused(StatusWord.WRONG_P1_P2)
    data = bytes(file.content[offset : offset + command.ne])
    return done(data) if len(data) == command.ne else ResponseApdu(data, StatusWord.END_OF_FILE_REACHED)


def update_binary(card: CardState, command: CommandApdu) -> ResponseApdu:
    """UPDATE BINARY (11.2.5)."""
    data = require_field(command)
    offset = _offset(command)
    file = _current(card, TransparentFile)
    card.require(file.rules.update)
    file.update(offset, data)
    return DONE


def read_record(card: CardState, command: CommandApdu) -> ResponseApdu:
    """READ RECORD (11.3.3), one record by its number."""
    require_no_field(command)
    number = _number(command)
    file = _current(card, RecordFile)
    card.require(file.rules.read)
    return done(file.record(number))


def update_record(card: CardState, command: CommandApdu) -> ResponseApdu:
    """UPDATE RECORD (11.3.5), one record by its number."""
    data = require_field(command)
    number = _number(command)
    file = _current(card, RecordFile)
    card.require(file.rules.update)
    file.update(number, data)
    return DONE


def append_record(card: CardState, command: CommandApdu) -> ResponseApdu:
    """APPEND RECORD (11.3.6)."""
    require_parameters(command, 0, 0)
    data = require_field(command)
    file = _current(card, RecordFile)
    card.require(file.rules.update)
    file.append(data)
    return DONE


def _current(card: CardState, kind: type[_Kind]) -> _Kind:
    """The current EF. :class:`Refused` with 6986, 6981, or 6985 if it is deactivated."""
    file: ElementaryFile | None = card.file
    if file is None:
        raise Refused(StatusWord.NO_CURRENT_EF)
    if not isinstance(file, kind):
        raise Refused(StatusWord.COMMAND_INCOMPATIBLE_WITH_FILE_STRUCTURE)
    if file.life_cycle is LifeCycle.DEACTIVATED:
        raise Refused(StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED)
    return file


def _offset(command: CommandApdu) -> int:
    if command.p1 & _SHORT_IDENTIFIER:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return command.p1 << 8 | command.p2


def _number(command: CommandApdu) -> int:
    if command.p2 & _MODE_MASK != _BY_NUMBER:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    if command.p2 != _BY_NUMBER:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return command.p1
