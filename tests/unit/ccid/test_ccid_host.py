"""The host machine: what it sends, what it believes, and what it refuses."""

import pytest

from demail_hw.ccid.code_points import CommandStatus, IccStatus, MessageType
from demail_hw.ccid.host import MAX_STALE_MESSAGES, NEED_DATA, CcidHost, TimeExtension
from demail_hw.ccid.messages import DataBlock, GetSlotStatus, Header, Response, Secure, SlotStatus, Status, XfrBlock
from demail_hw.errors import Layer, Outcome, ProtocolViolation

APDU = (b"\0\xa4\4\0",)
OK = b"\x90\0"


def make_host(**changes: int) -> CcidHost:
    return CcidHost(**({"max_message_length": 1034, "packet_size": 64} | changes))


def message(response: Response, *, seq: int = 0, slot: int = 0) -> bytes:
    return b"".join(response.encode(slot, seq))


def sent(host: CcidHost) -> Header:
    return Header.decode(b"".join(host.send(GetSlotStatus())))


def complete(host: CcidHost, seq: int) -> None:
    host.receive_data(message(SlotStatus(), seq=seq))
    assert host.next_event() == SlotStatus()


def test_sequence_numbers_wrap() -> None:
    host = make_host()
    for number in range(258):
        assert sent(host).seq == number % 256
        complete(host, number % 256)


def test_one_command_at_a_time() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    with pytest.raises(RuntimeError):
        host.send(XfrBlock(APDU))


def test_withdrawn_command_makes_room_for_the_next() -> None:
    host = make_host()
    sent(host)
    host.withdraw()
    assert not host.outstanding
    assert sent(host).seq == 1


def test_slot_number_goes_out_and_must_come_back() -> None:
    host = make_host(slot=2)
    assert sent(host).slot == 2
    host.receive_data(message(SlotStatus(), slot=2))
    assert host.next_event() == SlotStatus()


def test_nothing_received_is_no_event() -> None:
    assert make_host().next_event() is NEED_DATA


def test_time_extension_is_an_event_and_the_command_goes_on() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(message(DataBlock(b"", Status(IccStatus.ACTIVE, CommandStatus.TIME_EXTENSION), 5)))
    assert host.next_event() == TimeExtension(5)
    assert host.outstanding
    host.receive_data(message(DataBlock(OK)))
    assert host.next_event() == DataBlock(OK)
    assert not host.outstanding


def test_stale_messages_are_dropped_ten_times_at_most() -> None:
    host = make_host()
    sent(host)
    complete(host, 0)
    host.send(XfrBlock(APDU))
    for _ in range(MAX_STALE_MESSAGES):
        host.receive_data(message(DataBlock(b"late" + OK), seq=0))
    assert host.next_event() is NEED_DATA
    host.receive_data(message(DataBlock(OK), seq=1))
    assert host.next_event() == DataBlock(OK)
    host.send(XfrBlock(APDU))
    for _ in range(MAX_STALE_MESSAGES + 1):
        host.receive_data(message(DataBlock(OK), seq=1))
    with pytest.raises(ProtocolViolation, match="number 1 came where 2 is due"):
        host.next_event()


def test_message_that_nobody_waits_for_is_stale() -> None:
    host = make_host()
    host.receive_data(message(DataBlock(OK)))
    assert host.next_event() is NEED_DATA


@pytest.mark.parametrize(
    "answer",
    [
        message(DataBlock(OK), slot=1),
        message(SlotStatus()),
        message(SlotStatus(Status(IccStatus.ACTIVE, CommandStatus.TIME_EXTENSION))),
        bytes.fromhex("6f000000000000000000"),
        bytes.fromhex("80000000000000030000"),
        bytes.fromhex("800000000000000000"),
        bytes.fromhex("80020000000000000000") + b"\x90",
        bytes.fromhex("80020000000000000000") + b"\x90\0\0",
        bytes.fromhex("80010400000000000000") + bytes(1025),
        bytes.fromhex("80ffffffff0000000000") + OK,
        bytes.fromhex("80ffffffff0000000000") + bytes(54),
    ],
    ids=[
        "slot",
        "type",
        "type-extension",
        "command",
        "status",
        "short",
        "less",
        "more",
        "long",
        "huge",
        "huge-packet",
    ],
)
def test_answer_against_the_standard_is_a_violation_and_nothing_goes_on(answer: bytes) -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(answer)
    with pytest.raises(ProtocolViolation) as caught:
        host.next_event()
    assert caught.value.layer is Layer.READER
    assert caught.value.outcome is Outcome.UNKNOWN
    assert host.outstanding


def test_command_that_the_reader_does_not_know_is_refused_with_a_slot_status() -> None:
    host = make_host()
    refusal = SlotStatus(Status(IccStatus.ACTIVE, CommandStatus.FAILED))
    host.send(Secure((b"\0",)))
    host.receive_data(message(refusal))
    assert host.next_event() == refusal


def test_longest_message_is_taken() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(message(DataBlock(bytes(1024))))
    assert host.next_event() == DataBlock(bytes(1024))


# --- Transfers (USB 2.0, 5.8.3; reliability: F23, F26) -----------------------------------------------------------


def test_reads_ask_for_whole_packets() -> None:
    assert make_host().read_length == 1088
    assert make_host(max_message_length=271).read_length == 320
    assert make_host(first_read=64).read_length == 64


def test_message_is_put_together_from_packets() -> None:
    host = make_host(first_read=64)
    host.send(XfrBlock(APDU))
    whole = message(DataBlock(bytes(range(190)) + OK))
    host.receive_data(whole[:64])
    assert host.next_event() is NEED_DATA
    assert host.read_length == 192
    host.receive_data(whole[64:192])
    assert host.next_event() is NEED_DATA
    assert host.read_length == 64
    host.receive_data(whole[192:])
    assert host.next_event() == DataBlock(bytes(range(190)) + OK)
    assert host.read_length == 64


def test_zero_length_packets_between_messages_are_noise() -> None:
    host = make_host()
    for seq, data in enumerate((bytes(54), bytes(118), OK)):
        host.send(XfrBlock(APDU))
        host.receive_data(b"")
        assert host.next_event() is NEED_DATA
        host.receive_data(message(DataBlock(data), seq=seq))
        assert host.next_event() == DataBlock(data)
        host.receive_data(b"")


def test_zero_length_packet_inside_a_message_ends_it() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(message(DataBlock(bytes(200)))[:64])
    host.receive_data(b"")
    with pytest.raises(ProtocolViolation, match="announces 200 bytes of data and has 54"):
        host.next_event()


def test_short_packet_inside_a_message_ends_it() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(message(DataBlock(bytes(200)))[:100])
    with pytest.raises(ProtocolViolation, match="announces 200 bytes of data and has 90"):
        host.next_event()


# --- Abort (CCID 1.10, 5.3.1) ------------------------------------------------------------------------------------


def test_abort_names_its_number_twice_and_ends_the_command() -> None:
    host = make_host()
    complete_first = sent(host)
    complete(host, complete_first.seq)
    host.send(XfrBlock(APDU))
    setup, buffers = host.abort(3)
    assert setup == bytes.fromhex("21 01 0002 0300 0000")
    header = Header.decode(b"".join(buffers))
    assert (header.message_type, header.seq) == (MessageType.ABORT, 2)
    host.receive_data(message(DataBlock(OK), seq=1))
    assert host.next_event() is NEED_DATA
    assert host.outstanding
    host.receive_data(message(SlotStatus(), seq=2))
    assert host.next_event() == SlotStatus()
    assert not host.outstanding


def test_rest_of_a_message_after_an_abort_is_not_taken_for_the_answer() -> None:
    host = make_host(first_read=64)
    host.send(XfrBlock(APDU))
    late = message(DataBlock(bytes(100)))
    host.receive_data(late[:64])
    host.abort(0)
    host.receive_data(late[64:])
    assert host.next_event() is NEED_DATA
    host.receive_data(message(SlotStatus(), seq=1))
    assert host.next_event() == SlotStatus()


def test_abort_goes_through_after_a_violation() -> None:
    host = make_host()
    host.send(XfrBlock(APDU))
    host.receive_data(message(DataBlock(OK), slot=1))
    with pytest.raises(ProtocolViolation):
        host.next_event()
    host.abort(0)
    host.receive_data(message(SlotStatus(), seq=1))
    assert host.next_event() == SlotStatus()
