"""The server's state machine."""

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.usbip.events import NEED_DATA, Closed, Submitted
from demail_hw.usbip.messages import (
    MAX_PENDING,
    CmdSubmit,
    CmdUnlink,
    OpHeader,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    UsbDevice,
    UsbipStatus,
)
from demail_hw.usbip.server import UsbIpServerConnection

READER = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 0x0003, 0, 0, 0, 1, 1, 1)
DEVID = READER.devid


def exported() -> UsbIpServerConnection:
    server = UsbIpServerConnection()
    server.receive_data(OpReqImport("1-1").encode())
    assert server.next_event() == OpReqImport("1-1")
    server.send(OpRepImport(READER))
    return server


def test_device_list() -> None:
    server = UsbIpServerConnection()
    assert server.next_event() is NEED_DATA
    server.receive_data(OpReqDevlist().encode())

    assert server.next_event() == OpReqDevlist()
    assert b"".join(server.send(OpRepDevlist())) == bytes.fromhex("01110005 00000000 00000000")
    server.receive_data(b"")
    assert server.next_event() == Closed()


def test_a_transfer_that_follows_the_import_at_once_waits_for_the_answer() -> None:
    command = CmdSubmit(1, DEVID, 1, 2, 0, 64)
    server = UsbIpServerConnection()
    server.receive_data(OpReqImport("1-1").encode() + command.encode())
    assert server.next_event() == OpReqImport("1-1")
    assert server.next_event() is NEED_DATA
    server.send(OpRepImport(READER))

    assert server.next_event() == Submitted(command, b"")


def test_transfers_byte_by_byte() -> None:
    server = exported()
    out = CmdSubmit(1, DEVID, 0, 1, 0, 4)
    into = CmdSubmit(2, DEVID, 1, 2, 0, 64)
    events = []
    for byte in out.encode() + b"data" + into.encode() + CmdUnlink(3, DEVID, 2).encode():
        server.receive_data(bytes((byte,)))
        event = server.next_event()
        if event is not NEED_DATA:
            events.append(event)

    assert events == [Submitted(out, b"data"), Submitted(into, b""), CmdUnlink(3, DEVID, 2)]
    assert server.pending == (1, 2)
    assert server.send(RetSubmit(1, 0, 4)) == (RetSubmit(1, 0, 4).encode(),)
    assert server.send(RetUnlink(3, UrbStatus.ECONNRESET)) == (RetUnlink(3, UrbStatus.ECONNRESET).encode(),)
    assert len(server.pending) == 0


@pytest.mark.parametrize(
    "request_bytes",
    [
        OpHeader(0x8002).encode(),
        OpHeader(0x0005).encode(),
        bytes.fromhex("0110 8005 00000000"),
        OpHeader(0x8003).encode() + b"x" * 32,
    ],
)
def test_broken_operations(request_bytes: bytes) -> None:
    server = UsbIpServerConnection()
    server.receive_data(request_bytes)
    with pytest.raises(ProtocolViolation):
        server.next_event()
    with pytest.raises(ProtocolViolation):
        server.next_event()


@pytest.mark.parametrize(
    "command",
    [
        CmdSubmit(2, DEVID + 1, 1, 2, 0, 64).encode(),
        CmdUnlink(2, DEVID + 1, 1).encode(),
        CmdSubmit(1, DEVID, 1, 2, 0, 64).encode(),  # twice
        CmdUnlink(1, DEVID, 1).encode(),
        CmdSubmit(2, DEVID, 0, 1, 0, 2**31 - 1).encode(),
        CmdSubmit(2, DEVID, 1, 16, 0, 64).encode(),
        RetSubmit(1, 0, 0).encode(),
        b"\xff" * 48,
    ],
)
def test_broken_transfers(command: bytes) -> None:
    server = exported()
    server.receive_data(CmdSubmit(1, DEVID, 1, 2, 0, 64).encode() + command)
    server.next_event()

    with pytest.raises(ProtocolViolation):
        server.next_event()


def test_the_number_of_pending_transfers_is_limited() -> None:
    server = exported()
    for seqnum in range(MAX_PENDING):
        server.receive_data(CmdSubmit(seqnum, DEVID, 1, 2, 0, 64).encode())
        server.next_event()
    server.receive_data(CmdSubmit(MAX_PENDING, DEVID, 1, 2, 0, 64).encode())

    with pytest.raises(ProtocolViolation):
        server.next_event()


def test_closed_in_the_middle() -> None:
    server = exported()
    server.receive_data(CmdSubmit(1, DEVID, 0, 1, 0, 64).encode() + b"half")
    server.receive_data(b"")

    with pytest.raises(ProtocolViolation):
        server.next_event()


def test_the_callers_own_mistakes() -> None:
    server = UsbIpServerConnection()
    with pytest.raises(RuntimeError):
        server.send(OpRepDevlist())
    server = exported()
    with pytest.raises(RuntimeError):
        server.send(OpRepImport(None, UsbipStatus.NA))
    server.receive_data(CmdSubmit(1, DEVID, 1, 2, 0, 4).encode() + CmdUnlink(2, DEVID, 1).encode())
    server.next_event()
    server.next_event()
    for reply, data in (
        (RetSubmit(9, 0, 0), b""),
        (RetSubmit(1, 0, 5), b"12345"),
        (RetSubmit(1, 0, 3), b"1234"),
        (RetUnlink(9, 0), b""),
        (RetUnlink(2, 0), b""),  # its RET_SUBMIT comes first
    ):
        with pytest.raises(ValueError):
            server.send(reply, data)
    assert server.send(RetSubmit(1, 0, 4), b"1234")
    assert server.send(RetUnlink(2, 0))
