"""See to it that the Debian packages of tests/debian-packages.txt are there.

As root, and in CI, what is missing is installed. Elsewhere one line to run is printed. Exit status 0 if every
program is there in the end, else 1: the tests that need one then skip and say so (in CI they fail).
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

TABLE = pathlib.Path(__file__).parent.parent / "tests" / "debian-packages.txt"
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")


class Package(NamedTuple):
    """One line of the table."""

    name: str
    program: str
    purpose: str


def packages() -> tuple[Package, ...]:
    """The table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return tuple(Package(*line.split(maxsplit=2)) for line in lines if line and not line.startswith("#"))


def find_program(name: str) -> str | None:
    """The path of a program, also where only root's PATH leads; or an absolute path, if that file is there."""
    if name.startswith("/"):
        return name if pathlib.Path(name).exists() else None
    return shutil.which(name, path=os.pathsep.join((*os.get_exec_path(), *_SYSTEM_FOLDERS)))


def missing() -> tuple[Package, ...]:
    """What is not there."""
    return tuple(package for package in packages() if find_program(package.program) is None)


def install(names: list[str]) -> str | None:
    """Install by apt; what went wrong, in one line."""
    sudo = () if os.geteuid() == 0 else ("sudo", "-n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (("apt-get", "update"), (*_INSTALL, *names)):
        command = (*sudo, *step)
        try:
            subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip() or "no reason given").splitlines()[-1]
            return f"{shlex.join(command)}: {reason}"
    return None


def say(text: str) -> None:
    """One line for the person in front of make."""
    sys.stderr.write(f"debian packages: {text}\n")


def main() -> int:
    """Install or name what is missing."""
    names = [package.name for package in missing()]
    if names and (os.geteuid() == 0 or os.environ.get("CI")):
        say(f"installing {', '.join(names)}")
        if problem := install(names):
            say(f"could not be installed ({problem}).")
    lacking = missing()
    if lacking:
        for package in lacking:
            say(f"{package.program} is missing ({package.purpose})")
        say(f"to have it all: sudo apt-get install --no-install-recommends {' '.join(p.name for p in lacking)}")
    return bool(lacking)


if __name__ == "__main__":
    sys.exit(main())
