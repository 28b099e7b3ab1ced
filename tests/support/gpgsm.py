"""GnuPG in a home of its own: gpg, gpgsm, the agent and scdaemon that they start, and a pinentry without a person.

The daemons outlive the programs that start them, and hold the card. What runs for a home is known by its command
line, which names the home; so it can be waited for, however it ends.
"""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes

__all__ = ["GnuPgHome", "Run", "fingerprint"]

SECONDS: Final = 20.0
_PROCESSES: Final = pathlib.Path("/proc")

# It answers every question with the PIN in the file beside it, and writes down what it was asked for.
_PINENTRY: Final = """#!/bin/sh
home=$(dirname "$0")
echo "OK"
while read -r verb rest; do
  case $verb in
    SETDESC) echo "$rest" >>"$home/asked" ;;
    GETPIN) echo "D $(cat "$home/pin")" ;;
  esac
  echo "OK"
  if [ "$verb" = BYE ]; then exit 0; fi
done
"""

Run = subprocess.CompletedProcess[bytes]


def fingerprint(certificate: x509.Certificate) -> str:
    """What GnuPG calls a certificate."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()


class GnuPgHome:
    """A context manager. At its end nothing runs for this home any more, and the home is gone.

    ``find``: the path of a program. ``environment``: where PC/SC is. ``root``: whom it trusts. ``pin``: what the
    pinentry says; it may be changed.
    """

    def __init__(
        self, find: Callable[[str], str], environment: Mapping[str, str], *, root: x509.Certificate, pin: str
    ) -> None:
        self.pin = pin
        self._find = find
        self._root = root
        self._environment = environment
        self._folder = pathlib.Path()

    def __enter__(self) -> Self:
        # Its sockets are in there: the path must be short.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="gnupg-"))
        self._environment = {**self._environment, "GNUPGHOME": str(self._folder), "LC_ALL": "C"}
        pinentry = self._folder / "pinentry"
        files = {
            "pinentry": _PINENTRY,
            "gpg-agent.conf": f"pinentry-program {pinentry}\n",
            # Its own driver for USB readers would take whatever card this machine has.
            "scdaemon.conf": "disable-ccid\n",
            "gpgsm.conf": "batch\ndisable-dirmngr\ndisable-crl-checks\n",
            "trustlist.txt": f"{fingerprint(self._root)} S\n",
            "asked": "",
        }
        for name, content in files.items():
            (self._folder / name).write_text(content)
        pinentry.chmod(0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end()
        finally:
            shutil.rmtree(self._folder)

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> Run:
        """Run a program to its end; the daemons that it started go on."""
        (self._folder / "pin").write_text(self.pin)
        return subprocess.run(
            [self._find(program), *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    def need(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Its output; it must succeed."""
        done = self.run(program, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def asked(self) -> list[str]:
        """What the PIN was asked for with, until now."""
        return (self._folder / "asked").read_text().splitlines()

    def end(self) -> None:
        """End the daemons, and wait for that: the card is free afterwards. Those that do not end are killed, and
        ``AssertionError`` says so."""
        self.run("gpgconf", "--kill", "all")
        deadline = time.monotonic() + SECONDS
        left: list[str] = []
        while processes := list(self._processes()):
            for command, process in processes:
                with _closing(process):
                    if not _ended(process, deadline):
                        left.append(command)
                        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert not left, f"did not end: {left}"

    def running(self) -> list[str]:
        """The programs that run for this home now."""
        names = []
        for command, process in self._processes():
            with _closing(process):
                names.append(pathlib.PurePath(command).name)
        return sorted(names)

    def _processes(self) -> Iterator[tuple[str, int]]:
        """Program and pidfd of each. The caller closes it."""
        for entry in _PROCESSES.iterdir():
            if entry.name.isdigit() and self._is_ours(_command_line(entry)):
                try:
                    process = os.pidfd_open(int(entry.name))
                except ProcessLookupError:
                    continue
                command = _command_line(entry)  # again: another process may have the number now
                if self._is_ours(command):
                    yield command[0], process
                else:
                    os.close(process)

    def _is_ours(self, command: list[str]) -> bool:
        return any(self._folder in (path := pathlib.PurePath(word), *path.parents) for word in command)


def _command_line(entry: pathlib.Path) -> list[str]:
    """Empty for a process that has ended."""
    try:
        return os.fsdecode((entry / "cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def _ended(process: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
