import pytest

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.tlv import Tlv


def nested(depth: int) -> bytes:
    encoded = b""
    for _ in range(depth):
        encoded = Tlv(0xA0, encoded).encode()
    return encoded


def test_a_file_control_parameter_template() -> None:
    (fcp,) = tlv.decode_all(bytes.fromhex("62 10 82 01 38 83 02 DF 02 84 07 D2 76 00 00 03 01 02"))
    assert fcp.tag == 0x62
    assert [child.tag for child in fcp.children] == [0x82, 0x83, 0x84]
    assert fcp.find(0x83) == Tlv(0x83, b"\xdf\x02")
    assert fcp.find(0x85) is None
    assert fcp.find(0x62) is None


def test_a_record_of_several_objects_is_searched_depth_first() -> None:
    record = bytes.fromhex("A0 03 83 01 84 B6 00 7A 0C 93 02 00 01 A4 06 83 01 81 83 01 83")
    objects = tlv.decode_all(record)
    assert [each.tag for each in objects] == [0xA0, 0xB6, 0x7A]
    assert tlv.find(objects, 0x83) == Tlv(0x83, b"\x84")
    assert tlv.find(objects, 0xB6) == Tlv(0xB6, b"")
    assert objects[2].find(0x83) == Tlv(0x83, b"\x81")
    assert tlv.encode_all(objects) == record


def test_nothing_is_an_empty_row() -> None:
    assert tlv.decode_all(b"") == ()


@pytest.mark.parametrize(
    ("length", "field"), [(0, "00"), (127, "7f"), (128, "8180"), (255, "81ff"), (256, "820100"), (65536, "83010000")]
)
def test_lengths_are_as_short_as_can_be(length: int, field: str) -> None:
    encoded = bytes.fromhex("53" + field) + bytes(length)
    assert Tlv(0x53, bytes(length)).encode() == encoded
    assert tlv.decode_all(encoded, max_size=70000) == (Tlv(0x53, bytes(length)),)
    assert tlv.decode_header(encoded[: 1 + len(field) // 2]) == (0x53, length, 1 + len(field) // 2)


@pytest.mark.parametrize("tag", [0x01, 0x5F1F, 0x5F2D, 0x7F21, 0x9F7F, 0x5F8101])
def test_tags_of_one_to_three_bytes(tag: int) -> None:
    encoded = Tlv(tag, b"").encode()
    assert encoded == tag.to_bytes(len(encoded) - 1, "big") + b"\0"
    assert tlv.decode_all(encoded)[0].tag == tag


def test_the_header_of_a_certificate_container_is_read_from_its_first_bytes() -> None:
    assert tlv.decode_header(bytes.fromhex("308202db0603550424308202d2")) == (0x30, 0x2DB, 4)


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("62", "a length should stand"),
        ("6205830100", "an object of 7 bytes"),
        ("62028302", "an object of 4 bytes"),
        ("6280830100" + "0000", "indefinite"),
        ("6281", "a length is cut off"),
        ("62820000", "more bytes than it needs"),
        ("62810100", "more bytes than it needs"),
        ("62817f", "more bytes than it needs"),
        ("6282007f", "more bytes than it needs"),
        ("628400000001ff", "a length has 4 bytes"),
        ("62850000000001ff", "a length has 5 bytes"),
        ("62ff", "a length has 127 bytes"),
        ("0000", "begins with 00"),
        ("830100" + "00", "begins with 00"),
        ("ff00", "begins with FF"),
        ("5f", "cut off or too long"),
        ("5f81", "cut off or too long"),
        ("5f81828300", "cut off or too long"),
        ("5f1e00", "longer than its number needs"),
        ("5f800100", "longer than its number needs"),
        ("a0038301", "an object of 5 bytes"),
        ("a003830201", "an object of 4 bytes"),
    ],
)
def test_what_breaks_the_rules_is_refused(encoded: str, why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why) as caught:
        tlv.decode_all(bytes.fromhex(encoded))
    assert caught.value.layer is Layer.CARD


def test_depth_is_bounded() -> None:
    assert tlv.decode_all(nested(tlv.MAX_DEPTH))
    with pytest.raises(ProtocolViolation, match="too deep"):
        tlv.decode_all(nested(tlv.MAX_DEPTH + 1))
    with pytest.raises(ProtocolViolation, match="too deep"):
        tlv.decode_all(nested(100))
    assert tlv.decode_all(nested(100), max_depth=100)


def test_a_search_in_a_made_object_is_bounded_too() -> None:
    made = Tlv(0xA0, nested(100))
    with pytest.raises(ProtocolViolation, match="too deep"):
        made.find(0x83)


def test_size_is_bounded() -> None:
    encoded = Tlv(0x53, bytes(60)).encode()
    assert tlv.decode_all(encoded, max_size=62)
    with pytest.raises(ProtocolViolation, match="62 bytes are more than the 61"):
        tlv.decode_all(encoded, max_size=61)
    with pytest.raises(ProtocolViolation, match="more than the 65536"):
        tlv.decode_all(bytes(tlv.MAX_SIZE + 1))


@pytest.mark.parametrize("tag", [-1, 0, 0xFF, 0x5F, 0x5F1E, 0x5F8001, 0x5F81, 0x8301, 0x5F818283])
def test_what_is_no_tag_is_the_callers_mistake(tag: int) -> None:
    with pytest.raises(ValueError):
        Tlv(tag, b"")


def test_a_value_that_no_length_field_holds_is_the_callers_mistake() -> None:
    assert Tlv(0x53, bytes(0xFFFFFF)).encode()[:4] == bytes.fromhex("5383FFFF")
    with pytest.raises(ValueError):
        Tlv(0x53, bytes(0x1000000))


def test_constructed_objects_are_made_of_their_children() -> None:
    made = Tlv.constructed_of(0xA0, [Tlv(0x83, b"\x80"), Tlv(0xB6, b"")])
    assert made.encode() == bytes.fromhex("A0 05 83 01 80 B6 00")
    with pytest.raises(ValueError):
        Tlv.constructed_of(0x83, [])


def test_a_primitive_object_has_no_children() -> None:
    assert Tlv(0x85, bytes.fromhex("830100")).children == ()
