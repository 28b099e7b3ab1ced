"""Status words: how a card says what came of a command (ISO 7816-4, 5.6)."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "StatusWord",
    "bytes_available",
    "correct_ne",
    "describe",
    "is_success",
    "retries_left",
]


class StatusWord(enum.IntEnum):
    """SW1-SW2 as one number (ISO 7816-4, 5.6, tables on SW1-SW2, general and specific meaning)."""

    NORMAL_PROCESSING = 0x9000

    WARNING_STATE_UNCHANGED = 0x6200
    DATA_MAY_BE_CORRUPTED = 0x6281
    END_OF_FILE_REACHED = 0x6282
    SELECTED_FILE_DEACTIVATED = 0x6283
    FILE_CONTROL_INFORMATION_NOT_FORMATTED = 0x6284
    SELECTED_FILE_TERMINATED = 0x6285
    NO_SENSOR_INPUT = 0x6286
    REFERENCED_RECORD_DEACTIVATED = 0x6287
    WARNING_STATE_CHANGED = 0x6300
    FILE_FILLED_UP = 0x6381
    COUNTER_ZERO = 0x63C0
    """63C0 to 63CF: see :func:`retries_left`."""

    EXECUTION_ERROR = 0x6400
    IMMEDIATE_RESPONSE_REQUIRED = 0x6401
    MEMORY_FAILURE = 0x6581

    WRONG_LENGTH = 0x6700
    CLASS_FUNCTION_NOT_SUPPORTED = 0x6800
    LOGICAL_CHANNEL_NOT_SUPPORTED = 0x6881
    SECURE_MESSAGING_NOT_SUPPORTED = 0x6882
    LAST_COMMAND_OF_CHAIN_EXPECTED = 0x6883
    COMMAND_CHAINING_NOT_SUPPORTED = 0x6884
    COMMAND_NOT_ALLOWED = 0x6900
    COMMAND_INCOMPATIBLE_WITH_FILE_STRUCTURE = 0x6981
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    AUTHENTICATION_METHOD_BLOCKED = 0x6983
    REFERENCE_DATA_NOT_USABLE = 0x6984
    CONDITIONS_OF_USE_NOT_SATISFIED = 0x6985
    NO_CURRENT_EF = 0x6986
    EXPECTED_SECURE_MESSAGING_OBJECTS_MISSING = 0x6987
    INCORRECT_SECURE_MESSAGING_OBJECTS = 0x6988
    WRONG_PARAMETERS = 0x6A00
    INCORRECT_DATA_FIELD = 0x6A80
    FUNCTION_NOT_SUPPORTED = 0x6A81
    FILE_OR_APPLICATION_NOT_FOUND = 0x6A82
    RECORD_NOT_FOUND = 0x6A83
    NOT_ENOUGH_MEMORY = 0x6A84
    NC_INCONSISTENT_WITH_TLV = 0x6A85
    INCORRECT_P1_P2 = 0x6A86
    NC_INCONSISTENT_WITH_P1_P2 = 0x6A87
    REFERENCED_DATA_NOT_FOUND = 0x6A88
    FILE_ALREADY_EXISTS = 0x6A89
    DF_NAME_ALREADY_EXISTS = 0x6A8A
    WRONG_P1_P2 = 0x6B00
    INSTRUCTION_NOT_SUPPORTED = 0x6D00
    CLASS_NOT_SUPPORTED = 0x6E00
    NO_PRECISE_DIAGNOSIS = 0x6F00


class _Sw1(enum.IntEnum):
    """First bytes whose second byte is a number or has a general meaning (ISO 7816-4, 5.6)."""

    BYTES_AVAILABLE = 0x61
    WARNING_STATE_UNCHANGED = 0x62
    WARNING_STATE_CHANGED = 0x63
    ERROR_STATE_UNCHANGED = 0x64
    ERROR_STATE_CHANGED = 0x65
    SECURITY_ISSUE = 0x66
    WRONG_LENGTH = 0x67
    CLASS_FUNCTION_NOT_SUPPORTED = 0x68
    COMMAND_NOT_ALLOWED = 0x69
    WRONG_PARAMETERS = 0x6A
    WRONG_P1_P2 = 0x6B
    WRONG_LE = 0x6C
    INSTRUCTION_NOT_SUPPORTED = 0x6D
    CLASS_NOT_SUPPORTED = 0x6E
    NO_PRECISE_DIAGNOSIS = 0x6F


# Plain numbers for what is asked about every response: an enum member costs a look-up each time.
_NORMAL: Final = StatusWord.NORMAL_PROCESSING.value
_MORE: Final = _Sw1.BYTES_AVAILABLE.value
_WRONG_LE: Final = _Sw1.WRONG_LE.value

_COUNTER_BITS: Final = 4
_COUNTER: Final = StatusWord.COUNTER_ZERO >> _COUNTER_BITS
_SHORT_MAXIMUM: Final = 256

_SENTENCES: Final[Mapping[int, str]] = MappingProxyType(
    {
        StatusWord.NORMAL_PROCESSING: "The command was done",
        StatusWord.DATA_MAY_BE_CORRUPTED: "Part of the returned data may be corrupted",
        StatusWord.END_OF_FILE_REACHED: "The end of the file or record was reached before all bytes were read",
        StatusWord.SELECTED_FILE_DEACTIVATED: "The selected file is deactivated",
        StatusWord.FILE_CONTROL_INFORMATION_NOT_FORMATTED: "The file control information is not formatted",
        StatusWord.SELECTED_FILE_TERMINATED: "The selected file is terminated",
        StatusWord.NO_SENSOR_INPUT: "The card has no input from its sensor",
        StatusWord.REFERENCED_RECORD_DEACTIVATED: "A referenced record is deactivated",
        StatusWord.FILE_FILLED_UP: "The file was filled up by the last write",
        StatusWord.EXECUTION_ERROR: "The card could not execute the command",
        StatusWord.IMMEDIATE_RESPONSE_REQUIRED: "The card requires an immediate response",
        StatusWord.MEMORY_FAILURE: "The card's memory failed",
        StatusWord.WRONG_LENGTH: "The length of the command is wrong",
        StatusWord.LOGICAL_CHANNEL_NOT_SUPPORTED: "The logical channel is not supported",
        StatusWord.SECURE_MESSAGING_NOT_SUPPORTED: "Secure messaging is not supported",
        StatusWord.LAST_COMMAND_OF_CHAIN_EXPECTED: "The last command of the chain was expected",
        StatusWord.COMMAND_CHAINING_NOT_SUPPORTED: "Command chaining is not supported",
        StatusWord.COMMAND_INCOMPATIBLE_WITH_FILE_STRUCTURE: "The command does not fit the file's structure",
        StatusWord.SECURITY_STATUS_NOT_SATISFIED: "The security status is not satisfied",
        StatusWord.AUTHENTICATION_METHOD_BLOCKED: "The authentication method is blocked",
        StatusWord.REFERENCE_DATA_NOT_USABLE: "The reference data cannot be used",
        StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED: "The conditions of use are not satisfied",
        StatusWord.NO_CURRENT_EF: "The command is not allowed, as no elementary file is selected",
        StatusWord.EXPECTED_SECURE_MESSAGING_OBJECTS_MISSING: "Secure messaging data objects are missing",
        StatusWord.INCORRECT_SECURE_MESSAGING_OBJECTS: "The secure messaging data objects are incorrect",
        StatusWord.INCORRECT_DATA_FIELD: "The parameters in the command's data field are incorrect",
        StatusWord.FUNCTION_NOT_SUPPORTED: "The function is not supported",
        StatusWord.FILE_OR_APPLICATION_NOT_FOUND: "The file or application was not found",
        StatusWord.RECORD_NOT_FOUND: "The record was not found",
        StatusWord.NOT_ENOUGH_MEMORY: "The file has not enough memory left",
        StatusWord.NC_INCONSISTENT_WITH_TLV: "The length of the data field contradicts its TLV structure",
        StatusWord.INCORRECT_P1_P2: "The parameters P1-P2 are incorrect",
        StatusWord.NC_INCONSISTENT_WITH_P1_P2: "The length of the data field contradicts P1-P2",
        StatusWord.REFERENCED_DATA_NOT_FOUND: "The referenced data were not found",
        StatusWord.FILE_ALREADY_EXISTS: "The file exists already",
        StatusWord.DF_NAME_ALREADY_EXISTS: "The name of the dedicated file exists already",
        StatusWord.WRONG_P1_P2: "The parameters P1-P2 are wrong, or the offset is outside the file",
    }
)

_GENERAL: Final[Mapping[int, str]] = MappingProxyType(
    {
        _Sw1.BYTES_AVAILABLE: "The command was done, and more data can be fetched",
        _Sw1.WARNING_STATE_UNCHANGED: "The card warns, and its memory is unchanged",
        _Sw1.WARNING_STATE_CHANGED: "The card warns, and its memory has changed",
        _Sw1.ERROR_STATE_UNCHANGED: "The execution failed, and the card's memory is unchanged",
        _Sw1.ERROR_STATE_CHANGED: "The execution failed, and the card's memory has changed",
        _Sw1.SECURITY_ISSUE: "The execution failed for a matter of security",
        _Sw1.WRONG_LENGTH: "The length of the command is wrong",
        _Sw1.CLASS_FUNCTION_NOT_SUPPORTED: "A function in the class byte is not supported",
        _Sw1.COMMAND_NOT_ALLOWED: "The command is not allowed",
        _Sw1.WRONG_PARAMETERS: "The parameters of the command are wrong",
        _Sw1.WRONG_P1_P2: "The parameters P1-P2 are wrong",
        _Sw1.WRONG_LE: "The expected length is wrong",
        _Sw1.INSTRUCTION_NOT_SUPPORTED: "The instruction is not supported",
        _Sw1.CLASS_NOT_SUPPORTED: "The class is not supported",
        _Sw1.NO_PRECISE_DIAGNOSIS: "The card gives no precise diagnosis",
    }
)


def is_success(status: int) -> bool:
    """True for 9000 and 61xx alone: normal processing (ISO 7816-4, 5.6). An unknown status is no success."""
    return status == _NORMAL or status >> 8 == _MORE


def bytes_available(status: int) -> int | None:
    """How many bytes GET RESPONSE can fetch: xx of 61xx, 256 for 6100; ``None`` for any other status."""
    return (status & 0xFF or _SHORT_MAXIMUM) if status >> 8 == _MORE else None


def correct_ne(status: int) -> int | None:
    """The Ne to repeat the command with: xx of 6Cxx, 256 for 6C00; ``None`` for any other status."""
    return (status & 0xFF or _SHORT_MAXIMUM) if status >> 8 == _WRONG_LE else None


def retries_left(status: int) -> int | None:
    """The counter in 63Cx, 0 to 15; ``None`` for any other status."""
    return status - StatusWord.COUNTER_ZERO if status >> _COUNTER_BITS == _COUNTER else None


def describe(status: int) -> str:
    """One sentence for people, with the status word in it."""
    return f"{_meaning(status)} ({status:04X})."


def _meaning(status: int) -> str:
    if (left := retries_left(status)) is not None:
        return "It failed, and no tries are left" if left == 0 else f"It failed, and tries are left: {left}"
    if (ne := correct_ne(status)) is not None:
        return f"The expected length is wrong, {ne} bytes are right"
    return _SENTENCES.get(status) or _GENERAL.get(status >> 8, "The status word is not one of ISO 7816-4")
