"""The USB/IP server over TCP, spoken to by a client that does nothing by itself."""

import contextlib
import json
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import pytest

from demail_hw.errors import TransportError
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.usb.setup import get_descriptor
from demail_hw.usbip.client import ClientEvent, UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Closed, UrbCompleted, UrbUnlinked
from demail_hw.usbip.messages import (
    CmdSubmit,
    CmdUnlink,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    TransferFlag,
    UrbStatus,
    UsbInterface,
    UsbipStatus,
)
from demail_hw.usbip.server import UsbIpServerConnection
from demail_hw_drivers.tcp import tune
from demail_hw_drivers.usbip_server import ServerLimits, UsbIpServer
from demail_hw_drivers.usbip_server_audit import AuditAction, AuditLine
from demail_hw_drivers.usbip_server_connection import Service
from demail_hw_drivers.usbip_server_counters import network_of
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from exported import wait_until_free

Complete: TypeAlias = Callable[[TransferResult], None]

SECONDS = 20.0
BULK_OUT, BULK_IN, INTERRUPT = 1, 2, 3
OUT, IN = 0, 1


class Patient(SimulatedUsbReader):
    """A reader without card whose bulk endpoints do what the test says."""

    def __init__(self) -> None:
        super().__init__(None)
        self.transfers: list[tuple[Transfer, Complete]] = []
        self.seen: list[Transfer] = []
        self.takes_back = True
        self.resets = 0
        self.changed = threading.Condition()

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        with self.changed:
            self.seen.append(transfer)
            self.changed.notify_all()
        if transfer.endpoint == 0x82:
            self.transfers.append((transfer, complete))
        elif transfer.endpoint == 0x01:
            complete(TransferResult(UrbStatus.OK))
            for _, waiting in self.transfers:
                waiting(TransferResult(UrbStatus.OK, transfer.data))
            self.transfers.clear()
        else:
            super().submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        if not self.takes_back:
            return False
        known = any(item is transfer for item, _ in self.transfers)
        return known or super().cancel(transfer)

    def reset(self) -> None:
        super().reset()
        with self.changed:
            self.resets += 1
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SECONDS)


class Client:
    """One connection; a test sends and receives event by event."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.machine = UsbIpClient()
        self.devid = 0

    def send(self, *requests: OpReqDevlist | OpReqImport | CmdSubmit | CmdUnlink, data: bytes = b"") -> None:
        """All of them in one segment; ``data`` belongs to the OUT transfer among them."""
        parts: list[bytes] = []
        for request in requests:
            own = (data,) if isinstance(request, CmdSubmit) and request.direction == OUT and data else ()
            parts += map(bytes, self.machine.send(request, own))
        self.sock.sendall(b"".join(parts))

    def receive(self) -> ClientEvent:
        while (event := self.machine.next_event()) is NEED_DATA:
            self.machine.receive_data(self.sock.recv(65536))
        return event

    def bring(self, bus_id: str = "1-1") -> OpRepImport:
        self.send(OpReqImport(bus_id))
        reply = self.receive()
        assert isinstance(reply, OpRepImport)
        if reply.device is not None:
            self.devid = reply.device.devid
        return reply

    def submit(
        self, seqnum: int, direction: int, endpoint: int, length: int, *, flags: int = 0, setup: bytes = bytes(8)
    ) -> CmdSubmit:
        return CmdSubmit(seqnum, self.devid, direction, endpoint, flags, length, setup=setup)

    def unlink(self, seqnum: int, target: int) -> CmdUnlink:
        return CmdUnlink(seqnum, self.devid, target)

    def close(self) -> None:
        self.sock.close()


Dial: TypeAlias = Callable[[], Client]


@pytest.fixture
def device() -> Patient:
    return Patient()


@pytest.fixture
def server(device: Patient) -> Iterator[UsbIpServer]:
    with UsbIpServer([device, SimulatedUsbReader(None, serial="2")], port=0) as running:
        yield running


@pytest.fixture
def dial(server: UsbIpServer) -> Iterator[Callable[[], Client]]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Client(server.port)))


def listed(client: Client) -> Sequence[str]:
    client.send(OpReqDevlist())
    reply = client.receive()
    assert isinstance(reply, OpRepDevlist)
    assert client.receive() == Closed()
    return [entry.device.bus_id for entry in reply.devices]


def test_device_list(dial: Dial) -> None:
    client = dial()
    client.send(OpReqDevlist())
    reply = client.receive()

    assert isinstance(reply, OpRepDevlist)
    first, second = reply.devices
    assert (first.device.vendor_id, first.device.product_id, first.device.speed) == (0x04E6, 0x5710, 2)
    assert first.interfaces == (UsbInterface(0x0B, 0, 0),)
    assert (first.device.bus_id, second.device.bus_id) == ("1-1", "1-2")
    assert first.device.devid != second.device.devid
    assert first.device.bus_number
    assert first.device.device_number
    assert client.receive() == Closed()


def test_what_somebody_has_is_hidden_and_busy(dial: Dial, server: UsbIpServer, device: Patient) -> None:
    holder = dial()
    assert holder.bring().status == UsbipStatus.OK

    assert listed(dial()) == ["1-2"]
    assert dial().bring().status == UsbipStatus.DEV_BUSY
    assert dial().bring("1-2").status == UsbipStatus.OK
    holder.close()
    device.wait_for(lambda: device.resets == 1)
    assert server.counters.refused == 1


def test_an_unknown_device(dial: Dial) -> None:
    assert dial().bring("9-9").status == UsbipStatus.NODEV


def test_import_and_vanish(dial: Dial, device: Patient, server: UsbIpServer) -> None:
    for turn in range(1, 4):
        client = dial()
        assert client.bring().status == UsbipStatus.OK
        client.close()
        assert wait_until_free(server, "1-1", deadline=time.monotonic() + SECONDS)
        assert device.resets == turn

    assert server.counters.imports == 3


def test_a_control_transfer(dial: Dial) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, 0, 18, setup=get_descriptor(1, 0, 18).encode()))
    answer = client.receive()

    assert isinstance(answer, UrbCompleted)
    assert answer.data[8:12] == bytes.fromhex("e6041057")


def test_answers_that_are_ready_together_leave_together(dial: Dial, server: UsbIpServer) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64), client.submit(2, OUT, BULK_OUT, 4), data=b"data")

    assert client.receive() == UrbCompleted(2, 0, b"")
    assert client.receive() == UrbCompleted(1, 0, b"data")
    counters = server.counters
    assert (counters.urbs, counters.sends) == (2, 1)
    assert (counters.bytes_in, counters.bytes_out) == (48 + 48 + 4, 48 + 48 + 4)


def test_an_answer_from_another_thread(dial: Dial, device: Patient) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64))
    device.wait_for(lambda: len(device.seen) == 1)
    ((_, complete),) = device.transfers
    complete(TransferResult(UrbStatus.OK, b"later"))

    assert client.receive() == UrbCompleted(1, 0, b"later")
    complete(TransferResult(UrbStatus.OK, b"twice"))
    client.send(client.submit(2, OUT, BULK_OUT, 0))
    assert client.receive() == UrbCompleted(2, 0, b"")


def test_unlink_of_a_pending_transfer(dial: Dial, device: Patient) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64), client.unlink(2, 1))
    assert client.receive() == UrbUnlinked(1, UrbStatus.ECONNRESET, pending=True)

    ((_, complete),) = device.transfers
    complete(TransferResult(UrbStatus.OK, b"too late"))
    client.send(client.submit(3, OUT, BULK_OUT, 0))
    assert client.receive() == UrbCompleted(3, 0, b"")


def test_unlink_of_a_finished_or_unknown_transfer(dial: Dial) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, OUT, BULK_OUT, 0), client.unlink(2, 1), client.unlink(3, 77))

    assert client.receive() == UrbCompleted(1, 0, b"")
    assert client.receive() == UrbUnlinked(1, UrbStatus.OK, pending=False)
    assert client.receive() == UrbUnlinked(77, UrbStatus.OK, pending=False)


def test_unlink_of_a_transfer_that_is_just_finishing(dial: Dial, device: Patient) -> None:
    device.takes_back = False
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64), client.unlink(2, 1), client.unlink(3, 1))
    client.send(client.submit(4, IN, 0, 18, setup=get_descriptor(1, 0, 18).encode()))
    answer = client.receive()
    assert isinstance(answer, UrbCompleted)
    assert answer.seqnum == 4
    ((_, complete),) = device.transfers
    complete(TransferResult(UrbStatus.OK, b"x"))

    assert client.receive() == UrbCompleted(1, 0, b"x")
    assert client.receive() == UrbUnlinked(1, UrbStatus.OK, pending=False)
    assert client.receive() == UrbUnlinked(1, UrbStatus.OK, pending=False)


def test_interrupt_polling_as_libccid_does_it(dial: Dial, device: Patient) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, INTERRUPT, 16))
    assert client.receive() == UrbCompleted(1, 0, b"\x50\x02")
    for seqnum in range(2, 200, 2):
        client.send(client.submit(seqnum, IN, INTERRUPT, 16), client.unlink(seqnum + 1, seqnum))
        assert client.receive() == UrbUnlinked(seqnum, UrbStatus.ECONNRESET, pending=True)


@pytest.mark.parametrize(
    ("length", "flags", "expected"),
    [
        (8, 0, UrbCompleted(1, UrbStatus.OK, b"12345678")),
        (7, 0, UrbCompleted(1, UrbStatus.EOVERFLOW, b"")),
        (9, 0, UrbCompleted(1, UrbStatus.OK, b"12345678")),
        (9, TransferFlag.SHORT_NOT_OK, UrbCompleted(1, UrbStatus.EREMOTEIO, b"12345678")),
        (9, 0x00040200, UrbCompleted(1, UrbStatus.OK, b"12345678")),
    ],
)
def test_never_more_than_was_asked_for(dial: Dial, length: int, flags: int, expected: UrbCompleted) -> None:
    client = dial()
    client.bring()
    client.send(
        client.submit(1, IN, BULK_IN, length, flags=flags), client.submit(2, OUT, BULK_OUT, 8), data=b"12345678"
    )

    assert client.receive() == UrbCompleted(2, 0, b"")
    assert client.receive() == expected


def test_an_endpoint_that_is_not_there_stalls_and_the_device_is_not_asked(dial: Dial, device: Patient) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, 9, 64))

    assert client.receive() == UrbCompleted(1, UrbStatus.EPIPE, b"")
    assert device.seen == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 48,
        bytes.fromhex("0111 8002 00000000"),
        bytes.fromhex("0111 8003 00000000"),
    ],
)
def test_garbage_costs_its_sender_the_connection_and_nobody_else(dial: Dial, garbage: bytes) -> None:
    bad = dial()
    bad.sock.sendall(garbage)
    bad.sock.shutdown(socket.SHUT_WR)

    with contextlib.suppress(ConnectionResetError):
        assert bad.sock.recv(1) == b""
    assert listed(dial()) == ["1-1", "1-2"]


@pytest.mark.parametrize(
    "command",
    [
        CmdSubmit(1, 0xDEAD0001, IN, BULK_IN, 0, 64),
        CmdSubmit(1, 0x00010002, OUT, BULK_OUT, 0, 0x7FFFFFFF),
        CmdSubmit(1, 0x00010002, IN, 16, 0, 64),
        CmdUnlink(1, 0, 1),
    ],
)
def test_a_broken_transfer_ends_the_session(
    dial: Dial, device: Patient, command: CmdSubmit | CmdUnlink, caplog: pytest.LogCaptureFixture
) -> None:
    client = dial()
    client.bring()
    client.sock.sendall(command.encode())

    with contextlib.suppress(ConnectionResetError):
        assert client.sock.recv(1) == b""
    device.wait_for(lambda: device.resets == 1)
    assert any(record.levelno == logging.WARNING for record in caplog.records)


@contextlib.contextmanager
def limited(device: Patient, limits: ServerLimits) -> Iterator[tuple[UsbIpServer, Dial]]:
    with UsbIpServer([device], port=0, limits=limits) as server, contextlib.ExitStack() as stack:
        yield server, lambda: stack.enter_context(contextlib.closing(Client(server.port)))


def hung_up(client: Client) -> bool:
    try:
        return client.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_half_written_request_blocks_nobody_and_not_for_ever(device: Patient) -> None:
    with limited(device, ServerLimits(operation_seconds=0.5)) as (_, dial):
        slow = dial()
        slow.sock.sendall(OpReqImport("1-1").encode()[:20])

        assert dial().bring().status == UsbipStatus.OK
        assert hung_up(slow)


@pytest.mark.parametrize("limits", [ServerLimits(connections=1), ServerLimits(connections_per_address=1)])
def test_the_number_of_connections_is_limited(device: Patient, limits: ServerLimits) -> None:
    with limited(device, limits) as (server, dial):
        assert dial().bring().status == UsbipStatus.OK
        assert hung_up(dial())
        assert server.counters.refused == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("fd00:1::1", "fd00:1::2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),  # of a socket that takes both
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_the_addresses_that_one_host_gives_itself_count_as_one(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_counters_do_not_wait_for_a_peer_that_takes_nothing(device: Patient) -> None:
    length = 1 << 20
    with limited(device, ServerLimits(send_seconds=SECONDS)) as (server, dial):
        client = dial()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.bring()
        client.send(*(client.submit(seqnum, IN, BULK_IN, length) for seqnum in range(1, 8)))
        device.wait_for(lambda: len(device.seen) == 7)
        # What completes them is stuck in the send of the last ones, and the client takes none of it.
        stuck = threading.Thread(
            target=lambda: [each(TransferResult(0, bytes(length))) for _, each in device.transfers]
        )
        stuck.start()
        asked: list[int] = []
        asker = threading.Thread(target=lambda: asked.append(server.counters.urbs))
        assert client.sock.recv(1, socket.MSG_PEEK)
        asker.start()
        asker.join(SECONDS / 4)
        assert stuck.is_alive()
        assert asked == [7]
        client.close()
        stuck.join(SECONDS)
        asker.join(SECONDS)


def test_what_a_session_may_ask_for_is_limited(device: Patient) -> None:
    with limited(device, ServerLimits(bytes_in_hand=128)) as (server, dial):
        client = dial()
        client.bring()
        for seqnum in range(1, 20, 2):  # what was answered or taken back counts no more
            client.send(client.submit(seqnum, IN, BULK_IN, 128), client.unlink(seqnum + 1, seqnum))
            assert client.receive() == UrbUnlinked(seqnum, UrbStatus.ECONNRESET, pending=True)
            device.transfers.clear()
        client.send(client.submit(21, IN, BULK_IN, 64), client.submit(22, OUT, BULK_OUT, 64), data=bytes(64))
        assert client.receive() == UrbCompleted(22, 0, b"")
        assert client.receive() == UrbCompleted(21, 0, bytes(64))
        client.send(client.submit(23, IN, BULK_IN, 64), client.submit(24, IN, BULK_IN, 65))

        assert client.receive() == Closed()
        device.wait_for(lambda: device.resets == 1)
    assert server.counters.violations == 1


def test_a_system_without_room_for_a_thread_costs_one_connection(
    dial: Dial, server: UsbIpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refused = dial()
        with contextlib.suppress(ConnectionResetError):
            assert refused.sock.recv(1) == b""

    assert server.counters.refused == 1
    assert listed(dial()) == ["1-1", "1-2"]


def test_import_and_release_leave_a_line_each(device: Patient) -> None:
    lines: list[AuditLine] = []
    with (
        UsbIpServer([device], port=0, audit=lines.append) as server,
        contextlib.closing(Client(server.port)) as client,
    ):
        client.bring()
        client.send(client.submit(1, OUT, BULK_OUT, 4), data=b"data")
        assert client.receive() == UrbCompleted(1, 0, b"")
        peer = "{}:{}".format(*client.sock.getsockname())
        with contextlib.closing(Client(server.port)) as second, contextlib.closing(Client(server.port)) as third:
            second.bring()
            third.bring("9-9")
        server.close()

    serial = "53692013000000"
    told = [(line.action, line.bus_id, line.serial, line.result, line.urbs) for line in lines]
    assert told == [
        (AuditAction.IMPORT, "1-1", serial, "granted", 0),
        (AuditAction.IMPORT, "1-1", "", "busy", 0),
        (AuditAction.IMPORT, "9-9", "", "no such device", 0),
        (AuditAction.RELEASE, "1-1", serial, "server stopped", 1),
    ]
    assert lines[0].peer == lines[3].peer == peer
    assert (lines[3].bytes_in, lines[3].bytes_out) == (48 + 4, 48)
    assert not any("\n" in each for line in lines for each in (str(line), line.as_json()))
    assert json.loads(lines[3].as_json())["result"] == "server stopped"
    assert [line.time for line in lines] == sorted(line.time for line in lines)


@pytest.mark.parametrize("ending", ["closed by the client", "protocol violation"])
def test_a_release_says_why(device: Patient, ending: str) -> None:
    lines: list[AuditLine] = []
    with (
        UsbIpServer([device], port=0, audit=lines.append) as server,
        contextlib.closing(Client(server.port)) as client,
    ):
        client.bring()
        if ending == "protocol violation":
            client.sock.sendall(b"\xff" * 48)
        client.close()
        device.wait_for(lambda: device.resets == 1)
    assert lines[-1].result == ending


def test_an_audit_that_cannot_be_written_stops_nobody(device: Patient, caplog: pytest.LogCaptureFixture) -> None:
    def full(line: AuditLine) -> None:
        raise OSError(28, "No space left on device")

    with UsbIpServer([device], port=0, audit=full) as server, contextlib.closing(Client(server.port)) as client:
        assert client.bring().status == UsbipStatus.OK
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]


def test_the_usual_audit_is_the_log(device: Patient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with UsbIpServer([device], port=0) as server, contextlib.closing(Client(server.port)) as client:
        client.bring()
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith('import peer="127.0.0.1:')
    assert 'bus_id="1-1" serial="53692013000000" result="granted"' in first
    assert second.startswith("release ")


def test_a_server_that_hangs_takes_no_connections(
    server: UsbIpServer, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a capture on a file system that does not answer."""
    stuck, go_on = threading.Event(), threading.Event()
    machine = Service.machine

    def slowly(service: Service, sock: socket.socket, peer: tuple[str, int]) -> UsbIpServerConnection:
        stuck.set()
        assert go_on.wait(SECONDS)
        return machine(service, sock, peer)

    assert server.takes_connections
    with monkeypatch.context() as patch:
        patch.setattr(Service, "machine", slowly)
        dial()
        assert stuck.wait(SECONDS)
        assert not server.takes_connections
        go_on.set()
    assert listed(dial()) == ["1-1", "1-2"]
    assert server.takes_connections
    server.close()
    assert not server.takes_connections


def test_a_server_without_descriptors_takes_no_connections(server: UsbIpServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        starved = server.takes_connections
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (starved, server.takes_connections) == (False, True)


def test_closing_hangs_up_and_leaves_no_thread(dial: Dial, device: Patient, server: UsbIpServer) -> None:
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64))
    device.wait_for(lambda: len(device.seen) == 1)
    server.close()
    server.close()

    assert client.receive() == Closed()
    assert device.resets == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("usbip-")]
    with pytest.raises(OSError):
        Client(server.port)
    with pytest.raises(RuntimeError):
        server.start()


def test_signals_that_stop_it_are_for_the_main_thread(
    dial: Dial, device: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked: list[set[signal.Signals]] = []
    submit = device.submit

    def look(transfer: Transfer, complete: Complete) -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        submit(transfer, complete)

    monkeypatch.setattr(device, "submit", look)
    client = dial()
    client.bring()
    client.send(client.submit(1, IN, BULK_IN, 64))
    device.wait_for(lambda: len(device.seen) == 1)

    assert {signal.SIGHUP, signal.SIGINT, signal.SIGTERM} <= blocked[0]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_hanging_up_frees_the_devices_and_serves_on(dial: Dial, server: UsbIpServer) -> None:
    client = dial()
    client.bring()
    assert not wait_until_free(server, "1-1", deadline=time.monotonic())
    server.hang_up()
    assert wait_until_free(server, "1-1", deadline=time.monotonic() + SECONDS)

    assert client.receive() == Closed()
    assert dial().bring().status == UsbipStatus.OK


def test_a_server_may_be_closed_before_it_is_started(device: Patient) -> None:
    server = UsbIpServer([device], port=0)
    server.close()
    with pytest.raises(RuntimeError):
        server.start()


def test_an_address_that_cannot_be_had(server: UsbIpServer, device: Patient) -> None:
    with pytest.raises(TransportError, match="cannot listen"):
        UsbIpServer([device], port=server.port).start()


def test_bus_ids(device: Patient) -> None:
    assert UsbIpServer({"3-1.2": device}).bus_ids == ("3-1.2",)
    for unfit in ("", "x" * 32, "ä"):
        with pytest.raises(ValueError):
            UsbIpServer({unfit: device})


def test_a_dead_peer_is_noticed() -> None:
    with socket.socket() as sock:
        tune(sock)
        options = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        ]
        assert options == [10, 1, 5, 10_000]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
