"""The exit codes: what a script learns without reading a word."""

import enum
from typing import Final

from demail_hw import errors

__all__ = ["SIGNALLED", "ExitCode", "exit_code_of"]

SIGNALLED: Final = 128
"""The exit code of a program that a signal ended is this and the signal's number, as in a shell."""


class ExitCode(enum.IntEnum):
    """Exit codes of ``demail-hw``; documented in docs/cli.md, stable."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NOT_FOUND = 3
    CARD = 4
    PIN = 5
    TRANSPORT = 6
    GATEWAY = 7
    KEY = 8
    CONFIGURATION = 9
    DECLINED = 10


# The first row that fits decides.
_TABLE: Final = (
    ((errors.WrongRecipient,), ExitCode.KEY),
    ((errors.DeviceNotFound, errors.NoCard, errors.KeyNotFound, errors.FileNotFound), ExitCode.NOT_FOUND),
    (
        (errors.PinIncorrect, errors.PinBlocked, errors.PinNotInitialized, errors.PinRefused, errors.PinRequired),
        ExitCode.PIN,
    ),
    ((errors.GatewayError, errors.TlsKeyUnsupported), ExitCode.GATEWAY),
    ((errors.KeyProviderError,), ExitCode.KEY),
    ((errors.CardError, errors.ReaderError), ExitCode.CARD),
    ((errors.ConfigurationError,), ExitCode.CONFIGURATION),
    ((errors.TransportError,), ExitCode.TRANSPORT),
)
# Errors that any layer can raise go by their layer.
_BY_LAYER: Final = {
    errors.Layer.TRANSPORT: ExitCode.TRANSPORT,
    errors.Layer.READER: ExitCode.CARD,
    errors.Layer.CARD: ExitCode.CARD,
    errors.Layer.KEYS: ExitCode.KEY,
    errors.Layer.TLS: ExitCode.GATEWAY,
    errors.Layer.GATEWAY: ExitCode.GATEWAY,
    errors.Layer.CONFIGURATION: ExitCode.CONFIGURATION,
}


def exit_code_of(error: errors.HardwareError) -> ExitCode:
    """The exit code for an error."""
    for kinds, code in _TABLE:
        if isinstance(error, kinds):
            return code
    return _BY_LAYER[error.layer]
