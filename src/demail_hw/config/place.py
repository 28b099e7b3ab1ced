"""Where the configuration stands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError

__all__ = ["CONFIG_VARIABLE", "find_configuration", "search_path"]

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

    Errors: :class:`~demail_hw.errors.ConfigurationError` if the one that the variable names is not there.
    """
    variables = os.environ if environment is None else environment
    found = next((path for path in search_path(variables) if path.exists()), None)
    if found is None and (named := variables.get(CONFIG_VARIABLE, "")):
        raise ConfigurationError(
            f"The configuration {named} is not there.",
            file=named,
            remedy=f"Mend --config or ${CONFIG_VARIABLE}, or write that file.",
        )
    return found
