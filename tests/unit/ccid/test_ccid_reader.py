"""The reader: what it says to the device, and what becomes of a connection when something breaks."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

import pytest

from demail_hw.ccid.class_descriptor import Features
from demail_hw.ccid.code_points import IccStatus, MessageType, PowerSelect
from demail_hw.ccid.reader import CcidConnection, CcidReader
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    HardwareError,
    Layer,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
    ReaderError,
    SlotError,
    TransferStalled,
)
from demail_hw.interfaces import Buffers, Deadline
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.card_link import CardOfClasses
from demail_hw_simulators.ccid_device import UTRUST_2700F, ReaderProfile, SimulatedUsbReader
from demail_hw_simulators.faults import FaultyReader, SlotFailure, TimeExtensionForEver
from demail_hw_simulators.loopback import LoopbackTransport

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SELECT = (b"\0\xa4\4\0",)


def soon() -> Deadline:
    return time.monotonic() + 20


def short() -> Deadline:
    """A deadline for what has to miss it."""
    return time.monotonic() + 0.05


class Card:
    def __init__(self) -> None:
        self.atrs = [ATR]
        self.response = b"\x90\0"
        self.powered = False
        self.resets = 0
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        self.powered = True
        self.resets += 1
        return self.atrs.pop(0) if len(self.atrs) > 1 else self.atrs[0]

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.response


class Cable(LoopbackTransport):
    """Keeps what was sent, and breaks on demand: ``failures`` are raised instead of sending, unless None."""

    def __init__(self, device: SimulatedUsbReader | FaultyReader) -> None:
        self.sent: list[bytes] = []
        self.last: Buffers = ()
        self.controls: list[bytes] = []
        self.cleared: list[int] = []
        self.failures: list[BaseException | None] = []
        super().__init__(device)
        self.controls.clear()

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.last = out
        self.sent.append(b"".join(out))
        return super().exchange(out, length, deadline=deadline)

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        if self.failures:
            raise self.failures.pop(0) or AssertionError
        return super().bulk_in(length, deadline=deadline)

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        self.controls.append(setup)
        return super().control(setup, data, deadline=deadline)

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        self.cleared.append(endpoint)
        super().clear_halt(endpoint, deadline=deadline)

    def types(self) -> str:
        """The message types that were sent since the last look."""
        text = " ".join(f"{message[0]:02x}" for message in self.sent)
        self.sent.clear()
        return text


class Bench:
    """A card in a simulated reader on a cable, and the reader over it."""

    def __init__(self, card: Card | None = None, *, profile: ReaderProfile = UTRUST_2700F) -> None:
        self.card = Card() if card is None else card
        self.device = SimulatedUsbReader(self.card, profile=profile)
        self.cable = Cable(self.device)
        self.lock = TransactionLock()
        self.reader = CcidReader(self.cable, lock=self.lock, grace=soon, pause=pause)

    def transmit(self, connection: CcidConnection, command: Buffers = SELECT, *, deadline: Deadline = 0.0) -> bytes:
        with connection.transaction(deadline=soon()):
            return connection.transmit(command, deadline=deadline or soon())


def faulty(fault: SlotFailure | TimeExtensionForEver, command: MessageType, *, times: int | None = None) -> Bench:
    bench = Bench()
    bench.cable = Cable(FaultyReader(bench.device, fault, command=command, times=times))
    bench.reader = CcidReader(bench.cable, lock=bench.lock, grace=soon, pause=pause)
    return bench


# --- Connecting --------------------------------------------------------------------------------------------------


def test_connect_says_what_the_recorded_host_said() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    assert connection.atr == ATR
    assert [message.hex() for message in bench.cable.sent] == [
        "65000000000000000000",
        "62000000000001000000",
        "610700000000020100009610004300fe00",
    ]


def test_name_and_serial_come_from_the_device() -> None:
    bench = Bench()
    assert bench.reader.name == "CLOUD 2700 F Smart Card Reader"
    assert bench.reader.serial == "53692013000000"
    assert bench.reader.descriptor == UTRUST_2700F.descriptor
    assert CcidReader(bench.cable, lock=bench.lock, grace=soon, pause=pause, name="left").name == "left"


def test_reader_at_the_character_level_is_refused() -> None:
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=Features(0x000000BA))
    with pytest.raises(ReaderError, match="exchanges characters"):
        Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))


def test_card_that_has_power_already_is_reset_cold() -> None:
    bench = Bench()
    bench.reader.connect(deadline=soon())
    other = CcidReader(bench.cable, lock=bench.lock, grace=soon, pause=pause)
    bench.cable.types()
    other.connect(deadline=soon())
    assert bench.cable.types() == "65 63 62 61"


def power_selects(bench: Bench) -> list[int]:
    """bPowerSelect of each IccPowerOn; the card had no power before it."""
    messages = [message for message in bench.cable.sent if message[0] in (0x62, 0x63)]
    assert [message[0] for message in messages][1::2] == [0x63] * (len(messages) // 2)
    return [message[7] for message in messages if message[0] == 0x62]


def bench_of_voltages(support: int, *voltages: PowerSelect) -> Bench:
    """A reader that is told the voltage, and a card that answers at these."""
    features = UTRUST_2700F.descriptor.features & ~Features.AUTO_VOLTAGE
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=features, voltage_support=support)
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))
    bench.device.insert(CardOfClasses(bench.card, *voltages))
    return bench


@pytest.mark.parametrize(
    ("support", "voltages", "tried"),
    [
        (0x07, [PowerSelect.VOLTAGE_1_8, PowerSelect.VOLTAGE_5_0], [3]),
        (0x07, [PowerSelect.VOLTAGE_3_0], [3, 2]),
        (0x07, [PowerSelect.VOLTAGE_5_0], [3, 2, 1]),
        (0x03, [PowerSelect.VOLTAGE_5_0], [2, 1]),
        (0x04, [PowerSelect.VOLTAGE_1_8], [3]),
        (0x00, [PowerSelect.VOLTAGE_5_0], [1]),
    ],
)
def test_card_is_found_at_the_lowest_voltage_that_it_answers_at(
    support: int, voltages: list[PowerSelect], tried: list[int]
) -> None:
    bench = bench_of_voltages(support, *voltages)
    connection = bench.reader.connect(deadline=soon())
    assert power_selects(bench) == tried
    assert bench.transmit(connection) == b"\x90\0"


@pytest.mark.parametrize(
    ("code", "tried"),
    [(0xF3, [3, 2]), (0xF6, [3, 2]), (0xFB, [3, 2]), (0xFC, [3, 2]), (0xC0, [3, 2]), (0xE0, [3]), (0xFF, [3])],
)
def test_next_voltage_is_tried_unless_the_failure_says_nothing_of_the_card(code: int, tried: list[int]) -> None:
    bench = bench_of_voltages(0x07, PowerSelect.VOLTAGE_1_8, PowerSelect.VOLTAGE_3_0)
    fault = SlotFailure(code, IccStatus.INACTIVE)
    bench.cable = Cable(FaultyReader(bench.device, fault, command=MessageType.ICC_POWER_ON, times=1))
    reader = CcidReader(bench.cable, lock=bench.lock, grace=soon, pause=pause)
    with contextlib.suppress(ReaderBusy, SlotError) if len(tried) == 1 else contextlib.nullcontext():
        assert reader.connect(deadline=soon()).alive
    assert power_selects(bench) == tried


@pytest.mark.parametrize(
    ("classes", "tried"), [(0x01, [3, 2, 1]), (0x02, [3, 2]), (0x03, [3, 2]), (0x07, [3]), (0xC4, [3]), (0x00, [3])]
)
def test_card_gets_a_voltage_that_its_class_indicator_names(classes: int, tried: list[int]) -> None:
    """Though it answers at each."""
    bench = bench_of_voltages(0x07, PowerSelect.VOLTAGE_1_8, PowerSelect.VOLTAGE_3_0, PowerSelect.VOLTAGE_5_0)
    bench.card.atrs = [bytes((0x3B, 0x80, 0x81, 0x1F, classes, 0x1E ^ classes))]
    assert bench.transmit(bench.reader.connect(deadline=soon())) == b"\x90\0"
    assert power_selects(bench) == tried


def test_card_that_answers_at_no_voltage_of_the_reader_is_mute() -> None:
    bench = bench_of_voltages(0x03, PowerSelect.VOLTAGE_1_8)
    with pytest.raises(CardMute) as caught:
        bench.reader.connect(deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    assert power_selects(bench) == [2, 1]


def test_reader_that_powers_the_card_when_it_comes_chooses_the_voltage_too() -> None:
    features = UTRUST_2700F.descriptor.features & ~Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=features)
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))
    bench.reader.connect(deadline=soon())
    assert power_selects(bench) == [0]


def test_reader_that_negotiates_itself_is_told_no_parameters() -> None:
    features = UTRUST_2700F.descriptor.features | Features.AUTO_PARAMETERS_NEGOTIATION
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=features)
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))
    bench.reader.connect(deadline=soon())
    assert bench.cable.types() == "65 62"


@pytest.mark.parametrize("code", [0x01, 0x07, 0x7F])
def test_parameter_that_the_reader_does_not_let_change_is_no_error(code: int) -> None:
    bench = faulty(SlotFailure(code), MessageType.SET_PARAMETERS)
    assert bench.transmit(bench.reader.connect(deadline=soon())) == b"\x90\0"


@pytest.mark.parametrize("code", [0x00, 0xFB])
def test_other_failure_to_set_parameters_is_an_error(code: int) -> None:
    bench = faulty(SlotFailure(code), MessageType.SET_PARAMETERS)
    with pytest.raises(SlotError) as caught:
        bench.reader.connect(deadline=soon())
    assert (caught.value.code, caught.value.outcome) == (code, Outcome.NOT_SENT)


def test_card_that_is_mute_at_first_gets_a_second_reset() -> None:
    bench = Bench()
    bench.card.atrs = [b"", ATR]
    assert bench.reader.connect(deadline=soon()).atr == ATR
    assert bench.cable.types() == "65 62 63 62 61"


def test_card_that_stays_mute_is_an_error_after_two_resets() -> None:
    bench = Bench()
    bench.card.atrs = [b""]
    with pytest.raises(CardMute) as caught:
        bench.reader.connect(deadline=soon())
    assert bench.card.resets == 2
    assert caught.value.outcome is Outcome.NOT_SENT
    assert bench.cable.types() == "65 62 63 62 63"


@pytest.mark.parametrize("atr", [b"\xff", ATR[:-1], ATR[:-1] + b"\0", ATR + b"\0", bytes(34)])
def test_bad_atr_is_a_violation(atr: bytes) -> None:
    bench = Bench()
    bench.card.atrs = [atr]
    with pytest.raises(ProtocolViolation) as caught:
        bench.reader.connect(deadline=soon())
    assert (caught.value.layer, caught.value.outcome) == (Layer.CARD, Outcome.NOT_SENT)
    assert not bench.card.powered
    assert not bench.lock.held


def test_card_that_cannot_be_activated_loses_its_power() -> None:
    bench = faulty(SlotFailure(0xF6), MessageType.SET_PARAMETERS)
    with pytest.raises(SlotError, match="F6"):
        bench.reader.connect(deadline=soon())
    assert bench.cable.types() == "65 62 61 63"
    assert not bench.card.powered


def test_card_that_keeps_its_power_then_loses_it_with_its_reader_and_the_first_error_stands() -> None:
    bench = faulty(SlotFailure(0xF6), MessageType.SET_PARAMETERS)
    bench.cable.failures = [None, None, None, DeadlineExceeded("over")]
    with pytest.raises(SlotError, match="F6"):
        bench.reader.connect(deadline=soon())
    assert bench.card.powered
    bench.cable.types()
    bench.reader.close()
    assert bench.cable.types() == "72 63"
    assert not bench.card.powered


# --- Transmitting ------------------------------------------------------------------------------------------------


def test_steady_state_is_one_round_trip_of_two_transfers() -> None:
    bench = Bench()
    bench.card.response = bytes(256) + b"\x90\0"
    connection = bench.reader.connect(deadline=soon())
    before = bench.cable.counters
    assert bench.transmit(connection, (b"\0\x2a\x9e\x9a\x33", bytes(51), b"\0")) == bench.card.response
    after = bench.cable.counters
    assert (after.round_trips - before.round_trips, after.urbs - before.urbs) == (1, 2)
    assert (after.bytes_out - before.bytes_out, after.bytes_in - before.bytes_in) == (67, 268)


def test_command_reaches_the_transport_uncopied() -> None:
    bench = Bench()
    secret = bytearray(b"123456")
    bench.transmit(bench.reader.connect(deadline=soon()), (b"\0\x20\0\0\6", secret))
    assert bench.cable.last[-1] is secret


def test_answers_of_whole_packets_from_firmware_with_zero_length_packets() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    for length in (54, 118, 1014, 1024, 2048):
        bench.card.response = bytes(length - 2) + b"\x90\0"
        assert bench.transmit(connection) == bench.card.response


def test_reader_that_omits_zero_length_packets_is_read_in_two_steps() -> None:
    profile = dataclasses.replace(UTRUST_2700F, product_id=0xE001, version=0x0515, zero_length_packets=False)
    bench = Bench(profile=profile)
    connection = bench.reader.connect(deadline=soon())
    for length in (2, 54, 55, 118, 119, 1014, 1024, 2048):
        bench.card.response = bytes(length - 2) + b"\x90\0"
        assert bench.transmit(connection) == bench.card.response


def test_without_the_quirk_such_a_reader_would_hang() -> None:
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, zero_length_packets=False))
    connection = bench.reader.connect(deadline=soon())
    bench.card.response = bytes(118)
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection, deadline=short())


@pytest.mark.parametrize("response", [b"\x90"])
def test_response_without_a_status_word_is_a_violation_and_the_connection_is_dead(response: bytes) -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.card.response = response
    with pytest.raises(ProtocolViolation) as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert not connection.alive


def test_lost_power_is_a_removed_card() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    epoch = connection.epoch
    bench.device.insert(bench.card)
    with pytest.raises(CardRemoved, match="lost its power") as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert connection.epoch != epoch
    with pytest.raises(CardRemoved) as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_chain_that_breaks_off_leaves_the_outcome_unknown() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.card.response = bytes(3000)
    # The first block goes through, and brings the first part of the answer: the card has acted.
    bench.cable.failures = [None, DeadlineExceeded("over", outcome=Outcome.NOT_SENT)]
    with pytest.raises(DeadlineExceeded) as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert not connection.alive


def test_error_before_anything_was_sent_leaves_the_connection_alive() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    epoch = connection.epoch
    bench.cable.failures = [DeadlineExceeded("over", outcome=Outcome.NOT_SENT)]
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection)
    assert connection.epoch == epoch
    assert bench.transmit(connection) == b"\x90\0"


def test_busy_slot_leaves_the_connection_alive() -> None:
    bench = faulty(SlotFailure(0xE0), MessageType.XFR_BLOCK, times=1)
    connection = bench.reader.connect(deadline=soon())
    with pytest.raises(ReaderBusy):
        bench.transmit(connection)
    assert bench.transmit(connection) == b"\x90\0"


# --- Out of step -------------------------------------------------------------------------------------------------


def test_deadline_in_mid_command_kills_the_connection_and_the_next_one_aborts() -> None:
    bench = faulty(TimeExtensionForEver(), MessageType.XFR_BLOCK, times=1)
    connection = bench.reader.connect(deadline=soon())
    epoch = connection.epoch
    with pytest.raises(DeadlineExceeded, match="asked for more time") as caught:
        bench.transmit(connection, deadline=short())
    assert (caught.value.layer, caught.value.outcome) == (Layer.CARD, Outcome.UNKNOWN)
    assert connection.epoch != epoch
    with pytest.raises(DeviceLost) as lost:
        bench.transmit(connection)
    assert lost.value.outcome is Outcome.NOT_SENT
    bench.cable.types()
    again = bench.reader.connect(deadline=soon())
    assert bench.cable.controls == [bytes.fromhex("2101000400000000")]
    assert bench.cable.types() == "72 65 63 62 61"
    assert bench.transmit(again) == b"\x90\0"


def test_closing_after_a_missed_deadline_aborts_and_takes_the_power() -> None:
    bench = faulty(TimeExtensionForEver(), MessageType.XFR_BLOCK)
    connection = bench.reader.connect(deadline=soon())
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection, deadline=short())
    bench.cable.types()
    connection.close()
    assert bench.cable.types() == "72 63"
    assert not bench.card.powered


def test_abort_that_is_ignored_keeps_the_reader_out_of_step() -> None:
    bench = faulty(TimeExtensionForEver(), MessageType.XFR_BLOCK)
    connection = bench.reader.connect(deadline=soon())
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection, deadline=short())
    bench.cable.failures = [DeadlineExceeded("over", outcome=Outcome.NOT_SENT)]
    with pytest.raises(DeadlineExceeded):
        bench.reader.card_present(deadline=short())
    bench.cable.types()
    assert bench.reader.card_present(deadline=soon())
    assert bench.cable.types() == "72 65"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), DeviceLost("gone"), ProtocolViolation("nonsense")])
def test_interrupted_exchange_is_never_continued(failure: BaseException) -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [failure]
    with pytest.raises(type(failure)):
        bench.transmit(connection)
    with pytest.raises(DeviceLost if isinstance(failure, DeviceLost) else CardRemoved, match="was lost before"):
        bench.transmit(connection)
    assert not bench.card.commands
    assert not bench.lock.held


def test_stalled_endpoint_is_cleared_before_the_abort() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [TransferStalled("stalled")]
    with pytest.raises(TransferStalled):
        bench.transmit(connection)
    assert not connection.alive
    bench.cable.types()
    bench.reader.connect(deadline=soon())
    assert bench.cable.cleared == [0x01, 0x82]
    assert bench.cable.types() == "72 65 63 62 61"


def test_endpoint_that_stalls_instead_of_an_answer_is_cleared_too() -> None:
    bench = faulty(TimeExtensionForEver(), MessageType.XFR_BLOCK, times=1)
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [None, TransferStalled("stalled")]
    with pytest.raises(TransferStalled) as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert bench.transmit(bench.reader.connect(deadline=soon())) == b"\x90\0"
    assert bench.cable.cleared == [0x01, 0x82]


TWO_STEPS = dataclasses.replace(UTRUST_2700F, product_id=0xE001, version=0x0515)
"""Its answers are read in two steps, of which the second can break off."""


def break_off(bench: Bench, connection: CcidConnection, failure: HardwareError) -> None:
    """The first 64 bytes of an answer come, and then this."""
    bench.card.response = bytes(200)
    bench.cable.failures = [None, failure]
    with pytest.raises(type(failure)) as caught:
        bench.transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    bench.card.response = b"\x90\0"
    bench.cable.types()


def drop_the_rest(bench: Bench) -> None:
    """The device forgets what it was about to send."""
    bench.cable.bulk_in(1088, deadline=soon())


def test_message_that_a_stall_broke_off_is_forgotten() -> None:
    bench = Bench(profile=TWO_STEPS)
    break_off(bench, bench.reader.connect(deadline=soon()), TransferStalled("stalled"))
    drop_the_rest(bench)
    again = bench.reader.connect(deadline=soon())
    assert bench.cable.types() == "72 65 63 62 61"
    assert bench.transmit(again) == b"\x90\0"


def test_message_that_the_deadline_broke_off_is_read_to_its_end() -> None:
    bench = Bench(profile=TWO_STEPS)
    break_off(bench, bench.reader.connect(deadline=soon()), DeadlineExceeded("over"))
    again = bench.reader.connect(deadline=soon())
    assert bench.cable.types() == "72 65 63 62 61"
    assert bench.transmit(again) == b"\x90\0"


def test_message_whose_rest_was_lost_costs_one_abort_more() -> None:
    bench = Bench(profile=TWO_STEPS)
    break_off(bench, bench.reader.connect(deadline=soon()), DeadlineExceeded("over"))
    drop_the_rest(bench)
    again = bench.reader.connect(deadline=soon())
    assert bench.cable.types() == "72 72 65 63 62 61"
    assert bench.transmit(again) == b"\x90\0"


def test_reader_that_stalls_the_abort_request_recovers_all_the_same() -> None:
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, aborts=False))
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [DeadlineExceeded("over")]
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection)
    bench.cable.types()
    again = bench.reader.connect(deadline=soon())
    assert bench.cable.controls == [bytes.fromhex("2101000400000000")]
    assert bench.cable.types() == "72 65 63 62 61"
    assert bench.transmit(again) == b"\x90\0"


def test_reader_that_stalls_the_abort_itself_is_an_error_with_a_remedy() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [DeadlineExceeded("over"), TransferStalled("stalled")]
    with pytest.raises(DeadlineExceeded):
        bench.transmit(connection)
    with pytest.raises(TransferStalled) as caught:
        bench.reader.connect(deadline=soon())
    assert "Open the reader anew" in caught.value.remedy
    assert bench.transmit(bench.reader.connect(deadline=soon())) == b"\x90\0"


# --- Reset and close ---------------------------------------------------------------------------------------------


def test_reset_of_a_card_that_was_swapped_unseen_is_refused() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.device.insert(Card())
    with pytest.raises(CardRemoved):
        connection.reset(deadline=soon())
    assert not connection.alive


def test_connection_that_was_lost_with_its_reader_in_a_reset_says_so() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.cable.failures = [None, None, DeviceLost("gone", outcome=Outcome.NOT_SENT)]
    with pytest.raises(DeviceLost, match="gone"):
        connection.reset(deadline=soon())
    with pytest.raises(DeviceLost, match="was lost before"):
        bench.transmit(connection)


def test_old_connection_does_not_close_the_new_one() -> None:
    bench = Bench()
    old = bench.reader.connect(deadline=soon())
    bench.device.insert(bench.card)
    with pytest.raises(CardRemoved):
        bench.transmit(old)
    new = bench.reader.connect(deadline=soon())
    old.close()
    assert bench.card.powered
    assert bench.transmit(new) == b"\x90\0"


def test_closing_the_reader_takes_the_power_and_the_cable_away() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.reader.close()
    bench.reader.close()
    assert not bench.card.powered
    with pytest.raises(CardRemoved):
        bench.transmit(connection)
    with pytest.raises(DeviceLost):
        bench.reader.card_present(deadline=soon())


def test_closing_while_another_thread_is_at_work_gives_up_after_the_grace() -> None:
    bench = Bench()
    reader = CcidReader(bench.cable, lock=bench.lock, grace=time.monotonic, pause=pause)
    connection = reader.connect(deadline=soon())
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with connection.transaction(deadline=soon()):
            holding.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(20)
    connection.close()
    release.set()
    thread.join(20)
    with pytest.raises(CardRemoved):
        bench.transmit(connection)


def test_waiting_in_vain_says_what_for() -> None:
    bench = Bench()
    with pytest.raises(DeadlineExceeded, match="No card was taken out") as caught:
        bench.reader.wait_for_card(False, deadline=short())
    assert (caught.value.layer, caught.value.outcome) == (Layer.READER, Outcome.NOT_SENT)


def test_lost_notification_is_made_up_for_by_asking() -> None:
    bench = Bench()
    bench.cable.interrupt_in(deadline=soon())
    bench.reader.wait_for_card(True, deadline=soon())


def without_interrupt_endpoint(pause: Callable[[Deadline], None], *, card: bool) -> Bench:
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, interrupts=False))
    if not card:
        bench.device.remove()
    bench.reader = CcidReader(bench.cable, lock=bench.lock, grace=soon, pause=pause)
    return bench


def test_reader_without_an_interrupt_endpoint_is_asked_again_and_again() -> None:
    deadlines: list[Deadline] = []

    def pause(deadline: Deadline) -> None:
        deadlines.append(deadline)
        if len(deadlines) == 3:
            bench.device.insert(bench.card)

    bench = without_interrupt_endpoint(pause, card=False)
    end = soon()
    bench.reader.wait_for_card(True, deadline=end)
    assert deadlines == [end] * 3
    assert bench.cable.types() == "65 65 65 65"


def test_reader_without_an_interrupt_endpoint_is_asked_until_the_deadline() -> None:
    bench = without_interrupt_endpoint(pause, card=True)
    with pytest.raises(DeadlineExceeded, match="No card was taken out") as caught:
        bench.reader.wait_for_card(False, deadline=short())
    assert (caught.value.layer, caught.value.outcome) == (Layer.READER, Outcome.NOT_SENT)


# --- Escape ------------------------------------------------------------------------------------------------------


def test_escape_returns_what_the_vendor_says() -> None:
    bench = Bench()
    assert bench.reader.escape((b"\x80", b"\0"), deadline=soon()) == bytes.fromhex("00000140")


def test_unknown_escape_is_refused() -> None:
    bench = Bench()
    with pytest.raises(SlotError) as caught:
        bench.reader.escape((b"\x99",), deadline=soon())
    assert caught.value.outcome is Outcome.REFUSED
