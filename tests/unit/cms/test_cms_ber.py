"""The bounded BER reader (X.690)."""

import pytest

from demail_hw.cms.ber import MAX_DEPTH, MAX_ELEMENTS, Fields, Tag, decode
from demail_hw.errors import Layer, Outcome, ProtocolViolation


def test_definite_lengths() -> None:
    element = decode(bytes.fromhex("3006 020105 0401aa".replace(" ", "")) + b"trailing")
    assert element.tag == Tag.SEQUENCE
    assert element.encoding == bytes.fromhex("3006 020105 0401aa".replace(" ", ""))
    assert [child.tag for child in element.children] == [Tag.INTEGER, Tag.OCTET_STRING]
    assert element.children[0].integer() == 5
    assert element.children[1].octets() == b"\xaa"


def test_indefinite_lengths_nest() -> None:
    element = decode(bytes.fromhex("3080 3080 020107 0000 040101 0000".replace(" ", "")))
    assert element.children[0].children[0].integer() == 7
    assert element.children[1].octets() == b"\x01"
    assert bytes(element.encoding[-2:]) == b"\0\0"


@pytest.mark.parametrize(
    "encoding",
    [
        "0403616263",
        "2480040161040262630000",
        "2407040161240204 00",
        "24070401610402 6263",
        "a080 2480 0401610000 040262630000",
    ],
)
def test_octet_strings_in_pieces(encoding: str) -> None:
    assert decode(bytes.fromhex(encoding.replace(" ", ""))).octets() in (b"abc", b"a")


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("06092a864886f70d010703", "1.2.840.113549.1.7.3"),
        ("0603883703", "2.999.3"),
        ("06012a", "1.2"),
        ("060100", "0.0"),
        ("060127", "0.39"),
        ("0602677f", "2.23.127"),
    ],
)
def test_object_identifiers(encoding: str, value: str) -> None:
    """X.690, 8.19.5 has 2.999.3."""
    assert decode(bytes.fromhex(encoding)).object_identifier() == value


@pytest.mark.parametrize(("encoding", "value"), [("0201ff", -1), ("02020080", 128), ("020180", -128), ("020100", 0)])
def test_integers(encoding: str, value: int) -> None:
    assert decode(bytes.fromhex(encoding)).integer() == value


@pytest.mark.parametrize(
    "encoding",
    [
        "",
        "30",
        "3001",
        "300302",
        "3003020200",  # the inner value goes beyond the outer one
        "30820001",
        "3089000000000000000000",
        "0480",
        "3080020100",
        "3002 3080 0000",  # the end-of-contents octets lie outside the outer value
        "1f8101",
        "3f8101",
    ],
)
def test_broken_encodings(encoding: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode(bytes.fromhex(encoding.replace(" ", "")))
    assert caught.value.layer is Layer.KEYS
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("encoding", ["0600", "060181", "0621" + "2a" * 33, "2600"])
def test_broken_object_identifiers(encoding: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode(bytes.fromhex(encoding)).object_identifier()


@pytest.mark.parametrize("encoding", ["0200", "0241" + "01" * 65, "2200"])
def test_broken_integers(encoding: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode(bytes.fromhex(encoding)).integer()


def test_pieces_of_another_type_are_no_octet_string() -> None:
    with pytest.raises(ProtocolViolation, match="other things"):
        decode(bytes.fromhex("2403020161")).octets()


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> bytes:
        return b"\x30\x80" * levels + b"\0\0" * levels

    assert decode(nested(MAX_DEPTH + 1)).tag == Tag.SEQUENCE
    with pytest.raises(ProtocolViolation, match="nested"):
        decode(nested(MAX_DEPTH + 2))


def test_the_number_of_elements_is_bounded() -> None:
    many = b"\x05\x00" * MAX_ELEMENTS * 2
    with pytest.raises(ProtocolViolation, match="too many"):
        decode(b"\x30\x84" + len(many).to_bytes(4, "big") + many)


def test_a_long_string_in_pieces_is_within_the_bounds() -> None:
    piece = b"\x04\x82\x01\x00" + bytes(256)
    assert len(decode(b"\x24\x80" + piece * (MAX_ELEMENTS + 9000) + b"\0\0").octets()) == 256 * (MAX_ELEMENTS + 9000)


def test_fields_are_taken_in_order() -> None:
    fields = Fields(decode(bytes.fromhex("3009 020101 8001ff 040101".replace(" ", ""))))
    assert fields.optional(Tag.CONTEXT_0) is None
    assert fields.take(Tag.INTEGER).integer() == 1
    assert fields.optional(Tag.CONTEXT_0) is not None
    with pytest.raises(ProtocolViolation, match="lacks its integer"):
        fields.take(Tag.INTEGER)
    assert fields.any() is not None
    assert fields.any() is None
    with pytest.raises(ProtocolViolation, match="lacks its octet string"):
        fields.take(Tag.OCTET_STRING)


@pytest.mark.parametrize("encoding", ["3100", "1000", "0400"])
def test_fields_want_a_constructed_sequence(encoding: str) -> None:
    with pytest.raises(ProtocolViolation, match="sequence belongs"):
        Fields(decode(bytes.fromhex(encoding)))


@pytest.mark.parametrize("encoding", ["a000", "a006020101020102", "8000"])
def test_an_explicit_tag_holds_one_value(encoding: str) -> None:
    with pytest.raises(ProtocolViolation, match="exactly one"):
        decode(bytes.fromhex(encoding)).inner()
