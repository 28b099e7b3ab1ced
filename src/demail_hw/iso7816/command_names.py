"""Commands by the names of the standard, from the bytes of their headers (ISO 7816-4, 5.4, and parts 8 and 9)."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.apdu import CommandApdu, data_field
from demail_hw.iso7816.status import describe, retries_left
from demail_hw.iso7816.trace import MASKED

__all__ = ["CommandView", "answer_meaning", "command_name"]

_HEADER_SIZE: Final = 4
_VERIFY: Final = 0x20
_MASTER_FILE: Final = "3f00"

_PROPRIETARY: Final = 0x80
_INVALID: Final = 0xFF
_CHAINED: Final = 0x10
_FURTHER: Final = 0x40
_FIRST_SECURE: Final = 0x0C
_FURTHER_SECURE: Final = 0x20
_FIRST_CHANNEL: Final = 0x03
_FURTHER_CHANNEL: Final = 0x0F
_FURTHER_BASE: Final = 4

_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x04: "DEACTIVATE FILE",
        0x06: "DEACTIVATE RECORD",
        0x08: "ACTIVATE RECORD",
        0x0C: "ERASE RECORD",
        0x0E: "ERASE BINARY",
        0x0F: "ERASE BINARY",
        0x10: "PERFORM SCQL OPERATION",
        0x12: "PERFORM TRANSACTION OPERATION",
        0x14: "PERFORM USER OPERATION",
        0x20: "VERIFY",
        0x21: "VERIFY",
        0x22: "MANAGE SECURITY ENVIRONMENT",
        0x24: "CHANGE REFERENCE DATA",
        0x25: "CHANGE REFERENCE DATA",
        0x26: "DISABLE VERIFICATION REQUIREMENT",
        0x28: "ENABLE VERIFICATION REQUIREMENT",
        0x2A: "PERFORM SECURITY OPERATION",
        0x2B: "PERFORM SECURITY OPERATION",
        0x2C: "RESET RETRY COUNTER",
        0x2D: "RESET RETRY COUNTER",
        0x33: "COMPARE",
        0x34: "GET ATTRIBUTE",
        0x35: "GET ATTRIBUTE",
        0x44: "ACTIVATE FILE",
        0x46: "GENERATE ASYMMETRIC KEY PAIR",
        0x47: "GENERATE ASYMMETRIC KEY PAIR",
        0x70: "MANAGE CHANNEL",
        0x82: "EXTERNAL AUTHENTICATE",
        0x84: "GET CHALLENGE",
        0x86: "GENERAL AUTHENTICATE",
        0x87: "GENERAL AUTHENTICATE",
        0x88: "INTERNAL AUTHENTICATE",
        0xA0: "SEARCH BINARY",
        0xA1: "SEARCH BINARY",
        0xA2: "SEARCH RECORD",
        0xA4: "SELECT",
        0xA5: "SELECT",
        0xB0: "READ BINARY",
        0xB1: "READ BINARY",
        0xB2: "READ RECORD",
        0xB3: "READ RECORD",
        0xC0: "GET RESPONSE",
        0xC2: "ENVELOPE",
        0xC3: "ENVELOPE",
        0xCA: "GET DATA",
        0xCB: "GET DATA",
        0xCC: "GET NEXT DATA",
        0xCD: "GET NEXT DATA",
        0xD0: "WRITE BINARY",
        0xD1: "WRITE BINARY",
        0xD2: "WRITE RECORD",
        0xD6: "UPDATE BINARY",
        0xD7: "UPDATE BINARY",
        0xDA: "PUT DATA",
        0xDB: "PUT DATA",
        0xDC: "UPDATE RECORD",
        0xDD: "UPDATE RECORD",
        0xE0: "CREATE FILE",
        0xE2: "APPEND RECORD",
        0xE4: "DELETE FILE",
        0xE6: "TERMINATE DF",
        0xE8: "TERMINATE EF",
        0xFE: "TERMINATE CARD USAGE",
    }
)
_SELECT: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x00: "SELECT file",
        0x01: "SELECT DF",
        0x02: "SELECT EF",
        0x03: "SELECT parent DF",
        0x04: "SELECT application",
        0x08: "SELECT by path from the MF",
        0x09: "SELECT by path",
    }
)
_MANAGE: Final[Mapping[int, str]] = MappingProxyType({1: "SET", 2: "STORE", 3: "RESTORE", 4: "ERASE"})
_MANAGE_FUNCTION: Final = 0x0F

_OPERATIONS: Final[Mapping[tuple[int, int], str]] = MappingProxyType(
    {
        (0x9E, 0x9A): "COMPUTE DIGITAL SIGNATURE",
        (0x9E, 0xAC): "COMPUTE DIGITAL SIGNATURE",
        (0x9E, 0xBC): "COMPUTE DIGITAL SIGNATURE",
        (0x8E, 0x80): "COMPUTE CRYPTOGRAPHIC CHECKSUM",
        (0x90, 0x80): "HASH",
        (0x90, 0xA0): "HASH",
        (0x00, 0xA2): "VERIFY CRYPTOGRAPHIC CHECKSUM",
        (0x00, 0xA8): "VERIFY DIGITAL SIGNATURE",
        (0x00, 0x92): "VERIFY CERTIFICATE",
        (0x00, 0xAE): "VERIFY CERTIFICATE",
        (0x00, 0xBE): "VERIFY CERTIFICATE",
    }
)
_PLAIN_VALUE: Final = 0x80
_CRYPTOGRAMS: Final = frozenset({0x82, 0x84, 0x86})
"""Tags of data objects: P1 says what comes back, P2 what is in the data field (ISO 7816-8, 11.9 and 11.11)."""


@dataclasses.dataclass(frozen=True, slots=True)
class CommandView:
    """A masked command, taken apart. ``data``: hexadecimal, ``**`` where it is masked.

    ``header``: CLA, INS, P1, P2. ``nc``, ``ne``: lengths in bytes; ``None`` for a command that is malformed, whose
    ``data`` is all that follows the header.
    """

    header: tuple[int, int, int, int]
    data: str
    nc: int | None
    ne: int | None

    @classmethod
    def of(cls, command: str) -> "CommandView | None":
        """Take apart what :func:`~demail_hw.iso7816.trace.mask` returned; ``None`` if it is shorter than a header."""
        encoded = bytes.fromhex(command.replace(MASKED, "00"))
        if len(encoded) < _HEADER_SIZE:
            return None
        cla, ins, p1, p2 = encoded[:_HEADER_SIZE]
        try:
            apdu = CommandApdu.decode(encoded)
            start, stop = data_field(memoryview(encoded))
        except ProtocolViolation:
            return cls((cla, ins, p1, p2), command[2 * _HEADER_SIZE :], None, None)
        if MASKED in command[: 2 * start] + command[2 * stop :]:  # lengths that nobody can know
            return cls((cla, ins, p1, p2), command[2 * _HEADER_SIZE :], None, None)
        return cls((cla, ins, p1, p2), command[2 * start : 2 * stop], apdu.nc, apdu.ne)

    @property
    def masked(self) -> bool:
        """True if it carries what may be a PIN."""
        return MASKED in self.data

    @property
    def asks_for_tries(self) -> bool:
        """True for a VERIFY without data (ISO 7816-4, 11.5.6)."""
        return self.interindustry and self.header[1] == _VERIFY and not self.data

    @property
    def interindustry(self) -> bool:
        """True if the standard says what the command is (ISO 7816-4, 5.4.1)."""
        return not self.header[0] & _PROPRIETARY

    @property
    def name(self) -> str:
        """In the words of the standard."""
        cla, ins, _, _ = self.header
        if cla == _INVALID:
            return f"invalid class FF, INS {ins:02X}"
        if not self.interindustry:
            return f"proprietary command, INS {ins:02X}"
        if ins not in _NAMES:
            return f"unknown command, INS {ins:02X}"
        details = _DETAILS.get(ins, _plainly)(self)
        return ", ".join((details, *_class_words(cla)))


def command_name(command: str) -> str:
    """The name of a masked command, in hexadecimal."""
    view = CommandView.of(command)
    return "a piece of a command" if view is None else view.name


def answer_meaning(command: str, status: int) -> str:
    """What a status word says about a masked command: one sentence."""
    view, left = CommandView.of(command), retries_left(status)
    if view is not None and view.asks_for_tries and left is not None:
        return f"Tries left: {left} ({status:04X})."  # as an answer to this, it is no failure
    return describe(status)


def _plainly(view: CommandView) -> str:
    return _NAMES[view.header[1]]


def _selection(view: CommandView) -> str:
    p1 = view.header[2]
    if p1 == 0 and view.data in ("", _MASTER_FILE):
        return "SELECT MF"
    return _SELECT.get(p1, "SELECT")


def _verification(view: CommandView) -> str:
    reference = f"{_plainly(view)} {view.header[3]:02X}"
    return reference if view.data else f"{reference} (status)"


def _with_reference(view: CommandView) -> str:
    return f"{_plainly(view)} {view.header[3]:02X}"


def _management(view: CommandView) -> str:
    function = _MANAGE.get(view.header[2] & _MANAGE_FUNCTION)
    return f"{_plainly(view)}: {function}" if function else _plainly(view)


def _operation(view: CommandView) -> str:
    _, _, p1, p2 = view.header
    if p1 == _PLAIN_VALUE and p2 in _CRYPTOGRAMS:
        return "DECIPHER"
    if p2 == _PLAIN_VALUE and p1 in _CRYPTOGRAMS:
        return "ENCIPHER"
    return _OPERATIONS.get((p1, p2), _plainly(view))


_DETAILS: Final[Mapping[int, Callable[[CommandView], str]]] = MappingProxyType(
    {
        0x20: _verification,
        0x21: _verification,
        0x22: _management,
        0x24: _with_reference,
        0x25: _with_reference,
        0x26: _with_reference,
        0x28: _with_reference,
        0x2A: _operation,
        0x2B: _operation,
        0x2C: _with_reference,
        0x2D: _with_reference,
        0xA4: _selection,
        0xA5: _selection,
    }
)


def _class_words(cla: int) -> tuple[str, ...]:
    """What the class byte says beside (ISO 7816-4, 5.4.1, tables 2 and 3)."""
    further = bool(cla & _FURTHER)
    channel = (cla & _FURTHER_CHANNEL) + _FURTHER_BASE if further else cla & _FIRST_CHANNEL
    words = {
        "chained": bool(cla & _CHAINED),
        "secure messaging": bool(cla & (_FURTHER_SECURE if further else _FIRST_SECURE)),
        f"channel {channel}": channel > 0,
    }
    return tuple(word for word, holds in words.items() if holds)
