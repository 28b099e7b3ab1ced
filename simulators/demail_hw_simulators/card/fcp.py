"""File control parameters (ISO 7816-4, 7.4): the template that SELECT returns, and the one that CREATE takes."""

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.status import StatusWord
from demail_hw.iso7816.tlv import Tlv, decode_all
from demail_hw_simulators.card.access import ALWAYS, AccessRule, FileRules, any_pin
from demail_hw_simulators.card.file_system import (
    MAXIMUM_NAME,
    DedicatedFile,
    ElementaryFile,
    File,
    LifeCycle,
    PinFile,
    RecordFile,
    TransparentFile,
    erased,
)
from demail_hw_simulators.card.refusal import Refused

__all__ = ["FCI_TEMPLATE", "FCP_TEMPLATE", "decode_file", "encode_control_information"]

FCP_TEMPLATE: Final = 0x62
FCI_TEMPLATE: Final = 0x6F


class _Tag(enum.IntEnum):
    """Control parameters (ISO 7816-4, 7.4.3)."""

    SIZE = 0x80
    TOTAL_SIZE = 0x81
    DESCRIPTOR = 0x82
    IDENTIFIER = 0x83
    DF_NAME = 0x84
    PROPRIETARY = 0x85
    SECURITY_ATTRIBUTES = 0x86
    LIFE_CYCLE = 0x8A


class _Descriptor(enum.IntEnum):
    """File descriptor bytes (ISO 7816-4, 7.4.5)."""

    TRANSPARENT = 0x01
    LINEAR_VARIABLE = 0x04
    LINEAR_VARIABLE_TLV = 0x05
    DF = 0x38


_DATA_CODING: Final = 0x41
"""Second byte of a record EF's descriptor on TCOS."""
_NUMBER: Final = 2
"""Length of sizes and identifiers, in bytes."""
_TYPE_SHIFT: Final = 3
_TYPE_MASK: Final = 7
_STRUCTURE_MASK: Final = 7
_DF_TYPE: Final = 7
_RECORD_LENGTH: Final = slice(2, 4)
_WORKING_EF_TYPE: Final = 0
_TRANSPARENT_STRUCTURES: Final = frozenset({0, 1})
_LINEAR_STRUCTURES: Final = frozenset({2, 3, 4, 5})

_ACL_ENTRY: Final = 6
_ACL_PIN: Final = 1
_ACL_COMBINATION: Final = 0x01
"""First bit of an entry's command byte: all PINs or one of them; each entry here has one."""


class _AclCommand(enum.IntEnum):
    """Which commands an access entry is about, by its first byte."""

    READ = 0xB0
    UPDATE = 0xD6
    ADMINISTER = 0x60


def encode_control_information(file: File, template: int) -> bytes:
    """The template for an answer to SELECT (ISO 7816-4, 11.1.1)."""
    return Tlv.constructed_of(template, _parameters(file)).encode()


def _parameters(file: File) -> Iterable[Tlv]:
    if not isinstance(file, DedicatedFile):
        yield Tlv(_Tag.SIZE, file.size.to_bytes(_NUMBER, "big"))
    yield Tlv(_Tag.DESCRIPTOR, _descriptor(file))
    yield Tlv(_Tag.IDENTIFIER, file.identifier.to_bytes(_NUMBER, "big"))
    if isinstance(file, DedicatedFile) and file.name:
        yield Tlv(_Tag.DF_NAME, file.name)
    if file.proprietary:
        yield Tlv(_Tag.PROPRIETARY, file.proprietary)
    if file.life_cycle is not LifeCycle.ACTIVATED:
        yield Tlv(_Tag.LIFE_CYCLE, bytes((file.life_cycle,)))


def _descriptor(file: File) -> bytes:
    match file:
        case DedicatedFile():
            return bytes((_Descriptor.DF,))
        case TransparentFile():
            return bytes((_Descriptor.TRANSPARENT,))
        case PinFile():
            return bytes((_Descriptor.LINEAR_VARIABLE_TLV,))
        case RecordFile():
            longest = file.record_length.to_bytes(_NUMBER, "big")
            return bytes((_Descriptor.LINEAR_VARIABLE, _DATA_CODING)) + longest
        case _:
            assert_never(file)


@dataclasses.dataclass(frozen=True, slots=True)
class _Template:
    """The control parameters of a file that is to be made, by tag."""

    values: Mapping[int, bytes]

    def number(self, tag: int) -> int:
        value = self.values.get(tag, b"")
        if not 1 <= len(value) <= _NUMBER:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        return int.from_bytes(value, "big")

    @property
    def identifier(self) -> int:
        if len(self.values.get(_Tag.IDENTIFIER, b"")) != _NUMBER:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        return self.number(_Tag.IDENTIFIER)

    @property
    def size(self) -> int:
        return self.number(_Tag.SIZE if _Tag.SIZE in self.values else _Tag.TOTAL_SIZE)

    @property
    def descriptor(self) -> bytes:
        value = self.values.get(_Tag.DESCRIPTOR)
        if not value:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        return value

    @property
    def name(self) -> bytes:
        value = self.values.get(_Tag.DF_NAME, b"")
        if len(value) > MAXIMUM_NAME:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        return value


def decode_file(data: bytes, parent: DedicatedFile) -> File:
    """The file that the data field of CREATE describes, for ``parent``. :class:`Refused` with 6A80."""
    template = _decode_template(data)
    rules = _rules(template, parent)
    kind = template.descriptor[0] >> _TYPE_SHIFT & _TYPE_MASK
    made: File
    if kind == _DF_TYPE:
        made = DedicatedFile(template.identifier, name=template.name, parent=parent, rules=rules)
    elif kind == _WORKING_EF_TYPE:
        made = _elementary_file(template, rules)
    else:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    made.life_cycle = LifeCycle.CREATION
    return made


def _decode_template(data: bytes) -> _Template:
    try:
        objects = decode_all(data)
        parameters = objects[0].children if objects else ()
    except ProtocolViolation:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD) from None
    if len(objects) != 1 or objects[0].tag not in (FCP_TEMPLATE, FCI_TEMPLATE):
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    return _Template({each.tag: each.value for each in parameters})


def _elementary_file(template: _Template, rules: FileRules) -> ElementaryFile:
    descriptor = template.descriptor
    structure = descriptor[0] & _STRUCTURE_MASK
    if structure in _TRANSPARENT_STRUCTURES:
        return TransparentFile(template.identifier, erased(template.size), rules)
    if structure not in _LINEAR_STRUCTURES:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    longest = int.from_bytes(descriptor[_RECORD_LENGTH], "big")
    return RecordFile(template.identifier, (), rules, record_length=longest, capacity=template.size)


def _rules(template: _Template, parent: DedicatedFile) -> FileRules:
    """Access entries of six bytes: command byte, PIN reference (0: free), key reference, FF FF."""
    entries = template.values.get(_Tag.SECURITY_ATTRIBUTES, b"")
    if len(entries) % _ACL_ENTRY:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    rules = {
        entries[start] & ~_ACL_COMBINATION: _rule(entries[start + _ACL_PIN])
        for start in range(0, len(entries), _ACL_ENTRY)
    }
    administer = rules.get(_AclCommand.ADMINISTER, parent.rules.create)
    return FileRules(
        read=rules.get(_AclCommand.READ, ALWAYS),
        update=rules.get(_AclCommand.UPDATE, parent.rules.create),
        create=administer,
        delete=administer,
    )


def _rule(reference: int) -> AccessRule:
    return any_pin(reference) if reference else ALWAYS
