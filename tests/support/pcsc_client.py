"""A PC/SC program that is not ours, for tests: it speaks to pyscard's functions directly.

In this process (:class:`PcscClient`), or in one of its own (:class:`ForeignProgram`).
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import pytest

from pcscd import SECONDS

__all__ = ["ForeignProgram", "PcscClient", "require_pyscard"]

_SCOPE_SYSTEM: Final = 2
_EMPTY, _PRESENT = 0x10, 0x20
_PROGRAM: Final = """
import ast, sys
from smartcard import scard
handles = {}
for line in sys.stdin:
    function, *arguments = ast.literal_eval(line)
    known = [handles[argument] if argument in list(handles) else argument for argument in arguments]
    answer = getattr(scard, function)(*known)
    code, *values = answer if isinstance(answer, list) else [answer]
    if function == "SCardEstablishContext":
        handles["context"], = values
    if function == "SCardConnect":
        handles["card"], handles["protocol"] = values
    print(repr((code, [] if code else values)), flush=True)  # after an error the values are garbage
"""


def require_pyscard(config: pytest.Config) -> None:
    """Where pyscard is missing the test is skipped, or fails with ``--require-real``."""
    if importlib.util.find_spec("smartcard") is None:
        give_up = pytest.fail if config.getoption("--require-real") else pytest.skip
        give_up("pyscard is not here: pip install 'demail-hw[pcsc]'")


class PcscClient:
    """A context of this process. A context manager."""

    def __init__(self) -> None:
        from smartcard import scard  # it is not everywhere where the tests run

        self._scard = scard
        self._context = 0

    def __enter__(self) -> Self:
        code, self._context = self._scard.SCardEstablishContext(_SCOPE_SYSTEM)
        assert code == 0, f"PC/SC said {code:#010x}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scard.SCardReleaseContext(self._context)

    def wait_for_card(self, reader: str, *, present: bool) -> None:
        """Wait until PC/SC sees a card in this reader, or none."""
        state = 0
        while not state & (_PRESENT if present else _EMPTY):
            code, [(_, state, _)] = self._scard.SCardGetStatusChange(
                self._context, int(SECONDS * 1000), [(reader, state)]
            )
            assert code == 0, f"PC/SC said {code:#010x}"


class ForeignProgram:
    """Another process with a context, and one card at a time. A context manager; at its end the process is gone, and
    what it had open with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.call("SCardEstablishContext", _SCOPE_SYSTEM)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=SECONDS)

    def connect(self, reader: str, *, exclusive: bool = False) -> None:
        """Connect to a card."""
        self.call("SCardConnect", "context", reader, 1 if exclusive else 2, 3)

    def begin(self) -> None:
        """Begin a transaction."""
        self.call("SCardBeginTransaction", "card")

    def end(self) -> None:
        """End the transaction."""
        self.call("SCardEndTransaction", "card", 0)

    def transmit(self, command: bytes) -> bytes:
        """One command APDU, its response APDU."""
        [answer] = self.call("SCardTransmit", "card", "protocol", list(command))
        return bytes(answer)

    def reset(self) -> None:
        """Reset the card."""
        self.call("SCardReconnect", "card", 2, 3, 1)

    def disconnect(self, disposition: int) -> None:
        """Let the card go: 0 as it is, 1 reset, 2 without power."""
        self.call("SCardDisconnect", "card", disposition)

    def call(self, function: str, *arguments: object) -> list[Any]:
        """What a function gives; ``"context"``, ``"card"`` and ``"protocol"`` stand for what it has."""
        self.start(function, *arguments)
        code, values = self.finish()
        assert code == 0, f"{function}: PC/SC said {code:#010x}"
        return values

    def start(self, function: str, *arguments: object) -> None:
        """Begin a call that may take its time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{(function, *arguments)!r}\n")
        self._process.stdin.flush()

    def finish(self) -> tuple[int, list[Any]]:
        """Return code and values of the call that was begun."""
        assert self._process.stdout is not None
        code, values = ast.literal_eval(self._process.stdout.readline())
        return code, values
