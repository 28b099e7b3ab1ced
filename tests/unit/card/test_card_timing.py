"""How long a card takes: figures that were computed or published, and a card that takes no longer than it says."""

import functools
import operator

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw_simulators.card.personalities import NETKEY3, netkey3
from demail_hw_simulators.card.personality import OperationTime, TimingSpec
from demail_hw_simulators.card.timing import TimedCard, TimingModel, Wire, waiting_time

CLOCK = 4_800_000
SELECT = bytes.fromhex("00A4040C 07 D2760000030102")
SIGN = bytes.fromhex("002A9E9A 33") + bytes(51) + b"\0"
SIGNATURE = bytes(256) + b"\x90\x00"
NO_SCATTER = TimingSpec(commands={0xA4: 0.008}, other=0.005, operations=(OperationTime(256, 0.44),), spread=0.0)


def atr(*characters: int) -> bytes:
    """TS, these characters and TCK."""
    check = functools.reduce(operator.xor, characters)
    return bytes((0x3B, *characters, check))


def with_ta1(ta1: int) -> bytes:
    """T=1, IFSC 254, BWI 4, CWI 5."""
    return atr(0x90, ta1, 0x81, 0x31, 0xFE, 0x45)


def with_tc1(tc1: int) -> bytes:
    """T=1 with this extra guard time."""
    return atr(0xD0, 0x96, tc1, 0x01)


# The figures of a 2700 F: READ BINARY of 256 bytes, IFSD 254.
@pytest.mark.parametrize(("ta1", "milliseconds"), [(0x11, 266), (0x14, 33), (0x18, 22), (0x96, 11.5)])
def test_wire_of_read_binary(ta1: int, milliseconds: float) -> None:
    assert Wire.of(with_ta1(ta1), clock=CLOCK).seconds(5, 258) * 1000 == pytest.approx(milliseconds, rel=0.02)


@pytest.mark.parametrize(
    ("command", "response", "milliseconds"), [(57, 258, 13.5), (265, 258, 22), (9, 2, 0.9), (13, 2, 1.1)]
)
def test_wire_of_the_commands_of_a_signature(command: int, response: int, milliseconds: float) -> None:
    assert Wire.of(NETKEY3.atr, clock=CLOCK).seconds(command, response) * 1000 == pytest.approx(
        milliseconds, rel=0.06
    )


def test_wire_without_guard_time_and_with_rates_that_are_reserved() -> None:
    assert Wire.of(bytes.fromhex("3b00")).etu == pytest.approx(372 / CLOCK)
    assert Wire.of(with_ta1(0x7F)).etu == pytest.approx(372 / CLOCK)
    for tc1, etu in ((0xFF, 11), (0x02, 14)):
        wire = Wire.of(with_tc1(tc1))
        assert wire.character == pytest.approx(etu * wire.etu)


def test_no_atr_no_wire() -> None:
    with pytest.raises(ProtocolViolation):
        Wire.of(b"\x3b")


@pytest.mark.parametrize(
    ("answer_to_reset", "seconds"),
    [
        (NETKEY3.atr, 2.38),  # BWI 5
        (with_ta1(0x96), 1.19),  # BWI 4, whatever TA1 says
        (bytes.fromhex("3b00"), 0.744),  # T=0, WI 10
        (b"", 0.744),  # no ATR at all
    ],
)
def test_waiting_time(answer_to_reset: bytes, seconds: float) -> None:
    assert waiting_time(answer_to_reset, clock=CLOCK) == pytest.approx(seconds, rel=0.01)


def model(spec: TimingSpec = NO_SCATTER, seed: int = 1) -> TimingModel:
    return TimingModel(spec, atr=NETKEY3.atr, seed=seed)


@pytest.mark.parametrize(
    ("command", "response", "own"),
    [
        (SELECT, b"\x90\x00", 0.008),
        (SIGN, SIGNATURE, 0.44),
        (SIGN, b"\x69\x82", 0.005),  # refused before it computes
        (SIGN, bytes(128) + b"\x90\x00", 0.005),  # of a length that nobody gave a figure for
        (bytes.fromhex("00840000 08"), bytes(8) + b"\x90\x00", 0.005),
        (b"\x00", b"\x67\x00", 0.005),
        (b"", b"\x67\x00", 0.005),
    ],
)
def test_a_command_takes_its_own_time_and_that_of_the_wire(command: bytes, response: bytes, own: float) -> None:
    wire = Wire.of(NETKEY3.atr).seconds(len(command), len(response))
    assert model().seconds(command, response) == pytest.approx(own + wire)


def times(seed: int, count: int = 200) -> list[float]:
    assert NETKEY3.timing is not None
    timed = model(NETKEY3.timing, seed)
    return [timed.seconds(SIGN, SIGNATURE) for _ in range(count)]


def test_the_seed_decides() -> None:
    assert times(1) == times(1)
    assert times(1) != times(2)


def test_times_scatter_around_the_mean() -> None:
    taken = times(7)
    # 440 ms and the wire, within five standard errors of 5 %
    assert sum(taken) / len(taken) == pytest.approx(0.4535, abs=5 * 0.022 / 200**0.5)
    assert max(taken) - min(taken) > 0.022


def test_no_time_is_negative() -> None:
    wild = TimingSpec(commands={}, other=1.0, operations=(), spread=1.0)
    timed = model(wild)
    assert min(timed.seconds(SELECT, b"\x90\x00") for _ in range(200)) >= Wire.of(NETKEY3.atr).seconds(12, 2)


def test_a_timed_card_is_the_same_card_only_later() -> None:
    slept: list[float] = []
    card = TimedCard(netkey3(), model(), sleep=slept.append)
    assert card.power_on() == NETKEY3.atr
    assert card.transmit(SELECT) == b"\x90\x00"
    answer = card.work(SELECT)
    assert answer.response == b"\x90\x00"
    assert slept == [pytest.approx(answer.seconds)]
    card.power_off()
    with pytest.raises(RuntimeError):
        card.transmit(SELECT)
