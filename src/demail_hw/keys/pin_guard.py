"""The one way to send a PIN: counter first, the last try never, a refused PIN never again."""

from collections.abc import Callable
from typing import Final

from demail_hw.errors import (
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
)
from demail_hw.interfaces import Deadline
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit, PinSource
from demail_hw.tcos.card import PinState, PinStatus, TcosCard
from demail_hw.tcos.profiles import PinSlot

__all__ = ["PIN_LENGTHS", "PinGuard"]

PIN_LENGTHS: Final = range(6, 17)
"""The lengths that a TCOS PIN can have, in characters."""

_LAST_TRY: Final = 1


class PinGuard:
    """Guards the PINs of one card for as long as it is open here.

    What it remembers of a refusal is that it happened, never the PIN. It asks the source for the PIN only when
    everything else allows the attempt, and wipes it at once.
    """

    __slots__ = ("_refused", "_source")

    def __init__(self, source: PinSource | None) -> None:
        self._source = source
        self._refused: set[PinSlot] = set()

    def verify(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> None:
        """Open the card with the PIN, unless it is open; inside a transaction.

        One VERIFY at the most, and none in most refusals. Errors: :class:`~demail_hw.errors.PinRefused`,
        :class:`~demail_hw.errors.PinRequired`, :class:`~demail_hw.errors.PinBlocked`,
        :class:`~demail_hw.errors.PinNotInitialized`: nothing was sent;
        :class:`~demail_hw.errors.PinIncorrect`: the card said no.
        """
        if card.is_verified(pin):
            return
        if pin in self._refused:
            raise PinRefused(
                f"The PIN {pin.name.value} was sent once and not accepted; it is not sent again.",
                remedy="Correct the PIN at its source, then open the provider anew.",
            )
        source = self._source
        if source is None:
            raise PinRequired(f"The key needs the PIN {pin.name.value}, and no PIN source was given.")
        _refuse_unless_safe(pin, card.pin_status(pin, deadline=deadline))
        with source.read() as secret:
            _check_form(secret)
            self._send(lambda permit: card.verify(pin, permit, deadline=deadline), pin, secret)

    def _send(self, send: Callable[[PinPermit], None], pin: PinSlot, secret: Pin) -> None:
        # Marked before it is sent: an attempt that ends without an answer may have cost a try, and is not repeated.
        self._refused.add(pin)
        try:
            send(PinPermit(_GUARD_KEY, pin.reference, (secret,)))
        except PinIncorrect:
            raise
        except HardwareError as error:
            if error.outcome is Outcome.NOT_SENT:
                self._refused.discard(pin)
            raise
        self._refused.discard(pin)


def _refuse_unless_safe(pin: PinSlot, status: PinStatus) -> None:
    """Let pass only a counter that says more than one try is left."""
    name = pin.name.value
    match status.state:
        case PinState.READY if (status.retries_left or 0) > _LAST_TRY:
            return
        case PinState.VERIFIED:
            # The card was opened by somebody else. VERIFY is sent all the same: an open card proves no PIN, and
            # the counter is full then.
            return
        case PinState.READY:
            raise PinRefused(
                f"The PIN {name} has its last try left, which is never spent unattended; nothing was sent.",
                remedy="Verify it with the card maker's own software, where you see what you type.",
            )
        case PinState.BLOCKED:
            raise PinBlocked(f"The PIN {name} is blocked.")
        case PinState.NULL_PIN:
            raise PinNotInitialized(f"The PIN {name} still is the card's NullPIN.")
        case PinState.ABSENT:
            raise PinRefused(f"The card has no PIN {name}.", remedy="Name another PIN (which= or --which).")
        case PinState.UNREADABLE:
            raise PinRefused(
                f"The card does not tell how many tries the PIN {name} has left; nothing was sent.",
                remedy="Check the card with its maker's own software.",
            )


def _check_form(secret: Pin) -> None:
    if len(secret) not in PIN_LENGTHS:
        raise PinRefused(
            f"The PIN source gave a PIN that is not {PIN_LENGTHS.start} to {PIN_LENGTHS.stop - 1} characters long; "
            "nothing was sent.",
            remedy="Check the source for stray spaces and lines.",
        )
    if any(not 0x20 < octet < 0x7F for octet in secret.buffer):
        raise PinRefused(
            "The PIN source gave a PIN with characters outside printable ASCII; nothing was sent.",
            remedy="Check the source for a byte order mark, umlauts or line ends.",
        )
