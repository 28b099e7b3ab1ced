"""Escape commands of the uTrust family; vectors from the manuals' examples where they print one."""

import time

import pytest

from demail_hw.ccid.reader import CcidReader
from demail_hw.ccid.utrust_escape import (
    EscapeCommand,
    GuardTime,
    LedControl,
    PowerUpSequence,
    ReaderInfo,
    ReaderModes,
    VoltageClasses,
    WaitingTime,
    ask,
    etu,
    guard_time,
    insertion_counter,
    led_control,
    power_up_sequence,
    reader_info,
    set_etu,
    set_guard_time,
    set_led_control,
    set_power_up_delay,
    set_power_up_sequence,
    set_voltage_classes,
    set_waiting_time,
    waiting_time,
)
from demail_hw.errors import Layer, Outcome, ProtocolViolation, SlotError
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.loopback import LoopbackTransport

SERIAL = "55591830603542"
INFO = ReaderInfo((2, 12), ReaderModes.EMV | ReaderModes.MEMORY_CARD, 3, 0, 0, 1, SERIAL)
INFO_BYTES = bytes.fromhex("02 12 03 0300 0000 00 01 1c") + SERIAL.encode("utf-16-le")


@pytest.mark.parametrize(
    ("command", "request_bytes", "answer", "value"),
    [
        (reader_info(), "1e", INFO_BYTES.hex(), INFO),
        (power_up_sequence(), "04ff", "01", PowerUpSequence.FROM_5_VOLT),
        (set_power_up_sequence(PowerUpSequence.FROM_1_8_VOLT), "0400", "", None),
        (set_power_up_delay(10), "04080a", "", None),
        (set_voltage_classes(VoltageClasses.A | VoltageClasses.B), "040903", "", None),
        (etu(), "8000", "00000140", 320),
        (set_etu(320), "800100000140", "00000140", 320),
        (waiting_time(WaitingTime.BLOCK), "810001", "0000035d", 861),
        (set_waiting_time(WaitingTime.CHARACTER, 861), "8101000000035d", "0000035d", 861),
        (guard_time(GuardTime.BLOCK), "820001", "00000018", 24),
        (set_guard_time(GuardTime.CHARACTER, 2), "82010000000002", "00000002", 2),
        (led_control(), "b2ff", "00", LedControl.ENABLED),
        (set_led_control(LedControl.DISABLED), "b201", "", None),
        (insertion_counter(), "ff7004e60100", "000001029000", 258),
    ],
)
def test_command_and_its_answer(
    command: EscapeCommand[object], request_bytes: str, answer: str, value: object
) -> None:
    assert command.request.hex() == request_bytes
    assert command.decode(bytes.fromhex(answer)) == value


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (reader_info(), ""),
        (reader_info(), INFO_BYTES[:-1].hex()),
        (reader_info(), "0a" + INFO_BYTES[1:].hex()),
        (reader_info(), "a0" + INFO_BYTES[1:].hex()),
        (reader_info(), INFO_BYTES[:9].hex() + "0200d8"),
        (power_up_sequence(), ""),
        (power_up_sequence(), "02"),
        (led_control(), "0000"),
        (etu(), "000140"),
        (insertion_counter(), "00000102"),
        (insertion_counter(), "0001029000"),
        (insertion_counter(), "6a81"),
    ],
)
def test_answer_that_is_not_in_the_manual_is_a_violation(command: EscapeCommand[object], answer: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        command.decode(bytes.fromhex(answer))
    assert caught.value.layer is Layer.READER
    assert caught.value.outcome is Outcome.NOT_SENT


def test_reader_info_is_encoded_as_the_reader_does() -> None:
    assert INFO.encode() == INFO_BYTES


def simulated() -> CcidReader:
    transport = LoopbackTransport(SimulatedUsbReader(None, serial=SERIAL))
    return CcidReader(transport, lock=TransactionLock(), grace=soon, pause=pause)


def soon() -> float:
    return time.monotonic() + 20


def test_simulated_reader_is_asked_without_a_card() -> None:
    reader = simulated()
    assert ask(reader, reader_info(), deadline=soon()).serial == SERIAL
    assert ask(reader, insertion_counter(), deadline=soon()) == 0
    assert ask(reader, set_etu(372), deadline=soon()) == 372
    assert ask(reader, etu(), deadline=soon()) == 372
    ask(reader, set_led_control(LedControl.DISABLED), deadline=soon())
    assert ask(reader, led_control(), deadline=soon()) is LedControl.DISABLED


def test_command_that_the_reader_does_not_know_is_refused_with_or_without_a_card() -> None:
    with pytest.raises(SlotError, match="does not support") as caught:
        ask(simulated(), EscapeCommand(b"\x55", bytes.hex), deadline=soon())
    assert caught.value.outcome is Outcome.REFUSED
