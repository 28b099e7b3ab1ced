"""The control socket, TCP port 8888: who connects there resets the device (manual of the USB-Server 53641, "Reset").

Where a system password is set, it and a zero byte have to come within two seconds; else the device answers
``PASSWD?`` and a zero byte, and hangs up. Where none is set it hangs up and restarts at once. The password travels as
it is: whoever listens has it.
"""

import enum
from typing import Final

from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import Buffers
from demail_hw.secrets import Pin

__all__ = ["LONGEST_ANSWER", "PASSWORD_SECONDS", "REFUSAL", "TERMINATOR", "Verdict", "password_message", "verdict_on"]

PASSWORD_SECONDS: Final = 2.0
"""How long the device waits for the password."""
TERMINATOR: Final = b"\0"
REFUSAL: Final = b"PASSWD?\0"
"""The answer to a wrong password, or to none."""
LONGEST_ANSWER: Final = 64
"""More than this is not read: the device says nothing that is longer."""


class Verdict(enum.Enum):
    """What the device made of it."""

    RESTARTS = "restarts"
    REFUSED = "refused"
    UNCLEAR = "unclear"


def password_message(password: Pin) -> Buffers:
    """The password where it lies, uncopied, and the zero byte.

    Errors: :class:`~demail_hw.errors.ConfigurationError` for one with a zero byte in it, which would end it early.
    """
    if 0 in password.buffer:
        raise ConfigurationError(
            "The system password has a zero byte in it, which ends it on the wire.", remedy="Check its source."
        )
    return password.buffer, TERMINATOR


def verdict_on(answer: bytes) -> Verdict:
    """``answer``: all that came before the device hung up."""
    if not answer:
        return Verdict.RESTARTS
    return Verdict.REFUSED if answer == REFUSAL else Verdict.UNCLEAR
