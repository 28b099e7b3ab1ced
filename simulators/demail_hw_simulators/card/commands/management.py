"""The card's own administration: TCOS commands of class 80, and life cycles (ISO 7816-9)."""

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.answers import (
    DONE,
    done,
    require_field,
    require_no_field,
    require_parameters,
)
from demail_hw_simulators.card.fcp import decode_file
from demail_hw_simulators.card.file_system import DedicatedFile, File, LifeCycle
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["activate_file", "create_file", "deactivate_file", "delete_file", "list_or_identify", "set_permanent"]


class _Question(enum.IntEnum):
    """P1 of the instruction AA."""

    DIRECTORIES = 0x01
    FILES = 0x02
    CARD = 0x06


def list_or_identify(card: CardState, command: CommandApdu) -> ResponseApdu:
    """Identifiers of the DFs or EFs in the current DF (6A82 if there are none), or who made the card."""
    require_no_field(command)
    if command.p1 not in _ANSWERS or command.p2:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    return done(_ANSWERS[command.p1](card))


def _directories(card: CardState) -> bytes:
    return _identifiers(card, wanted=True)


def _files(card: CardState) -> bytes:
    return _identifiers(card, wanted=False)


def _identifiers(card: CardState, *, wanted: bool) -> bytes:
    files = [file for file in card.directory.files.values() if isinstance(file, DedicatedFile) is wanted]
    if not files:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return b"".join(map(_identifier, files))


def _identifier(file: File) -> bytes:
    return file.identifier.to_bytes(2, "big")


def _card_information(card: CardState) -> bytes:
    if not card.information:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    return card.information


_ANSWERS: Final[Mapping[int, Callable[[CardState], bytes]]] = MappingProxyType(
    {_Question.DIRECTORIES: _directories, _Question.FILES: _files, _Question.CARD: _card_information}
)


def create_file(card: CardState, command: CommandApdu) -> ResponseApdu:
    """CREATE FILE in the current DF; the new file becomes the current one (ISO 7816-9)."""
    require_parameters(command, 0, 0)
    data = require_field(command)
    card.require(card.directory.rules.create)
    file = decode_file(data, card.directory)
    card.file_system.create(card.directory, file)
    if isinstance(file, DedicatedFile):
        card.enter(file)
    else:
        card.enter(card.directory, file)
    return DONE


def delete_file(card: CardState, command: CommandApdu) -> ResponseApdu:
    """DELETE FILE: a file of the current DF, by its identifier (ISO 7816-9)."""
    require_parameters(command, 0, 0)
    data = require_field(command)
    if len(data) != len(_identifier(card.directory)):
        raise Refused(StatusWord.WRONG_LENGTH)
    file = card.directory.child(int.from_bytes(data, "big"))
    card.require(file.rules.delete)
    card.file_system.delete(card.directory, file)
    card.file = None
    return DONE


def set_permanent(card: CardState, command: CommandApdu) -> ResponseApdu:
    """The current DF and the files in it leave the creation state."""
    require_parameters(command, 0, 0)
    card.require(card.directory.rules.create)
    for file in (card.directory, *card.directory.files.values()):
        if file.life_cycle is LifeCycle.CREATION:
            file.life_cycle = LifeCycle.ACTIVATED
    return DONE


def deactivate_file(card: CardState, command: CommandApdu) -> ResponseApdu:
    """DEACTIVATE FILE: the current EF can be selected, with 6283, and not read (ISO 7816-9)."""
    return _set_life_cycle(card, command, LifeCycle.DEACTIVATED)


def activate_file(card: CardState, command: CommandApdu) -> ResponseApdu:
    """ACTIVATE FILE: the current EF (ISO 7816-9)."""
    return _set_life_cycle(card, command, LifeCycle.ACTIVATED)


def _set_life_cycle(card: CardState, command: CommandApdu, life_cycle: LifeCycle) -> ResponseApdu:
    require_parameters(command, 0, 0)
    if card.file is None:
        raise Refused(StatusWord.NO_CURRENT_EF)
    card.require(card.file.rules.delete)
    card.file.life_cycle = life_cycle
    return DONE
