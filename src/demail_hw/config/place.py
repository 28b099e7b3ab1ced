"""Where the configuration stands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError

__all__ = ["CONFIG_VARIABLE", "absent", "find_configuration", "search_path"]

CONFIG_VARIABLE: Final = "DEMAIL_HW_CONFIG"
"""Names the file, before all other places."""

_RELATIVE: Final = Path("demail-hw", "config.toml")
_SYSTEM: Final = Path("/etc")


def search_path(environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """The files that are looked for, the first that is there counts: what ``$DEMAIL_HW_CONFIG`` names, and nothing
    else then; or ``demail-hw/config.toml`` in ``$XDG_CONFIG_HOME`` or ``~/.config`` (XDG Base Directory, 3), and in
    ``/etc``."""
    variables = os.environ if environment is None else environment
    named = variables.get(CONFIG_VARIABLE, "")
    if named:
        return (Path(named),)
    return tuple(folder / _RELATIVE for folder in (*_own_folder(variables), _SYSTEM))


def _own_folder(variables: Mapping[str, str]) -> tuple[Path, ...]:
    base = Path(variables.get("XDG_CONFIG_HOME", ""))
    if base.is_absolute():  # "paths must be absolute", else they are to be ignored
        return (base,)
    home = variables.get("HOME", "")
    return (Path(home) / ".config",) if home else ()


def find_configuration(environment: Mapping[str, str] | None = None) -> Path | None:
    """The file that counts, None if there is none.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if the one that the variable names is not there, or if it
    cannot be seen whether one is: the next could say otherwise which machine gets a PIN.
    """
    variables = os.environ if environment is None else environment
    found = next(filter(_is_there, search_path(variables)), None)
    if found is None and (named := variables.get(CONFIG_VARIABLE, "")):
        raise absent(Path(named))
    return found


def absent(path: Path) -> ConfigurationError:
    """What is raised of a file that somebody named and that is not there."""
    return ConfigurationError(
        f"The configuration {path} is not there.",
        file=str(path),
        remedy=f"Mend --config or ${CONFIG_VARIABLE}, or write that file.",
    )


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigurationError(
            f"The configuration cannot be looked for in {path.parent}: {error.strerror}.",
            file=str(path),
            remedy=f"Name the file with --config or ${CONFIG_VARIABLE}, or see who may search that folder.",
        ) from error
    return True
