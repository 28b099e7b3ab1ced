"""PINs as a card keeps them: reference data with a counter (ISO 7816-4, 11.5)."""

from typing import Final

from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.refusal import Refused

__all__ = ["MINIMUM_LENGTH", "CardPin"]

MINIMUM_LENGTH: Final = 6
"""Of any PIN, in bytes; one may need more."""


class CardPin:
    """One PIN or PUK; compared by identity.

    ``value``: ``None`` for a NullPIN, which must be changed before it opens anything, and which ``null_pin`` stands
    for then. ``tries``: left of ``maximum_tries``. ``unblocked_by``: reference of the PIN that resets this one, or
    ``None``. ``set_by``: the PINs of which any one, once it is verified, allows the same without being sent along.
    ``minimum`` and ``maximum``: length of a new value, in bytes.
    """

    __slots__ = (
        "_value",
        "maximum",
        "maximum_tries",
        "minimum",
        "null_pin",
        "reference",
        "set_by",
        "tries",
        "unblocked_by",
    )

    def __init__(
        self,
        reference: int,
        value: bytes | None,
        *,
        tries: int,
        maximum_tries: int,
        unblocked_by: int | None,
        set_by: tuple[int, ...],
        null_pin: bytes,
        maximum: int,
        minimum: int = MINIMUM_LENGTH,
    ) -> None:
        self.reference = reference
        self.tries = tries
        self.maximum_tries = maximum_tries
        self.unblocked_by = unblocked_by
        self.set_by = set_by
        self.null_pin = null_pin
        self.minimum = minimum
        self.maximum = maximum
        self._value = value

    @property
    def initialized(self) -> bool:
        """False for a NullPIN."""
        return self._value is not None

    @property
    def shortest(self) -> int:
        """Length of the shortest secret that can stand for it in front of a new one, in bytes."""
        return MINIMUM_LENGTH if self.initialized else len(self.null_pin)

    @property
    def status(self) -> int:
        """The status word that says how it is without trying it: 63Cx, 6983 or 6985 (ISO 7816-4, 11.5.6)."""
        if not self.tries:
            return StatusWord.AUTHENTICATION_METHOD_BLOCKED
        if not self.initialized:
            return StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED
        return StatusWord.COUNTER_ZERO + self.tries

    def verify(self, candidate: bytes) -> None:
        """Compare. :class:`Refused` with 63Cx and a try less, 6983, or 6985 if it is still a NullPIN."""
        self._require_usable()
        if candidate != self._value:
            raise self._failed()
        self.tries = self.maximum_tries

    def split(self, data: bytes) -> bytes:
        """Verify what ``data`` begins with, and return what follows. ``null_pin`` stands for a NullPIN."""
        if not self.tries:
            raise Refused(StatusWord.AUTHENTICATION_METHOD_BLOCKED)
        known = self.null_pin if self._value is None else self._value
        if not data.startswith(known):
            raise self._failed()
        return data[len(known) :]

    def change(self, value: bytes) -> None:
        """A new value, and all tries. :class:`Refused` with 6A80 if its length is wrong."""
        if not self.minimum <= len(value) <= self.maximum:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        self._value = value
        self.tries = self.maximum_tries

    def restore_tries(self) -> None:
        """All tries again."""
        self.tries = self.maximum_tries

    def _require_usable(self) -> None:
        if not self.tries or not self.initialized:
            raise Refused(self.status)

    def _failed(self) -> Refused:
        self.tries -= 1
        return Refused(StatusWord.COUNTER_ZERO + self.tries)

    def __repr__(self) -> str:
        return f"<CardPin {self.reference:#04x}, {self.tries} tries left>"
