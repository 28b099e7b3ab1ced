"""A TCP proxy that is a network link to the byte: with a way to go, and whatever goes wrong on the way.

::

    with Proxy(("127.0.0.1", 3240), to_client=Link(delay=0.1), to_server=Link(delay=0.1)) as proxy:
        ...                      # connect to proxy.address: a round trip of 0.2 s
        proxy.stall()            # from now on nothing arrives
        proxy.release()          # what was held arrives late

A link is told by the bytes that went, never by the time: the same conversation meets the same fault. Only a delay
waits, and only there time is looked at.
"""

import collections
import contextlib
import dataclasses
import enum
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeAlias

__all__ = ["Forgery", "Link", "Proxy"]

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 1 << 16
_JOIN_SECONDS: Final = 10.0
_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""Closing resets the connection (socket(7), SO_LINGER)."""


Forgery: TypeAlias = Callable[[bytes], bytes | None]
"""What arrives, not empty, instead of all these bytes; ``None``: tell me when there are more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """One direction of each connection. Positions are bytes of its stream, counted from 0.

    ``delay``: seconds on the way. ``piece_size``: bytes of a segment; ``None``: as they came. ``lost`` or
    ``repeated``: a range of bytes that does not arrive, or arrives twice. ``cut_at``: where the connection is closed,
    and ``reset``: with a RST.
    """

    delay: float = 0.0
    piece_size: int | None = None
    lost: range = range(0)
    repeated: range = range(0)
    cut_at: float = math.inf
    reset: bool = False

    def arriving(self, data: bytes, position: int) -> bytes:
        """What arrives of ``data``, which begins at ``position``."""
        data = data[: max(0, int(min(self.cut_at - position, len(data))))]
        lost, repeated = _part(data, position, self.lost), _part(data, position, self.repeated)
        if repeated.start < repeated.stop:
            return data[: repeated.stop] + data[repeated.start :]
        return data[: lost.start] + data[lost.stop :] if lost.start < lost.stop else data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The segments of what arrives."""
        size = self.piece_size or max(1, len(data))
        return (data[start : start + size] for start in range(0, len(data), size))


def _part(data: bytes, position: int, span: range) -> slice:
    """Which bytes of ``data`` are in a span of the stream."""
    return slice(max(0, span.start - position), min(len(data), span.stop - position))


class _State(enum.Enum):
    """What becomes of what a direction carries."""

    FLOWS = "flows"
    STALLED = "held until it is released"
    SILENT = "lost, and so is the end of a connection"


class _Direction:
    """One direction of one connection."""

    __slots__ = ("came", "link", "over", "queue", "sink", "source", "to_server")

    def __init__(self, source: socket.socket, sink: socket.socket, link: Link, *, to_server: bool) -> None:
        self.source, self.sink, self.link, self.to_server = source, sink, link, to_server
        self.came = 0
        self.over = False
        self.queue: collections.deque[tuple[float, bytes]] = collections.deque()
        """When it arrives, and what; an empty one is the end."""


class Proxy:
    """Connections to ``server`` through links that misbehave. It works inside its ``with`` block, at whose end every
    connection is closed; connect to ``address``.

    Its methods change all connections that there are and will be, from any thread, and have done so when they return.
    """

    def __init__(self, server: tuple[str, int], *, to_client: Link = Link(), to_server: Link = Link()) -> None:
        self._server = server
        self._links = {False: to_client, True: to_server}
        self._states = {False: _State.FLOWS, True: _State.FLOWS}
        self._listener = socket.create_server((_LOOPBACK, 0))
        self._changed = threading.Condition()
        self._directions: list[_Direction] = []
        self._carried = {False: 0, True: 0}
        self._doomed: list[_Direction] = []
        self._turns = 0
        self._forgery: Forgery | None = None
        self._genuine = b""
        self._last_way: bool | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect to."""
        host, port = self._listener.getsockname()
        return host, port

    @property
    def turns(self) -> int:
        """How many times the server's bytes followed the client's: the round trips that had to be waited for."""
        with self._changed:
            return self._turns

    def carried(self, *, to_server: bool) -> int:
        """How many bytes came in from one side, of all connections."""
        with self._changed:
            return self._carried[to_server]

    def wait_for(self, count: int, *, to_server: bool, seconds: float) -> None:
        """Wait until so many bytes came in from one side. ``TimeoutError`` if they do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._carried[to_server] >= count, seconds):
                raise TimeoutError(f"{self._carried[to_server]} bytes came, not {count}")

    def stall(self, *, to_client: bool = True, to_server: bool = True) -> None:
        """Nothing arrives any more, until :meth:`release`."""
        self._set(_State.STALLED, to_client=to_client, to_server=to_server)

    def release(self) -> None:
        """What was held arrives, late; and everything that comes."""
        self._set(_State.FLOWS, to_client=True, to_server=True)

    def fall_silent(self, *, to_client: bool = True, to_server: bool = True) -> None:
        """Nothing arrives, ever: the cable is cut, and neither end is told (half-open)."""
        self._set(_State.SILENT, to_client=to_client, to_server=to_server)

    def lengthen(self, delay: float) -> None:
        """From now on each way takes so many seconds."""
        with self._changed:
            self._links = {way: dataclasses.replace(link, delay=delay) for way, link in self._links.items()}
            for direction in self._directions:
                direction.link = dataclasses.replace(direction.link, delay=delay)

    def cut(self, *, reset: bool = False) -> None:
        """Close every connection that there is, now."""
        with self._changed:
            # Closed by the thread that waits for them: the number of a closed socket may be another's at once.
            self._doomed = self._downstream()
            for direction in self._doomed:
                direction.link = dataclasses.replace(direction.link, reset=reset)
            self._look()
            self._changed.wait_for(lambda: not self._doomed or self._stopping, _JOIN_SECONDS)

    def cut_after(self, count: int, *, reset: bool = False) -> None:
        """Close every connection that there is when its server says something, once ``count`` bytes of it have
        reached the client."""
        with self._changed:
            for direction in self._downstream():
                direction.link = dataclasses.replace(direction.link, cut_at=direction.came + count, reset=reset)

    def forge(self, forgery: Forgery) -> None:
        """What the server says next arrives as this makes it, once; then all is as before."""
        with self._changed:
            self._forgery, self._genuine = forgery, b""

    def _downstream(self) -> list[_Direction]:
        return [direction for direction in self._directions if not direction.to_server]

    def _set(self, state: _State, *, to_client: bool, to_server: bool) -> None:
        with self._changed:
            self._states = {
                False: state if to_client else self._states[False],
                True: state if to_server else self._states[True],
            }
        self._look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        for direction in tuple(self._directions):
            with contextlib.suppress(OSError):
                direction.sink.shutdown(socket.SHUT_RDWR)  # wakes a send that nobody takes
        self._look()
        self._thread.join(_JOIN_SECONDS)
        self._listener.close()
        for direction in self._directions:
            direction.source.close()
        os.close(self._wake)

    def _look(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- In the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            ready = self._wait()
            with self._changed:
                for direction in self._directions:
                    if direction.source.fileno() in ready:
                        self._take(direction)
                for direction in self._directions:
                    self._deliver(direction)
                for direction in self._doomed:
                    self._close(direction)
                self._doomed = []
                if self._listener.fileno() in ready:
                    self._accept()
                self._changed.notify_all()

    def _wait(self) -> frozenset[int]:
        """Descriptors that something came on, or none because something is due."""
        with self._changed:
            sources = [direction.source.fileno() for direction in self._directions if not direction.over]
            waiting = (each for each in self._directions if each.queue and self._flows(each))
            due = min((each.queue[0][0] for each in waiting), default=None)
        left = None if due is None else max(0.0, due - time.monotonic())
        # Not poll: it counts milliseconds, and a short way is shorter.
        ready, _, _ = select.select((self._wake, self._listener.fileno(), *sources), (), (), left)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return frozenset(ready)

    def _flows(self, direction: _Direction) -> bool:
        return self._states[direction.to_server] is _State.FLOWS

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._directions.append(_Direction(client, server, self._links[True], to_server=True))
        self._directions.append(_Direction(server, client, self._links[False], to_server=False))

    def _take(self, direction: _Direction) -> None:
        """Something came, or the end of it."""
        if direction.over:
            return
        try:
            data = direction.source.recv(_CHUNK)
        except OSError:
            data = b""
        way = direction.to_server
        self._carried[way] += len(data)
        self._turns += bool(data) and not way and self._last_way is True
        self._last_way = way if data else self._last_way
        direction.over = not data
        if self._states[way] is _State.SILENT:
            return
        due = time.monotonic() + direction.link.delay
        if data and not way:
            data = self._forged(data)
            if not data:
                return
        arriving = direction.link.arriving(data, direction.came)
        direction.came += len(data)
        if arriving:
            direction.queue.append((due, arriving))
        if not data or direction.came >= direction.link.cut_at:
            direction.queue.append((due, b""))

    def _forged(self, data: bytes) -> bytes:
        """Empty while the forgery waits for more."""
        if self._forgery is None:
            return data
        self._genuine += data
        forged = self._forgery(self._genuine)
        if forged is None:
            return b""
        self._forgery = None
        return forged

    def _deliver(self, direction: _Direction) -> None:
        """What is due."""
        while self._flows(direction) and direction.queue and direction.queue[0][0] <= time.monotonic():
            _, data = direction.queue.popleft()
            if not data:
                self._close(direction)
                return
            with contextlib.suppress(OSError):
                for piece in direction.link.pieces(data):
                    direction.sink.sendall(piece)

    def _close(self, direction: _Direction) -> None:
        """End the connection both ways."""
        ends = {direction.source, direction.sink}
        for each in self._directions:
            if each.source in ends:
                each.over = True
                each.queue.clear()
        for sock in ends:
            with contextlib.suppress(OSError):
                if direction.link.reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                else:
                    sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._directions = [each for each in self._directions if each.source not in ends]
