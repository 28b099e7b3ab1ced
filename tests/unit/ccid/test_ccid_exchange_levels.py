"""Chaining at the extended-APDU level (CCID 1.10, 6.1.4 and 6.2.1), and its bounds (reliability: F46, F47)."""

import dataclasses
from collections.abc import Iterator

import pytest

from demail_hw.ccid.code_points import ChainParameter, LevelParameter
from demail_hw.ccid.exchange_levels import ExtendedApduLevel
from demail_hw.ccid.messages import DataBlock
from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816.limits import MAX_COMMAND_APDU, MAX_RESPONSE_APDU
from demail_hw_simulators.ccid_device import UTRUST_2700F

LEVEL = ExtendedApduLevel(UTRUST_2700F.descriptor)
CAPACITY = 1024
NEXT = DataBlock(chain=ChainParameter.NEXT)


def run(command: tuple[bytes, ...], answers: Iterator[DataBlock]) -> tuple[bytes, list[tuple[int, int]]]:
    """The response, and level and length of every block that was sent."""
    exchange = LEVEL.exchange(command)
    sent = []
    block = next(exchange)
    while True:
        sent.append((block.level, sum(map(len, block.data))))
        try:
            block = exchange.send(next(answers))
        except StopIteration as done:
            return done.value, sent


def test_apdu_that_fits_is_one_block_with_its_own_buffers() -> None:
    secret = bytearray(8)
    command = (b"\0\x20\0\0\x08", secret)
    block = next(LEVEL.exchange(command))
    assert block.data[1] is secret
    assert block.level == LevelParameter.WHOLE


@pytest.mark.parametrize(
    ("length", "levels"),
    [
        (CAPACITY, [0]),
        (CAPACITY + 1, [1, 2]),
        (2 * CAPACITY, [1, 2]),
        (2 * CAPACITY + 1, [1, 3, 2]),
        (MAX_COMMAND_APDU, [1, *[3] * 63, 2]),
    ],
)
def test_command_is_cut_where_messages_end(length: int, levels: list[int]) -> None:
    answers = iter([*[NEXT] * (len(levels) - 1), DataBlock(b"\x90\0")])
    response, sent = run((bytes(5), bytes(length - 5)), answers)
    assert response == b"\x90\0"
    assert [level for level, _ in sent] == levels
    assert sum(size for _, size in sent) == length
    assert all(size == CAPACITY for _, size in sent[:-1])


def test_pieces_are_views_of_the_callers_buffers() -> None:
    data = bytearray(3000)
    exchange = LEVEL.exchange((b"\0" * 7, data))
    first = next(exchange)
    second = exchange.send(NEXT)
    data[0] = data[1017] = 0xAA
    assert bytes(first.data[1])[0] == 0xAA
    assert bytes(second.data[0])[0] == 0xAA
    exchange.close()


def test_response_in_blocks_is_put_together() -> None:
    blocks = [
        DataBlock(b"abc", chain=ChainParameter.BEGINS),
        DataBlock(b"def", chain=ChainParameter.CONTINUES),
        DataBlock(b"g\x90\0", chain=ChainParameter.ENDS),
    ]
    response, sent = run((b"\0\xb0\0\0\0",), iter(blocks))
    assert response == b"abcdefg\x90\0"
    assert sent == [(LevelParameter.WHOLE, 5), (LevelParameter.NEXT, 0), (LevelParameter.NEXT, 0)]


def test_longest_response_is_taken_and_a_longer_one_is_not() -> None:
    def blocks(length: int) -> Iterator[DataBlock]:
        yield DataBlock(bytes(CAPACITY), chain=ChainParameter.BEGINS)
        for start in range(CAPACITY, length - CAPACITY, CAPACITY):
            assert start
            yield DataBlock(bytes(CAPACITY), chain=ChainParameter.CONTINUES)
        yield DataBlock(bytes(length % CAPACITY or CAPACITY), chain=ChainParameter.ENDS)

    response, _ = run((b"\0\xb0\0\0\0",), blocks(MAX_RESPONSE_APDU))
    assert len(response) == MAX_RESPONSE_APDU
    with pytest.raises(ProtocolViolation, match="more than 65538 bytes"):
        run((b"\0\xb0\0\0\0",), blocks(MAX_RESPONSE_APDU + 1))


@pytest.mark.parametrize(
    "answers",
    [
        [DataBlock(b"x", chain=ChainParameter.ENDS)],
        [DataBlock(b"x", chain=ChainParameter.CONTINUES)],
        [NEXT],
        [DataBlock(b"x", chain=0x55)],
        [DataBlock(b"x", chain=ChainParameter.BEGINS), DataBlock(b"x", chain=ChainParameter.BEGINS)],
        [DataBlock(b"x", chain=ChainParameter.BEGINS), DataBlock(b"x")],
        [DataBlock(b"x", chain=ChainParameter.BEGINS), DataBlock(b"", chain=ChainParameter.CONTINUES)],
        [DataBlock(b"x", chain=ChainParameter.BEGINS), DataBlock(b"", chain=ChainParameter.ENDS)],
    ],
)
def test_response_chain_against_the_standard_is_a_violation(answers: list[DataBlock]) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        run((b"\0\xb0\0\0\0",), iter(answers))
    assert caught.value.layer is Layer.READER


@pytest.mark.parametrize(
    "answer", [DataBlock(b"\x90\0"), DataBlock(b"x", chain=ChainParameter.NEXT), DataBlock(b"x", chain=1)]
)
def test_answer_before_the_command_is_over_is_a_violation(answer: DataBlock) -> None:
    with pytest.raises(ProtocolViolation, match="before it has the whole command"):
        run((bytes(2000),), iter([answer]))


def test_command_that_is_too_long_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="65545"):
        next(LEVEL.exchange((bytes(MAX_COMMAND_APDU), b"\0")))


def test_limits_are_those_of_iso_7816_4() -> None:
    assert LEVEL.limits == (True, MAX_COMMAND_APDU, MAX_RESPONSE_APDU)


def test_smallest_messages_are_enough() -> None:
    level = ExtendedApduLevel(dataclasses.replace(UTRUST_2700F.descriptor, max_message_length=11))
    exchange = level.exchange((b"\0\xa4\4\0",))
    blocks = [next(exchange), exchange.send(NEXT), exchange.send(NEXT), exchange.send(NEXT)]
    assert [b"".join(block.data) for block in blocks] == [b"\0", b"\xa4", b"\4", b"\0"]
    exchange.close()
