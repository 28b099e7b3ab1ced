"""The tree of files: MF, DFs, transparent and record EFs (ISO 7816-4, 7), with the PINs and keys of each DF."""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from demail_hw.iso7816.status import StatusWord
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw_simulators.card.access import LOCAL_REFERENCE, NEVER, READ_ONLY, FileRules
from demail_hw_simulators.card.keys import CardKey
from demail_hw_simulators.card.pins import CardPin
from demail_hw_simulators.card.refusal import Refused

__all__ = [
    "MASTER_FILE",
    "MAXIMUM_NAME",
    "DedicatedFile",
    "ElementaryFile",
    "File",
    "FileSystem",
    "KeyFile",
    "LifeCycle",
    "PasswordDescriptionFile",
    "PinFile",
    "RecordFile",
    "TransparentFile",
    "erased",
]

MASTER_FILE: Final = 0x3F00
MAXIMUM_NAME: Final = 16
"""Length of a DF name, in bytes (ISO 7816-4, 7.3)."""
MAXIMUM_RECORDS: Final = 254
"""Record numbers go from 01 to FE (ISO 7816-4, 7.3)."""

_FREE_MEMORY: Final = 0x8000
_FILE_HEADER: Final = 0x20
_ERASED: Final = b"\xff"
_SHUT: Final = FileRules(read=NEVER)
_PERMANENT: Final = 0x01
_HOLDS_PIN: Final = 0x80
_USAGES: Final[Mapping[ControlReferenceTemplate, int]] = MappingProxyType(
    {ControlReferenceTemplate.CONFIDENTIALITY: 0x04, ControlReferenceTemplate.DIGITAL_SIGNATURE: 0x08}
)


def erased(size: int) -> bytes:
    """What an EF of ``size`` bytes holds before anything is written."""
    return _ERASED * size


class LifeCycle(enum.IntEnum):
    """Life cycle status of a file (ISO 7816-4, 7.4.10)."""

    CREATION = 0x01
    DEACTIVATED = 0x04
    ACTIVATED = 0x05


class _File:
    """What every file has. ``identifier``: two bytes as a number."""

    __slots__ = ("identifier", "life_cycle", "rules")

    def __init__(self, identifier: int, rules: FileRules) -> None:
        self.identifier = identifier
        self.rules = rules
        self.life_cycle = LifeCycle.ACTIVATED

    @property
    def proprietary(self) -> bytes:
        """What its control parameters say in DO 85, which ISO 7816 leaves to the card; nothing, mostly."""
        return b""


class TransparentFile(_File):
    """An EF without structure."""

    __slots__ = ("content",)

    def __init__(self, identifier: int, content: bytes, rules: FileRules = READ_ONLY) -> None:
        super().__init__(identifier, rules)
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    def update(self, offset: int, data: bytes) -> None:
        """Overwrite. :class:`Refused` with 6B00 or 6A84 beyond the end."""
        if offset >= self.size:
            raise Refused(StatusWord.WRONG_P1_P2)
        if offset + len(data) > self.size:
            raise Refused(StatusWord.NOT_ENOUGH_MEMORY)
        self.content[offset : offset + len(data)] = data


class RecordFile(_File):
    """An EF of records of variable length. ``record_length``: of the longest; ``capacity``: of all; in bytes."""

    __slots__ = ("_records", "capacity", "record_length")

    def __init__(
        self,
        identifier: int,
        records: Sequence[bytes],
        rules: FileRules = READ_ONLY,
        *,
        record_length: int | None = None,
        capacity: int | None = None,
    ) -> None:
        super().__init__(identifier, rules)
        self._records = list(records)
        self.record_length = max(map(len, records), default=0) if record_length is None else record_length
        self.capacity = sum(map(len, records)) if capacity is None else capacity

    @property
    def size(self) -> int:
        """In bytes."""
        return self.capacity

    @property
    def records(self) -> Sequence[bytes]:
        """In the order of their numbers, which begin with 1."""
        return self._records

    def record(self, number: int) -> bytes:
        """One record. :class:`Refused` with 6A83 if there is none."""
        if not 1 <= number <= len(self.records):
            raise Refused(StatusWord.RECORD_NOT_FOUND)
        return self.records[number - 1]

    def update(self, number: int, data: bytes) -> None:
        """Replace a record. :class:`Refused` with 6A83, 6700 or 6A84."""
        self._require_room(data, freed=len(self.record(number)))
        self._records[number - 1] = data

    def append(self, data: bytes) -> None:
        """Add a record. :class:`Refused` with 6700 or 6A84."""
        if len(self._records) >= MAXIMUM_RECORDS:
            raise Refused(StatusWord.NOT_ENOUGH_MEMORY)
        self._require_room(data, freed=0)
        self._records.append(data)

    def _require_room(self, data: bytes, *, freed: int) -> None:
        if len(data) > self.record_length:
            raise Refused(StatusWord.WRONG_LENGTH)
        if sum(map(len, self._records)) - freed + len(data) > self.capacity:
            raise Refused(StatusWord.NOT_ENOUGH_MEMORY)


class PasswordDescriptionFile(RecordFile):
    """EF.PWDD: a record for each PIN, whose last byte is the PIN's counter, always as it is now."""

    __slots__ = ("_pins",)

    def __init__(self, identifier: int, pins: Sequence[CardPin]) -> None:
        self._pins = tuple(pins)
        super().__init__(identifier, self.records)

    @property
    def records(self) -> Sequence[bytes]:
        """``A0 06 83 01 reference 90 01 tries``."""
        return tuple(bytes((0xA0, 6, 0x83, 1, pin.reference, 0x90, 1, pin.tries)) for pin in self._pins)


class KeyFile(TransparentFile):
    """The EF in which TCOS 2 keeps a private key; nobody reads it. Its DO 85 says what the key can do."""

    __slots__ = ("_key",)

    def __init__(self, identifier: int, key: CardKey) -> None:
        super().__init__(identifier, b"", _SHUT)
        self._key = key

    @property
    def proprietary(self) -> bytes:
        """``01 usage``."""
        return bytes((_PERMANENT, sum(_USAGES[template] for template in self._key.templates)))


class PinFile(RecordFile):
    """The EF in which TCOS 2 keeps a PIN; nobody reads it. Its DO 85 has the PIN's counter, always as it is now."""

    __slots__ = ("_pin",)

    def __init__(self, identifier: int, pin: CardPin) -> None:
        super().__init__(identifier, (), _SHUT, record_length=pin.maximum, capacity=pin.maximum)
        self._pin = pin

    @property
    def proprietary(self) -> bytes:
        """``01 80 number tries maximum``; the number is the reference without the bit that says local."""
        pin = self._pin
        return bytes((_PERMANENT, _HOLDS_PIN, pin.reference & ~LOCAL_REFERENCE, pin.tries, pin.maximum_tries))


class DedicatedFile(_File):
    """A DF. ``name``: its AID, or empty. ``files`` by identifier, ``pins`` and ``keys`` by reference.

    ``signature_key``: reference of the key that signs where no other was set.
    """

    __slots__ = ("files", "keys", "name", "parent", "pins", "signature_key")

    def __init__(
        self,
        identifier: int,
        *,
        name: bytes = b"",
        parent: "DedicatedFile | None" = None,
        rules: FileRules = READ_ONLY,
        signature_key: int | None = None,
    ) -> None:
        super().__init__(identifier, rules)
        self.name = name
        self.parent = parent
        self.signature_key = signature_key
        self.files: dict[int, File] = {}
        self.pins: dict[int, CardPin] = {}
        self.keys: dict[int, CardKey] = {}

    @property
    def root(self) -> "DedicatedFile":
        """The MF."""
        return self if self.parent is None else self.parent.root

    def add(self, *files: "File") -> None:
        """Put files into this DF."""
        for file in files:
            self.files[file.identifier] = file

    def child(self, identifier: int) -> "File":
        """A file of this DF. :class:`Refused` with 6A82 if there is none."""
        try:
            return self.files[identifier]
        except KeyError:
            raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND) from None

    def pin(self, reference: int) -> CardPin | None:
        """The PIN that a reference means here: one of this DF, or a global one of the MF."""
        return (self if reference & LOCAL_REFERENCE else self.root).pins.get(reference)

    def local_pins(self) -> Iterable[CardPin]:
        """Its PINs, but for the global ones, which are those of the MF."""
        return () if self.parent is None else self.pins.values()

    def walk(self) -> "Iterator[DedicatedFile]":
        """This DF and all below it."""
        yield self
        for file in self.files.values():
            if isinstance(file, DedicatedFile):
                yield from file.walk()


ElementaryFile: TypeAlias = TransparentFile | RecordFile
File: TypeAlias = DedicatedFile | ElementaryFile


class FileSystem:
    """All files of a card: what stays without power. ``free``: memory for new files, in bytes."""

    __slots__ = ("free", "root")

    def __init__(self, root: DedicatedFile, *, free: int = _FREE_MEMORY) -> None:
        self.root = root
        self.free = free

    def application(self, name: bytes) -> DedicatedFile:
        """The first DF whose name begins so (ISO 7816-4, 11.1.1). :class:`Refused` with 6A82 if there is none."""
        for directory in self.root.walk():
            if name and directory.name.startswith(name):
                return directory
        raise Refused(StatusWord.FILE_OR_APPLICATION_NOT_FOUND)

    def create(self, directory: DedicatedFile, file: File) -> None:
        """Put a new file in. :class:`Refused` with 6A89, 6A8A or 6A84."""
        if file.identifier in directory.files or file.identifier == MASTER_FILE:
            raise Refused(StatusWord.FILE_ALREADY_EXISTS)
        if isinstance(file, DedicatedFile) and file.name in {each.name for each in self.root.walk() if each.name}:
            raise Refused(StatusWord.DF_NAME_ALREADY_EXISTS)
        needed = _memory(file)
        if needed > self.free:
            raise Refused(StatusWord.NOT_ENOUGH_MEMORY)
        self.free -= needed
        directory.add(file)

    def delete(self, directory: DedicatedFile, file: File) -> None:
        """Take a file out, with all that is below it."""
        del directory.files[file.identifier]
        self.free += _memory(file)


def _memory(file: File) -> int:
    if isinstance(file, DedicatedFile):
        return _FILE_HEADER + sum(map(_memory, file.files.values()))
    return _FILE_HEADER + file.size
