"""The proxy: what arrives, and when a connection ends."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from demail_hw_simulators.proxy import Link, Proxy

SECONDS = 20.0
DATA = bytes(range(100))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        waiting.settimeout(SECONDS)
        yield waiting


@contextlib.contextmanager
def linked(listener: socket.socket, proxy: Proxy) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Client and server."""
    with proxy, socket.create_connection(proxy.address, SECONDS) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(SECONDS)
            yield client, server


def until_end(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            received += data
    return received


def exactly(sock: socket.socket, count: int) -> bytes:
    return sock.recv(count, socket.MSG_WAITALL)


@pytest.mark.parametrize(
    ("link", "arrives"),
    [
        (Link(), DATA),
        (Link(piece_size=1), DATA),
        (Link(delay=0.01), DATA),
        (Link(lost=range(10, 20)), DATA[:10] + DATA[20:]),
        (Link(repeated=range(10, 20)), DATA[:20] + DATA[10:]),
        (Link(cut_at=30), DATA[:30]),
        (Link(cut_at=0), b""),
    ],
    ids=repr,
)
def test_what_arrives(listener: socket.socket, link: Link, arrives: bytes) -> None:
    with linked(listener, Proxy(listener.getsockname(), to_client=link)) as (client, server):
        server.sendall(DATA)
        server.shutdown(socket.SHUT_WR)
        assert until_end(client) == arrives


def test_the_other_way_has_a_link_of_its_own(listener: socket.socket) -> None:
    with linked(listener, Proxy(listener.getsockname(), to_server=Link(lost=range(1)))) as (client, server):
        client.sendall(DATA)
        assert exactly(server, 99) == DATA[1:]
        server.sendall(DATA)
        assert exactly(client, 100) == DATA


def test_a_way_that_becomes_long(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        proxy.lengthen(1000 * SECONDS)
        server.sendall(DATA)
        proxy.wait_for(len(DATA), to_server=False, seconds=SECONDS)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_what_is_held_arrives_late(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        proxy.stall()
        server.sendall(DATA)
        proxy.wait_for(len(DATA), to_server=False, seconds=SECONDS)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(SECONDS)
        proxy.release()
        assert exactly(client, 100) == DATA


def test_silence_hides_the_end_too(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        proxy.fall_silent()
        server.sendall(DATA)
        proxy.wait_for(len(DATA), to_server=False, seconds=SECONDS)
        server.close()
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_cut_is_seen_by_both(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        proxy.cut()
        assert until_end(client) == b""
        assert until_end(server) == b""


def test_a_cut_after_so_many_bytes(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        server.sendall(DATA)
        assert exactly(client, 100) == DATA
        proxy.cut_after(10)
        server.sendall(DATA)
        assert until_end(client) == DATA[:10]


def test_a_reset(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, _):
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_round_trips_are_counted(listener: socket.socket) -> None:
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (client, server):
        for _ in range(3):
            client.sendall(DATA)
            exactly(server, 100)
            server.sendall(DATA)
            exactly(client, 100)
        assert proxy.turns == 3
        assert proxy.carried(to_server=True) == 300


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Proxy(address) as proxy, socket.create_connection(proxy.address, SECONDS) as client:
        assert until_end(client) == b""


def test_waiting_in_vain(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()) as proxy, pytest.raises(TimeoutError, match="0 bytes came, not 1"):
        proxy.wait_for(1, to_server=True, seconds=0.01)


def test_it_ends_although_nobody_takes_what_it_carries(listener: socket.socket) -> None:
    before = threading.active_count()
    proxy = Proxy(listener.getsockname())
    with linked(listener, proxy) as (_, server):
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(1 << 16))
    assert threading.active_count() == before
