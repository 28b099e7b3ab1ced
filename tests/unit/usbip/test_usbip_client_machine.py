"""The client's state machine: what it sends, what it believes, and what it dies of."""

import pytest

from demail_hw.errors import Outcome, ProtocolViolation
from demail_hw.usbip.client import UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Closed, UrbCompleted, UrbUnlinked
from demail_hw.usbip.messages import (
    CmdSubmit,
    CmdUnlink,
    DevlistEntry,
    OpHeader,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    UsbDevice,
    UsbInterface,
    UsbipStatus,
)

READER = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 0x0003, 0, 0, 0, 1, 1, 1)
DEVLIST = OpRepDevlist((DevlistEntry(READER, (UsbInterface(0x0B, 0, 0),)),))


def imported() -> UsbIpClient:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    client.receive_data(OpRepImport(READER).encode())
    assert client.next_event() == OpRepImport(READER)
    return client


def submit_in(client: UsbIpClient, seqnum: int = 1, length: int = 64) -> None:
    client.send(CmdSubmit(seqnum, READER.devid, 1, 2, 0, length))


def submit_out(client: UsbIpClient, seqnum: int = 1, data: bytes = b"data") -> None:
    client.send(CmdSubmit(seqnum, READER.devid, 0, 1, 0, len(data)), (data,))


def drain(client: UsbIpClient) -> None:
    while client.next_event() is not NEED_DATA:
        pass


def test_device_list() -> None:
    client = UsbIpClient()
    assert b"".join(client.send(OpReqDevlist())) == bytes.fromhex("0111800500000000")
    assert client.next_event() is NEED_DATA
    client.receive_data(DEVLIST.encode())

    assert client.next_event() == DEVLIST
    client.receive_data(b"")
    assert client.next_event() == Closed()


def test_refused_import() -> None:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    client.receive_data(OpRepImport(None, UsbipStatus.DEV_BUSY).encode())

    assert client.next_event() == OpRepImport(None, UsbipStatus.DEV_BUSY)
    with pytest.raises(RuntimeError):
        submit_in(client)


def test_data_is_passed_on_uncopied() -> None:
    client = imported()
    secret = memoryview(bytearray(b"1234"))
    header, *data = client.send(CmdSubmit(1, READER.devid, 0, 1, 0, 5), (b"h", secret))

    assert len(header) == 48
    assert data[1] is secret


def test_both_answers_in_one_segment() -> None:
    client = imported()
    submit_out(client, 1)
    submit_in(client, 2)
    client.receive_data(RetSubmit(1, 0, 4).encode() + RetSubmit(2, 0, 5).encode() + b"reply")

    assert client.next_event() == UrbCompleted(1, 0, b"")
    assert client.next_event() == UrbCompleted(2, 0, b"reply")
    assert client.next_event() is NEED_DATA
    assert client.pending == ()


def test_answers_in_any_order_and_any_pieces() -> None:
    client = imported()
    submit_in(client, 1)
    submit_in(client, 2)
    events = []
    for byte in RetSubmit(2, 0, 3).encode() + b"two" + RetSubmit(1, UrbStatus.EREMOTEIO, 3).encode() + b"one":
        client.receive_data(bytes((byte,)))
        event = client.next_event()
        if event is not NEED_DATA:
            events.append(event)

    assert events == [UrbCompleted(2, 0, b"two"), UrbCompleted(1, UrbStatus.EREMOTEIO, b"one")]


def test_unlinked() -> None:
    client = imported()
    submit_in(client, 1)
    client.send(CmdUnlink(2, READER.devid, 1))
    client.receive_data(RetUnlink(2, UrbStatus.ECONNRESET).encode())

    assert client.next_event() == UrbUnlinked(1, UrbStatus.ECONNRESET, pending=True)
    assert client.pending == ()


def test_unlinked_too_late() -> None:
    client = imported()
    submit_in(client, 1)
    client.send(CmdUnlink(2, READER.devid, 1))
    client.receive_data(RetSubmit(1, 0, 1).encode() + b"x" + RetUnlink(2, 0).encode())

    assert client.next_event() == UrbCompleted(1, 0, b"x")
    assert client.next_event() == UrbUnlinked(1, 0, pending=False)


@pytest.mark.parametrize("status", [0, UrbStatus.ECONNRESET, UrbStatus.ENOENT])
def test_no_answer_after_the_unlink_was_answered(status: int) -> None:
    client = imported()
    submit_in(client, 1)
    client.send(CmdUnlink(2, READER.devid, 1))
    client.receive_data(RetUnlink(2, status).encode() + RetSubmit(1, 0, 1).encode() + b"x")
    client.next_event()

    with pytest.raises(ProtocolViolation):
        client.next_event()


@pytest.mark.parametrize(
    "lie",
    [
        RetSubmit(9, 0, 0).encode(),  # never asked
        RetSubmit(2, 0, 65).encode(),  # more than was asked for
        RetSubmit(1, 0, 5).encode(),  # more than was sent
        RetSubmit(2, 0, -1).encode(),
        RetSubmit(2, 0, 2**31 - 1).encode(),
        RetSubmit(2, 0, 1, 0, 0x20202020).encode(),
        RetUnlink(1, 0).encode(),  # no unlink is pending
        CmdSubmit(1, READER.devid, 1, 2, 0, 8).encode(),
        bytes(48),
        RetSubmit(1, 0, 4).encode() + b"\0\0\0\3data" + bytes(48),  # payload behind an OUT answer
        RetSubmit(1, 0, 4).encode() * 2,  # answered twice
    ],
)
def test_lies_are_found_before_anything_is_waited_for(lie: bytes) -> None:
    client = imported()
    submit_out(client, 1)
    submit_in(client, 2)
    client.receive_data(lie)

    with pytest.raises(ProtocolViolation):
        drain(client)
    with pytest.raises(ProtocolViolation):
        client.next_event()
    with pytest.raises(ProtocolViolation):
        submit_in(client, 3)


@pytest.mark.parametrize(
    "lie",
    [
        OpHeader(0x0005).encode(),
        OpHeader(0x8003).encode(),
        bytes.fromhex("0100 0003 00000000"),
        OpHeader(0x0003).encode() + READER.encode().replace(b"1-1", b"1-2"),
    ],
)
def test_lies_about_an_import(lie: bytes) -> None:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    client.receive_data(lie)

    with pytest.raises(ProtocolViolation) as caught:
        client.next_event()
    assert caught.value.outcome is Outcome.NOT_SENT


def test_nobody_asked() -> None:
    client = UsbIpClient()
    client.receive_data(b"x")
    with pytest.raises(ProtocolViolation):
        client.next_event()


@pytest.mark.parametrize("cut", [1, 8, 9, 12, 13, 324, 327])
def test_a_device_list_that_is_cut_off(cut: int) -> None:
    client = UsbIpClient()
    client.send(OpReqDevlist())
    client.receive_data(DEVLIST.encode()[:cut])
    client.receive_data(b"")

    with pytest.raises(ProtocolViolation):
        client.next_event()


@pytest.mark.parametrize("cut", [1, 47, 48, 50])
def test_an_answer_that_is_cut_off(cut: int) -> None:
    client = imported()
    submit_in(client, 1)
    client.receive_data((RetSubmit(1, 0, 3).encode() + b"abc")[:cut])
    client.receive_data(b"")

    with pytest.raises(ProtocolViolation) as caught:
        client.next_event()
    assert caught.value.outcome is Outcome.UNKNOWN


def test_closed_between_answers() -> None:
    client = imported()
    submit_in(client, 1)
    client.receive_data(RetSubmit(1, 0, 0).encode())
    client.receive_data(b"")

    assert client.next_event() == UrbCompleted(1, 0, b"")
    assert client.next_event() == Closed()


def test_the_callers_own_mistakes() -> None:
    client = imported()
    submit_in(client, 1)
    with pytest.raises(ValueError):
        submit_in(client, 1)
    with pytest.raises(ValueError):
        client.send(CmdSubmit(2, READER.devid, 0, 1, 0, 5), (b"four",))
    with pytest.raises(RuntimeError):
        client.send(OpReqDevlist())
    client.send(CmdUnlink(3, READER.devid, 1))
    with pytest.raises(ValueError):
        client.send(CmdUnlink(3, READER.devid, 1))


def test_sequence_numbers_begin_at_1_and_never_become_0() -> None:
    client = UsbIpClient()
    assert [client.next_seqnum() for _ in range(3)] == [1, 2, 3]
    client._seqnum = 0xFFFFFFFE
    assert [client.next_seqnum() for _ in range(2)] == [0xFFFFFFFF, 1]


def test_sequence_numbers_of_what_is_pending_are_left_out_when_they_wrap() -> None:
    client = imported()
    submit_in(client, 1)
    client.send(CmdUnlink(2, READER.devid, 1))
    client._seqnum = 0xFFFFFFFF

    assert client.next_seqnum() == 3


def test_an_unlink_is_owed_until_it_is_answered() -> None:
    client = imported()
    submit_in(client, 1)
    assert not client.unlinking
    client.send(CmdUnlink(2, READER.devid, 1))
    assert client.unlinking
    client.receive_data(RetUnlink(2, UrbStatus.ECONNRESET).encode())
    drain(client)

    assert not client.unlinking
