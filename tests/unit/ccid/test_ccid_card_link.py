"""The card's end of the line: PPS, T=1 and T=0, block by block, and against our own end of it."""

import math
from functools import reduce
from operator import xor

import pytest

from demail_hw.errors import HardwareError, ProtocolViolation
from demail_hw.iso7816 import t0
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1 import T1
from demail_hw.iso7816.t1_blocks import BadBlock
from demail_hw.iso7816.tpdu import Transmissions
from demail_hw_simulators.card.personality import TimingSpec
from demail_hw_simulators.card.timing import TimedAnswer, TimedCard, TimingModel, waiting_time
from demail_hw_simulators.card_link import SILENCE, CardLine, CardLink
from demail_hw_simulators.card_link_faults import (
    AbortRequest,
    DroppedAnswer,
    DroppedBlock,
    ExtensionForEver,
    FaultyLink,
    LineFault,
    NoiseToCard,
    RepeatedAnswer,
    WrongEdc,
    WrongMultiplier,
    WrongSendSequence,
)
from demail_hw_simulators.card_link_t0 import T0Card
from demail_hw_simulators.card_link_t1 import T1Card
from demail_hw_simulators.interfaces import SimulatedCard

T1_ATR = bytes.fromhex("3bbf96008131fe5d00640411030131c073f701d00090007d")
T0_ATR = bytes.fromhex("3b1f96 0064041103 0131c073f701d0009000")
BOTH_ATR = bytes.fromhex("3b9096800187")
"""T=0 and T=1, TA1 = 96."""
SPECIFIC_ATR = bytes.fromhex("3b9096110116")
"""T=1 and nothing else, by TA2."""


class Echo:
    """Gives back its command, or what it was told to."""

    def __init__(self, response: bytes | None = None, *, atr: bytes = T1_ATR, seconds: float = 0.0) -> None:
        self.atr = atr
        self.response = response
        self.seconds = seconds
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        return self.atr

    def power_off(self) -> None:
        self.commands.clear()

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return command + b"\x90\0" if self.response is None else self.response

    def work(self, command: bytes) -> TimedAnswer:
        return TimedAnswer(self.transmit(command), self.seconds)


def lrc(text: str) -> bytes:
    """A block, whose LRC is put behind it."""
    block = bytes.fromhex(text)
    return block + bytes((reduce(xor, block),))


def t1_card(card: Echo, *, checksum: Checksum = Checksum.LRC) -> T1Card:
    return T1Card(card.work, checksum=checksum, ifsc=32, waiting=1.0)


def says(card: T1Card | T0Card | CardLink, sent: bytes) -> bytes:
    return card.exchange(sent).response


def run(exchange: Transmissions, link: CardLink) -> bytes:
    """Our end of the line against the card's. Silence is what a reader makes of it, an error."""
    transmission = next(exchange)
    while True:
        answer = says(link, b"".join(transmission.data))
        try:
            transmission = exchange.send(answer) if answer else exchange.throw(BadBlock("nothing came"))
        except StopIteration as end:
            return bytes(end.value)


def slow(card: Echo) -> TimedCard:
    """It asks for time before each answer."""
    spec = TimingSpec(commands={}, other=2 * waiting_time(T1_ATR), operations=(), spread=0.0)
    return TimedCard(card, TimingModel(spec, atr=T1_ATR, seed=0))


def powered(card: SimulatedCard, fault: LineFault | None = None, **how: int) -> CardLink:
    link: CardLink = CardLine(card)
    if fault is not None:
        link = FaultyLink(link, fault, **how)
    link.power_on()
    return link


# --- PPS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "answer", "protocol"),
    [
        ("ff11967 8", "ff119678", 1),
        ("ff1095 7a", "ff10957a", 0),
        ("ff00 ff", "ff00ff", 0),
        ("ff119 779", "ff01fe", 1),  # faster than it can: no PPS1
        ("ff0ef1", "", 0),  # T=14 is none of its protocols
        ("ff119679", "", 0),  # a wrong PCK
    ],
)
def test_pps(request_: str, answer: str, protocol: int) -> None:
    link = powered(Echo(atr=BOTH_ATR))

    assert says(link, bytes.fromhex(request_.replace(" ", ""))) == bytes.fromhex(answer)
    assert link.protocol == protocol


def test_pps_is_one_only_directly_after_the_reset() -> None:
    link = powered(Echo(atr=BOTH_ATR))
    says(link, bytes.fromhex("0084000001"))
    assert link.exchange(bytes.fromhex("ff119678")) == SILENCE

    link.power_on()
    assert says(link, bytes.fromhex("ff119678"))


def test_card_in_specific_mode_takes_no_pps() -> None:
    assert powered(Echo(atr=SPECIFIC_ATR)).exchange(bytes.fromhex("ff119678")) == SILENCE


def test_card_without_power_and_card_without_an_atr_say_nothing() -> None:
    link = CardLine(Echo())
    assert link.exchange(lrc("00c101fe")) == SILENCE
    assert powered(Echo(atr=b"\x3b")).exchange(lrc("00c101fe")) == SILENCE
    link.power_on()
    link.power_off()
    assert link.exchange(lrc("00c101fe")) == SILENCE


# --- T=1 ---------------------------------------------------------------------------------------------------------


def test_t1_block_by_block_as_recorded() -> None:
    card = t1_card(Echo(b"\x90\0"))
    for sent, answer in (
        ("00c101fc3c", "00e101fc1c"),
        ("00000400a40400a4", "000002900092"),
        ("00400500b0000000f5", "0040029000d2"),
    ):
        assert says(card, bytes.fromhex(sent)).hex() == answer


def test_t1_chains_both_ways() -> None:
    inner = Echo()
    card = t1_card(inner)
    assert says(card, lrc("002003 00a404")) == lrc("009000")
    assert says(card, lrc("004002 0012")) == lrc("000007 00a4040012 9000")

    inner.response = bytes(range(40)) + b"\x90\0"
    first = says(card, lrc("000001 aa"))
    assert first == lrc("006020" + bytes(range(32)).hex())
    assert says(card, lrc("008000")) == lrc("00000a" + bytes(range(32, 40)).hex() + "9000")
    assert inner.commands == [bytes.fromhex("00a4040012"), b"\xaa"]


def test_t1_says_again_what_was_lost_and_does_nothing_twice() -> None:
    inner = Echo(b"\x90\0")
    card = t1_card(inner)
    answer = says(card, lrc("000001aa"))

    assert says(card, lrc("008000")) == answer  # N(R) = 0: the reader did not get it
    assert says(card, lrc("000001aa")) == lrc("009200")  # the same command again: refused
    assert says(card, bytes.fromhex("004001aa00")) == lrc("009200")  # a wrong EDC: that R-block again
    assert says(card, lrc("009000")) == lrc("009200")  # and again
    assert says(card, lrc("008000")) == answer
    assert inner.commands == [b"\xaa"]


def test_t1_answers_a_wrong_edc_by_an_r_block_that_says_so() -> None:
    card = t1_card(Echo(b"\x90\0"))
    assert says(card, bytes.fromhex("000001aa00")) == lrc("008100")
    assert says(card, lrc("000001aa")) == lrc("0000029000")
    assert says(card, bytes.fromhex("004001aa00")) == lrc("009100")


def test_t1_asks_for_time_before_its_time_is_over() -> None:
    inner = Echo(b"\x90\0", seconds=1000.0)
    card = t1_card(inner)
    asked = card.exchange(lrc("000001aa"))
    assert asked == TimedAnswer(lrc("00c301ff"), 0.5)
    assert says(card, lrc("008000")) == asked.response  # asked again, it says it again
    for instead in (lrc("00e301fe"), bytes.fromhex("00e301ff00"), lrc("004001bb")):
        # Another multiplier than its own, a wrong EDC, another command: it asks again.
        assert says(card, instead) == asked.response
    rest = 1000.0 - 0.5
    for _ in range(3):
        again = card.exchange(lrc("00e301ff"))
        assert again.seconds == 254.5
        rest -= again.seconds
        assert again.response == lrc(f"00c301{min(255, 1 + math.ceil(rest)):02x}")

    last = card.exchange(lrc(f"00e301{1 + math.ceil(rest):02x}"))
    assert last == TimedAnswer(lrc("0000029000"), rest)
    assert inner.commands == [b"\xaa"]


def test_t1_resynchronises_and_aborts() -> None:
    inner = Echo(bytes(40) + b"\x90\0")
    card = t1_card(inner)
    says(card, lrc("000001aa"))
    assert says(card, lrc("00c200")) == lrc("00e200")
    assert says(card, lrc("00c000")) == lrc("00e000")
    assert says(card, lrc("008000")) == lrc("00e000")
    assert says(card, lrc("000001bb"))[:2] == b"\0\x20"
    assert inner.commands == [b"\xaa", b"\xbb"]


@pytest.mark.parametrize("block", ["00c30101", "00e30101", "00e101fe", "00e000"])
def test_t1_refuses_what_only_a_card_may_say(block: str) -> None:
    assert says(t1_card(Echo()), lrc(block)) == lrc("008200")


def test_t1_refuses_a_block_that_is_longer_than_it_takes() -> None:
    inner = Echo()
    assert says(t1_card(inner), lrc("000021" + bytes(33).hex())) == lrc("008200")
    assert not inner.commands


def test_t1_without_a_response_says_nothing() -> None:
    assert says(t1_card(Echo(b"")), lrc("000001aa")) == b""


@pytest.mark.parametrize("checksum", list(Checksum))
@pytest.mark.parametrize("length", [4, 32, 33, 700])
def test_both_ends_of_t1_understand_each_other(checksum: Checksum, length: int) -> None:
    command = bytes(number % 256 for number in range(length))
    card = T1Card(Echo().work, checksum=checksum, ifsc=32, waiting=1.0)

    class Link(CardLine):
        def exchange(self, sent: bytes) -> TimedAnswer:
            return card.exchange(sent)

    assert run(T1(ifsc=32, checksum=checksum).exchange((command,)), Link(Echo())) == command + b"\x90\0"


@pytest.mark.parametrize(
    "fault", [WrongEdc(), NoiseToCard(), DroppedBlock(), DroppedAnswer(), WrongSendSequence(), RepeatedAnswer()]
)
@pytest.mark.parametrize("after", range(1, 8))
def test_t1_gets_over_a_fault_anywhere(fault: LineFault, after: int) -> None:
    card = Echo()
    link = powered(card, fault, after=after)
    host = T1(ifsc=254, checksum=Checksum.LRC)
    for length in (10, 600, 10):
        command = bytes(number % 256 for number in range(length))
        assert run(host.exchange((command,)), link) == command + b"\x90\0"
    assert len(card.commands) == 3


WAITING_FAULTS: list[LineFault] = [
    *(WrongEdc(), NoiseToCard(), DroppedBlock(), DroppedAnswer(), RepeatedAnswer()),
    *(WrongMultiplier(0), WrongMultiplier(255)),
]


@pytest.mark.parametrize("fault", WAITING_FAULTS)
@pytest.mark.parametrize("after", range(7))
def test_t1_gets_over_a_fault_while_the_card_takes_its_time(fault: LineFault, after: int) -> None:
    card = Echo()
    link = FaultyLink(CardLine(slow(card)), fault, after=after)
    link.power_on()
    host = T1(ifsc=254, checksum=Checksum.LRC)
    for number in range(4):
        command = bytes((number, 0x20, 0, 0))
        assert run(host.exchange((command,)), link) == command + b"\x90\0"
    assert len(card.commands) == 4
    assert link.struck == 1


@pytest.mark.parametrize("fault", [WrongEdc(), DroppedAnswer(), NoiseToCard(), DroppedBlock(), AbortRequest()])
def test_t1_ends_with_an_error_where_it_has_to_and_does_nothing_twice(fault: LineFault) -> None:
    card = Echo()
    with pytest.raises(HardwareError):
        run(T1(ifsc=254, checksum=Checksum.LRC).exchange((b"\0\x20\0\0",)), powered(card, fault, times=20))
    assert len(card.commands) <= 1


def test_a_card_that_aborts_once_has_acted() -> None:
    card = Echo()
    with pytest.raises(ProtocolViolation, match="aborted"):
        run(T1(ifsc=254, checksum=Checksum.LRC).exchange((b"\0\x20\0\0",)), powered(card, AbortRequest()))
    assert len(card.commands) == 1


def test_extension_for_ever_goes_on_until_the_card_is_reset() -> None:
    link = powered(Echo(), ExtensionForEver(), after=1)
    assert says(link, lrc("000001aa")) == lrc("000003aa9000")
    for block in ("004001aa", "00e30101", "00c000"):
        assert says(link, lrc(block)) == lrc("00c30101")
    link.power_on()
    assert says(link, lrc("000001aa")) == lrc("000003aa9000")


# --- T=0 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tpdu", "response", "done", "answer"),
    [
        ("0044000000", "9000", "00440000", "9000"),  # case 1
        ("00b0000004", "010203049000", "00b0000004", "010203049000"),  # case 2
        ("00b0000000", "010203049000", "00b0000000", "6c04"),  # another length
        ("00b0000005", "6a82", "00b0000005", "6a82"),
        ("0020000102aabb", "63c2", "0020000102aabb", "63c2"),  # case 3
        ("00a4000402df01", "6f009000", "00a4000402df0100", "6102"),  # case 4
        ("00a4000000", "9000", "00a4000000", "9000"),
    ],
)
def test_t0_tpdu(tpdu: str, response: str, done: str, answer: str) -> None:
    inner = Echo(bytes.fromhex(response))

    assert says(T0Card(inner.work), bytes.fromhex(tpdu)) == bytes.fromhex(answer)
    assert inner.commands == [bytes.fromhex(done)]


def test_t0_response_is_fetched_in_pieces() -> None:
    data = bytes(range(256)) + bytes(44)
    card = T0Card(Echo(data + b"\x90\0").work)

    assert says(card, bytes.fromhex("002a9e9a01aa")) == b"\x61\0"
    assert says(card, bytes.fromhex("00c0000000")) == data[:256] + b"\x61\x2c"
    assert says(card, bytes.fromhex("00c0000030")) == b"\x6c\x2c"
    assert says(card, bytes.fromhex("00c000002c")) == data[256:] + b"\x90\0"
    assert says(card, bytes.fromhex("00c0000001")) == b"\x69\x85"


def test_t0_does_what_is_no_reading_once_whatever_length_was_asked_for() -> None:
    inner = Echo(bytes(8) + b"\x90\0")
    card = T0Card(inner.work)

    assert says(card, bytes.fromhex("0046800004")) == b"\x61\x08"
    assert says(card, bytes.fromhex("00c0000008")) == inner.response
    assert inner.commands == [bytes.fromhex("0046800000")]


# VERIFY and RESET RETRY COUNTER without what they take are not taken for a reading.
@pytest.mark.parametrize("tpdu", ["00a4", "0020000105aa", "0020000101aabb", "0020000006", "002c030106", "00d6000004"])
def test_t0_refuses_a_length_that_contradicts_itself(tpdu: str) -> None:
    inner = Echo()

    assert says(T0Card(inner.work), bytes.fromhex(tpdu)) == b"\x67\0"
    assert not inner.commands


@pytest.mark.parametrize(
    "command",
    [
        "00440000",
        "00b0000003",
        "0020000102aabb",
        "002a9e9a02aabb00",
        "002a8086000101" + "aa" * 257 + "0000",
        "00d60000000101" + "aa" * 257,
        "002a808600 01f7" + "aa" * 503 + "0000",  # its pieces: 255, 255 and Le alone
    ],
)
def test_both_ends_of_t0_understand_each_other(command: str) -> None:
    apdu = bytes.fromhex(command)
    card = Echo(b"\1\2\3\x90\0" if apdu[1] in (0x2A, 0xB0) else b"\x90\0", atr=T0_ATR)

    assert run(t0.exchange((apdu,)), powered(card)) == card.response
    assert card.commands == [apdu]
