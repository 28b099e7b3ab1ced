"""Messages of USB/IP, against the layout and the captured example of Linux' usbip_protocol.rst."""

import struct

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.usbip.messages import (
    MAX_TRANSFER_LENGTH,
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
    decode_bus_id,
    decode_count,
    decode_reply,
    decode_request,
)

READER = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 0x0003, 0, 0, 0, 1, 1, 1)
READER_BYTES = (
    b"/sys/1-1".ljust(256, b"\0")
    + b"1-1".ljust(32, b"\0")
    + bytes.fromhex("00000001 00000002 00000002 04e6 5710 0003 00 00 00 01 01 01")
)

CMD_INTR_IN = bytes.fromhex(
    "00000001 00000d05 0001000f 00000001 00000001 00000200 00000040 ffffffff 00000000 00000004 00000000 00000000"
)
CMD_INTR_OUT = bytes.fromhex(
    "00000001 00000d06 0001000f 00000000 00000001 00000000 00000040 ffffffff 00000000 00000004 00000000 00000000"
)
RET_INTR_OUT = bytes.fromhex(
    "00000003 00000d06 00000000 00000000 00000000 00000000 00000040 ffffffff 00000000 00000000 00000000 00000000"
)


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (OpReqDevlist(), "0111 8005 00000000"),
        (OpReqImport("1-1.2"), "0111 8003 00000000 312d312e32" + "00" * 27),
        (OpRepImport(None, UsbipStatus.DEV_BUSY), "0111 0003 00000002"),
        (OpRepImport(READER), "0111 0003 00000000" + READER_BYTES.hex()),
        (OpRepDevlist(status=UsbipStatus.NA), "0111 0005 00000001"),
        (OpRepDevlist(), "0111 0005 00000000 00000000"),
        (
            OpRepDevlist((DevlistEntry(READER, (UsbInterface(0x0B, 1, 2),)),)),
            "0111 0005 00000000 00000001" + READER_BYTES.hex() + "0b010200",
        ),
    ],
)
def test_operations(message: OpReqDevlist | OpReqImport | OpRepImport | OpRepDevlist, encoded: str) -> None:
    assert message.encode() == bytes.fromhex(encoded)


def test_device_block() -> None:
    assert len(READER_BYTES) == 312
    assert UsbDevice.decode(READER_BYTES) == READER
    assert READER.devid == 0x00010002


@pytest.mark.parametrize(
    ("offset", "patch"),
    [
        (0, b"x" * 256),  # a path without end
        (256, b"x" * 32),  # a bus id without end
        (256, b"\xff"),
        (256, b"\x1b"),
        (288, b"\x00\x01\x00\x00"),  # bus number 65536
        (292, b"\xff\xff\xff\xff"),
        (311, b"\xff"),  # 255 interfaces
    ],
)
def test_broken_device_block(offset: int, patch: bytes) -> None:
    broken = bytearray(READER_BYTES)
    broken[offset : offset + len(patch)] = patch
    with pytest.raises(ProtocolViolation):
        UsbDevice.decode(broken)


def test_the_version_is_1_1_1() -> None:
    assert OpHeader.decode(bytes.fromhex("0111 0005 00000003")) == OpHeader(5, 3)
    with pytest.raises(ProtocolViolation):
        OpHeader.decode(bytes.fromhex("0106 0005 00000000"))


def test_counts_and_texts_are_limited() -> None:
    assert decode_count(bytes.fromhex("00000100")) == 256
    with pytest.raises(ProtocolViolation):
        decode_count(bytes.fromhex("80000000"))
    assert decode_bus_id(b"3-2.1".ljust(32, b"\0")) == "3-2.1"
    for unfit in ("x" * 32, "1\0002", "ä"):
        with pytest.raises(ValueError):
            OpReqImport(unfit).encode()


def test_the_captured_example() -> None:
    request = CmdSubmit(0xD05, 0x0001000F, 1, 1, 0x200, 64, -1, 0, 4)
    assert decode_request(CMD_INTR_IN) == request
    assert request.encode() == CMD_INTR_IN
    assert decode_request(CMD_INTR_OUT) == CmdSubmit(0xD06, 0x0001000F, 0, 1, 0, 64, -1, 0, 4)
    assert decode_reply(RET_INTR_OUT) == RetSubmit(0xD06, 0, 64, -1)
    assert RetSubmit(0xD06, 0, 64, -1).encode() == RET_INTR_OUT


def test_a_control_transfer_carries_its_setup_packet() -> None:
    command = CmdSubmit(1, 0x00010002, 1, 0, 0x200, 18, setup=bytes.fromhex("8006000100001200"))

    assert command.encode().hex(" ", -4).endswith("80060001 00001200")
    assert decode_request(command.encode()) == command


def test_unlink() -> None:
    command = CmdUnlink(7, 0x00010002, 5)
    assert command.encode() == bytes.fromhex("00000002 00000007 00010002 00000000 00000000 00000005" + "00" * 24)
    assert decode_request(command.encode()) == command
    answer = RetUnlink(7, UrbStatus.ECONNRESET)
    assert answer.encode() == bytes.fromhex("00000004 00000007" + "00" * 12 + "ffffff98" + "00" * 24)
    assert decode_reply(answer.encode()) == answer


@pytest.mark.parametrize("packets", [0, -1])
def test_no_isochronous_packets_in_both_spellings(packets: int) -> None:
    assert decode_request(CmdSubmit(1, 2, 1, 1, 0, 8, 0, packets).encode())
    assert decode_reply(RetSubmit(1, 0, 8, 0, packets).encode())


@pytest.mark.parametrize(
    "command",
    [
        CmdSubmit(1, 2, 2, 1, 0, 8),
        CmdSubmit(1, 2, 1, 16, 0, 8),
        CmdSubmit(1, 2, 1, 1, 0, -1),
        CmdSubmit(1, 2, 1, 1, 0, MAX_TRANSFER_LENGTH + 1),
        CmdSubmit(1, 2, 1, 1, 0, 8, 0, 8),
    ],
)
def test_requests_out_of_the_limits(command: CmdSubmit) -> None:
    with pytest.raises(ProtocolViolation):
        decode_request(command.encode())


@pytest.mark.parametrize(
    "answer",
    [
        RetSubmit(1, 0, -1),
        RetSubmit(1, 0, 2**31 - 1),
        RetSubmit(1, 0, MAX_TRANSFER_LENGTH + 1),
        RetSubmit(1, 0, 8, 0, 0x1EADBEEF),
        RetSubmit(1, 32, 0),
        RetUnlink(1, 104),
    ],
)
def test_replies_out_of_the_limits(answer: RetSubmit | RetUnlink) -> None:
    with pytest.raises(ProtocolViolation):
        decode_reply(answer.encode())


@pytest.mark.parametrize("command", [0, 5, 0xFFFFFFFF])
def test_unknown_commands(command: int) -> None:
    header = struct.pack(">I44x", command)
    for decode in (decode_request, decode_reply):
        with pytest.raises(ProtocolViolation):
            decode(header)
