"""The W&T USB-Server, driver against simulator, and against those who are none."""

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demail_hw.errors import (
    DeadlineExceeded,
    DeviceNotFound,
    Outcome,
    PinRequired,
    ProtocolViolation,
    ServerRefused,
    TransportError,
)
from demail_hw.pin_sources import CallablePinSource, EnvironmentPinSource
from demail_hw.wut.control import REFUSAL
from demail_hw.wut.ports import Ports
from demail_hw_drivers import wut
from demail_hw_drivers.wut import Reachability, ask, discover, reset, status
from demail_hw_simulators.wut import DEFAULT_PACKET, SimulatedWutServer

HOST = "127.0.0.1"
FREE = Ports(0, 0, 0, 0)
PASSWORD = b"geheim"
LONG = 3600.0


def soon() -> float:
    return time.monotonic() + 30


@pytest.fixture
def device() -> Iterator[SimulatedWutServer]:
    with SimulatedWutServer(ports=FREE, restart_seconds=0) as running:
        yield running


@pytest.fixture
def locked() -> Iterator[SimulatedWutServer]:
    with SimulatedWutServer(ports=FREE, password=PASSWORD, restart_seconds=0) as running:
        yield running


@contextlib.contextmanager
def answering(*datagrams: bytes) -> Iterator[int]:
    """A port where somebody answers the first question with these."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(30)

        def serve() -> None:
            _, source = sock.recvfrom(100)
            for datagram in datagrams:
                sock.sendto(datagram, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            thread.join()


@contextlib.contextmanager
def listening(action: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port where the first connection meets this."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                action(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])


# --- who is there


def test_the_device_is_found(device: SimulatedWutServer) -> None:
    (found,) = discover(HOST, deadline=time.monotonic() + 0.7, port=device.ports.inventory)
    assert (found.host, found.inventory.raw, found.inventory.remarks) == (HOST, DEFAULT_PACKET.encode(), ())


def test_a_broadcast_finds_it_too() -> None:
    with SimulatedWutServer(host="127.255.255.255", ports=FREE) as device:
        # What loopback has of a broadcast: the answer has another address than the question went to.
        (found,) = discover("127.255.255.255", deadline=time.monotonic() + 0.7, port=device.ports.inventory)
    assert found.inventory.raw == DEFAULT_PACKET.encode()


def test_each_different_answer_is_shown_once() -> None:
    with answering(b"", b"\x10", b"", DEFAULT_PACKET.encode()) as port:
        found = discover(HOST, deadline=time.monotonic() + 0.7, port=port)
    assert [server.inventory.raw for server in found] == [b"", b"\x10", DEFAULT_PACKET.encode()]
    assert [server.inventory.header is None for server in found] == [True, True, False]


def test_a_flood_ends_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wut, "_MOST", 3)
    with answering(b"1", b"2", b"3", b"4", b"5") as port:
        found = discover(HOST, deadline=time.monotonic() + LONG, port=port)
    assert len(found) == 3


def test_the_question_is_repeated_until_somebody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(30)

        def answer_the_second() -> None:
            sock.recvfrom(100)
            _, source = sock.recvfrom(100)
            sock.sendto(b"late", source)

        thread = threading.Thread(target=answer_the_second)
        thread.start()
        found = ask(HOST, deadline=soon(), port=sock.getsockname()[1])
        thread.join()
    assert found is not None
    assert found.raw == b"late"


def test_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        port = silent.getsockname()[1]
        assert ask(HOST, deadline=time.monotonic() + 0.05, port=port) is None
        assert discover(HOST, deadline=time.monotonic() + 0.05, port=port) == ()


def test_where_nothing_can_be_sent() -> None:
    with pytest.raises(TransportError, match="cannot be reached"):
        discover("255.255.255.254", deadline=soon(), port=0)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:  # a resolver takes its time
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for call in (discover, ask, status, reset):
        with pytest.raises(DeviceNotFound, match="not known"):
            call("no-such-host", deadline=soon())


# --- what answers


def test_status_touches_everything_but_the_control_port(device: SimulatedWutServer) -> None:
    with socket.create_server((HOST, 0)) as control:
        control.setblocking(False)
        ports = dataclasses.replace(device.ports, control=control.getsockname()[1])
        found = status(HOST, deadline=soon(), ports=ports)
        with pytest.raises(BlockingIOError):  # nobody has connected
            control.accept()
    assert (found.web, found.usb, found.answers) == (Reachability.OPEN, Reachability.OPEN, True)
    assert found.inventory is not None


def test_status_of_a_device_that_is_away() -> None:
    with SimulatedWutServer(ports=FREE, restart_seconds=LONG) as device:
        reset(HOST, deadline=soon(), port=device.ports.control)
        assert gone(device)
        found = status(HOST, deadline=time.monotonic() + 0.3, ports=device.ports)
    assert (found.inventory, found.web, found.usb) == (None, Reachability.REFUSED, Reachability.REFUSED)
    assert device.restarts == 0


def gone(device: SimulatedWutServer) -> bool:
    """Does nobody listen any more? The device hangs up before it closes its ports."""
    end = soon()
    while time.monotonic() < end:
        try:
            socket.create_connection((HOST, device.ports.usb)).close()
        except ConnectionError:
            return True
    return False


def test_a_web_page_is_there(device: SimulatedWutServer) -> None:
    with socket.create_connection((HOST, device.ports.web), timeout=30) as browser:
        browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = browser.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert b"USB-Server" in answer


# --- the reset


def test_without_a_password_it_restarts_and_comes_back(device: SimulatedWutServer) -> None:
    reset(HOST, deadline=soon(), port=device.ports.control)
    device.wait_until_back(1, deadline=soon())
    assert status(HOST, deadline=soon(), ports=device.ports).usb is Reachability.OPEN


def test_a_password_that_none_was_needed_does_no_harm(device: SimulatedWutServer) -> None:
    reset(HOST, CallablePinSource(lambda: PASSWORD), deadline=soon(), port=device.ports.control)
    device.wait_until_back(1, deadline=soon())


def test_with_the_right_password(locked: SimulatedWutServer) -> None:
    reset(HOST, CallablePinSource(lambda: PASSWORD), deadline=soon(), port=locked.ports.control)
    locked.wait_until_back(1, deadline=soon())


@pytest.mark.parametrize("wrong", [b"gehei", b"geheimnis", b"x" * 300])
def test_with_a_wrong_one_nothing_happens(locked: SimulatedWutServer, wrong: bytes) -> None:
    with pytest.raises(ServerRefused, match="did not take") as caught:
        reset(HOST, CallablePinSource(lambda: wrong), deadline=soon(), port=locked.ports.control)
    assert (caught.value.outcome, caught.value.transient) == (Outcome.REFUSED, False)
    assert wrong.decode() not in str(caught.value)
    assert locked.restarts == 0


def test_one_that_is_missing_is_asked_for() -> None:
    with SimulatedWutServer(ports=FREE, password=PASSWORD, password_seconds=0.01) as locked:
        with pytest.raises(ServerRefused, match="wants its system password"):
            reset(HOST, deadline=soon(), port=locked.ports.control)
        assert locked.restarts == 0


def test_one_silent_guest_holds_nobody_up() -> None:
    device = SimulatedWutServer(ports=FREE, password=PASSWORD, password_seconds=LONG, restart_seconds=0)
    with device, socket.create_connection((HOST, device.ports.control)):
        reset(HOST, CallablePinSource(lambda: PASSWORD), deadline=soon(), port=device.ports.control)
        device.wait_until_back(1, deadline=soon())


def test_the_password_is_asked_before_the_connection() -> None:
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(PinRequired):
            reset(HOST, EnvironmentPinSource("NONE", {}), deadline=soon(), port=listener.getsockname()[1])
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_answer_that_is_none_is_not_repeated() -> None:
    """Whoever listens there may send the password back."""

    def echo(connection: socket.socket) -> None:
        connection.sendall(b"you said " + connection.recv(100))

    with listening(echo) as port, pytest.raises(ProtocolViolation, match="16 bytes") as caught:
        reset(HOST, CallablePinSource(lambda: PASSWORD), deadline=soon(), port=port)
    assert PASSWORD.decode() not in repr(caught.value)


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 1000)

    with listening(talk) as port, pytest.raises(ProtocolViolation):
        reset(HOST, deadline=soon(), port=port)


def test_an_answer_in_pieces() -> None:
    def slowly(connection: socket.socket) -> None:
        for each in REFUSAL:
            connection.sendall(bytes([each]))

    with listening(slowly) as port, pytest.raises(ServerRefused):
        reset(HOST, deadline=soon(), port=port)


def test_one_that_neither_answers_nor_hangs_up() -> None:
    done = threading.Event()
    with listening(lambda _: done.wait(30)) as port:
        with pytest.raises(DeadlineExceeded, match="neither answered") as caught:
            reset(HOST, deadline=time.monotonic() + 0.1, port=port)
        done.set()
    assert caught.value.outcome is Outcome.UNKNOWN


def test_nobody_listens() -> None:
    with pytest.raises(TransportError, match="cannot be reached") as caught:
        reset(HOST, deadline=soon(), port=free_port())
    assert caught.value.outcome is Outcome.NOT_SENT
