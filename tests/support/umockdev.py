"""Real pcscd, libccid and libusb on a reader of ours.

libusb, usbfs (umockdev), our USB/IP client, TCP, our USB/IP server, the reader: that is the way of a transfer. pcscd
runs in a mount namespace of its own, as in pcscd.py; what it sees of /sys and /dev is umockdev's. Its socket can be
reached from outside.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Final, Self

from demail_hw.interfaces import ExportedDevice
from demail_hw_drivers.usbip_server import UsbIpServer

__all__ = ["UsbPcscd"]

SECONDS: Final = 20.0
SYSTEM_PYTHON: Final = "/usr/bin/python3"
BUNDLE: Final = pathlib.Path("/usr/lib/pcsc/drivers/ifd-ccid.bundle")
"""libccid."""
_OPTIONS: Final = re.compile(r"(<key>ifdDriverOptions</key>\s*<string>)0x0000")
_USBFS = pathlib.Path(__file__).with_name("umockdev_usbfs.py")
_SOURCE = pathlib.Path(__file__).parents[2] / "src"
_READY: Final = b"daemon ready"
_NAMESPACE: Final = """
mount --make-rprivate / && mount --bind "$1" /mnt && mount -t tmpfs tmpfs /run &&
mkdir /run/pcscd /run/readers && mount --bind /mnt /run/pcscd &&
export LD_PRELOAD=libumockdev-preload.so.0 UMOCKDEV_DIR="$2" &&
export PCSCLITE_HP_DROPDIR="$4" &&
exec "$3" --foreground --info --config /run/readers
"""
ToolRun = subprocess.CompletedProcess[str]


class UsbPcscd:
    """A context manager. ``folder``: where the socket of pcscd will be, only one runs in it at a time; ``program``:
    pcscd. ``environment``: what a PC/SC client needs to find it."""

    def __init__(self, folder: pathlib.Path, device: ExportedDevice, *, program: str) -> None:
        self.environment: Mapping[str, str] = {**os.environ, "PCSCLITE_CSOCK_NAME": str(folder / "pcscd.comm")}
        self._folder = folder
        self._device = device
        self._program = program
        self._resources = contextlib.ExitStack()
        self.log: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            server = resources.enter_context(UsbIpServer([self._device], port=0))
            bed = resources.enter_context(_test_bed(server.port))
            drivers = resources.enter_context(_driver_that_escapes())
            resources.enter_context(self._daemon(bed, drivers))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def run(self, *command: str, text: str | None = None, timeout: float = SECONDS) -> ToolRun:
        """Run a PC/SC program, to its end."""
        return subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )

    @contextlib.contextmanager
    def _daemon(self, bed: str, drivers: str) -> Iterator[None]:
        # Whoever is not root becomes it in a user namespace, where the system allows that.
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        unshare = [shutil.which("unshare") or "unshare", *user, "--mount"]
        command = [*unshare, "sh", "-c", _NAMESPACE, "sh", str(self._folder), bed, self._program, drivers]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout is not None
            reader = threading.Thread(target=self._read, args=(daemon.stdout,))
            try:
                if not any(_READY in self._note(line) for line in daemon.stdout):
                    raise OSError(f"pcscd did not start: {self.log}")
                reader.start()
                self._wait_for_socket()
                yield
            finally:
                daemon.terminate()
                if reader.ident is not None:
                    reader.join()

    def _wait_for_socket(self) -> None:
        """It says that it is ready before it listens, and nothing tells when it does."""
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self._folder / "pcscd.comm"))
                return
            assert time.monotonic() < deadline, self.log

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._note(line)

    def _note(self, line: bytes) -> bytes:
        self.log.append(line.decode(errors="replace").rstrip())
        return line


@contextlib.contextmanager
def _driver_that_escapes() -> Iterator[str]:
    """A folder of drivers with libccid, which here lets escape commands through (ifdDriverOptions, 0x0001)."""
    with tempfile.TemporaryDirectory() as folder:
        contents = pathlib.Path(folder, BUNDLE.name, "Contents")
        contents.mkdir(parents=True)
        contents.joinpath("Linux").symlink_to(BUNDLE / "Contents" / "Linux")
        options = (BUNDLE / "Contents" / "Info.plist").read_text(encoding="utf-8")
        changed = _OPTIONS.sub(r"\g<1>0x0001", options)
        assert changed != options
        contents.joinpath("Info.plist").write_text(changed, encoding="utf-8")
        yield folder


@contextlib.contextmanager
def _test_bed(port: int) -> Iterator[str]:
    """The folder of a test bed with the device of this USB/IP server."""
    command = [SYSTEM_PYTHON, "-B", str(_USBFS), str(_SOURCE), "127.0.0.1", str(port), "1-1"]
    environment = {**os.environ, "LD_PRELOAD": "libumockdev-preload.so.0"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().decode().strip()
        if not folder:
            raise OSError("umockdev did not start")
        yield folder
