"""The faults themselves: each does what it says, and no more."""

from collections.abc import Callable

import pytest

from demail_hw.ccid.code_points import MessageType
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.faults import (
    CardFault,
    FaultyCard,
    FaultyReader,
    FlippedBit,
    LyingLength,
    MuteCard,
    OneByteResponse,
    ReaderFault,
    SlotFailure,
    TimeExtensionForEver,
    Truncated,
    WrongMessageType,
    WrongSequenceNumber,
    WrongSlot,
)

PSO = bytes.fromhex("002a9e9a")
SELECT = bytes.fromhex("00a40400")
RESPONSE = bytes.fromhex("010203049000")


class Card:
    powered = False

    def power_on(self) -> bytes:
        self.powered = True
        return b"\x3b\0"

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, _command: bytes) -> bytes:
        return RESPONSE


@pytest.mark.parametrize(
    ("fault", "response"),
    [
        (FlippedBit(), "000203049000"),
        (FlippedBit(3), "010203059000"),
        (FlippedBit(4), "010203049000"),
        (Truncated(), "01029000"),
        (Truncated(9), "9000"),
        (OneByteResponse(), "90"),
        (MuteCard(), ""),
    ],
)
def test_card_fault_touches_the_instruction_it_is_for(fault: CardFault, response: str) -> None:
    card = FaultyCard(Card(), fault)
    assert card.transmit(SELECT) == RESPONSE
    assert card.transmit(PSO) == bytes.fromhex(response)
    assert FaultyCard(Card(), fault, instruction=None).transmit(SELECT) == bytes.fromhex(response)


def test_card_fault_comes_after_some_good_answers() -> None:
    card = FaultyCard(Card(), MuteCard(), after=2)
    assert [len(card.transmit(PSO)) for _ in range(4)] == [6, 6, 0, 0]


def test_faulty_card_is_powered_like_any_other() -> None:
    inner = Card()
    card = FaultyCard(inner, MuteCard())
    assert card.power_on() == b"\x3b\0"
    assert inner.powered
    card.power_off()
    assert not inner.powered


def command(device: FaultyReader, text: str) -> str:
    results: list[TransferResult] = []
    device.submit(Transfer(0x01, data=bytes.fromhex(text)), results.append)
    device.submit(Transfer(0x82, 1088), results.append)
    return results[1].data.hex() if len(results) == 2 else "pending"


GET_SLOT_STATUS = "65000000000003000000"
XFR = "6f0400000000030000002a9e9a00"
GOOD = "80060000000003000000010203049000"


def powered(fault: ReaderFault, **options: int) -> FaultyReader:
    device = FaultyReader(SimulatedUsbReader(Card()), fault, **options)
    command(device, "62000000000000000000")
    return device


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (WrongSequenceNumber(), "80060000000004000000010203049000"),
        (WrongSequenceNumber(254), "80060000000001000000010203049000"),
        (WrongSlot(), "80060000000103000000010203049000"),
        (WrongMessageType(), "83060000000003000000010203049000"),
        (LyingLength(), "80070000000003000000010203049000"),
        (LyingLength(-1), "80050000000003000000010203049000"),
        (LyingLength(length=0xFFFFFFFF), "80ffffffff0003000000010203049000"),
        (SlotFailure(), "8000000000000340fe00"),
        (TimeExtensionForEver(3), "80000000000003800300"),
    ],
)
def test_reader_fault_touches_the_answers_it_is_for(fault: ReaderFault, answer: str) -> None:
    assert command(powered(fault), GET_SLOT_STATUS) == "81000000000003000000"
    assert command(powered(fault), XFR) == answer
    assert command(powered(fault, after=1), XFR) == GOOD
    assert command(powered(fault, times=0), XFR) == GOOD
    assert command(powered(fault, command=MessageType.GET_SLOT_STATUS), XFR) == GOOD


def read(device: FaultyReader) -> str:
    results: list[TransferResult] = []
    device.submit(Transfer(0x82, 1088), results.append)
    return results[0].data.hex() if results else "pending"


@pytest.mark.parametrize("end", [lambda device: device.reset(), lambda device: abort(device)])
def test_time_extension_ends_with_an_abort_or_a_reset(end: Callable[[FaultyReader], None]) -> None:
    device = powered(TimeExtensionForEver())
    extension = command(device, XFR)
    assert [read(device) for _ in range(20)] == [extension] * 20
    end(device)
    assert read(device) == "pending"


def abort(device: FaultyReader) -> None:
    device.submit(Transfer(0, setup=bytes.fromhex("2101000400000000")), lambda _: None)


def test_faulty_reader_is_the_same_device() -> None:
    inner = SimulatedUsbReader(None)
    device = FaultyReader(inner, SlotFailure())
    assert device.device_descriptor == inner.device_descriptor
    assert device.configuration_descriptor == inner.configuration_descriptor
    assert (device.serial, device.speed) == (inner.serial, inner.speed)
    pending = Transfer(0x82, 64)
    device.submit(pending, lambda _: None)
    assert device.cancel(pending)
