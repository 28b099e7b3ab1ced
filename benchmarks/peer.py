"""The other process: a USB/IP server with a null card, and an echo of the same sizes beside it.

``python -m benchmarks.peer`` prints one line of JSON when it is ready, another for every line it reads, and ends
with its input.
"""

import contextlib
import json
import pathlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

from benchmarks.null_card import CardCounters, NullCard
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import MessageCounters, SimulatedUsbReader

__all__ = ["ECHO_SIZES", "RECEIVE_SIZE", "ROOT", "Peer", "python", "running_peer"]

ECHO_SIZES = struct.Struct(">II")
"""What an echo's client says first: how many bytes go out, and how many come back."""

RECEIVE_SIZE = 1 << 14
ROOT = pathlib.Path(__file__).parent.parent

_LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 10.0


class Peer:
    """The client's handle of a peer that runs."""

    def __init__(self, answers: IO[str], questions: IO[str]) -> None:
        self._answers = answers
        self._questions = questions
        ready = json.loads(answers.readline())
        self.address = f"usbip://{_LOOPBACK}:{ready['usbip']}/"
        self.echo = _LOOPBACK, int(ready["echo"])

    def counters(self) -> tuple[CardCounters, MessageCounters]:
        """What the peer's card and reader did so far."""
        self._questions.write("counters\n")
        self._questions.flush()
        answer = json.loads(self._answers.readline())
        return CardCounters(*answer["card"]), MessageCounters(*answer["messages"])


@contextlib.contextmanager
def running_peer() -> Iterator[Peer]:
    """A peer in a process of its own."""
    command = python("benchmarks.peer")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Peer(process.stdout, process.stdin)
        finally:
            process.stdin.close()
            process.wait(_STOP_SECONDS)


def python(module: str) -> tuple[str, ...]:
    """The command that runs a module of the benchmarks; its folder is :data:`ROOT`."""
    return sys.executable, "-m", module


def _echo_forever(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _echo(connection)


def _echo(connection: socket.socket) -> None:
    size_out, size_back = ECHO_SIZES.unpack(connection.recv(ECHO_SIZES.size))
    answer = bytes(size_back)
    received = 0
    while data := connection.recv(RECEIVE_SIZE):
        received += len(data)
        if received >= size_out:
            received -= size_out
            connection.sendall(answer)


def _main() -> None:
    card = NullCard(netkey3())
    reader = SimulatedUsbReader(card)
    with socket.create_server((_LOOPBACK, 0)) as listener, UsbIpServer([reader], host=_LOOPBACK, port=0) as server:
        threading.Thread(target=_echo_forever, args=(listener,), daemon=True).start()
        _say({"usbip": server.port, "echo": listener.getsockname()[1]})
        for _ in sys.stdin:
            _say({"card": card.counters, "messages": reader.messages})


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
