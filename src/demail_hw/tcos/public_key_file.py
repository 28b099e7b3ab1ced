"""EF.PK: the public half of a key, as TCOS keeps it in records beside the private half."""

import dataclasses
import enum
from typing import Final, assert_never

from demail_hw.errors import CardError, Outcome

__all__ = ["EXPONENT_RECORD", "MODULUS_RECORD", "PublicKeyParts", "RecordForm", "decode_number"]

MODULUS_RECORD: Final = 1
EXPONENT_RECORD: Final = 2

_SIMPLE_TLV_HEADER: Final = 2
_LONG_FORM: Final = 0xFF


class RecordForm(enum.Enum):
    """How a record holds its number."""

    PLAIN = "big-endian, nothing else (TCOS 3)"
    SIMPLE_TLV = "big-endian in a SIMPLE-TLV data object (TCOS 2; ISO 7816-4, 6.2)"


@dataclasses.dataclass(frozen=True, slots=True)
class PublicKeyParts:
    """An RSA public key as EF.PK holds it."""

    modulus: int
    exponent: int


def decode_number(record: bytes, form: RecordForm) -> int:
    """The number in a record.

    Errors: :class:`~demail_hw.errors.CardError` if the record is not of this form.
    """
    match form:
        case RecordForm.PLAIN:
            return int.from_bytes(record, "big")
        case RecordForm.SIMPLE_TLV:
            return int.from_bytes(_simple_tlv_value(record), "big")
        case _:
            assert_never(form)


def _simple_tlv_value(record: bytes) -> bytes:
    """The value; its tag only numbers the record. Lengths above 254 do not fit into a record of these cards."""
    header, value = record[:_SIMPLE_TLV_HEADER], record[_SIMPLE_TLV_HEADER:]
    if len(header) < _SIMPLE_TLV_HEADER or header[1] == _LONG_FORM or header[1] != len(value):
        raise CardError(
            f"A record of the card's public key is malformed: it is no SIMPLE-TLV object of {len(record)} bytes.",
            command="READ RECORD",
            outcome=Outcome.NOT_SENT,
        )
    return value
