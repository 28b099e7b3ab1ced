"""The card's end of T=1 and T=0 takes any bytes, and does no command that did not come whole."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1 import T1
from demail_hw.iso7816.t1_blocks import decode_block
from demail_hw.iso7816.tpdu import Transmissions
from demail_hw_simulators.card.timing import TimedAnswer
from demail_hw_simulators.card_link_t0 import T0Card
from demail_hw_simulators.card_link_t1 import T1Card

PCBS = st.sampled_from([0x00, 0x40, 0x20, 0x60, 0x80, 0x90, 0x81, 0x92, 0xC0, 0xC1, 0xC2, 0xC3, 0xE1, 0xE2, 0xE3])


def lrc(block: bytes) -> bytes:
    code = 0
    for byte in block:
        code ^= byte
    return block + bytes((code,))


def block(pcb: int, data: bytes) -> bytes:
    return lrc(bytes((0, pcb, len(data))) + data)


BLOCKS = st.one_of(st.binary(max_size=260), st.builds(block, PCBS, st.binary(max_size=40)))


@given(st.lists(BLOCKS, max_size=30), st.binary(min_size=2, max_size=100), st.sampled_from([0.0, 5.0]))
def test_t1_answers_every_block_with_a_block(blocks: list[bytes], response: bytes, seconds: float) -> None:
    card = T1Card(lambda _: TimedAnswer(response, seconds), checksum=Checksum.LRC, ifsc=32, waiting=1.0)
    for each in blocks:
        answer = card.exchange(each)
        decode_block(answer.response)
        assert 0 <= answer.seconds <= 255


def run(exchange: Transmissions, card: T1Card) -> bytes:
    sent = next(exchange)
    while True:
        try:
            sent = exchange.send(card.exchange(b"".join(sent.data)).response)
        except StopIteration as end:
            return bytes(end.value)


@given(st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=4), st.sampled_from(Checksum))
def test_both_ends_of_t1_carry_any_command(commands: list[bytes], checksum: Checksum) -> None:
    card = T1Card(lambda apdu: TimedAnswer(apdu[::-1] + b"\x90\0", 5.0), checksum=checksum, ifsc=17, waiting=1.0)
    host = T1(ifsc=17, checksum=checksum)
    for command in commands:
        assert run(host.exchange((command,)), card) == command[::-1] + b"\x90\0"


@given(st.lists(st.binary(max_size=300), max_size=10), st.binary(min_size=2, max_size=600))
def test_t0_answers_everything_with_a_status(tpdus: list[bytes], response: bytes) -> None:
    card = T0Card(lambda _: TimedAnswer(response, 0.0))
    for tpdu in tpdus:
        assert len(card.exchange(tpdu).response) >= 2
