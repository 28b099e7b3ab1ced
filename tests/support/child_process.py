"""A Python process of a test's own, which says lines and is told lines."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Child"]

_SECONDS: Final = 60


class Child:
    """Runs ``python SCRIPT ARGUMENTS``, or ``python -c`` if the script is its text. Killed at the end of the block.

    ``under``: another program's words, which runs it.
    """

    def __init__(self, script: Path | str, *arguments: str, under: Sequence[str] = ()) -> None:
        given = [str(script)] if isinstance(script, Path) else ["-c", script]
        self.process = subprocess.Popen(
            [*under, sys.executable, *given, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> str:
        """The next line that it says; empty if it ends without one."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def hear_json(self) -> Any:
        """The next line, which is JSON."""
        return json.loads(self.hear())

    def tell(self, word: str = "go") -> None:
        """Say a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_until_stopped(self) -> None:
        """By SIGSTOP."""
        stopped = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped is not None
        assert stopped.si_code == os.CLD_STOPPED

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return self.process.wait(_SECONDS)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
