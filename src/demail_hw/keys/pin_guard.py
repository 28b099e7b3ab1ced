"""The one way to send a PIN: counter first, the last try never, a refused PIN never again."""

from typing import Final

from demail_hw.errors import (
    HardwareError,
    PinBlocked,
    PinNotInitialized,
    PinRefused,
    PinRequired,
)
from demail_hw.interfaces import Deadline
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit, PinSource
from demail_hw.tcos.card import PinState, PinStatus, TcosCard
from demail_hw.tcos.layout import PinSlot

__all__ = ["PIN_LENGTHS", "PinGuard"]

PIN_LENGTHS: Final = range(6, 17)
"""The lengths that a TCOS PIN can have, in characters."""

_LAST_TRY: Final = 1


class PinGuard:
    """Guards the PINs of one card for as long as it is open here.

    What it remembers of a refusal is that it happened, never the PIN. An attempt has two steps, so that nobody holds
    the card while a person types: :meth:`is_open` and :meth:`verify` are each called inside a transaction, and
    :meth:`ask` between them, outside. The counter is read in both.

    A card that says that it has the PIN verified gets none: it hides the counter. It counts as open if it took the
    PIN from this guard before; to anybody else that proves nothing, for another program may have verified it.
    """

    __slots__ = ("_accepted", "_refused", "_source")

    def __init__(self, source: PinSource | None) -> None:
        self._source = source
        self._refused: set[PinSlot] = set()
        self._accepted: set[PinSlot] = set()

    def is_open(self, card: TcosCard, pin: PinSlot, *, deadline: Deadline) -> bool:
        """Whether the PIN is still verified, as the card says itself; if not, a VERIFY may be sent. Sends none.

        Errors, if it may not be sent: :class:`~demail_hw.errors.PinRefused`, :class:`~demail_hw.errors.PinRequired`,
        :class:`~demail_hw.errors.PinBlocked`, :class:`~demail_hw.errors.PinNotInitialized`.
        """
        if pin in self._refused:
            raise PinRefused(
                f"The PIN {pin.name.value} was sent once and not accepted; it is not sent again.",
                remedy="Correct the PIN at its source, then open the provider anew.",
            )
        self._need_source(pin)
        return _is_open(pin, card.pin_status(pin, deadline=deadline), proven=pin in self._accepted)

    def ask(self, pin: PinSlot) -> Pin:
        """The PIN from its source, for the caller to wipe.

        Errors: :class:`~demail_hw.errors.PinRefused` if it can be none; what the source raises.
        """
        secret = self._need_source(pin).read()
        try:
            _check_form(secret)
        except PinRefused:
            secret.wipe()
            raise
        return secret

    def _need_source(self, pin: PinSlot) -> PinSource:
        if self._source is None:
            raise PinRequired(f"The key needs the PIN {pin.name.value}, and no PIN source was given.")
        return self._source

    def verify(self, card: TcosCard, pin: PinSlot, secret: Pin, *, deadline: Deadline) -> None:
        """Open the card with the PIN, unless it is open by now: one VERIFY at the most.

        Errors: those of :meth:`is_open`, nothing was sent; :class:`~demail_hw.errors.PinIncorrect`: the card said no;
        any other on the way: the outcome says whether the card may have seen it, and it is not sent again.
        """
        if card.is_verified(pin) or self.is_open(card, pin, deadline=deadline):
            return
        permit = PinPermit(_GUARD_KEY, pin.reference, (secret,))
        # Marked before it is sent: an attempt that ends without an answer may have cost a try.
        self._refused.add(pin)
        try:
            card.verify(pin, permit, deadline=deadline)
        except HardwareError:
            # Only what never became a command is surely no attempt, whatever reader and server say.
            if not permit.spent:
                self._refused.discard(pin)
            raise
        self._refused.discard(pin)
        self._accepted.add(pin)


def _is_open(pin: PinSlot, status: PinStatus, *, proven: bool) -> bool:
    """Raise unless it is open, or the counter says that more than one try is left.

    ``proven``: the card took the PIN from here before.
    """
    name = pin.name.value
    match status.state:
        case PinState.VERIFIED if proven:
            return True
        case PinState.READY if (status.retries_left or 0) > _LAST_TRY:
            return False
        case PinState.READY:
            raise PinRefused(
                f"The PIN {name} has its last try left, which is never spent unattended; nothing was sent.",
                remedy="Verify it in a program that asks you for it, such as pkcs15-tool of OpenSC.",
            )
        case PinState.BLOCKED:
            raise PinBlocked(f"The PIN {name} is blocked.")
        case PinState.NULL_PIN:
            raise PinNotInitialized(f"The PIN {name} still is the card's NullPIN.")
        case PinState.ABSENT:
            raise PinRefused(f"The card has no PIN {name}.", remedy="Name another PIN (which= or --which).")
        case PinState.VERIFIED:
            raise PinRefused(
                f"The PIN {name} was verified by another program, which hides its counter; nothing was sent.",
                remedy="End that program, or let it give the card back, and try again.",
            )
        case PinState.UNREADABLE:
            raise PinRefused(
                f"The card does not tell how many tries the PIN {name} has left; nothing was sent.",
                remedy="Open the provider anew; if it stays so, see what the card answers (demail-hw -v card info).",
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
