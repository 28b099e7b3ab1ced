"""A client of GnuPG's scdaemon: the Assuan protocol on its standard input and output, no agent between."""

import dataclasses
import os
import pathlib
import selectors
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Self

__all__ = ["Answer", "Scdaemon"]

SECONDS: Final = 20.0
_RECEIVE_SIZE: Final = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """All that came back for one command. ``error``: what follows ERR, code first; ``None`` after OK.

    ``questions``: what the PINs were asked for with.
    """

    data: bytes
    status: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    error: str | None

    def values(self, keyword: str) -> list[str]:
        """The arguments of the status lines with this keyword."""
        return [arguments for each, arguments in self.status if each == keyword]


class Scdaemon:
    """A context manager: a process of its own for one client, which ends with it.

    ``program``: its path. ``home``: an empty folder. ``environment``: where PC/SC is.
    """

    def __init__(self, program: str, home: pathlib.Path, environment: Mapping[str, str]) -> None:
        # Its own driver for USB readers would take whatever card this machine has.
        self._command = [program, "--homedir", str(home), "--disable-ccid", "--server"]
        self._environment = environment
        self._buffer = bytearray()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            greeting = self._read_line(time.monotonic() + SECONDS)
            assert greeting.startswith("OK "), greeting
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """It ends with its input; the card is free afterwards."""
        assert self._process is not None
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def command(self, line: str, *pins: str) -> Answer:
        """One command. ``pins``: what it gets for each INQUIRE NEEDPIN; one question more is answered with CAN."""
        deadline = time.monotonic() + SECONDS
        self._write(line)
        return self._collect(deadline, iter(pins))

    def need(self, line: str, *pins: str) -> Answer:
        """One command that must succeed."""
        answer = self.command(line, *pins)
        assert answer.error is None, f"{line.split(' ')[0]}: {answer.error}"
        return answer

    def _collect(self, deadline: float, pins: Iterator[str]) -> Answer:
        data = bytearray()
        status: list[tuple[str, str]] = []
        questions: list[str] = []
        while True:
            verb, _, rest = self._read_line(deadline).partition(" ")
            match verb:
                case "OK" | "ERR":
                    return Answer(bytes(data), tuple(status), tuple(questions), rest if verb == "ERR" else None)
                case "D":
                    data += urllib.parse.unquote_to_bytes(rest.encode("latin-1"))
                case "S":
                    keyword, _, arguments = rest.partition(" ")
                    status.append((keyword, arguments))
                case "INQUIRE":
                    questions.append(rest)
                    self._reply(rest, pins)

    def _reply(self, inquiry: str, pins: Iterator[str]) -> None:
        pin = next(pins, None) if inquiry.startswith("NEEDPIN") else None
        if pin is None:
            self._write("CAN")
        else:
            self._write(f"D {urllib.parse.quote(pin)}%00")  # it takes the PIN for a C string
            self._write("END")

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode("ascii") + b"\n")

    def _read_line(self, deadline: float) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer += self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.decode("latin-1")

    def _receive(self, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(max(0.0, deadline - time.monotonic())), "scdaemon does not answer"
        data = os.read(self._process.stdout.fileno(), _RECEIVE_SIZE)
        assert data, "scdaemon has ended"
        return data

    # --- what the tests say often

    def set_data(self, data: bytes) -> None:
        """What the next PKSIGN or PKDECRYPT works on; a line holds 1000 bytes."""
        self.need(f"SETDATA {data.hex()}")

    def pin_status(self) -> tuple[int, ...]:
        """CHV-STATUS: tries left of NKS 00, NKS 01, SigG 81, SigG 83; -3 is blocked, -4 a NullPIN, -5 verified."""
        (status,) = self.need("GETATTR CHV-STATUS").values("CHV-STATUS")
        return tuple(map(int, urllib.parse.unquote_plus(status).split()))
