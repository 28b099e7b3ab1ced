"""What a reader means by bError and bStatus (CCID 1.10, 6.2.6), as typed errors."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from demail_hw.ccid.code_points import CommandStatus, IccStatus
from demail_hw.ccid.messages import Response
from demail_hw.errors import CardMute, CardRemoved, Outcome, ReaderBusy, ReaderError, SlotError

__all__ = ["SlotErrorCode", "slot_error"]


class SlotErrorCode(enum.IntEnum):
    """bError of a failed command (CCID 1.10, table 6.2-2). 01 to 7F is the index of a bad byte, 81 to C0 the
    vendor's."""

    CMD_NOT_SUPPORTED = 0x00
    CMD_SLOT_BUSY = 0xE0
    PIN_CANCELLED = 0xEF
    PIN_TIMEOUT = 0xF0
    BUSY_WITH_AUTO_SEQUENCE = 0xF2
    DEACTIVATED_PROTOCOL = 0xF3
    PROCEDURE_BYTE_CONFLICT = 0xF4
    ICC_CLASS_NOT_SUPPORTED = 0xF5
    ICC_PROTOCOL_NOT_SUPPORTED = 0xF6
    BAD_ATR_TCK = 0xF7
    BAD_ATR_TS = 0xF8
    HW_ERROR = 0xFB
    XFR_OVERRUN = 0xFC
    XFR_PARITY_ERROR = 0xFD
    ICC_MUTE = 0xFE
    CMD_ABORTED = 0xFF


class _Meaning(NamedTuple):
    text: str
    outcome: Outcome


_MEANINGS: Final[Mapping[int, _Meaning]] = MappingProxyType(
    {
        SlotErrorCode.CMD_NOT_SUPPORTED: _Meaning("The reader does not support this command", Outcome.REFUSED),
        SlotErrorCode.PIN_CANCELLED: _Meaning("The PIN entry was cancelled on the reader", Outcome.REFUSED),
        SlotErrorCode.PIN_TIMEOUT: _Meaning("No PIN was entered on the reader in time", Outcome.REFUSED),
        SlotErrorCode.DEACTIVATED_PROTOCOL: _Meaning("The protocol is deactivated", Outcome.REFUSED),
        SlotErrorCode.PROCEDURE_BYTE_CONFLICT: _Meaning(
            "The card sent an impossible procedure byte", Outcome.UNKNOWN
        ),
        SlotErrorCode.ICC_CLASS_NOT_SUPPORTED: _Meaning("The card needs another voltage", Outcome.REFUSED),
        SlotErrorCode.ICC_PROTOCOL_NOT_SUPPORTED: _Meaning(
            "The reader does not speak the card's protocol", Outcome.REFUSED
        ),
        SlotErrorCode.BAD_ATR_TCK: _Meaning("The checksum of the card's answer to reset is wrong", Outcome.NOT_SENT),
        SlotErrorCode.BAD_ATR_TS: _Meaning("The card's answer to reset begins wrongly", Outcome.NOT_SENT),
        SlotErrorCode.HW_ERROR: _Meaning("The reader reports a hardware error", Outcome.UNKNOWN),
        SlotErrorCode.XFR_OVERRUN: _Meaning("The card sent more than the reader can take", Outcome.UNKNOWN),
        SlotErrorCode.XFR_PARITY_ERROR: _Meaning("The line between reader and card is disturbed", Outcome.UNKNOWN),
        SlotErrorCode.CMD_ABORTED: _Meaning("The reader aborted the command", Outcome.UNKNOWN),
    }
)
_HEADER_INDEXES: Final = range(0x01, 0x80)
_VENDOR_CODES: Final = range(0x81, 0xC1)
_BUSY: Final = frozenset({SlotErrorCode.CMD_SLOT_BUSY, SlotErrorCode.BUSY_WITH_AUTO_SEQUENCE})


def slot_error(response: Response, *, outcome: Outcome | None = None, for_card: bool = True) -> ReaderError:
    """The error behind a response that failed, or whose card is not there any more.

    ``outcome``: where no card command was sent; otherwise it is that of one with this answer. ``for_card``: False for
    a command of the reader's own, which needs no card.
    """
    code = response.error
    if not for_card:
        return _by_code(code, outcome)
    if response.status.icc is IccStatus.ABSENT:
        return CardRemoved("The card was taken out of the reader.", outcome=outcome)
    if response.status.command is not CommandStatus.FAILED:
        return CardRemoved("The card lost its power.", outcome=outcome)
    if code == SlotErrorCode.ICC_MUTE:
        return CardMute("The card does not answer.", outcome=outcome)
    return _by_code(code, outcome)


def _by_code(code: int, outcome: Outcome | None) -> ReaderError:
    if code in _BUSY:
        return ReaderBusy("The slot is busy with another command.")
    meaning = _MEANINGS.get(code) or _meaning_of_range(code)
    return SlotError(f"{meaning.text} (bError {code:02X}).", code=code, outcome=outcome or meaning.outcome)


def _meaning_of_range(code: int) -> _Meaning:
    if code in _HEADER_INDEXES:
        return _Meaning(f"The reader does not accept byte {code} of the command", Outcome.REFUSED)
    if code in _VENDOR_CODES:
        return _Meaning("The reader reports an error of its vendor", Outcome.UNKNOWN)
    return _Meaning("The reader reports an unknown error", Outcome.UNKNOWN)
