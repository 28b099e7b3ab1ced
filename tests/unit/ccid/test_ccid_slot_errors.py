"""bError and bStatus as typed errors (CCID 1.10, table 6.2-2; reliability: F25, F28)."""

import pytest

from demail_hw.ccid.code_points import CommandStatus, IccStatus
from demail_hw.ccid.messages import DataBlock, Status
from demail_hw.ccid.slot_errors import SlotErrorCode, slot_error
from demail_hw.errors import CardMute, CardRemoved, Layer, Outcome, ReaderBusy, ReaderError, SlotError


def failure(code: int, icc: IccStatus = IccStatus.ACTIVE) -> DataBlock:
    return DataBlock(b"", Status(icc, CommandStatus.FAILED), code)


@pytest.mark.parametrize(
    ("response", "kind", "outcome", "transient"),
    [
        (failure(0xFE), CardMute, Outcome.UNKNOWN, False),
        (failure(0xFE, IccStatus.ABSENT), CardRemoved, Outcome.UNKNOWN, False),
        (failure(0xFB, IccStatus.ABSENT), CardRemoved, Outcome.UNKNOWN, False),
        (DataBlock(b"\x90\0", Status(IccStatus.INACTIVE)), CardRemoved, Outcome.UNKNOWN, False),
        (failure(0xE0), ReaderBusy, Outcome.NOT_SENT, True),
        (failure(0xF2), ReaderBusy, Outcome.NOT_SENT, True),
        (failure(0xFB), SlotError, Outcome.UNKNOWN, False),
        (failure(0xFC), SlotError, Outcome.UNKNOWN, False),
        (failure(0xFD), SlotError, Outcome.UNKNOWN, False),
        (failure(0xFF), SlotError, Outcome.UNKNOWN, False),
        (failure(0xF8), SlotError, Outcome.NOT_SENT, False),
        (failure(0xF7), SlotError, Outcome.NOT_SENT, False),
        (failure(0xF6), SlotError, Outcome.REFUSED, False),
        (failure(0xF5), SlotError, Outcome.REFUSED, False),
        (failure(0xF4), SlotError, Outcome.UNKNOWN, False),
        (failure(0xF3), SlotError, Outcome.REFUSED, False),
        (failure(0xF0), SlotError, Outcome.REFUSED, False),
        (failure(0xEF), SlotError, Outcome.REFUSED, False),
        (failure(0x00), SlotError, Outcome.REFUSED, False),
        (failure(0x01), SlotError, Outcome.REFUSED, False),
        (failure(0x7F), SlotError, Outcome.REFUSED, False),
        (failure(0x80), SlotError, Outcome.UNKNOWN, False),
        (failure(0x81), SlotError, Outcome.UNKNOWN, False),
        (failure(0xC0), SlotError, Outcome.UNKNOWN, False),
        (failure(0xC1), SlotError, Outcome.UNKNOWN, False),
    ],
)
def test_failure(response: DataBlock, kind: type[ReaderError], outcome: Outcome, transient: bool) -> None:
    error = slot_error(response)
    assert type(error) is kind
    assert (error.outcome, error.transient, error.layer) == (outcome, transient, Layer.READER)


def test_every_code_of_the_standard_has_a_sentence_of_its_own() -> None:
    texts = {str(slot_error(failure(code))) for code in SlotErrorCode}
    assert len(texts) == len(SlotErrorCode) - 1  # Both kinds of busy are one.


def test_slot_error_has_its_code() -> None:
    error = slot_error(failure(0xFD))
    assert isinstance(error, SlotError)
    assert error.code == 0xFD
    assert "bError FD" in str(error)


def test_bad_header_byte_is_named() -> None:
    assert "byte 8 of the command" in str(slot_error(failure(8)))


def test_outcome_is_what_the_caller_knows() -> None:
    for response in (failure(0xFE), failure(0xFB), failure(0xFE, IccStatus.ABSENT)):
        assert slot_error(response, outcome=Outcome.NOT_SENT).outcome is Outcome.NOT_SENT
