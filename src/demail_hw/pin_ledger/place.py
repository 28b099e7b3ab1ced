"""Where the ledger of a card is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import PinLedger
from demail_hw.pin_ledger.in_memory import MemoryPinLedger
from demail_hw.pin_ledger.on_disk import FilePinLedger
from demail_hw.registry import reader_driver

__all__ = ["STATE_VARIABLE", "ledger_for", "state_directory"]

STATE_VARIABLE: Final = "STATE_DIRECTORY"
"""Names the folder, or several with a colon between them, of which the first counts."""

_APPLICATION: Final = "demail-hw"


def state_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where what must outlive a process is kept: ``$STATE_DIRECTORY`` of a systemd unit (systemd.exec(5),
    StateDirectory=), else ``demail-hw`` in ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory, 3).

    Errors: :class:`~demail_hw.errors.ConfigurationError` where there is no home either.
    """
    variables = os.environ if environment is None else environment
    given = variables.get(STATE_VARIABLE, "").partition(":")[0]
    if given:
        return Path(given)
    base = Path(variables.get("XDG_STATE_HOME", ""))
    if base.is_absolute():  # "paths must be absolute", else they are to be ignored
        return base / _APPLICATION
    home = variables.get("HOME", "")
    if not home:
        raise ConfigurationError(
            "There is no folder for what must outlive this process: neither STATE_DIRECTORY nor HOME is set.",
            remedy="Add StateDirectory= to the systemd unit, or name a folder with --state-dir.",
        )
    return Path(home) / ".local" / "state" / _APPLICATION


def ledger_for(address: Address, *, directory: Path | None = None) -> PinLedger:
    """The ledger of the card that an address means: files in ``directory`` or :func:`state_directory`, but in memory
    if the card ends with this process.

    Whoever reads a remedy may type it in another environment than this process has: he is told the folder that
    ``$STATE_DIRECTORY`` names, or another ledger would be looked at, and cleared.

    Errors: as for :func:`state_directory`.
    """
    if reader_driver(address.scheme).in_process:
        return MemoryPinLedger()
    if directory is not None:
        return FilePinLedger(directory, uri=str(address))
    return FilePinLedger(state_directory(), found=not os.environ.get(STATE_VARIABLE), uri=str(address))
