"""A process that uses a PIN, and whoever looks into its memory meanwhile."""

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeAlias

from pin_hunt import Copy, copies_in_memory, memory_flags

__all__ = [
    "LOCKED",
    "Given",
    "PinChannel",
    "WatchedClient",
    "from_bytearray_function",
    "from_credential",
    "from_descriptor_of_a_file",
    "from_environment",
    "from_file",
    "from_function",
    "from_pipe",
    "from_terminal",
    "personality_with",
]

_SECONDS: Final = 20
_PROGRAM: Final = Path(__file__).with_name("watched_program.py")
_CARD: Final = """
title = "a card with a PIN that nobody guesses"
extends = "netkey3"

[pins.global]
assumed = {{ value = "{pin}" }}
"""
LOCKED: Final = frozenset({"lo", "dd", "wf"})
"""VmFlags: locked, do not dump, wipe on fork."""


def personality_with(pin: str, folder: Path) -> Path:
    """A card's description, with this global PIN."""
    path = folder / "card.toml"
    path.write_text(_CARD.format(pin=pin))
    return path


class Given(NamedTuple):
    """How the client is given its PIN. ``typed``: it has a terminal, where this is typed when it asks."""

    source: str
    environment: Mapping[str, str] = {}
    descriptors: tuple[int, ...] = ()
    typed: str = ""


@contextlib.contextmanager
def from_file(folder: Path, pin: str) -> Iterator[Given]:
    """A file, and its path."""
    yield Given(f"file:{_pin_file(folder, pin)}")


@contextlib.contextmanager
def from_credential(folder: Path, pin: str) -> Iterator[Given]:
    """A systemd credential."""
    yield Given(f"credential:{_pin_file(folder, pin).name}", {"CREDENTIALS_DIRECTORY": str(folder)})


@contextlib.contextmanager
def from_pipe(folder: Path, pin: str) -> Iterator[Given]:
    """A pipe that was written already."""
    reading, writing = os.pipe()
    os.write(writing, f"{pin}\n".encode())
    os.close(writing)
    yield Given(f"fd:{reading}", descriptors=(reading,))
    os.close(reading)


@contextlib.contextmanager
def from_descriptor_of_a_file(folder: Path, pin: str) -> Iterator[Given]:
    """An open file."""
    descriptor = os.open(_pin_file(folder, pin), os.O_RDONLY)
    yield Given(f"fd:{descriptor}", descriptors=(descriptor,))
    os.close(descriptor)


@contextlib.contextmanager
def from_environment(folder: Path, pin: str) -> Iterator[Given]:
    """A variable of the environment."""
    yield Given("env:THE_PIN", {"THE_PIN": pin})


@contextlib.contextmanager
def from_function(folder: Path, pin: str) -> Iterator[Given]:
    """A function, see ``watched_program.py``."""
    path = folder / "pin"
    path.write_text(pin)
    yield Given(f"function:{path}")


@contextlib.contextmanager
def from_bytearray_function(folder: Path, pin: str) -> Iterator[Given]:
    """A careful one, see ``watched_program.py``."""
    path = folder / "pin"
    path.write_text(pin)
    yield Given(f"bytearray:{path}")


@contextlib.contextmanager
def from_terminal(folder: Path, pin: str) -> Iterator[Given]:
    """A person who types it."""
    yield Given("prompt:", typed=pin)


def _pin_file(folder: Path, pin: str) -> Path:
    path = folder / "pin"
    path.touch(0o600)
    path.write_text(f"{pin}\n")
    return path


PinChannel: TypeAlias = Callable[[Path, str], contextlib.AbstractContextManager[Given]]
"""A way to hand the PIN over. The path is a folder for what it needs."""


class WatchedClient:
    """The process that is looked into (``watched_program.py``). A context manager."""

    def __init__(self, address: str, given: Given) -> None:
        self._typed = given.typed
        command = [sys.executable, str(_PROGRAM), address, given.source]
        self._words, theirs = os.pipe()[::-1] if not given.typed else pty.openpty()
        try:
            self._process = subprocess.Popen(
                [*_at_a_terminal(), *command] if given.typed else command,
                env={**os.environ, **given.environment},
                pass_fds=given.descriptors,
                stdin=theirs,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            os.close(theirs)
        self._go_on = False

    def __enter__(self) -> Self:
        if self._typed:
            ready, _, _ = select.select([self._words], [], [], _SECONDS)
            assert ready, "the PIN was never asked for"
            self._say(self._typed)
        return self

    def __exit__(self, *exc: object) -> None:
        """It goes on to its end; at a terminal it ends with that."""
        os.close(self._words)
        self._process.communicate(timeout=_SECONDS)

    def until(self, where: str) -> list[int]:
        """Let it run until it stops there. Gives where in its memory the numbers 0x30 to 0x39 are."""
        assert self._process.stdout is not None
        if self._go_on:
            self._say()
        self._go_on = True
        reached, *addresses = self._process.stdout.readline().split()
        assert reached == where
        return [int(address) for address in addresses]

    def _say(self, line: str = "") -> None:
        os.write(self._words, f"{line}\n".encode())

    def copies(self, pin: str, addresses: list[int]) -> list[Copy]:
        """All copies of the PIN in its memory now."""
        return copies_in_memory(self._process.pid, pin, addresses)

    def flags(self, copy: Copy) -> frozenset[str]:
        """The VmFlags of the mapping that it is in."""
        return memory_flags(self._process.pid, copy.address)

    def told(self) -> bytes:
        """What everybody who may look at processes sees of it."""
        return b"".join(Path(f"/proc/{self._process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def _at_a_terminal() -> list[str]:
    setsid = shutil.which("setsid")  # of util-linux, which is always there
    assert setsid is not None
    return [setsid, "--ctty"]
