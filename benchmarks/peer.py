"""The other process: a USB/IP server with a null card, and an echo beside it.

It is forked, and shares one CPU with the client (see :func:`one_cpu`). So both have their code at the same addresses;
elsewhere, two Pythons would push each other's branches out of the one predictor, which costs more than all of
USB/IP, and which a USB server on its own machine does not do.
"""

import contextlib
import multiprocessing
import os
import socket
import struct
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.null_card import CardCounters, NullCard
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import MessageCounters, SimulatedUsbReader

__all__ = ["ECHO_SIZES", "RECEIVE_SIZE", "Peer", "one_cpu", "running_peer"]

ECHO_SIZES = struct.Struct(">II")
"""What an echo's client says first: how many bytes go out, and how many come back."""

RECEIVE_SIZE = 1 << 14

_LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """To the end of the ``with`` block, this process and those that it starts run on one CPU.

    An idle CPU of a virtual machine needs 20 to 40 us to wake, twice a round trip, which says nothing of anybody's
    code. On one CPU nobody sleeps, and what is measured is work.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Peer(NamedTuple):
    """A peer that runs: the ports of its USB/IP server and of its echo, and the pipe that asks for its counters."""

    usb_ip: int
    echo: int
    pipe: Connection | None = None

    @property
    def address(self) -> str:
        """Of the reader."""
        return f"usbip://{_LOOPBACK}:{self.usb_ip}/"

    @property
    def echo_endpoint(self) -> tuple[str, int]:
        """Host and port."""
        return _LOOPBACK, self.echo

    def counters(self) -> tuple[CardCounters, MessageCounters]:
        """What its card and its reader did so far."""
        assert self.pipe is not None
        self.pipe.send(None)
        card, messages = self.pipe.recv()
        return CardCounters(*card), MessageCounters(*messages)


@contextlib.contextmanager
def running_peer() -> Iterator[Peer]:
    """A peer in a process of its own, to the end of the ``with`` block."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, ours))
    process.start()
    theirs.close()
    try:
        usb_ip, echo = ours.recv()
        yield Peer(usb_ip, echo, ours)
    finally:
        ours.close()
        process.join()


def _run(pipe: Connection, others: Connection) -> None:
    others.close()
    reader = SimulatedUsbReader(card := NullCard(netkey3()))
    with socket.create_server((_LOOPBACK, 0)) as listener, UsbIpServer([reader], host=_LOOPBACK, port=0) as server:
        threading.Thread(target=_echo_forever, args=(listener,), daemon=True).start()
        pipe.send((server.port, listener.getsockname()[1]))
        with contextlib.suppress(EOFError):
            while True:
                pipe.recv()
                pipe.send((card.counters, reader.messages))


def _echo_forever(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size_out, size_back = ECHO_SIZES.unpack(connection.recv(ECHO_SIZES.size))
        answer = bytes(size_back)
        received = 0
        while data := connection.recv(RECEIVE_SIZE):
            received += len(data)
            if received >= size_out:
                received -= size_out
                connection.sendall(answer)
