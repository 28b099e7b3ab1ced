"""T=1 of the interface device: the scenarios of ISO/IEC 7816-3:2006, 11.6 and annex A (reliability: F40 to F44)."""

from collections.abc import Iterator

import pytest

from demail_hw.errors import CardMute, Layer, Outcome, ProtocolViolation
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1 import T1
from demail_hw.iso7816.t1_blocks import BadBlock, RError, decode_block, encode_block

MUTE = "mute"
PARITY = "parity"


def blocks(script: str) -> Iterator[tuple[str, str]]:
    """Pairs of what has to be sent and what is answered; the code at the end is left out."""
    for line in script.strip().splitlines():
        sent, answer = (part.strip() for part in line.split("->"))
        yield sent, answer


def play(t1: T1, command: str, script: str) -> bytes:
    """The response, after each block was what the script says."""
    exchange = t1.exchange((bytes.fromhex(command),))
    transmission = next(exchange)
    lines = list(blocks(script))
    try:
        for sent, answer in lines:
            data = b"".join(transmission.data)
            assert data[:-1].hex() + (f"*{transmission.waiting}" if transmission.waiting else "") == sent
            assert decode_block(data)
            lines = lines[1:]
            if answer in (MUTE, PARITY):
                transmission = exchange.throw(BadBlock(answer, RError.EDC if answer == PARITY else RError.OTHER))
            else:
                transmission = exchange.send(coded(answer))
    except StopIteration as done:
        assert not lines
        response: bytes = done.value
        return response
    raise AssertionError(f"it goes on with {b''.join(transmission.data).hex()}")


def coded(block: str) -> bytes:
    """With its LRC, or with a wrong one where a ``!`` stands at its end."""
    data = bytes.fromhex(block.rstrip("!"))
    code = 0
    for byte in data:
        code ^= byte
    return data + bytes((code ^ block.endswith("!"),))


def card(ifsc: int = 4) -> T1:
    return T1(ifsc=ifsc, checksum=Checksum.LRC)


SELECT = "00a40000"
I_SELECT = "00000400a40000"
DONE = "0000029000"

HEALED = {
    "nothing happens": f"{I_SELECT} -> {DONE}",
    "the answer is garbled": f"{I_SELECT} -> {DONE}!\n008100 -> {DONE}",
    "the reader hears a parity error": f"{I_SELECT} -> {PARITY}\n008100 -> {DONE}",
    "the answer is lost": f"{I_SELECT} -> {MUTE}\n008200 -> {DONE}",
    "the command is garbled": f"{I_SELECT} -> 008100\n{I_SELECT} -> {DONE}",
    "the command is lost": f"{I_SELECT} -> {MUTE}\n008200 -> 008000\n{I_SELECT} -> {DONE}",
    "two times noise": f"{I_SELECT} -> {DONE}!\n008100 -> {MUTE}\n008100 -> {DONE}",
    "noise again and again, but never three times in a row": f"{I_SELECT} -> {MUTE}\n008200 -> {MUTE}\n"
    f"008200 -> 00c30101\n00e30101*1 -> {MUTE}\n008200 -> {MUTE}\n008200 -> 00c30101\n00e30101*1 -> {DONE}!\n"
    f"008100 -> {DONE}",
    "asked for it again and again, with more time between": f"{I_SELECT} -> 008100\n{I_SELECT} -> 008100\n"
    f"{I_SELECT} -> 00c30101\n00e30101*1 -> 008100\n00e30101*1 -> 008100\n00e30101*1 -> {DONE}",
    "noise both ways": f"{I_SELECT} -> {MUTE}\n008200 -> {MUTE}\n008200 -> 008000\n{I_SELECT} -> {MUTE}\n"
    f"008200 -> {MUTE}\n008200 -> 008000\n{I_SELECT} -> {DONE}",
    "an R-block that asks for nothing": f"{I_SELECT} -> 009000\n008200 -> {DONE}",
    "a node address": f"{I_SELECT} -> 2100029000\n008200 -> {DONE}",
    "LEN FF": f"{I_SELECT} -> 0000ff{'00' * 255}\n008200 -> {DONE}",
    "reserved bits": f"{I_SELECT} -> 0001029000\n008200 -> {DONE}",
    "the wrong N(S)": f"{I_SELECT} -> 0040029000\n008200 -> {DONE}",
    "an empty block of a chain": f"{I_SELECT} -> 002000\n008200 -> {DONE}",
    "a response that nobody asked for": f"{I_SELECT} -> 00e30101\n008200 -> {DONE}",
    "RESYNCH by the card": f"{I_SELECT} -> 00c000\n008200 -> {DONE}",
    "the card does not hear that it has time": f"{I_SELECT} -> 00c30105\n00e30105*5 -> 008100\n00e30105*5 -> {DONE}",
    "the same, and it says so of the command": f"{I_SELECT} -> 00c30105\n00e30105*5 -> {DONE}!\n008100 -> 008000\n"
    f"00e30105*5 -> {DONE}",
    "IFS 0": f"{I_SELECT} -> 00c10100\n008200 -> {DONE}",
    "IFS 255": f"{I_SELECT} -> 00c101ff\n008200 -> {DONE}",
    "IFS 5": f"{I_SELECT} -> 00c10105\n00e10105 -> {DONE}",
    "more time": f"{I_SELECT} -> 00c30103\n00e30103*3 -> {DONE}",
    "more and more time": f"{I_SELECT} -> 00c30103\n00e30103*3 -> 00c30101\n00e30101*1 -> {DONE}",
    "as much more time as there is": f"{I_SELECT} -> 00c301ff\n00e301ff*255 -> {DONE}",
    "more time, of none": f"{I_SELECT} -> 00c30100\n008200 -> 00c30103\n00e30103*3 -> {DONE}",
    "more time, as it did not get the grant": f"{I_SELECT} -> 00c30103\n00e30103*3 -> 00c30103\n00e30103*3 -> {DONE}",
    "noise after more time": f"{I_SELECT} -> 00c30103\n00e30103*3 -> {DONE}!\n008100 -> {DONE}",
    "more time, said twice": f"{I_SELECT} -> 00c30103!\n008100 -> 00c30103\n00e30103*3 -> {DONE}",
}


@pytest.mark.parametrize("script", HEALED.values(), ids=HEALED)
def test_command_is_done_although(script: str) -> None:
    t1 = card()
    assert play(t1, SELECT, script).hex() == "9000"
    # The next command goes on with the next numbers.
    assert play(t1, SELECT, "00400400a40000 -> 0040026a82").hex() == "6a82"


LONG = "00a40000026f00"
CHAINED = {
    "as it should": "00200400a40000 -> 009000\n004003026f00 -> 0000029000",
    "with a piece that is garbled": (
        "00200400a40000 -> 008100\n00200400a40000 -> 009000\n004003026f00 -> 0000029000"
    ),
    "with an R-block that is garbled": ("00200400a40000 -> 009000!\n008100 -> 009000\n004003026f00 -> 0000029000"),
    "with longer blocks from then on": "00200400a40000 -> 00c10101\n00e10101 -> 009000\n00600102 -> 008000\n"
    "0020016f -> 009000\n00400100 -> 0000029000",
    "with an answer that comes too early": (
        "00200400a40000 -> 0000029000\n008200 -> 009000\n004003026f00 -> 0000029000"
    ),
}


@pytest.mark.parametrize("script", CHAINED.values(), ids=CHAINED)
def test_command_is_chained(script: str) -> None:
    assert play(card(), LONG, script).hex() == "9000"


RESPONSES = {
    "as it should": f"{I_SELECT} -> 0020020102\n009000 -> 0060020304\n008000 -> 0000029000",
    "with a piece that is garbled": f"{I_SELECT} -> 0020020102\n009000 -> 0060020304!\n009000 -> 0060020304\n"
    "008000 -> 0000029000",
    "with an R-block that is lost": f"{I_SELECT} -> 0020020102\n009000 -> {MUTE}\n009000 -> 0060020304\n"
    "008000 -> 0000029000",
    "with an R-block that is garbled": f"{I_SELECT} -> 0020020102\n009000 -> 009100\n009000 -> 0060020304\n"
    "008000 -> 0000029000",
    "with a piece that comes twice": f"{I_SELECT} -> 0020020102\n009000 -> 0020020102\n009000 -> 0060020304\n"
    "008000 -> 0000029000",
    "with more time between": f"{I_SELECT} -> 0020020102\n009000 -> 00c30102\n00e30102*2 -> 0060020304\n"
    "008000 -> 0000029000",
}


@pytest.mark.parametrize("script", RESPONSES.values(), ids=RESPONSES)
def test_response_is_put_together(script: str) -> None:
    assert play(card(), SELECT, script).hex() == "010203049000"


OUT_OF_STEP = f"{I_SELECT} -> {DONE}!\n008100 -> {MUTE}\n008100 -> {DONE}!\n"
NOT_TAKEN = f"{I_SELECT} -> 008100\n" * 3


@pytest.mark.parametrize("trouble", [OUT_OF_STEP, NOT_TAKEN])
@pytest.mark.parametrize("before", ["", f"00c000 -> {MUTE}\n", "00c000 -> 00e000!\n00c000 -> 008000\n"])
def test_command_is_not_sent_again_after_a_resynchronisation(trouble: str, before: str) -> None:
    t1 = card()
    with pytest.raises(ProtocolViolation, match="fell out of step") as caught:
        play(t1, SELECT, trouble + before + "00c000 -> 00e000")
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.layer is Layer.CARD
    assert play(t1, SELECT, f"{I_SELECT} -> {DONE}").hex() == "9000"


def test_card_that_repeats_its_last_response_did_not_get_the_command() -> None:
    t1 = card()
    play(t1, SELECT, f"{I_SELECT} -> {DONE}")
    script = f"00400400a40000 -> {MUTE}\n009200 -> {DONE}\n00400400a40000 -> 0040026a82"
    assert play(t1, SELECT, script).hex() == "6a82"


def test_response_that_comes_late_is_not_taken_for_the_next_one() -> None:
    """The card has done the command; what the reader hands out first is the response before."""
    t1 = card()
    play(t1, SELECT, f"{I_SELECT} -> {DONE}")
    script = f"00400400a40000 -> {DONE}\n009200 -> 0040026a82"
    assert play(t1, SELECT, script).hex() == "6a82"


def test_blocks_are_numbered_anew_after_a_resynchronisation() -> None:
    t1 = card()
    play(t1, SELECT, f"{I_SELECT} -> {DONE}")
    with pytest.raises(ProtocolViolation, match="fell out of step"):
        play(t1, SELECT, f"00400400a40000 -> {MUTE}\n" + f"009200 -> {MUTE}\n" * 2 + "00c000 -> 00e000")
    assert play(t1, SELECT, f"{I_SELECT} -> {DONE}").hex() == "9000"


def test_card_that_does_not_resynchronise_is_given_up() -> None:
    with pytest.raises(CardMute) as caught:
        play(card(), SELECT, OUT_OF_STEP + f"00c000 -> {MUTE}\n" * 3)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert isinstance(caught.value.__cause__, BadBlock)


@pytest.mark.parametrize("last", ["008000", MUTE])
def test_chain_that_the_card_aborts_is_over(last: str) -> None:
    with pytest.raises(ProtocolViolation, match="aborted") as caught:
        play(card(), LONG, f"00200400a40000 -> 00c200\n00e200 -> {last}")
    assert caught.value.outcome is Outcome.UNKNOWN


def test_other_errors_of_the_reader_go_through() -> None:
    exchange = card().exchange((b"\0\xa4\0\0",))
    next(exchange)
    with pytest.raises(KeyError):
        exchange.throw(KeyError())


def test_size_of_our_blocks_is_told_once_more_if_it_has_to_be() -> None:
    steps = card().negotiate_ifsd(254)
    request = b"".join(next(steps).data)
    assert request.hex() == "00c101fe3e"
    assert b"".join(steps.throw(BadBlock(MUTE)).data) == request
    assert b"".join(steps.send(coded("00e101fd")).data) == request
    with pytest.raises(StopIteration):
        steps.send(coded("00e101fe"))


def test_card_that_does_not_take_the_size_is_mute_and_was_sent_nothing() -> None:
    steps = card().negotiate_ifsd(254)
    next(steps)
    for _ in range(2):
        steps.send(coded("008200"))
    with pytest.raises(CardMute) as caught:
        steps.send(coded("008200"))
    assert caught.value.outcome is Outcome.NOT_SENT


def test_blocks_are_no_longer_than_the_reader_takes() -> None:
    exchange = T1(ifsc=254, checksum=Checksum.CRC, limit=100).exchange((bytes(150),))
    assert sum(map(len, next(exchange).data)) == 3 + 100 + 2


def test_crc_runs_over_both_ways() -> None:
    exchange = T1(ifsc=254, checksum=Checksum.CRC).exchange((b"\0\xa4\0\0",))
    sent = decode_block(b"".join(next(exchange).data), Checksum.CRC)
    with pytest.raises(StopIteration) as done:
        exchange.send(b"".join(encode_block(sent, Checksum.CRC)))
    assert done.value.value == b"\0\xa4\0\0"
