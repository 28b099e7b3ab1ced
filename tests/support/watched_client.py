"""A process that uses a PIN, and whoever looks into its memory meanwhile."""

import contextlib
import os
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
    "from_credential",
    "from_descriptor_of_a_file",
    "from_environment",
    "from_file",
    "from_function",
    "from_pipe",
    "personality_with",
]

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
    """How the client is given its PIN."""

    source: str
    environment: Mapping[str, str] = {}
    descriptors: tuple[int, ...] = ()


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
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), address, given.source],
            env={**os.environ, **given.environment},
            pass_fds=given.descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._go_on = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=20)

    def until(self, where: str) -> list[int]:
        """Let it run until it stops there. Gives where in its memory the numbers 0x30 to 0x39 are."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._go_on:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._go_on = True
        reached, *addresses = self._process.stdout.readline().split()
        assert reached == where
        return [int(address) for address in addresses]

    def copies(self, pin: str, addresses: list[int]) -> list[Copy]:
        """All copies of the PIN in its memory now."""
        return copies_in_memory(self._process.pid, pin, addresses)

    def flags(self, copy: Copy) -> frozenset[str]:
        """The VmFlags of the mapping that it is in."""
        return memory_flags(self._process.pid, copy.address)

    def told(self) -> bytes:
        """What everybody who may look at processes sees of it."""
        return b"".join(Path(f"/proc/{self._process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
