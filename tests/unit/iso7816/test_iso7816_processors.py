import dataclasses
from collections.abc import Callable, Iterable

import pytest

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.interfaces import Buffer, CardLimits, Deadline
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS, CommandApdu, ResponseApdu
from demail_hw.iso7816.processors import (
    CommandChaining,
    EndlessResponse,
    LeCorrection,
    ResponseChaining,
    Send,
    default_processors,
    get_response,
)

DEADLINE = 12.5
READ = CommandApdu(0, 0xB0, 0, 0, ne=256, name="READ BINARY")
SHORT = CardLimits(extended=False, max_command=261, max_response=258)
LONG = CardLimits(extended=True, max_command=65544, max_response=65538)


class Card:
    """Answers from a list and keeps what it was sent, as bytes."""

    def __init__(self, *responses: tuple[bytes, int]) -> None:
        self._responses = iter(responses)
        self.sent: list[str] = []

    def __call__(self, command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        assert deadline == DEADLINE
        self.sent.append(b"".join(command.encode()).hex())
        return ResponseApdu(*next(self._responses))


def always(data: bytes, status: int) -> Callable[[CommandApdu, Deadline], ResponseApdu]:
    return lambda command, deadline: ResponseApdu(data, status)


# --- Response chaining -----------------------------------------------------------------------------------------


def test_a_response_in_one_piece_is_left_alone() -> None:
    card = Card((b"abc", 0x9000))
    assert ResponseChaining().process(READ, card, DEADLINE) == ResponseApdu(b"abc", 0x9000)
    assert card.sent == ["00b0000000"]


def test_the_rest_is_fetched_with_the_length_that_the_card_names() -> None:
    card = Card((b"ab", 0x6103), (b"cde", 0x6100), (bytes(256), 0x6101), (b"z", 0x9000))
    response = ResponseChaining().process(READ, card, DEADLINE)
    assert response == ResponseApdu(b"abcde" + bytes(256) + b"z", 0x9000)
    assert card.sent == ["00b0000000", "00c0000003", "00c0000000", "00c0000001"]


def test_an_error_in_the_middle_is_the_status() -> None:
    card = Card((b"ab", 0x6103), (b"", 0x6F00))
    assert ResponseChaining().process(READ, card, DEADLINE).status == 0x6F00


@pytest.mark.parametrize(
    ("cla", "expected"),
    [
        (0x00, 0x00),
        (0x03, 0x03),
        (0x0C, 0x00),  # secure messaging is not carried over
        (0x11, 0x01),  # nor is command chaining
        (0x80, 0x00),
        (0x82, 0x02),
        (0x40, 0x40),
        (0x4F, 0x4F),
        (0x65, 0x45),
        (0x7A, 0x4A),
    ],
)
def test_get_response_keeps_the_logical_channel_alone(cla: int, expected: int) -> None:
    assert b"".join(get_response(cla, 256).encode()) == bytes((expected, 0xC0, 0, 0, 0))
    card = Card((b"", 0x6105), (b"hello", 0x9000))
    ResponseChaining().process(dataclasses.replace(READ, cla=cla), card, DEADLINE)
    assert card.sent[1] == f"{expected:02x}c0000005"


def test_no_more_is_fetched_than_was_asked_for() -> None:
    card = Card((b"ab", 0x61FF), (b"cdefgh", 0x6120))
    response = ResponseChaining().process(dataclasses.replace(READ, ne=8), card, DEADLINE)
    assert response == ResponseApdu(b"abcdefgh", 0x6120)
    assert card.sent[1:] == ["00c0000006"]


def test_nothing_is_fetched_for_a_command_without_le() -> None:
    card = Card((b"", 0x6110))
    response = ResponseChaining().process(dataclasses.replace(READ, ne=0), card, DEADLINE)
    assert response == ResponseApdu(b"", 0x6110)


def test_an_extended_ne_bounds_the_whole_response() -> None:
    card = Card((bytes(256), 0x6100), (bytes(256), 0x9000))
    response = ResponseChaining().process(dataclasses.replace(READ, ne=512), card, DEADLINE)
    assert response == ResponseApdu(bytes(512), 0x9000)


@pytest.mark.parametrize(
    ("chaining", "data", "why"),
    [
        (ResponseChaining(), b"", "brought no data"),
        (ResponseChaining(), b"x", "after 512 GET RESPONSE"),
        (ResponseChaining(max_commands=3), b"x", "after 3 GET RESPONSE"),
        (ResponseChaining(), bytes(256), "after 65536 bytes"),
        (ResponseChaining(max_total=1024), bytes(256), "after 1024 bytes"),
    ],
)
def test_a_response_without_end_is_an_error_of_its_own(chaining: ResponseChaining, data: bytes, why: str) -> None:
    with pytest.raises(EndlessResponse, match=why) as caught:
        chaining.process(READ, always(data, 0x6100), DEADLINE)
    assert isinstance(caught.value, ProtocolViolation)
    assert caught.value.layer is Layer.CARD
    assert "READ BINARY" in str(caught.value)


def test_get_response_is_sent_as_often_as_is_allowed() -> None:
    chaining = ResponseChaining(max_commands=3)
    card = Card((b"a", 0x6101), (b"b", 0x6101), (b"c", 0x6101), (b"d", 0x9000))
    assert chaining.process(READ, card, DEADLINE).data == b"abcd"
    card = Card((b"a", 0x6101), (b"b", 0x6101), (b"c", 0x6101), (b"d", 0x6101), (b"e", 0x9000))
    with pytest.raises(EndlessResponse):
        chaining.process(READ, card, DEADLINE)
    assert len(card.sent) == 4


# --- Le --------------------------------------------------------------------------------------------------------


def test_le_is_corrected_once() -> None:
    card = Card((b"", 0x6C0C), (bytes(12), 0x9000))
    assert LeCorrection().process(READ, card, DEADLINE) == ResponseApdu(bytes(12), 0x9000)
    assert card.sent == ["00b0000000", "00b000000c"]


def test_6c00_means_256() -> None:
    card = Card((b"", 0x6C00), (bytes(256), 0x9000))
    LeCorrection().process(dataclasses.replace(READ, ne=512), card, DEADLINE)
    assert card.sent == ["00b00000000200", "00b0000000"]


def test_a_second_correction_is_the_callers() -> None:
    card = Card((b"", 0x6C0C), (b"", 0x6C0B))
    assert LeCorrection().process(READ, card, DEADLINE).status == 0x6C0B
    assert len(card.sent) == 2


@pytest.mark.parametrize("ne", [0, 11, 12])
def test_the_same_le_is_not_sent_again_nor_a_greater_one(ne: int) -> None:
    card = Card((b"", 0x6C0C))
    assert LeCorrection().process(dataclasses.replace(READ, ne=ne), card, DEADLINE).status == 0x6C0C


@pytest.mark.parametrize("cla", [0x00, 0x0C, 0x10, 0x41, 0x80])
@pytest.mark.parametrize("ins", sorted(SECRET_INSTRUCTIONS))
def test_a_pin_is_never_sent_twice(cla: int, ins: int) -> None:
    card = Card((b"", 0x6C0C))
    verify = CommandApdu(cla, ins, 0, 0x81, (b"123456",), ne=256)
    assert LeCorrection().process(verify, card, DEADLINE) == ResponseApdu(b"", 0x6C0C)
    assert len(card.sent) == 1


# --- Command chaining ------------------------------------------------------------------------------------------


def test_a_command_that_fits_is_left_alone() -> None:
    card = Card((b"", 0x9000))
    command = CommandApdu(0, 0xD6, 0, 0, (bytes(255),), ne=256)
    CommandChaining.for_limits(SHORT).process(command, card, DEADLINE)
    assert card.sent == ["00d60000ff" + "00" * 255 + "00"]


def test_a_long_command_goes_in_pieces_of_255() -> None:
    card = Card((b"", 0x9000), (b"", 0x9000), (b"out", 0x9000))
    data = bytes(range(256)) * 2 + b"end"
    command = CommandApdu(0x80, 0x2A, 0x80, 0x86, (data[:1], data[1:300], data[300:]), ne=512)
    response = CommandChaining.for_limits(SHORT).process(command, card, DEADLINE)
    assert response == ResponseApdu(b"out", 0x9000)
    assert card.sent == [
        "902a8086ff" + data[:255].hex(),
        "902a8086ff" + data[255:510].hex(),
        "802a808605" + data[510:].hex() + "00",
    ]


def test_the_last_piece_may_be_a_full_one() -> None:
    card = Card((b"", 0x9000), (b"", 0x9000))
    CommandChaining.for_limits(SHORT).process(CommandApdu(0, 0xD6, 0, 0, (bytes(510),)), card, DEADLINE)
    assert [sent[:10] for sent in card.sent] == ["10d60000ff", "00d60000ff"]


def test_a_chain_is_short_throughout() -> None:
    card = Card((b"", 0x9000), (b"", 0x9000), (b"", 0x9000))
    limits = CardLimits(extended=True, max_command=100, max_response=65538)
    CommandChaining.for_limits(limits).process(CommandApdu(0, 0xD6, 0, 0, (bytes(188 + 94),), 512), card, DEADLINE)
    assert [len(sent) // 2 for sent in card.sent] == [99, 99, 100]
    assert card.sent[2].startswith("00d600005e")
    assert card.sent[2].endswith("00")


def test_pieces_are_views_of_the_callers_buffers() -> None:
    seen: list[tuple[Buffer, ...]] = []

    def send(command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        seen.append(command.data)
        return ResponseApdu(b"", 0x9000)

    secret = bytearray(b"x" * 300)
    CommandChaining.for_limits(SHORT).process(CommandApdu(0, 0x20, 0, 0x81, (secret,)), send, DEADLINE)
    secret[:] = bytes(300)
    assert [b"".join(data) for data in seen] == [bytes(255), bytes(45)]


def test_a_refused_piece_is_the_last_one() -> None:
    card = Card((b"", 0x6884))
    command = CommandApdu(0, 0xD6, 0, 0, (bytes(600),))
    assert CommandChaining.for_limits(SHORT).process(command, card, DEADLINE).status == 0x6884
    assert len(card.sent) == 1


def test_ne_is_cut_to_what_the_link_carries() -> None:
    card = Card((b"", 0x9000), (b"", 0x9000))
    CommandChaining.for_limits(SHORT).process(dataclasses.replace(READ, ne=65536), card, DEADLINE)
    medium = CardLimits(extended=True, max_command=2048, max_response=1026)
    CommandChaining.for_limits(medium).process(dataclasses.replace(READ, ne=65536), card, DEADLINE)
    assert card.sent == ["00b0000000", "00b00000000400"]


@pytest.mark.parametrize(("nc", "pieces"), [(300, [300]), (1015, [1015]), (1016, [255] * 3 + [251])])
def test_extended_length_is_used_as_far_as_it_reaches(nc: int, pieces: list[int]) -> None:
    sent: list[int] = []

    def send(command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        encoded = b"".join(command.encode())
        assert len(encoded) <= 1024
        sent.append(command.nc)
        return ResponseApdu(b"", 0x9000)

    limits = CardLimits(extended=True, max_command=1024, max_response=1024)
    CommandChaining.for_limits(limits).process(CommandApdu(0, 0xD6, 0, 0, (bytes(nc),), 300), send, DEADLINE)
    assert sent == pieces


@pytest.mark.parametrize(
    "limits",
    [CardLimits(False, 6, 258), CardLimits(True, 9, 258), CardLimits(False, 261, 2), CardLimits(True, 261, 0)],
)
def test_limits_that_leave_no_room_are_refused(limits: CardLimits) -> None:
    with pytest.raises(ValueError):
        CommandChaining.for_limits(limits)


# --- The stack -------------------------------------------------------------------------------------------------


def through(limits: CardLimits, card: Send, command: CommandApdu) -> ResponseApdu:
    send = card
    for processor in reversed(default_processors(limits)):
        send = stacked(processor.process, send)
    return send(command, DEADLINE)


def stacked(process: Callable[[CommandApdu, Send, Deadline], ResponseApdu], below: Send) -> Send:
    return lambda command, deadline: process(command, below, deadline)


def kinds(processors: Iterable[object]) -> list[type]:
    return [type(processor) for processor in processors]


def test_the_default_stack_depends_on_the_limits() -> None:
    assert kinds(default_processors(LONG)) == [ResponseChaining, LeCorrection]
    assert kinds(default_processors(SHORT)) == [ResponseChaining, LeCorrection, CommandChaining]
    narrow = LONG._replace(max_response=4096)
    assert kinds(default_processors(narrow)) == [ResponseChaining, LeCorrection, CommandChaining]


def test_a_chain_whose_le_was_wrong_begins_anew_and_its_response_is_fetched() -> None:
    card = Card((b"", 0x9000), (b"", 0x6C80), (b"", 0x9000), (bytes(128), 0x6180), (b"", 0x6C10), (bytes(16), 0x9000))
    decipher = CommandApdu(0, 0x2A, 0x80, 0x86, (bytes(257),), ne=256)
    assert through(SHORT, card, decipher) == ResponseApdu(bytes(144), 0x9000)
    first = "102a8086ff" + "00" * 255
    assert card.sent == [
        first,
        "002a808602000000",
        first,
        "002a808602000080",
        "00c0000080",
        "00c0000010",
    ]


def test_extended_length_goes_out_whole() -> None:
    card = Card((bytes(256), 0x9000))
    through(LONG, card, CommandApdu(0, 0x2A, 0x80, 0x86, (b"\0", bytes(256)), ne=256))
    assert card.sent == ["002a8086000101" + "00" * 257 + "0100"]
