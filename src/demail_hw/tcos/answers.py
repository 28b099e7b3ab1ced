"""Status word -> typed error: what a TCOS card means by its answers."""

from typing import Final

from demail_hw.errors import (
    CardError,
    FileNotFound,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    SecurityStatus,
)
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord, describe, is_success, retries_left

__all__ = ["check", "check_pin_answer"]

_NORMAL_PROCESSING: Final = int(StatusWord.NORMAL_PROCESSING)
_PROVEN_REFUSALS: Final = frozenset({0x64, *range(0x67, 0x6F)})
"""SW1 that says: nothing was changed (ISO 7816-4, 5.6: checking errors, and 64xx).

Warnings, 65xx, 66xx, 6Fxx and what is no status word at all leave open what the card did."""

_VERIFY: Final = 0x20

_ERRORS: Final[dict[int, type[CardError]]] = {
    StatusWord.FILE_OR_APPLICATION_NOT_FOUND: FileNotFound,
    StatusWord.RECORD_NOT_FOUND: FileNotFound,
    StatusWord.SECURITY_STATUS_NOT_SATISFIED: SecurityStatus,
}
_REMEDIES: Final[dict[type[CardError], str]] = {
    SecurityStatus: "Give the PIN that opens this key, and see that the card allows this use of it.",
}


def check(response: ResponseApdu, command: CommandApdu, *, also: frozenset[int] = frozenset()) -> bytes:
    """The data of a successful response, or of one whose status is one of ``also``.

    Errors: :class:`~demail_hw.errors.CardError` or one of its kinds for any other status.
    """
    status = response.status
    if is_success(status) or status in also:
        return response.data
    raise _refusal(status, command)


def _refusal(status: int, command: CommandApdu) -> CardError:
    kind = _ERRORS.get(status, CardError)
    proven = status >> 8 in _PROVEN_REFUSALS
    return kind(
        f"The card {'refused' if proven else 'did not confirm'} {command.name}: {describe(status)}",
        status=status,
        command=command.name,
        remedy=_REMEDIES.get(kind),
        outcome=Outcome.REFUSED if proven else Outcome.UNKNOWN,
    )


def check_pin_answer(response: ResponseApdu, command: CommandApdu, name: str) -> None:
    """Success of a command that carried the PIN of this name (ISO 7816-4, 11.5; 6985 to VERIFY is TCOS' NullPIN).

    Errors: :class:`~demail_hw.errors.PinIncorrect`, :class:`~demail_hw.errors.PinBlocked`,
    :class:`~demail_hw.errors.PinNotInitialized`, or another :class:`~demail_hw.errors.CardError`.
    """
    status = response.status
    left = retries_left(status)
    if status == StatusWord.AUTHENTICATION_METHOD_BLOCKED or left == 0:
        raise PinBlocked(f"The PIN {name} is blocked.", status=status, command=command.name)
    if left is not None:
        raise PinIncorrect(
            f"The card refused the PIN {name}; {left} {'try is' if left == 1 else 'tries are'} left.",
            retries_left=left,
            status=status,
            command=command.name,
        )
    if status == StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED and command.ins == _VERIFY:
        raise PinNotInitialized(f"The PIN {name} still is the card's NullPIN.", status=status, command=command.name)
    if status != _NORMAL_PROCESSING:  # 61xx is no success here: VERIFY has no data to give
        raise _refusal(status, command)
