"""SELECT (ISO 7816-4, 11.1.1)."""

import enum
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.answers import field
from demail_hw_simulators.card.fcp import FCI_TEMPLATE, FCP_TEMPLATE, encode_control_information
from demail_hw_simulators.card.file_system import (
    MASTER_FILE,
    MAXIMUM_NAME,
    DedicatedFile,
    ElementaryFile,
    File,
    LifeCycle,
)
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["select"]


class _Method(enum.IntEnum):
    """P1: how the file is named (ISO 7816-4, 11.1.1)."""

    FILE_IDENTIFIER = 0x00
    CHILD_DF = 0x01
    EF_UNDER_CURRENT_DF = 0x02
    PARENT_DF = 0x03
    DF_NAME = 0x04
    PATH_FROM_MF = 0x08
    PATH_FROM_CURRENT_DF = 0x09


_TEMPLATES: Final[Mapping[int, int | None]] = MappingProxyType({0x00: FCI_TEMPLATE, 0x04: FCP_TEMPLATE, 0x0C: None})
"""P2 -> the template that comes back (ISO 7816-4, 11.1.1)."""

_IDENTIFIER: Final = 2


class _Location(NamedTuple):
    directory: DedicatedFile
    file: ElementaryFile | None


_Search: TypeAlias = Callable[[CardState, bytes], _Location]


def select(card: CardState, command: CommandApdu) -> ResponseApdu:
    """Find a file, make it current, say what it is."""
    if command.p1 not in _SEARCHES or command.p2 not in _TEMPLATES:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    directory, file = _SEARCHES[command.p1](card, field(command))
    card.enter(directory, file)
    selected = directory if file is None else file
    template = _TEMPLATES[command.p2]
    data = encode_control_information(selected, template) if command.ne and template is not None else b""
    return ResponseApdu(data, _status(selected))


def _status(file: File) -> int:
    if file.life_cycle is LifeCycle.DEACTIVATED:
        return StatusWord.SELECTED_FILE_DEACTIVATED
    return StatusWord.NORMAL_PROCESSING


def _by_identifier(card: CardState, data: bytes) -> _Location:
    """The MF, a child of the current DF, that DF itself, or its parent."""
    current = card.directory
    identifier = _identifier(data) if data else MASTER_FILE
    if identifier in current.files:
        return _location(current, current.files[identifier])
    for directory in (current, current.parent, current.root):
        if directory is not None and directory.identifier == identifier:
            return _Location(directory, None)
    raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)


def _child_directory(card: CardState, data: bytes) -> _Location:
    found = _location(card.directory, card.directory.child(_identifier(data)))
    if found.file is not None:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return found


def _child_file(card: CardState, data: bytes) -> _Location:
    found = _location(card.directory, card.directory.child(_identifier(data)))
    if found.file is None:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return found


def _parent(card: CardState, data: bytes) -> _Location:
    if data:
        raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
    if card.directory.parent is None:
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
    return _Location(card.directory.parent, None)


def _by_name(card: CardState, data: bytes) -> _Location:
    if not 0 < len(data) <= MAXIMUM_NAME:
        raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
    return _Location(card.file_system.application(data), None)


def _path_from_root(card: CardState, data: bytes) -> _Location:
    identifiers = list(_path(data))
    if identifiers[0] == MASTER_FILE:
        del identifiers[0]
    return _walk(card.file_system.root, identifiers)


def _path_from_here(card: CardState, data: bytes) -> _Location:
    return _walk(card.directory, list(_path(data)))


def _walk(start: DedicatedFile, identifiers: list[int]) -> _Location:
    here = _Location(start, None)
    for identifier in identifiers:
        if here.file is not None:
            raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)
        here = _location(here.directory, here.directory.child(identifier))
    return here


def _location(directory: DedicatedFile, file: File) -> _Location:
    return _Location(file, None) if isinstance(file, DedicatedFile) else _Location(directory, file)


def _identifier(data: bytes) -> int:
    if len(data) != _IDENTIFIER:
        raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
    return int.from_bytes(data, "big")


def _path(data: bytes) -> Iterator[int]:
    if not data or len(data) % _IDENTIFIER:
        raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
    return (int.from_bytes(data[at : at + _IDENTIFIER], "big") for at in range(0, len(data), _IDENTIFIER))


_SEARCHES: Final[Mapping[int, _Search]] = MappingProxyType(
    {
        _Method.FILE_IDENTIFIER: _by_identifier,
        _Method.CHILD_DF: _child_directory,
        _Method.EF_UNDER_CURRENT_DF: _child_file,
        _Method.PARENT_DF: _parent,
        _Method.DF_NAME: _by_name,
        _Method.PATH_FROM_MF: _path_from_root,
        _Method.PATH_FROM_CURRENT_DF: _path_from_here,
    }
)
