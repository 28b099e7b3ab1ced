"""How many instructions of the client does a signature take? Unlike times, the same every time.

valgrind's callgrind counts a child that signs; the count of a longer run less that of a shorter one is that of the
signatures alone. The child marks where a run begins and ends by a call of libc's ``getloadavg``, which nothing else
calls, and callgrind writes down the count so far at each mark.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.counts import KEYS
from benchmarks.depth import Depth
from benchmarks.peer import Peer
from benchmarks.provider import open_depths
from benchmarks.samples import Call
from benchmarks.workload import signer
from demail_hw.identity import KeyRole

__all__ = ["count_instructions"]

_WARM_UP, _SHORT, _LONG = 20, 40, 140
_MARK = "getloadavg"
_MARKS_PER_RUN = 3
_SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)
_SECONDS = 300.0
_ROOT = Path(__file__).parent.parent


def count_instructions(peer: Peer) -> Mapping[tuple[KeyRole, Depth], int] | None:
    """Instructions a signature; ``None`` if valgrind is missing."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.TemporaryDirectory(prefix="demail-hw-bench-") as folder:
        profile = Path(folder) / "callgrind"
        options = ("--tool=callgrind", f"--callgrind-out-file={profile}", f"--dump-before={_MARK}")
        command = (valgrind, *options, sys.executable, "-m", "benchmarks.instructions", str(peer.usb_ip))
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, env=environment, cwd=_ROOT, check=True, capture_output=True, timeout=_SECONDS)
        return {what: _of_one(profile, number) for number, what in enumerate(_whats())}


def _whats() -> list[tuple[KeyRole, Depth]]:
    return [(role, depth) for role in KEYS for depth in Depth]


def _of_one(profile: Path, number: int) -> int:
    """From the dumps at the second and third mark of a run."""
    third = _MARKS_PER_RUN * (number + 1)
    return round((_counted(profile, third) - _counted(profile, third - 1)) / (_LONG - _SHORT))


def _counted(profile: Path, mark: int) -> int:
    summary = _SUMMARY.search(profile.with_name(f"{profile.name}.{mark}").read_text())
    assert summary is not None
    return int(summary[1])


def _main(port: int) -> None:
    with open_depths(Peer(port, 0)) as providers:
        for role, depth in _whats():
            _run(signer(providers[depth].provider, role))


def _run(call: Call) -> None:
    for calls in (_WARM_UP, _SHORT, _LONG):
        for _ in range(calls):
            call()
        os.getloadavg()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
