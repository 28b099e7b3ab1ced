"""The off switch of a binding: a file in the state folder, for every process of this user."""

from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError

__all__ = ["BindingSwitch"]

_FOLDER: Final = "bindings"
_PRIVATE: Final = 0o700


class BindingSwitch:
    """``directory``: the state folder. The file ``bindings/NAME.off`` in it is the switch.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if it cannot be looked at or set.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / _FOLDER

    def is_off(self, name: str) -> bool:
        """Is the binding switched off?"""
        try:
            return self._file(name).exists()
        except OSError as error:
            raise self._failed(error) from error

    def switch_off(self, name: str) -> None:
        """Have the device let go, and not attached to again."""
        try:
            self._folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            self._file(name).touch()
        except OSError as error:
            raise self._failed(error) from error

    def switch_on(self, name: str) -> None:
        """Let the binding attach again."""
        try:
            self._file(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.off"

    def _failed(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"The switch of the binding in {self._folder} cannot be used: {error.strerror}.",
            file=str(self._folder),
            remedy="See who may write there.",
        )
