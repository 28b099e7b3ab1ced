"""A private pcscd with the serial driver of libccid on a pseudo-terminal, in a mount namespace of its own."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["READER", "SerialPcscd", "serial_pcscd"]

NAME: Final = "Serial Twin"
READER: Final = f"{NAME} 00 00"
"""What PC/SC calls the reader."""

SECONDS: Final = 20.0
_PAUSE: Final = 0.01
_READY: Final = b"daemon ready"
_NAMESPACE: Final = """
mount --make-rprivate / && mount --bind "$1" /mnt && mount -t tmpfs tmpfs /run &&
mkdir /run/pcscd /run/readers && mount --bind /mnt /run/pcscd && printf '%s' "$2" > /run/readers/twin &&
exec "$3" --foreground --info --config /run/readers
"""
_READER_CONF: Final = """FRIENDLYNAME "{name}"
DEVICENAME {device}:GemPCTwin
LIBPATH {library}
"""


class SerialPcscd:
    """``environment``: what a PC/SC client needs to find it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.socket_path = folder / "pcscd.comm"
        self.environment: Mapping[str, str] = {**os.environ, "PCSCLITE_CSOCK_NAME": str(self.socket_path)}

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a PC/SC program, to its end."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def wait_for_card(self, *, present: bool = True) -> None:
        """Wait until PC/SC programs see a card, or none."""
        deadline = time.monotonic() + SECONDS
        wanted = re.compile(rf"^0 +{'Yes' if present else 'No'} ", re.MULTILINE)
        while not wanted.search(listing := self.run("opensc-tool", "--list-readers").stdout):
            assert time.monotonic() < deadline, f"pcscd did not notice: {listing}"


@contextlib.contextmanager
def serial_pcscd(folder: pathlib.Path, device: str, *, program: str, library: str) -> Iterator[SerialPcscd]:
    """A running service. ``folder``: where its socket will be; ``device``: the path of the pseudo-terminal."""
    # Whoever is not root becomes it in a user namespace, where the system allows that.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = [shutil.which("unshare") or "unshare", *user, "--mount"]
    conf = _READER_CONF.format(name=NAME, device=device, library=library)
    command = [*unshare, "sh", "-c", _NAMESPACE, "sh", str(folder), conf, program]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        try:
            log = []
            for line in daemon.stdout:
                log.append(line)
                if _READY in line:
                    break
            else:
                raise OSError(f"pcscd did not start: {log}")
            with subprocess.Popen(["cat"], stdin=daemon.stdout, stdout=subprocess.DEVNULL):
                running = SerialPcscd(folder)
                _wait_for_socket(running)
                yield running
                daemon.terminate()
        finally:
            daemon.terminate()


def _wait_for_socket(running: SerialPcscd) -> None:
    """It says that it is ready before it listens, and nothing tells when it does."""
    deadline = time.monotonic() + SECONDS
    while not running.socket_path.exists():
        assert time.monotonic() < deadline, "pcscd does not listen"
        time.sleep(_PAUSE)
