"""The records of EF.PK in both forms."""

import pytest

from demail_hw.errors import CardError, Outcome
from demail_hw.tcos.public_key_file import RecordForm, decode_number


@pytest.mark.parametrize(
    ("form", "record", "number"),
    [
        (RecordForm.PLAIN, "010001", 65537),
        (RecordForm.PLAIN, "00010001", 65537),
        (RecordForm.SIMPLE_TLV, "0103010001", 65537),
        (RecordForm.SIMPLE_TLV, "fe0400010001", 65537),
        (RecordForm.SIMPLE_TLV, "0180" + "c3" * 128, int("c3" * 128, 16)),
    ],
)
def test_a_number(form: RecordForm, record: str, number: int) -> None:
    assert decode_number(bytes.fromhex(record), form) == number


@pytest.mark.parametrize("record", ["", "01", "0104010001", "0102010001", "01ff0003010001"])
def test_a_broken_data_object(record: str) -> None:
    with pytest.raises(CardError, match="malformed") as caught:
        decode_number(bytes.fromhex(record), RecordForm.SIMPLE_TLV)
    assert caught.value.outcome is Outcome.NOT_SENT
