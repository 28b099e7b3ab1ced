"""PINs that a person types: one that a card has, and a new one, twice."""

from demail_hw.cli.output import end_line
from demail_hw.cli.progress import asking
from demail_hw.errors import PinRequired
from demail_hw.pin_sources import PromptPinSource
from demail_hw.secrets import Pin

__all__ = ["NewPinPrompt", "PinPrompt"]


class PinPrompt(PromptPinSource):
    """A person at the terminal who is asked while a command runs."""

    def read(self) -> Pin:
        """As :meth:`~demail_hw.pin_sources.PromptPinSource.read`."""
        with asking():
            try:
                return super().read()
            except PinRequired as error:
                if isinstance(error.__cause__, EOFError):
                    end_line()
                raise


class NewPinPrompt:
    """Asks at the terminal for a PIN that nobody has yet (a :class:`~demail_hw.secrets.PinSource`).

    ``heading``: what is said before the first of the two prompts.
    """

    def __init__(self, name: str, *, heading: str = "") -> None:
        self._name = name
        self._heading = heading

    def read(self) -> Pin:
        """What was typed both times. :class:`~demail_hw.errors.PinRequired` if it was not the same."""
        new = PinPrompt(f"{self._heading}New PIN {self._name}: ").read()
        try:
            with PinPrompt("The same again: ").read() as again:
                same = new.buffer == again.buffer
        except BaseException:
            new.wipe()
            raise
        if not same:
            new.wipe()
            raise PinRequired("The two new PINs are not the same; nothing was sent.", remedy="Type it anew.")
        return new
