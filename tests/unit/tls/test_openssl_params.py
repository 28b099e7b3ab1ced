import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.tls.openssl.params import OwnedParams, answer, describe, read
from demail_hw.tls.openssl.structures import Param, ParamType

keys = st.binary(min_size=1, max_size=20).filter(lambda key: b"\0" not in key)
texts = st.text(max_size=40).filter(lambda text: "\0" not in text)
values = st.integers(min_value=0, max_value=2**4096) | texts | st.binary(max_size=80)


@given(st.dictionaries(keys, values, max_size=6))
def test_what_is_written_is_read(params):
    assert read(OwnedParams(params).address) == params


@pytest.mark.parametrize("address", [None, 0])
def test_no_list_is_an_empty_one(address):
    assert read(address) == {}
    answer(address, {b"bits": 1})


class Question:
    """What OpenSSL hands over when it asks: one parameter with room for the answer, or without."""

    def __init__(self, key, data_type, size, *, room=True):
        self.buffer = ctypes.create_string_buffer(b"\xee" * size, size)
        self.array = (Param * 2)()
        self.param = self.array[0]
        self.param.key, self.param.data_type, self.param.data_size = key, data_type, size
        self.param.data = ctypes.addressof(self.buffer) if room else None
        self.address = ctypes.addressof(self.array)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_integer_fills_its_room(number):
    question = Question(b"bits", ParamType.INTEGER, 8)
    answer(question.address, {b"bits": number, b"other": 1})
    assert ctypes.c_uint64.from_buffer(question.buffer).value == number
    assert question.param.return_size == 8


def test_a_string_ends_with_nul_where_there_is_room():
    question = Question(b"group", ParamType.UTF8_STRING, 12)
    answer(question.address, {b"group": "prime256v1"})
    assert question.buffer.raw == b"prime256v1\0\xee"
    assert question.param.return_size == 10


def test_a_string_without_room_for_nul():
    question = Question(b"group", ParamType.UTF8_STRING, 3)
    answer(question.address, {b"group": "abc"})
    assert question.buffer.raw == b"abc"


def test_asking_for_the_length_only():
    question = Question(b"pub", ParamType.OCTET_STRING, 0, room=False)
    answer(question.address, {b"pub": b"12345"})
    assert question.param.return_size == 5


@pytest.mark.parametrize("value", [2**16, "abc", b"abc"])
def test_no_room(value):
    question = Question(b"x", ParamType.OCTET_STRING, 2)
    with pytest.raises(ValueError, match="room"):
        answer(question.address, {b"x": value})
    assert question.buffer.raw == b"\xee\xee"


def test_what_is_not_known_is_not_answered():
    question = Question(b"x", ParamType.INTEGER, 4)
    answer(question.address, {b"y": 1})
    assert question.buffer.raw == b"\xee" * 4


@pytest.mark.parametrize(("raw", "data_type", "value"), [(b"\xff" * 4, ParamType.INTEGER, -1), (b"a\0", 4, "a")])
def test_what_openssl_says(raw, data_type, value):
    question = Question(b"x", data_type, len(raw))
    question.buffer.raw = raw
    assert read(question.address) == {b"x": value}


def test_a_description_names_types_and_has_no_values():
    array = describe({b"pad-mode": ParamType.INTEGER, b"saltlen": ParamType.UTF8_STRING})
    assert [(row.key, row.data_type, row.data, row.data_size) for row in array] == [
        (b"pad-mode", 1, None, 0),
        (b"saltlen", 4, None, 0),
        (None, 0, None, 0),
    ]
