"""Can this Python build the project's environment? Written so that an old Python 3 gets a sentence too."""

import importlib.util
import sys

OLDEST = (3, 11)


def main() -> "str | None":  # quoted for an old Python
    """What is missing, in one sentence."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST:
        return f"demail-hw needs Python 3.11 or newer; {sys.executable} is {found}. Name one: make PYTHON=python3.13"
    if not importlib.util.find_spec("venv") or not importlib.util.find_spec("ensurepip"):
        return f"Python {found} cannot make environments. On Debian: apt-get install python3-venv"
    return None


if __name__ == "__main__":
    sys.exit(main())
