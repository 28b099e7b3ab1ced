"""What both machines say to each other, captured message by message."""

import pytest

from captured import capture_to, flows, no_mask
from demail_hw.errors import ProtocolViolation
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.capture import CapturedClient, CapturedServer
from demail_hw.usbip.messages import (
    CmdSubmit,
    CmdUnlink,
    Direction,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    UsbDevice,
)

DEVICE = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 3, 0, 0, 0, 1, 1, 1)
OUT = CmdSubmit(1, DEVICE.devid, Direction.OUT, 1, 0, 3, 0, 0, 0, bytes(8))
IN = CmdSubmit(2, DEVICE.devid, Direction.IN, 2, 0, 64, 0, 0, 0, bytes(8))


def joined(*buffers: object) -> bytes:
    return b"".join(map(bytes, buffers))  # type: ignore[arg-type]


def imported(blocks: list[bytes]) -> CapturedClient:
    client = CapturedClient(capture_to(blocks, no_mask))
    client.send(OpReqImport("1-1"))
    client.receive_data(OpRepImport(DEVICE).encode())
    client.next_event()
    return client


def test_both_ends_capture_the_same() -> None:
    ours: list[bytes] = []
    theirs: list[bytes] = []
    client, server = CapturedClient(capture_to(ours, no_mask)), CapturedServer(capture_to(theirs, no_mask))
    sent = joined(*client.send(OpReqImport("1-1")))
    server.receive_data(sent)
    server.next_event()
    came = joined(*server.send(OpRepImport(DEVICE)))
    client.receive_data(came)
    client.next_event()
    more = joined(*client.send(OUT, (b"abc",)), *client.send(IN), *client.send(CmdUnlink(3, DEVICE.devid, 9)))
    server.receive_data(more)
    while isinstance(server.next_event(), tuple):
        pass
    answers = joined(
        *server.send(RetSubmit(1, 0, 3)), *server.send(RetSubmit(2, 0, 2), b"hi"), *server.send(RetUnlink(3, 0))
    )
    client.receive_data(answers)
    client.receive_data(b"")
    expected = {True: sent + more, False: came + answers}
    assert flows(b"".join(ours)) == flows(b"".join(theirs)) == expected
    assert sum(b"a test" in block for block in ours) == 1


def test_a_device_list() -> None:
    blocks: list[bytes] = []
    client = CapturedClient(capture_to(blocks, no_mask))
    reply = OpRepDevlist().encode()
    client.send(OpReqDevlist())
    client.receive_data(reply[:5])
    client.receive_data(reply[5:])
    assert flows(b"".join(blocks)) == {True: OpReqDevlist().encode(), False: reply}


def test_only_lengths_are_shown_of_what_cannot_be_followed() -> None:
    blocks: list[bytes] = []
    client = imported(blocks)
    client.send(IN)
    before = len(flows(b"".join(blocks))[False])
    client.receive_data(RetSubmit(7, 0, 4).encode() + b"what")  # nobody asked
    client.receive_data(b"more")
    with pytest.raises(ProtocolViolation):
        client.next_event()
    assert flows(b"".join(blocks))[False][before:] == b"*" * (4 + 4)


def test_half_a_message_is_shown_masked_at_the_end() -> None:
    blocks: list[bytes] = []
    client = imported(blocks)
    before = len(flows(b"".join(blocks))[False])
    client.receive_data(RetSubmit(7, 0, 4).encode()[:20])
    assert flows(b"".join(blocks))[False][before:] == b""
    client.receive_data(b"")
    assert flows(b"".join(blocks))[False][before:] == b"*" * 20


def test_the_mask_sees_the_data_of_transfers_with_their_commands() -> None:
    seen: list[tuple[CmdSubmit, bytes]] = []

    def hide(command: CmdSubmit, data: bytes) -> bytes:
        seen.append((command, data))
        return b"#" * len(data)

    blocks: list[bytes] = []
    client = CapturedClient(capture_to(blocks, hide))
    client.send(OpReqImport("1-1"))
    client.receive_data(OpRepImport(DEVICE).encode())
    client.next_event()
    client.send(OUT, (b"a", b"bc"))
    client.send(IN)
    client.receive_data(RetSubmit(2, 0, 2).encode() + b"h")
    client.receive_data(b"i" + RetSubmit(1, 0, 3).encode())
    assert seen == [(OUT, b"abc"), (IN, b"hi")]
    carried = flows(b"".join(blocks))
    assert carried[True].count(b"###") == 1
    assert carried[False].endswith(b"##" + RetSubmit(1, 0, 3).encode())


def test_a_kernel_that_carries_on_is_captured_too() -> None:
    blocks: list[bytes] = []
    pump = imported(blocks).pump(ShownDescriptors(b""))
    before = flows(b"".join(blocks))
    answers = RetSubmit(1, 0, 3).encode() + RetSubmit(2, 0, 2).encode() + b"hi"
    pump.from_kernel(OUT.encode() + b"abc" + IN.encode())
    pump.from_server(answers[:50])
    pump.from_server(answers[50:])
    after = flows(b"".join(blocks))
    assert after[True] == before[True] + OUT.encode() + b"abc" + IN.encode()
    assert after[False] == before[False] + answers
