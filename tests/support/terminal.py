"""A program at a terminal, and somebody who types there."""

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Final

__all__ = ["Dialog", "at_terminal"]

_SECONDS: Final = 30.0
_RECEIVE_SIZE: Final = 1 << 16

Dialog = Sequence[tuple[str, str]]


def at_terminal(command: Sequence[str], dialog: Dialog) -> tuple[int, str]:
    """Run it with a terminal of its own, and type each answer when what it answers to is shown.

    Its exit code, and all that was shown.
    """
    master, slave = pty.openpty()
    setsid = shutil.which("setsid")  # of util-linux, which is always there
    assert setsid is not None
    try:
        with subprocess.Popen(
            [setsid, "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave
        ) as process:
            os.close(slave)
            try:
                return _talk(process, master, dialog)
            finally:
                process.kill()
    finally:
        os.close(master)


def _talk(process: subprocess.Popen[bytes], master: int, dialog: Dialog) -> tuple[int, str]:
    shown, seen = "", 0
    deadline = time.monotonic() + _SECONDS
    for expected, answer in dialog:
        while expected not in shown[seen:]:
            more = _read(master, deadline)
            assert more, f"{expected!r} was never shown: {shown}"
            shown += more
        seen = shown.index(expected, seen) + len(expected)
        os.write(master, f"{answer}\n".encode())
    while more := _read(master, deadline):
        shown += more
    return process.wait(_SECONDS), shown.replace("\r\n", "\n")


def _read(master: int, deadline: float) -> str:
    """What is shown next; nothing when the program has ended."""
    ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
    assert ready, "nothing was shown until the deadline"
    try:
        return os.read(master, _RECEIVE_SIZE).decode()
    except OSError:  # EIO: nobody has the other side open any more
        return ""
