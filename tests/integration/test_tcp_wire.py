"""A socket whose waits end at deadlines."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from demail_hw.errors import DeadlineExceeded
from demail_hw_drivers.tcp import StopFlag, Wire, open_connection, rest_of

SECONDS = 20.0
SHORT = 0.05
MUCH = bytes(range(256)) * 16384


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    far.settimeout(SECONDS)
    wire = Wire(near)
    with far:
        yield wire, far
    wire.close()


def soon(seconds: float = SECONDS) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that answers no connection: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_an_address_that_says_nothing_leaves_time_for_the_next(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each) for each in (silent, listener.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with open_connection("usb-server.example", 3240, deadline=soon(2.0)) as sock:
            assert sock.getpeername() == listener.getsockname()


def test_no_time_for_the_first_address_is_no_lack_of_addresses() -> None:
    with pytest.raises(DeadlineExceeded, match="did not answer in time") as caught:
        open_connection("127.0.0.1", 9, deadline=soon(-1))
    assert caught.value.__cause__ is None


def test_a_connection_is_called_off(silent: tuple[str, int]) -> None:
    with StopFlag() as stop:
        threading.Timer(SHORT, stop.set).start()
        with pytest.raises(OSError, match="cancel"):
            open_connection(*silent, deadline=soon(), stop=stop)


def test_a_receive_is_called_off_as_long_as_it_heeds_that(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    with StopFlag() as stop:
        wire.heed(stop)
        threading.Timer(SHORT, stop.set).start()
        with pytest.raises(OSError, match="cancel"):
            wire.receive(deadline=soon())
        wire.heed(None)
        assert wire.receive(deadline=soon(SHORT)) is None


def test_send_and_receive(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    assert wire.send([b"head", memoryview(b"body")], deadline=soon())
    assert far.recv(64) == b"headbody"
    far.sendall(b"answer")

    assert wire.receive(deadline=soon()) == b"answer"
    assert (wire.sends, wire.bytes_out, wire.bytes_in) == (1, 8, 6)


def test_waiting_ends_at_the_deadline(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    assert wire.receive(deadline=soon(SHORT)) is None
    assert wire.receive(deadline=soon(-1)) is None
    assert wire.receive_now() is None
    far.sendall(b"x")
    assert wire.receive(deadline=soon()) == b"x"
    far.sendall(b"y")
    assert wire.receive_now() == b"y"


def test_the_last_milliseconds_are_a_wait_too(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    assert wire.receive(deadline=soon(0.001)) is None


def test_an_answer_that_is_slow(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    sender = threading.Timer(4 * SHORT, far.sendall, (b"late",))
    sender.start()
    assert wire.receive(deadline=soon()) == b"late"
    assert wire.bytes_in == 4
    sender.join(SECONDS)


@pytest.fixture(params=[SHORT, 0.001])
def beats(request: pytest.FixtureRequest) -> Iterator[threading.Thread]:
    """Signals for this thread, until the test ends or its time does: rare ones, and such as no wait in the kernel
    survives."""
    pause = float(request.param)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    stopped = threading.Event()
    target = threading.get_ident()
    end = soon(SECONDS)

    def beat() -> None:
        while time.monotonic() < end and not stopped.wait(pause):
            signal.pthread_kill(target, signal.SIGUSR1)

    beater = threading.Thread(target=beat)
    beater.start()
    yield beater
    stopped.set()
    beater.join(SECONDS)
    signal.signal(signal.SIGUSR1, before)


def test_signals_do_not_prolong_a_wait(ends: tuple[Wire, socket.socket], beats: threading.Thread) -> None:
    wire, _ = ends
    assert wire.receive(deadline=soon(4 * SHORT)) is None
    assert not wire.send([MUCH], deadline=soon(4 * SHORT))
    wire.watch(deadline=soon(4 * SHORT))
    assert not wire.hung_up(deadline=soon(4 * SHORT))
    assert beats.is_alive(), "the waits ended with the signals, not at their deadlines"


def test_a_deadline_that_is_far_away(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    far.sendall(b"x")
    wire.watch(deadline=soon(1e9))
    assert wire.receive(deadline=soon(1e9)) == b"x"


def test_a_peer_that_takes_nothing(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    assert not wire.send([MUCH], deadline=soon(SHORT))
    assert 0 < wire.bytes_out < len(MUCH)


def test_a_peer_that_takes_it_slowly(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    taken = bytearray()

    def take() -> None:
        while len(taken) < len(MUCH) + 1:
            taken.extend(far.recv(10_000))

    taker = threading.Thread(target=take)
    taker.start()
    assert wire.send([b"\xff", MUCH], deadline=soon())
    taker.join(SECONDS)

    assert taken == b"\xff" + MUCH
    assert wire.bytes_out == len(MUCH) + 1


def test_closed_by_the_peer(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    far.close()
    assert wire.receive(deadline=soon()) == b""
    with pytest.raises(OSError):
        wire.send([b"x"], deadline=soon())
    assert wire.bytes_out == 0


def test_hanging_up_wakes_whoever_receives(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    received: list[bytes | None] = []
    receiver = threading.Thread(target=lambda: received.append(wire.receive(deadline=soon())))
    receiver.start()
    wire.hang_up()
    receiver.join(SECONDS)

    assert received == [b""]


def test_watching(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    wire.watch(deadline=soon(SHORT))
    far.sendall(b"x")
    wire.watch(deadline=soon())
    assert wire.receive_now() == b"x"
    wire.wake()
    wire.watch(deadline=soon())
    wire.forget_wake()
    wire.forget_wake()
    wire.watch(deadline=soon(SHORT))


@pytest.mark.parametrize("sent", range(7))
def test_the_rest_of_a_gather_list(sent: int) -> None:
    assert b"".join(rest_of([b"ab", b"", bytearray(b"cd"), memoryview(b"ef")], sent)) == b"abcdef"[sent:]


def test_a_gather_list_of_more_buffers_than_a_call_takes(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    buffers = [bytes((number % 251,)) for number in range(2500)]

    assert wire.send(buffers, deadline=soon())

    far.settimeout(SECONDS)
    taken = b""
    while len(taken) < len(buffers):
        taken += far.recv(len(buffers))
    assert taken == b"".join(buffers)
