"""A simulator in a process of its own: started, waited for, stopped."""

import contextlib
import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import IO, Final, NoReturn

from demail_hw.cli.exit_codes import SIGNALLED
from demail_hw.errors import DeadlineExceeded, DeviceLost, Outcome

__all__ = ["ended_by_signals", "running_simulator"]

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that its processes and files end with it."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  the signature of a signal handler
        raise SystemExit(SIGNALLED + number)

    # Not one that is ignored: nohup does that with SIGHUP.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def running_simulator(*arguments: str) -> Iterator[str]:
    """Run ``demail-hw simulate ARGUMENTS`` and give the address that it says it is ready at."""
    command = (sys.executable, "-m", "demail_hw.cli", "simulate", *arguments, "--json", "--until-eof")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:  # noqa: S603  our own program
        try:
            assert process.stdout is not None
            yield _address(process.stdout, time.monotonic() + _START_SECONDS, arguments[0])
        finally:
            _stop(process)


def _address(stream: IO[str], deadline: float, name: str) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(deadline - time.monotonic()):
            raise DeadlineExceeded(
                f"The simulator {name} was not ready after {_START_SECONDS:.0f} s.", outcome=Outcome.NOT_SENT
            )
    line = stream.readline()
    if not line:
        raise DeviceLost(f"The simulator {name} ended before it was ready.", outcome=Outcome.NOT_SENT)
    return str(json.loads(line)["address"])


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
