import pytest

from demail_hw.iso7816.status import (
    StatusWord,
    bytes_available,
    correct_ne,
    describe,
    is_success,
    retries_left,
)

# What TCOS cards and their clients use.
USED = """
6281 6282 6283 6581 6700 6881 6882 6883 6884 6900 6981 6982 6983 6985 6986 6987 6988
6A80 6A81 6A82 6A83 6A84 6A85 6A86 6A87 6A88 6A89 6A8A 6B00 6D00 6E00 6F00 9000
"""


@pytest.mark.parametrize("status", [int(word, 16) for word in USED.split()])
def test_every_status_word_in_use_has_a_name_and_a_sentence(status: int) -> None:
    assert StatusWord(status) == status
    sentence = describe(status)
    assert sentence.endswith(f"({status:04X}).")
    assert "not one of ISO 7816-4" not in sentence


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (0x6A82, "The file or application was not found (6A82)."),
        (0x63C2, "It failed, and tries are left: 2 (63C2)."),
        (0x63C0, "It failed, and no tries are left (63C0)."),
        (0x6C00, "The expected length is wrong, 256 bytes are right (6C00)."),
        (0x6110, "The command was done, and more data can be fetched (6110)."),
        (0x6AFF, "The parameters of the command are wrong (6AFF)."),
        (0x9001, "The status word is not one of ISO 7816-4 (9001)."),
        (0x0000, "The status word is not one of ISO 7816-4 (0000)."),
    ],
)
def test_sentences(status: int, sentence: str) -> None:
    assert describe(status) == sentence


def test_names_are_unique() -> None:
    assert len(StatusWord) == len(StatusWord.__members__)


def test_of_all_status_words_only_normal_processing_is_success() -> None:
    successful = {status for status in range(0x10000) if is_success(status)}
    assert successful == {0x9000, *range(0x6100, 0x6200)}


def test_the_counter_is_read_from_63cx_alone() -> None:
    counters = {status: left for status in range(0x10000) if (left := retries_left(status)) is not None}
    assert counters == {0x63C0 + left: left for left in range(16)}


def test_lengths_are_read_from_61xx_and_6cxx_alone() -> None:
    numbers = {low: low or 256 for low in range(256)}
    available = {status: n for status in range(0x10000) if (n := bytes_available(status)) is not None}
    assert available == {0x6100 + low: number for low, number in numbers.items()}
    correct = {status: n for status in range(0x10000) if (n := correct_ne(status)) is not None}
    assert correct == {0x6C00 + low: number for low, number in numbers.items()}
