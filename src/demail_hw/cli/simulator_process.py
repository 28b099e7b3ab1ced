"""A simulator in a process of its own: started, waited for, stopped."""

import contextlib
import json
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Final

from demail_hw.errors import DeadlineExceeded, DeviceLost, Layer

__all__ = ["running_simulator"]

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0


@contextlib.contextmanager
def running_simulator(*arguments: str) -> Iterator[str]:
    """Run ``demail-hw simulate ARGUMENTS`` and give the address that it says it is ready at."""
    command = (sys.executable, "-m", "demail_hw.cli", "simulate", *arguments, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:  # noqa: S603  our own program
        try:
            assert process.stdout is not None
            yield _address(process.stdout, time.monotonic() + _START_SECONDS, arguments[0])
        finally:
            _stop(process)


def _address(stream: IO[str], deadline: float, name: str) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(deadline - time.monotonic()):
            raise DeadlineExceeded(f"The simulator {name} was not ready after {_START_SECONDS:.0f} s.")
    line = stream.readline()
    if not line:
        raise DeviceLost(f"The simulator {name} ended before it was ready.", layer=Layer.TRANSPORT)
    return str(json.loads(line)["address"])


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
