"""How many tries of a PIN somebody was told of, before he typed it."""

from demail_hw.errors import PinRefused
from demail_hw.keys.pin_remedies import PinRemedies
from demail_hw.tcos.layout import PinSlot

__all__ = ["ToldTries"]


class ToldTries:
    """The tries that a person was told of last, of each PIN. Who was told of none is not spoken to here."""

    __slots__ = ("_remedies", "_told")

    def __init__(self, remedies: PinRemedies) -> None:
        self._remedies = remedies
        self._told: dict[PinSlot, int | None] = {}

    def tell(self, pin: PinSlot, left: int | None) -> None:
        """He is told of ``left`` tries; None where nobody knows how many."""
        self._told[pin] = left

    def check(self, pin: PinSlot, left: int | None) -> None:
        """:class:`~demail_hw.errors.PinRefused` if only the last try is left, and he was told of another number: then
        somebody else spent one meanwhile. It is said once."""
        told = self._told.pop(pin, left)
        if left == 1 and told != left:
            raise PinRefused(
                f"Of the PIN {pin.name.value} only the last try is left by now; nothing was sent.",
                remedy=self._remedies.spend_a_try(pin, left),
            )
