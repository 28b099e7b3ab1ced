"""The reader: what it says to the device, and what becomes of a connection when something breaks."""

import dataclasses
import threading
import time

import pytest

from demail_hw.ccid.class_descriptor import Features
from demail_hw.ccid.code_points import MessageType
from demail_hw.ccid.reader import CcidConnection, CcidReader
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    Layer,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
    ReaderError,
    SlotError,
    TransferStalled,
)
from demail_hw.interfaces import Buffers, Deadline
from demail_hw.transaction_lock import TransactionLock
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
        self.reader = CcidReader(self.cable, lock=self.lock, grace=soon)

    def transmit(self, connection: CcidConnection, command: Buffers = SELECT, *, deadline: Deadline = 0.0) -> bytes:
        with connection.transaction(deadline=soon()):
            return connection.transmit(command, deadline=deadline or soon())


def faulty(fault: SlotFailure | TimeExtensionForEver, command: MessageType, *, times: int | None = None) -> Bench:
    bench = Bench()
    bench.cable = Cable(FaultyReader(bench.device, fault, command=command, times=times))
    bench.reader = CcidReader(bench.cable, lock=bench.lock, grace=soon)
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
    assert CcidReader(bench.cable, lock=bench.lock, grace=soon, name="left").name == "left"


def test_reader_at_the_character_level_is_refused() -> None:
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=Features(0x000000BA))
    with pytest.raises(ReaderError, match="exchanges characters"):
        Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))


def test_card_that_has_power_already_is_reset_cold() -> None:
    bench = Bench()
    bench.reader.connect(deadline=soon())
    other = CcidReader(bench.cable, lock=bench.lock, grace=soon)
    bench.cable.types()
    other.connect(deadline=soon())
    assert bench.cable.types() == "65 63 62 61"


def test_reader_without_automatic_voltage_is_told_5_volts() -> None:
    features = UTRUST_2700F.descriptor.features & ~Features.AUTO_VOLTAGE
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, features=features)
    bench = Bench(profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))
    bench.reader.connect(deadline=soon())
    assert bench.cable.sent[1].hex() == "62000000000001010000"


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


@pytest.mark.parametrize("atr", [b"\xff", ATR[:-1], ATR[:-1] + b"\0", ATR + b"\0", bytes(34)])
def test_bad_atr_is_a_violation(atr: bytes) -> None:
    bench = Bench()
    bench.card.atrs = [atr]
    with pytest.raises(ProtocolViolation) as caught:
        bench.reader.connect(deadline=soon())
    assert caught.value.layer is Layer.CARD
    assert not bench.lock.held


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
    with pytest.raises(CardRemoved) as lost:
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


# --- Reset and close ---------------------------------------------------------------------------------------------


def test_reset_of_a_card_that_was_swapped_unseen_is_refused() -> None:
    bench = Bench()
    connection = bench.reader.connect(deadline=soon())
    bench.device.insert(Card())
    with pytest.raises(CardRemoved):
        connection.reset(deadline=soon())
    assert not connection.alive


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
    reader = CcidReader(bench.cable, lock=bench.lock, grace=time.monotonic)
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


# --- Escape ------------------------------------------------------------------------------------------------------


def test_escape_returns_what_the_vendor_says() -> None:
    bench = Bench()
    assert bench.reader.escape((b"\x80", b"\0"), deadline=soon()) == bytes.fromhex("00000140")


def test_unknown_escape_is_refused() -> None:
    bench = Bench()
    with pytest.raises(SlotError) as caught:
        bench.reader.escape((b"\x99",), deadline=soon())
    assert caught.value.outcome is Outcome.REFUSED
