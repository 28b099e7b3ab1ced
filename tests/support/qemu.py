"""A virtual machine with Debian's unmodified kernel and packages, and orders to a process of ours in it."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import qemu_guest
import qemu_image
from qemu_image import GuestImage, Node

__all__ = ["SECONDS", "GuestRun", "VirtualMachine", "accelerators"]

MEMORY_MB: Final = 768
BOOT_SECONDS: Final = {"kvm": 20, "tcg": 240}
# Reached only where an emulated machine shares its processor with much else.
SECONDS: Final = 120
# An order's own time ends first, and is answered.
MARGIN_SECONDS: Final = 15
END_SECONDS: Final = 10
HARDWARE_KVM: Final = ("kvm_intel", "kvm_amd")
INTERPRETER: Final = "#!/usr/bin/python3"


class GuestRun(NamedTuple):
    """How a program ended. ``met``: of :meth:`VirtualMachine.until`, whether the text came."""

    returncode: int
    stdout: str
    stderr: str
    met: bool = True

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def accelerators() -> tuple[str, ...]:
    """What to try, in order. A KVM without hardware of its own never brings up this kernel."""
    loaded = any(pathlib.Path("/sys/module", name).exists() for name in HARDWARE_KVM)
    return ("kvm", "tcg") if loaded and os.access("/dev/kvm", os.R_OK | os.W_OK) else ("tcg",)


class VirtualMachine:
    """Runs from the ``with`` statement to its end; the guest reaches this machine's 127.0.0.1 as 10.0.2.2.

    ``project``: what the guest has besides Debian, by path.
    """

    def __init__(
        self, program: str, image: GuestImage, project: Mapping[str, Node], *, accelerator: str, folder: pathlib.Path
    ) -> None:
        self.console = folder / "console"
        self._accelerator = accelerator
        self._stack = contextlib.ExitStack()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stack.enter_context(self._listener)
        self._initramfs = folder / "initramfs"
        # The kernel unpacks archives that follow one another.
        self._initramfs.write_bytes(image.initramfs.read_bytes() + qemu_image.archive({**own_files(), **project}))
        self._command = command(
            program, image.kernel, self._initramfs, self.console, accelerator, self._listener.getsockname()[1]
        )
        self.uptime = 0.0

    def run(self, *words: str, seconds: int = SECONDS) -> GuestRun:
        """Run a program in the guest, however it ends."""
        return self._run("run", words, seconds)

    def good(self, *words: str, seconds: int = SECONDS) -> str:
        """Run a program that must end well; what it printed."""
        ended = self.run(*words, seconds=seconds)
        assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
        return ended.stdout

    def until(self, text: str, *words: str, absent: bool = False, seconds: int = SECONDS) -> GuestRun:
        """Run a program again and again until its output has the text, or has it no more."""
        ended = self._run("until", words, seconds, text=text, absent=absent)
        assert ended.met, (text, words, ended.stdout, ended.stderr)
        return ended

    def start(self, name: str, *words: str) -> None:
        """Start a program that goes on."""
        self._order({"do": "start", "name": name, "command": words})

    def log(self, name: str) -> str:
        """What it said so far."""
        return self.good("cat", f"/run/{name}.log")

    def wait(self, name: str, *, number: int = 0) -> int | None:
        """The exit code of a started program, after a signal; None if it had to be killed."""
        code: int | None = self._order({"do": "signal", "name": name, "number": number, "seconds": SECONDS})["rc"]
        return code

    def _run(self, what: str, words: Sequence[str], seconds: int, **more: object) -> GuestRun:
        said = self._order({"do": what, "command": words, "seconds": seconds, **more}, seconds)
        return GuestRun(said["rc"], said["out"], said["err"], said.get("met", True))

    def _order(self, order: Mapping[str, object], seconds: int = SECONDS) -> Any:
        self._control.settimeout(2 * seconds + MARGIN_SECONDS)
        try:
            self._control.sendall(json.dumps(order).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            line = b""
            reason = str(error)
        else:
            reason = "it ended"
        assert line, f"the virtual machine is gone ({reason}):\n{self.tail()}"
        return json.loads(line)

    def tail(self) -> str:
        """The last that the kernel said."""
        return self.console.read_text(errors="replace")[-4000:] if self.console.exists() else ""

    def __enter__(self) -> Self:
        with self._stack:
            self._process = self._stack.enter_context(running(self._command))
            self._listener.settimeout(BOOT_SECONDS[self._accelerator])
            try:
                self._control, _ = self._listener.accept()
            except TimeoutError:
                raise TimeoutError(f"the virtual machine did not start:\n{self.tail()}") from None
            self._stack.enter_context(self._control)
            self._lines = self._stack.enter_context(self._control.makefile("rb"))
            self._initramfs.unlink()
            self.uptime = json.loads(self._lines.readline())["uptime"]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@contextlib.contextmanager
def running(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Ended at the end of the block: by itself, as its orders have ended, or by force."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            yield process
        finally:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def own_files() -> dict[str, Node]:
    script = pathlib.Path(qemu_guest.__file__).read_text(encoding="utf-8")
    return {
        "init": qemu_image.file(f"{INTERPRETER}\n{script}".encode(), executable=True),
        "etc/passwd": qemu_image.file(b"root:x:0:0:root:/root:/bin/sh\n"),
        "etc/group": qemu_image.file(b"root:x:0:\n"),
        "root": qemu_image.directory(),
        "var/run": qemu_image.link("/run"),
        "usr/local/bin": qemu_image.directory(),
    }


def command(
    program: str, kernel: pathlib.Path, initramfs: pathlib.Path, console: pathlib.Path, accelerator: str, port: int
) -> list[str]:
    # One processor: a second one makes an emulated machine slower.
    return [
        *(program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", accelerator, "-smp", "1", "-m", str(MEMORY_MB)),
        *("-cpu", "host" if accelerator == "kvm" else "qemu64,+rdrand"),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", f"console=ttyS0 panic=-1 quiet control={port}"),
        *("-nic", "user,model=e1000", "-serial", f"file:{console}"),
    ]
