"""A server that breaks the protocol: each lie is a typed error that says whether the card may have acted.

Where a deadline is long, the lie is found by itself: an error of the deadline would have another type.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from demail_hw.address import Address
from demail_hw.errors import (
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Outcome,
    ProtocolViolation,
    ServerRefused,
    TransferStalled,
)
from demail_hw.usb.setup import SetupPacket, StandardRequest
from demail_hw.usb.standard_requests import StandardRequests
from demail_hw.usbip.events import NEED_DATA, Submitted
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
from demail_hw.usbip.server import ServerEvent, UsbIpServerConnection
from demail_hw_drivers import usbip_transport
from demail_hw_drivers.tcp import Wire
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_simulators.ccid_device import UTRUST_2700F

LONG = 20.0
SHORT = 0.1

READER = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 0x0003, 0, 0, 0, 1, 1, 1)
LISTED = OpRepDevlist((DevlistEntry(READER, (UsbInterface(0x0B, 0, 0),)),)).encode()
GRANTED = OpRepImport(READER).encode()


class Peer:
    """The server's end of one connection: honest until a lie is told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.machine = UsbIpServerConnection()
        self.requests = StandardRequests(
            UTRUST_2700F.device_descriptor(), UTRUST_2700F.configuration_descriptor(), ("a", "b", "1", "c")
        )

    def next(self) -> ServerEvent:
        while (event := self.machine.next_event()) is NEED_DATA:
            self.machine.receive_data(self.sock.recv(65536))
        return event

    def operation(self) -> OpReqDevlist | OpReqImport:
        event = self.next()
        assert isinstance(event, OpReqDevlist | OpReqImport)
        return event

    def grant(self) -> None:
        self.operation()
        self.answer(OpRepImport(READER))

    def answer(self, reply: OpRepImport | RetSubmit | RetUnlink, data: bytes = b"") -> None:
        self.sock.sendall(b"".join(self.machine.send(reply, data)))

    def command(self) -> CmdSubmit | CmdUnlink:
        """The next request that is not about control or interrupts; those are answered or left pending."""
        while True:
            event = self.next()
            if isinstance(event, CmdUnlink):
                return event
            assert isinstance(event, Submitted)
            if event.command.endpoint == 0:
                self.control(event.command)
            elif event.command.endpoint != 3:
                return event.command

    def control(self, command: CmdSubmit) -> None:
        data = self.requests.answer(SetupPacket.decode(command.setup))
        if data is None:
            self.answer(RetSubmit(command.seqnum, UrbStatus.EPIPE, 0))
        else:
            self.answer(RetSubmit(command.seqnum, 0, len(data)), data)

    def exchange(self) -> tuple[int, int]:
        """Both transfers of an exchange, by sequence number."""
        first, second = self.command(), self.command()
        assert isinstance(first, CmdSubmit)
        assert isinstance(second, CmdSubmit)
        assert (first.direction, second.direction) == (0, 1)
        return first.seqnum, second.seqnum

    def until_closed(self) -> None:
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


Script: TypeAlias = Callable[[Peer], None]


class ScriptedServer:
    """Plays one script for each connection, in a thread of its own."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.play, args=(scripts,))
        self.failure: BaseException | None = None
        self.thread.start()

    def play(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            sock, _ = self.listener.accept()
            sock.settimeout(LONG)
            with sock:
                try:
                    script(Peer(sock))
                except AssertionError as error:
                    self.failure = error

    def close(self) -> None:
        self.listener.close()
        self.thread.join(LONG)
        assert self.failure is None


Serve: TypeAlias = Callable[..., Address]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(script, ...)``: the address of the only reader of such a server."""
    with contextlib.ExitStack() as stack:

        def start(*scripts: Script, selector: str = "1-1") -> Address:
            server = stack.enter_context(contextlib.closing(ScriptedServer(scripts)))
            return Address.parse(f"usbip://127.0.0.1:{server.port}/{selector}")

        yield start


def soon(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def replies(reply: bytes, *, hold: bool = False) -> Script:
    """Say this to the first request, then close, or not."""

    def script(peer: Peer) -> None:
        peer.operation()
        peer.sock.sendall(reply)
        if hold:
            peer.until_closed()

    return script


def flood(peer: Peer) -> None:
    peer.operation()
    with contextlib.suppress(OSError):
        while True:
            peer.sock.sendall(bytes(65536))


def silence(peer: Peer) -> None:
    peer.until_closed()


def drip(peer: Peer) -> None:
    """Never more than a byte, never the whole reply."""
    peer.operation()
    with contextlib.suppress(OSError):
        for byte in GRANTED[:-1]:
            peer.sock.sendall(bytes((byte,)))
        peer.until_closed()


# --- Before anything is imported ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (replies(b""), DeviceLost),
        (replies(GRANTED[:5]), ProtocolViolation),
        (replies(GRANTED[:100]), ProtocolViolation),
        (replies(bytes.fromhex("0100 0003 00000000"), hold=True), ProtocolViolation),
        (replies(OpHeader(0x0005).encode(), hold=True), ProtocolViolation),
        (replies(GRANTED.replace(b"1-1", b"1-2"), hold=True), ProtocolViolation),
        (replies(GRANTED + bytes(48), hold=True), ProtocolViolation),
        (flood, ProtocolViolation),
        (replies(OpRepImport(None, UsbipStatus.DEV_BUSY).encode(), hold=True), DeviceBusy),
        (replies(OpRepImport(None, UsbipStatus.NA).encode(), hold=True), DeviceBusy),
        (replies(OpRepImport(None, UsbipStatus.NODEV).encode(), hold=True), DeviceNotFound),
        (replies(OpRepImport(None, UsbipStatus.DEV_ERR).encode(), hold=True), ServerRefused),
        (replies(OpRepImport(None, 4711).encode(), hold=True), ServerRefused),
    ],
)
def test_import(serve: Serve, script: Script, kind: type[HardwareError]) -> None:
    with pytest.raises(kind) as caught:
        connect(serve(script), deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("script", [silence, drip, replies(GRANTED[:100], hold=True), replies(GRANTED, hold=True)])
def test_an_import_that_never_ends(serve: Serve, script: Script) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        connect(serve(script), deadline=soon(SHORT))
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (bytes.fromhex("0111 0005 00000000 80000000"), ProtocolViolation),
        (bytes.fromhex("0111 0005 00000000 00000101"), ProtocolViolation),
        (LISTED[:12], ProtocolViolation),
        (LISTED[:-1], ProtocolViolation),
        (OpRepDevlist(status=UsbipStatus.ERROR).encode(), ServerRefused),
        (OpRepDevlist().encode(), DeviceNotFound),
        (LISTED.replace(b"\x0b\0\0\0", b"\x03\1\1\0"), DeviceNotFound),
    ],
)
def test_device_list(serve: Serve, reply: bytes, kind: type[HardwareError]) -> None:
    with pytest.raises(kind) as caught:
        connect(serve(replies(reply), selector=""), deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT


def test_what_is_no_usb_server(serve: Serve) -> None:
    address = serve(replies(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(ProtocolViolation, match="its version is 0x4854") as caught:
        connect(address, deadline=soon())
    assert caught.value.remedy == f"See that a USB/IP server listens at 127.0.0.1:{address.port}."


@pytest.mark.parametrize(
    ("script", "seconds", "told", "remedy"),
    [
        (replies(b""), LONG, "closed the connection instead of answering", "write usbips://HOST:PORT/ for one"),
        (silence, SHORT, "did not answer until the deadline", ""),
    ],
)
def test_a_server_that_says_nothing_is_named(
    serve: Serve, script: Script, seconds: float, told: str, remedy: str
) -> None:
    address = serve(script)
    with pytest.raises(HardwareError, match=f"The USB server 127.0.0.1:{address.port} {told}") as caught:
        connect(address, deadline=soon(seconds))
    assert remedy in caught.value.remedy


def broken_descriptor(number: int) -> Script:
    """The n-th descriptor is cut off where its own length says otherwise."""

    def script(peer: Peer) -> None:
        peer.grant()
        for turn in range(number + 1):
            event = peer.next()
            assert isinstance(event, Submitted)
            data = peer.requests.answer(SetupPacket.decode(event.command.setup)) or b""
            data = data[:-1] if turn == number else data
            peer.answer(RetSubmit(event.command.seqnum, 0, len(data)), data)
        peer.until_closed()

    return script


@pytest.mark.parametrize("number", range(5))
def test_broken_descriptors(serve: Serve, number: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        connect(serve(broken_descriptor(number)), deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT


# --- In an exchange -----------------------------------------------------------------------------------------------

Lie: TypeAlias = Callable[[int, int], bytes]


def lies(lie: Lie, *, hold: bool = True) -> Script:
    def script(peer: Peer) -> None:
        peer.grant()
        peer.sock.sendall(lie(*peer.exchange()))
        if hold:
            peer.until_closed()

    return script


def ok(seqnum: int, length: int = 0) -> bytes:
    return RetSubmit(seqnum, 0, length).encode()


LIES: tuple[Lie, ...] = (
    lambda out, into: ok(out, 3) + ok(into, 65) + bytes(65),  # more than was asked for
    lambda out, into: ok(out, 3) + RetSubmit(into, 0, -1).encode(),
    lambda out, into: ok(out, 3) + RetSubmit(into, 0, 2**31 - 1).encode(),
    lambda out, into: ok(out, 4),  # more than was sent
    lambda out, into: ok(out, 3) + ok(into + 77, 0),  # never asked
    lambda out, into: ok(out, 3) + ok(out, 3),  # answered twice
    lambda out, into: ok(out, 3) + b"abc" + ok(into, 0),  # payload behind an OUT answer
    lambda out, into: ok(out, 3) + RetSubmit(into, 0, 0, 0, 0x73727170).encode(),
    lambda out, into: ok(out, 3) + RetSubmit(into, 5, 0).encode(),  # a positive status
    lambda out, into: RetUnlink(out, 0).encode(),
    lambda out, into: CmdSubmit(into, READER.devid, 1, 2, 0, 8).encode(),
    lambda out, into: b"HTTP/1.1 400 Bad Request\r\n\r\n".ljust(48),
)


@pytest.mark.parametrize("lie", LIES)
def test_exchange(serve: Serve, lie: Lie) -> None:
    transport = connect(serve(lies(lie)), deadline=soon())
    with pytest.raises(ProtocolViolation) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(transport)


def assert_dead(transport: UsbIpTransport) -> None:
    with pytest.raises(DeviceLost) as caught:
        transport.exchange([b"next"], 64, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    transport.close()


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (lambda out, into: b"", DeviceLost),
        (lambda out, into: ok(out, 3), DeviceLost),
        (lambda out, into: ok(out, 3)[:47], ProtocolViolation),
        (lambda out, into: ok(out, 3) + ok(into, 64) + bytes(63), ProtocolViolation),
    ],
)
def test_closed_in_an_exchange(serve: Serve, lie: Lie, kind: type[HardwareError]) -> None:
    transport = connect(serve(lies(lie, hold=False)), deadline=soon())
    with pytest.raises(kind) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(transport)


def test_endless_data(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        out, _ = peer.exchange()
        peer.sock.sendall(ok(out, 3))
        with contextlib.suppress(OSError):
            while True:
                peer.sock.sendall(bytes(65536))

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(ProtocolViolation):
        transport.exchange([b"abc"], 64, deadline=soon())
    assert_dead(transport)


@pytest.mark.parametrize("status", [UrbStatus.ENODEV, UrbStatus.ESHUTDOWN])
def test_a_device_that_is_gone_stays_gone(serve: Serve, status: UrbStatus) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, status, 0))
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(DeviceLost) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())
    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(transport)


def test_a_refused_command_takes_its_answer_back(serve: Serve) -> None:
    unlinked: list[int] = []

    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, UrbStatus.EPIPE, 0))
        unlink = peer.command()
        assert isinstance(unlink, CmdUnlink)
        unlinked.extend((into, unlink.unlink_seqnum))
        peer.answer(RetUnlink(unlink.seqnum, UrbStatus.ECONNRESET))
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(TransferStalled) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())
    transport.close()

    assert caught.value.outcome is Outcome.REFUSED
    assert unlinked[0] == unlinked[1]


def test_the_answer_may_come_before_the_acknowledgement_of_the_command(serve: Serve) -> None:
    transport = connect(serve(lies(lambda out, into: ok(into, 5) + b"reply" + ok(out, 3))), deadline=soon())

    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"reply"
    transport.close()


# --- After a deadline ---------------------------------------------------------------------------------------------


def unlinks(peer: Peer) -> tuple[CmdUnlink, CmdUnlink]:
    first, second = peer.command(), peer.command()
    assert isinstance(first, CmdUnlink)
    assert isinstance(second, CmdUnlink)
    return first, second


def test_a_late_answer_is_never_taken_for_the_next_one(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        first, second = unlinks(peer)
        assert (first.unlink_seqnum, second.unlink_seqnum) == (out, into)
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 5), b"stale")
        peer.answer(RetUnlink(first.seqnum, 0))
        peer.answer(RetUnlink(second.seqnum, 0))
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 5), b"fresh")
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(DeadlineExceeded) as caught:
        transport.exchange([b"abc"], 64, deadline=soon(SHORT))
    assert caught.value.outcome is Outcome.UNKNOWN
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"fresh"
    transport.close()


def test_an_answer_that_was_taken_back_may_not_come(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        _, into = peer.exchange()
        first, second = unlinks(peer)
        peer.answer(RetUnlink(first.seqnum, UrbStatus.ECONNRESET))
        peer.answer(RetUnlink(second.seqnum, UrbStatus.ECONNRESET))
        out, _ = peer.exchange()
        peer.sock.sendall(ok(out, 3) + ok(into, 5) + b"stale")
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(DeadlineExceeded):
        transport.exchange([b"abc"], 64, deadline=soon(SHORT))
    with pytest.raises(ProtocolViolation):
        transport.exchange([b"abc"], 64, deadline=soon())
    assert_dead(transport)


def test_a_server_that_does_not_even_unlink_is_given_up(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        peer.exchange()
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    for _ in range(2):
        with pytest.raises(DeadlineExceeded) as caught:
            transport.exchange([b"abc"], 64, deadline=soon(SHORT))
        assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(transport)


def test_every_wait_ends_at_the_callers_deadline(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        peer.exchange()
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    waits: list[float] = []
    receive = Wire.receive

    def watched(wire: Wire, *, deadline: float) -> bytes | None:
        waits.append(deadline)
        return receive(wire, deadline=deadline)

    monkeypatch.setattr(Wire, "receive", watched)
    deadline = soon(SHORT)
    with pytest.raises(DeadlineExceeded):
        transport.exchange([b"abc"], 64, deadline=deadline)
    assert set(waits) == {deadline}
    transport.close()


def test_a_server_that_left_while_nothing_was_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbip_transport, "_IDLE_SECONDS", -LONG)
    left = threading.Event()

    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 0))
        peer.sock.close()
        left.set()

    transport = connect(serve(script), deadline=soon())
    transport.exchange([b"abc"], 64, deadline=soon())
    assert left.wait(LONG)
    with pytest.raises(DeviceLost) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.NOT_SENT
    assert_dead(transport)


def test_a_send_that_succeeds_proves_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbip_transport, "_IDLE_SECONDS", LONG)
    left = threading.Event()

    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 0))
        peer.sock.close()
        left.set()

    transport = connect(serve(script), deadline=soon())
    transport.exchange([b"abc"], 64, deadline=soon())
    assert left.wait(LONG)
    with pytest.raises(DeviceLost) as caught:
        transport.exchange([b"abc"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(transport)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_connection_after_the_deadline(seconds: float) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        connect(Address.parse("usbip://127.0.0.1:1/1-1"), deadline=soon(seconds))
    assert caught.value.outcome is Outcome.NOT_SENT


# --- Interrupt answers beside the others -----------------------------------------------------------------------


def interrupt_of(peer: Peer) -> int:
    """The number of the interrupt transfer that was posted last."""
    event = peer.next()
    assert isinstance(event, Submitted)
    assert event.command.endpoint == 3
    return event.command.seqnum


def test_news_in_the_middle_of_an_exchange_are_filed_beside_it(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        news = interrupt_of(peer)
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(news, 0, 2), b"\x50\x03")
        peer.answer(RetSubmit(into, 0, 6), b"answer")
        out, into = peer.exchange()
        news = interrupt_of(peer)
        peer.answer(RetSubmit(into, 0, 6), b"second")
        peer.answer(RetSubmit(news, 0, 2), b"\x50\x02")
        peer.answer(RetSubmit(out, 0, 3))
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"answer"
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"second"
    assert [transport.interrupt_in(deadline=soon()) for _ in range(2)] == [b"\x50\x03", b"\x50\x02"]
    transport.close()


def test_news_after_a_deadline_are_no_answer_and_are_not_lost(serve: Serve) -> None:
    """The exchange is taken back, the interrupt transfer is not."""

    def script(peer: Peer) -> None:
        peer.grant()
        peer.exchange()
        news = interrupt_of(peer)
        first, second = unlinks(peer)
        peer.answer(RetSubmit(news, 0, 2), b"\x50\x02")
        peer.answer(RetUnlink(first.seqnum, UrbStatus.ECONNRESET))
        peer.answer(RetUnlink(second.seqnum, UrbStatus.ECONNRESET))
        out, into = peer.exchange()
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 5), b"fresh")
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    with pytest.raises(DeadlineExceeded):
        transport.exchange([b"abc"], 64, deadline=soon(SHORT))
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"fresh"
    assert transport.interrupt_in(deadline=soon()) == b"\x50\x02"
    transport.close()


def test_a_device_that_says_by_its_news_that_it_is_gone(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        news = interrupt_of(peer)
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 6), b"answer")
        peer.answer(RetSubmit(news, UrbStatus.ENODEV, 0))
        peer.until_closed()

    transport = connect(serve(script), deadline=soon())
    heard: list[str] = []
    transport.when_lost(heard.append)
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"answer"
    with pytest.raises(DeviceLost):
        transport.interrupt_in(deadline=soon())
    assert_dead(transport)
    assert len(heard) == 1
    assert transport.lost == heard[0]
    transport.when_lost(heard.append)
    assert heard[1] == heard[0]


def test_the_end_of_a_server_is_seen_without_receiving(serve: Serve) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.grant()
        out, into = peer.exchange()
        news = interrupt_of(peer)
        peer.answer(RetSubmit(out, 0, 3))
        peer.answer(RetSubmit(into, 0, 6), b"answer")
        peer.answer(RetSubmit(news, 0, 2), b"\x50\x02")
        assert go.wait(LONG)

    transport = connect(serve(script), deadline=soon())
    assert transport.exchange([b"abc"], 64, deadline=soon()) == b"answer"
    transport.watch_end(deadline=soon(SHORT))
    assert transport.interrupt_in(deadline=soon()) == b"\x50\x02"
    go.set()
    with pytest.raises(DeviceLost):
        transport.watch_end(deadline=soon())
    with pytest.raises(DeviceLost):
        transport.watch_end(deadline=soon())
    assert_dead(transport)


# --- Before a kernel has it ---------------------------------------------------------------------------------------


def a_byte_too_many(peer: Peer) -> None:
    """Behind the answer to SET_CONFIGURATION."""
    peer.grant()
    while True:
        event = peer.next()
        assert isinstance(event, Submitted)
        if SetupPacket.decode(event.command.setup).request == StandardRequest.SET_CONFIGURATION:
            break
        peer.control(event.command)
    peer.sock.sendall(RetSubmit(event.command.seqnum, 0, 0).encode() + b"\0")
    peer.until_closed()


def test_what_nobody_asked_for_is_handed_to_no_kernel(serve: Serve) -> None:
    transport = connect(serve(a_byte_too_many), deadline=soon())

    with pytest.raises(ProtocolViolation, match="nobody asked for") as raised:
        transport.hand_over(deadline=soon())

    assert raised.value.outcome is Outcome.NOT_SENT
    transport.close()
