"""What a connection to a card says once it is gone: the same behind every scheme."""

import dataclasses
from typing import Final

from demail_hw.errors import CardRemoved, DeadlineExceeded, DeviceLost, HardwareError, Outcome, TransportError

__all__ = ["CLOSED", "LostConnection"]


@dataclasses.dataclass(frozen=True, slots=True)
class LostConnection:
    """Why a connection is of no more use.

    Of the error that ended it only this is kept: its traceback would keep the command, which can hold a PIN.
    """

    what: str
    kind: type[CardRemoved] | type[DeviceLost] = CardRemoved
    transient: bool = False

    @classmethod
    def by(cls, error: BaseException | None = None) -> "LostConnection":
        """Lost by this error: what is behind a reader that is lost, or was too slow, is not said to be a card that
        was taken out."""
        return cls(
            "was lost before",
            kind=DeviceLost if isinstance(error, TransportError | DeadlineExceeded) else CardRemoved,
            transient=isinstance(error, HardwareError) and error.transient,
        )

    def error(self) -> HardwareError:
        """What every further call raises; nothing was sent."""
        return self.kind(
            f"The connection to the card {self.what}.",
            outcome=Outcome.NOT_SENT,
            transient=self.transient,
            remedy="Open the provider anew.",
        )


CLOSED: Final = LostConnection("was closed")
"""By the program itself."""
