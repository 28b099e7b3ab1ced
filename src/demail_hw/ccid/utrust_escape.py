"""Escape commands of Identiv's uTrust family (payload of PC_to_RDR_Escape, CCID 1.10, 6.1.8).

From the reference manuals of the uTrust 4701 F, 372x F and CLOUD 2700 R; no 2700 F was at hand. A command is a value:
the bytes to send, and how to read what comes back::

    info = ask(reader, reader_info(), deadline=deadline)

Commands of these manuals whose formats are not printed there are not here.
"""

import dataclasses
import enum
import struct
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import Layer, Outcome, ProtocolViolation
from demail_hw.interfaces import Deadline

__all__ = [
    "EscapeCommand",
    "GuardTime",
    "LedControl",
    "PowerUpSequence",
    "ReaderInfo",
    "ReaderModes",
    "VoltageClasses",
    "WaitingTime",
    "ask",
    "etu",
    "guard_time",
    "insertion_counter",
    "led_control",
    "power_up_sequence",
    "reader_info",
    "set_etu",
    "set_guard_time",
    "set_led_control",
    "set_power_up_delay",
    "set_power_up_sequence",
    "set_voltage_classes",
    "set_waiting_time",
    "waiting_time",
]

_PWR_UP_SEQUENCE: Final = 0x04
_GET_INFO_EXTENDED: Final = 0x1E
_ETU: Final = 0x80
_WAITTIME: Final = 0x81
_GUARDTIME: Final = 0x82
_LED_CONTROL: Final = 0xB2
_GENERIC_ESCAPE: Final = bytes.fromhex("ff7004e6")
_GET: Final = 0x00
_SET: Final = 0x01
_CURRENT: Final = 0xFF
_DELAY: Final = 0x08
_CLASSES: Final = 0x09
_INSERTION_COUNTER: Final = 0x00
_DONE: Final = b"\x90\0"

_VALUE = struct.Struct(">I")
_INFO = struct.Struct("<BBBHHBBB")
_SERIAL_CODEC: Final = "utf-16-le"

_Answer = TypeVar("_Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class EscapeCommand(Generic[_Answer]):
    """A command of the vendor. ``decode``: what comes back as a value, or a ``ProtocolViolation``."""

    request: bytes
    decode: Callable[[bytes], _Answer]


def ask(reader: CcidReader, command: EscapeCommand[_Answer], *, deadline: Deadline) -> _Answer:
    """Have the reader do it. The card notices nothing.

    Errors: :class:`~demail_hw.errors.SlotError` if the reader does not know it; ``ProtocolViolation`` for an answer
    that is not in the manual.
    """
    return command.decode(reader.escape((command.request,), deadline=deadline))


# --- READER_GET_INFO_EXTENDED (1E) --------------------------------------------------------------------------------


class ReaderModes(enum.IntFlag):
    """What the reader can do besides ISO 7816."""

    EMV = 0x01
    MEMORY_CARD = 0x02


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderInfo:
    """``version``: major and minor; ``protocols``: a bit for each T; ``serial``: as in the USB descriptor."""

    version: tuple[int, int]
    modes: ReaderModes
    protocols: int
    input_device: int
    personality: int
    max_slots: int
    serial: str

    def encode(self) -> bytes:
        """As the reader answers."""
        serial = self.serial.encode(_SERIAL_CODEC)
        major, minor = map(_to_bcd, self.version)
        own = (self.modes, self.protocols, self.input_device, self.personality, self.max_slots)
        return _INFO.pack(major, minor, *own, len(serial)) + serial

    @classmethod
    def decode(cls, encoded: bytes) -> "ReaderInfo":
        """Read an answer.

        Errors: :class:`~demail_hw.errors.ProtocolViolation` if lengths or characters are not what they have to be.
        """
        if len(encoded) < _INFO.size:
            raise _violation(f"{len(encoded)} bytes of reader information")
        major, minor, modes, protocols, device, personality, slots, length = _INFO.unpack_from(encoded)
        serial = encoded[_INFO.size :]
        if len(serial) != length:
            raise _violation(f"a serial number of {len(serial)} bytes, where {length} are announced")
        try:
            text = serial.decode(_SERIAL_CODEC)
        except UnicodeDecodeError:
            raise _violation("a serial number that is not UTF-16") from None
        version = (_from_bcd(major), _from_bcd(minor))
        return cls(version, ReaderModes(modes), protocols, device, personality, slots, text.rstrip("\0"))


def reader_info() -> EscapeCommand[ReaderInfo]:
    """Firmware version, modes and serial number."""
    return EscapeCommand(bytes((_GET_INFO_EXTENDED,)), ReaderInfo.decode)


# --- CONTACT_GET_SET_PWR_UP_SEQUENCE (04) -------------------------------------------------------------------------


class PowerUpSequence(enum.IntEnum):
    """Which voltage a card is tried with first."""

    FROM_1_8_VOLT = 0x00
    FROM_5_VOLT = 0x01


class VoltageClasses(enum.IntFlag):
    """Operating classes of a card (ISO/IEC 7816-3:2006, 5.1.3): 5, 3 and 1.8 V."""

    A = 0x01
    B = 0x02
    C = 0x04


def power_up_sequence() -> EscapeCommand[PowerUpSequence]:
    """In which order voltages are tried now."""
    return EscapeCommand(bytes((_PWR_UP_SEQUENCE, _CURRENT)), _sequence)


def set_power_up_sequence(sequence: PowerUpSequence) -> EscapeCommand[None]:
    """Try voltages in this order from now on."""
    return EscapeCommand(bytes((_PWR_UP_SEQUENCE, sequence)), _nothing)


def set_power_up_delay(milliseconds: int) -> EscapeCommand[None]:
    """Wait between two tries: 0 to 255 ms."""
    return EscapeCommand(bytes((_PWR_UP_SEQUENCE, _DELAY, milliseconds)), _nothing)


def set_voltage_classes(classes: VoltageClasses) -> EscapeCommand[None]:
    """Try these voltages only."""
    return EscapeCommand(bytes((_PWR_UP_SEQUENCE, _CLASSES, classes)), _nothing)


# --- Times (80, 81, 82) -------------------------------------------------------------------------------------------


class WaitingTime(enum.IntEnum):
    """Character waiting time in etu, block waiting time in units of 1.25 ms."""

    CHARACTER = 0x00
    BLOCK = 0x01


class GuardTime(enum.IntEnum):
    """Character and block guard time, in etu."""

    CHARACTER = 0x00
    BLOCK = 0x01


def etu() -> EscapeCommand[int]:
    """CONTACT_GET_SET_ETU: the elementary time unit in the reader's clocks."""
    return EscapeCommand(bytes((_ETU, _GET)), _value)


def set_etu(clocks: int) -> EscapeCommand[int]:
    """Set it: 0 to 0xFFFFFFFF; the one that holds then."""
    return EscapeCommand(bytes((_ETU, _SET)) + _VALUE.pack(clocks), _value)


def waiting_time(which: WaitingTime) -> EscapeCommand[int]:
    """CONTACT_GET_SET_WAITTIME, in the unit of its kind."""
    return EscapeCommand(bytes((_WAITTIME, _GET, which)), _value)


def set_waiting_time(which: WaitingTime, value: int) -> EscapeCommand[int]:
    """Set it: 0 to 0xFFFFFFFF; the one that holds then."""
    return EscapeCommand(bytes((_WAITTIME, _SET, which)) + _VALUE.pack(value), _value)


def guard_time(which: GuardTime) -> EscapeCommand[int]:
    """CONTACT_GET_SET_GUARDTIME, in etu."""
    return EscapeCommand(bytes((_GUARDTIME, _GET, which)), _value)


def set_guard_time(which: GuardTime, value: int) -> EscapeCommand[int]:
    """Set it: 0 to 0xFFFFFFFF; the one that holds then."""
    return EscapeCommand(bytes((_GUARDTIME, _SET, which)) + _VALUE.pack(value), _value)


# --- READER_LED_CONTROL_BY_FW (B2) and READER_GENERIC_ESCAPE (FF 70 04 E6) ------------------------------------------


class LedControl(enum.IntEnum):
    """Does the firmware rule the LED?"""

    ENABLED = 0x00
    DISABLED = 0x01


def led_control() -> EscapeCommand[LedControl]:
    """Does it now?"""
    return EscapeCommand(bytes((_LED_CONTROL, _CURRENT)), _led)


def set_led_control(control: LedControl) -> EscapeCommand[None]:
    """Let it, or not."""
    return EscapeCommand(bytes((_LED_CONTROL, control)), _nothing)


def insertion_counter() -> EscapeCommand[int]:
    """How often a card was put in, ever.

    The manual prints no byte order: the upper byte is taken to come first, as in the family's other values.
    """
    return EscapeCommand(_GENERIC_ESCAPE + bytes((1, _INSERTION_COUNTER)), _counter)


# --- Answers ------------------------------------------------------------------------------------------------------


def _value(answer: bytes) -> int:
    if len(answer) != _VALUE.size:
        raise _violation(f"{len(answer)} bytes, where {_VALUE.size} are due")
    return int.from_bytes(answer, "big")


def _counter(answer: bytes) -> int:
    if answer[-len(_DONE) :] != _DONE:
        raise _violation("a counter without the status 9000")
    return _value(answer[: -len(_DONE)])


def _sequence(answer: bytes) -> PowerUpSequence:
    return PowerUpSequence(_one_of(answer, PowerUpSequence))


def _led(answer: bytes) -> LedControl:
    return LedControl(_one_of(answer, LedControl))


def _one_of(answer: bytes, values: type[enum.IntEnum]) -> int:
    if len(answer) != 1 or answer[0] not in set(values):
        raise _violation(f"{answer.hex() or 'nothing'}, which is none of its values")
    return answer[0]


def _nothing(_answer: bytes) -> None:
    """What comes back after a setting is not in the manuals."""


def _from_bcd(byte: int) -> int:
    if (high := byte >> 4) > 9 or (low := byte & 0x0F) > 9:
        raise _violation(f"a version of {byte:02X}, which is not BCD")
    return high * 10 + low


def _to_bcd(number: int) -> int:
    tens, units = divmod(number, 10)
    return tens << 4 | units


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The reader answers an escape command with {what}.", layer=Layer.READER, outcome=Outcome.NOT_SENT
    )
