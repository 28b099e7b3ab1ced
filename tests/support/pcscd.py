"""A private pcscd with vpcd's two readers, in mount and network namespaces of its own.

vpcd listens on all addresses, so nobody else may be on its network; pcscd has one socket and one pid file, so nobody
else may share its /run. The socket can be reached from outside, where clients and simulated cards live: PC/SC clients
find it by ``PCSCLITE_CSOCK_NAME``, and the simulated cards get their connections passed in.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.vpcd import DEFAULT_PORT, VpcdSlot

__all__ = ["READERS", "PrivatePcscd", "ToolRun"]

NAME: Final = "Virtual PCD"
READERS: Final = (f"{NAME} 00 00", f"{NAME} 00 01")
"""What PC/SC calls the two slots."""

SECONDS: Final = 20.0
_NAMESPACE = pathlib.Path(__file__).with_name("pcscd_namespace.py")
_LONGEST_ANSWER = 1 << 16

ToolRun = subprocess.CompletedProcess[str]


def _unshare() -> list[str]:
    # Whoever is not root becomes it in a user namespace, where the system allows that.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [shutil.which("unshare") or "unshare", *user, "--mount", "--net"]


class PrivatePcscd:
    """A context manager. ``folder``: where its socket will be; only one runs in it at a time.

    ``environment``: what a PC/SC client needs to find it.
    """

    def __init__(self, folder: pathlib.Path, *, program: str, library: pathlib.Path, name: str = NAME) -> None:
        self.folder = folder
        self.socket_path = folder / "pcscd.comm"
        self.environment: Mapping[str, str] = {**os.environ, "PCSCLITE_CSOCK_NAME": str(self.socket_path)}
        self._program = program
        self._name = name
        self._library = library
        self._resources = contextlib.ExitStack()
        self._requests = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [*_unshare(), sys.executable, "-I", "-S", str(_NAMESPACE)]
            with theirs:
                process = subprocess.Popen(
                    [*command, str(self.folder), self._program, str(self._library), self._name],
                    stdin=theirs,
                    stderr=subprocess.PIPE,
                )
            ours.settimeout(SECONDS)
            resources.enter_context(process)  # waits for it
            self._process = process
            resources.enter_context(ours)  # it ends when this is closed
            self._channel = ours
            if ours.recv(_LONGEST_ANSWER) != b"prepared":
                assert process.stderr is not None
                raise OSError(f"no private namespaces here: {process.stderr.read().decode(errors='replace')}")
            self.start()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _ask(self, request: bytes) -> bytes:
        assert self._channel is not None
        with self._requests:
            self._channel.send(request)
            return self._channel.recv(_LONGEST_ANSWER)

    def start(self) -> None:
        """Start the daemon (again); it is ready afterwards."""
        answer = self._ask(b"start")
        if answer != b"ready":
            raise OSError(answer.decode(errors="replace"))

    def stop(self) -> None:
        """End the daemon; the namespaces stay."""
        self._ask(b"stop")

    def kill(self) -> None:
        """End it as a crash would."""
        self._ask(b"kill")

    def connect(self, number: int = 0) -> socket.socket:
        """A connection to a slot of vpcd. ``OSError`` if it is refused."""
        assert self._channel is not None
        with self._requests:
            self._channel.send(b"connect %d" % (DEFAULT_PORT + number))
            answer, sockets, _, _ = socket.recv_fds(self._channel, _LONGEST_ANSWER, 1)
        if not sockets:
            raise OSError(int(answer.split()[1]), "vpcd refused")
        return socket.socket(fileno=sockets[0])

    def slot(self, card: SimulatedCard | None, number: int = 0) -> VpcdSlot:
        """A running slot, closed with the daemon. With a card it returns when PC/SC programs see that."""
        slot = self._resources.enter_context(VpcdSlot(lambda: self.connect(number), card))
        if card is not None:
            self.wait_for_card(number)
        return slot

    def wait_for_card(self, number: int = 0, *, present: bool = True) -> None:
        """Wait until PC/SC programs see a card in this slot, or none."""
        deadline = time.monotonic() + SECONDS
        wanted = re.compile(rf"^{number} +{'Yes' if present else 'No'} ", re.MULTILINE)
        while not wanted.search(listing := self.run("opensc-tool", "--list-readers").stdout):
            assert time.monotonic() < deadline, f"pcscd did not notice: {listing}"

    def on_its_network(self, *command: str) -> list[str]:
        """The command line that runs a program where vpcd listens on 127.0.0.1."""
        assert self._process is not None
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._process.pid), *user, "--net", *command]

    def run(self, *command: str, text: str | None = None, timeout: float = SECONDS) -> ToolRun:
        """Run a PC/SC program here, to its end."""
        return subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
