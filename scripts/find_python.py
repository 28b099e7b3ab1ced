"""Print the oldest or the newest Python on this machine that the project supports.

Looked for on PATH and among the versions that pyenv has installed. Each one is asked for its version: a name
on PATH may be a shim with nothing behind it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

SUPPORTED = ("3.11", "3.12", "3.13")
_ASK = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"


def candidates(version: str) -> Iterator[str]:
    """Where a Python of this version may be, best first."""
    for folder in os.get_exec_path():
        yield str(pathlib.Path(folder, f"python{version}"))
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        yield from map(str, sorted(pathlib.Path(root, "versions").glob(f"{version}.*/bin/python3")))


def executable(candidate: str, version: str) -> str | None:
    """The real path of a candidate, if it runs and is of this version."""
    try:
        answer = subprocess.run([candidate, "-c", _ASK], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found, _, path = answer.strip().partition(" ")
    return path if found == version else None


def find(versions: tuple[str, ...]) -> str | None:
    """The first version that is here."""
    for version in versions:
        for candidate in candidates(version):
            if path := executable(candidate, version):
                return path
    return None


def main(which: str) -> str | None:
    """Print the path; an error text if there is none."""
    path = find(SUPPORTED if which == "oldest" else SUPPORTED[::-1])
    if path is None:
        return f"no Python of {', '.join(SUPPORTED)} on PATH or in pyenv"
    sys.stdout.write(f"{path}\n")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
