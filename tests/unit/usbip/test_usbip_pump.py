"""Between a kernel and its server: what is right goes through, what would harm the kernel never does."""

import pytest

from demail_hw.errors import HardwareError, Outcome, ProtocolViolation, TransportError
from demail_hw.usb.descriptors import DescriptorType
from demail_hw.usb.setup import get_descriptor
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    CmdSubmit,
    CmdUnlink,
    Direction,
    RetSubmit,
    RetUnlink,
    UrbStatus,
)
from demail_hw.usbip.pump import PumpCounters, UrbPump

DEVID = 0x10002
BULK_OUT = CmdSubmit(1, DEVID, Direction.OUT, 1, 0, 5)
BULK_IN = CmdSubmit(2, DEVID, Direction.IN, 2, 0x200, 16)
INTERRUPT = CmdSubmit(3, DEVID, Direction.IN, 3, 0x200, 8)
ISOCHRONOUS = CmdSubmit(4, DEVID, Direction.IN, 4, 0x200, 8, number_of_packets=2)
UNLINK = CmdUnlink(9, DEVID, INTERRUPT.seqnum)
SHOWN = ShownDescriptors(bytes(range(18)), (b"configuration",))
ASK_DEVICE = CmdSubmit(
    5, DEVID, Direction.IN, 0, 0x200, 64, setup=get_descriptor(DescriptorType.DEVICE, 0, 64).encode()
)


def joined(buffers: object) -> bytes:
    return b"".join(buffers)  # type: ignore[arg-type]


@pytest.fixture
def pump() -> UrbPump:
    """A bulk OUT, a bulk IN and an interrupt IN are pending."""
    pump = UrbPump(SHOWN)
    pump.from_kernel(BULK_OUT.encode() + b"hello" + BULK_IN.encode() + INTERRUPT.encode())
    return pump


def test_requests_go_through_unchanged_and_whole() -> None:
    pump = UrbPump(SHOWN)
    request = BULK_OUT.encode() + b"hello"
    sent = request + BULK_IN.encode() + UNLINK.encode()

    passed = [joined(pump.from_kernel(bytes([byte]))) for byte in sent]

    assert joined(passed) == sent
    assert [piece for piece in passed if piece] == [request, BULK_IN.encode(), UNLINK.encode()]
    assert pump.pending == (BULK_OUT.seqnum, BULK_IN.seqnum)
    assert pump.counters == PumpCounters(urbs=2, unlinks=1, bytes_out=len(sent), bytes_in=0)


def test_answers_go_through_in_any_order_and_whole(pump: UrbPump) -> None:
    answer = RetSubmit(BULK_IN.seqnum, 0, 4).encode() + b"data"
    done = RetSubmit(BULK_OUT.seqnum, 0, 5).encode()

    passed = [joined(pump.from_server(bytes([byte]))) for byte in answer + done]

    assert [piece for piece in passed if piece] == [answer, done]
    assert pump.pending == (INTERRUPT.seqnum,)
    assert pump.counters.bytes_in == len(answer + done)


def test_a_stall_goes_through(pump: UrbPump) -> None:
    stalled = RetSubmit(BULK_IN.seqnum, UrbStatus.EPIPE, 0).encode()

    assert joined(pump.from_server(stalled)) == stalled


def test_what_a_header_needs_not_say_is_zero_for_the_kernel(pump: UrbPump) -> None:
    answer = bytearray(RetSubmit(BULK_OUT.seqnum, 0, 5, start_frame=7, number_of_packets=-1, error_count=9).encode())
    answer[8:20] = b"\xff" * 12  # devid, direction, ep
    answer[40:] = b"\xff" * 8

    assert joined(pump.from_server(bytes(answer))) == RetSubmit(BULK_OUT.seqnum, 0, 5).encode()


@pytest.mark.parametrize("status", [-1, -4095, -(1 << 31)])
def test_a_status_that_no_host_driver_gives_is_one_of_the_bus(pump: UrbPump, status: int) -> None:
    answered = joined(pump.from_server(RetSubmit(BULK_IN.seqnum, status, 0).encode()))

    assert answered == RetSubmit(BULK_IN.seqnum, UrbStatus.EPROTO, 0).encode()


def test_a_transfer_that_was_taken_back(pump: UrbPump) -> None:
    pump.from_kernel(UNLINK.encode())
    assert pump.unlinking == (UNLINK.seqnum,)
    taken_back = RetUnlink(UNLINK.seqnum, UrbStatus.ECONNRESET).encode()

    assert joined(pump.from_server(taken_back)) == taken_back
    assert not pump.unlinking
    assert INTERRUPT.seqnum not in pump.pending


def test_a_transfer_that_was_taken_back_never_looks_as_if_it_had_succeeded(pump: UrbPump) -> None:
    """The package usbip 0.7.0 of PyPI says status 0 of every unlink."""
    pump.from_kernel(UNLINK.encode())

    answered = joined(pump.from_server(RetUnlink(UNLINK.seqnum, UrbStatus.OK).encode()))

    assert answered == RetUnlink(UNLINK.seqnum, UrbStatus.ECONNRESET).encode()


def test_a_transfer_that_ended_before_it_was_taken_back(pump: UrbPump) -> None:
    pump.from_kernel(UNLINK.encode())
    ended = RetSubmit(INTERRUPT.seqnum, 0, 2).encode() + b"\x50\x03" + RetUnlink(UNLINK.seqnum, 0).encode()

    assert joined(pump.from_server(ended)) == ended


LIES = {
    "more than was asked for": RetSubmit(INTERRUPT.seqnum, 0, 64).encode() + bytes(64),
    "more than was sent": RetSubmit(BULK_OUT.seqnum, 0, 6).encode(),
    "a length below zero": RetSubmit(BULK_IN.seqnum, 0, -1).encode(),
    "a length above all limits": RetSubmit(BULK_IN.seqnum, 0, 1 << 30).encode(),
    "a number that nobody has": RetSubmit(77, 0, 0).encode(),
    "isochronous packets": RetSubmit(BULK_IN.seqnum, 0, 0, number_of_packets=1024).encode(),
    "isochronous packets below zero": RetSubmit(BULK_IN.seqnum, 0, 0, number_of_packets=-2).encode(),
    "a positive status": RetSubmit(BULK_IN.seqnum, 32, 0).encode(),
    "an unlink that nobody sent": RetUnlink(77, 0).encode(),
    "an unlink by the number of its transfer": RetUnlink(INTERRUPT.seqnum, 0).encode(),
    "a request": BULK_IN.encode(),
    "an unknown command": bytes(HEADER_SIZE),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_would_harm_the_kernel_never_reaches_it(pump: UrbPump, lie: bytes) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        pump.from_server(lie)

    assert raised.value.outcome is Outcome.UNKNOWN
    with pytest.raises(ProtocolViolation, match=r"^The USB/IP"):
        pump.from_server(RetSubmit(BULK_IN.seqnum, 0, 0).encode())
    with pytest.raises(ProtocolViolation):
        pump.from_kernel(BULK_IN.encode())


def test_an_answer_that_was_given_already(pump: UrbPump) -> None:
    pump.from_server(RetSubmit(BULK_OUT.seqnum, 0, 5).encode())

    with pytest.raises(ProtocolViolation, match="not pending"):
        pump.from_server(RetSubmit(BULK_OUT.seqnum, 0, 5).encode())


def test_an_answer_after_the_transfer_was_taken_back(pump: UrbPump) -> None:
    pump.from_kernel(UNLINK.encode())
    pump.from_server(RetUnlink(UNLINK.seqnum, UrbStatus.ECONNRESET).encode())

    with pytest.raises(ProtocolViolation, match="not pending"):
        pump.from_server(RetSubmit(INTERRUPT.seqnum, 0, 2).encode() + b"\x50\x03")


def test_data_behind_the_answer_to_a_transfer_out_is_no_message(pump: UrbPump) -> None:
    """A server that sends it makes a Linux client lose the thread."""
    with pytest.raises(ProtocolViolation, match="unknown command"):
        pump.from_server(RetSubmit(BULK_OUT.seqnum, 0, 5).encode() + b"hello" + bytes(HEADER_SIZE))


def test_a_lie_is_found_before_its_data_is_waited_for(pump: UrbPump) -> None:
    with pytest.raises(ProtocolViolation, match="of 16 bytes with 17"):
        pump.from_server(RetSubmit(BULK_IN.seqnum, 0, 17).encode())


def test_the_descriptors_that_were_shown_go_through(pump: UrbPump) -> None:
    pump.from_kernel(ASK_DEVICE.encode())
    shown = RetSubmit(ASK_DEVICE.seqnum, 0, 18).encode() + SHOWN.device

    assert joined(pump.from_server(shown)) == shown


def test_a_device_that_becomes_another_never_reaches_the_kernel(pump: UrbPump) -> None:
    pump.from_kernel(ASK_DEVICE.encode())
    changed = RetSubmit(ASK_DEVICE.seqnum, 0, 18).encode() + SHOWN.device[::-1]

    assert joined(pump.from_server(changed[:-1])) == b""
    with pytest.raises(ProtocolViolation, match="not what it showed first"):
        pump.from_server(changed[-1:])


def test_an_answer_of_a_pipe_is_no_descriptor(pump: UrbPump) -> None:
    pump.from_kernel(ASK_DEVICE._replace(endpoint=2).encode())
    answer = RetSubmit(ASK_DEVICE.seqnum, 0, 4).encode() + b"data"

    assert joined(pump.from_server(answer)) == answer


@pytest.mark.parametrize(
    "request_", [ISOCHRONOUS, CmdSubmit(4, DEVID, Direction.IN, 2, 0, (1 << 20) + 1)], ids=["isochronous", "too long"]
)
def test_what_is_not_carried_is_not_the_servers_fault(request_: CmdSubmit) -> None:
    pump = UrbPump(SHOWN)

    with pytest.raises(TransportError, match="kernel asked") as raised:
        pump.from_kernel(request_.encode())

    error: HardwareError = raised.value
    assert not error.transient
    assert error.remedy
