"""PINs that a person types: one that a card has, and a new one, twice."""

from demail_hw.cli.output import end_line
from demail_hw.cli.progress import asking
from demail_hw.errors import PinRequired
from demail_hw.keys.pin_guard import check_form
from demail_hw.pin_sources import PromptPinSource
from demail_hw.secrets import Pin, PinSource
from demail_hw.tcos.layout import PinSlot

__all__ = ["CheckedPin", "NewPinPrompt", "PinPrompt"]


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


class CheckedPin:
    """A PIN whose form is looked at before anything else is asked for (a :class:`~demail_hw.secrets.PinSource`).

    ``what``, ``typed``: as of :func:`~demail_hw.keys.pin_guard.check_form`.
    """

    def __init__(self, source: PinSource, pin: PinSlot, what: str, *, typed: bool = False) -> None:
        self._source = source
        self._pin = pin
        self._what = what
        self._typed = typed

    def read(self) -> Pin:
        """What the source gives. :class:`~demail_hw.errors.PinRefused` if it cannot be this PIN."""
        secret = self._source.read()
        try:
            check_form(secret, self._pin, self._what, typed=self._typed)
        except BaseException:
            secret.wipe()
            raise
        return secret


class NewPinPrompt:
    """Asks at the terminal for a PIN that nobody has yet (a :class:`~demail_hw.secrets.PinSource`).

    ``heading``: what is said before the first of the two prompts.
    """

    def __init__(self, pin: PinSlot, *, heading: str = "") -> None:
        prompt = PinPrompt(f"{heading}New PIN {pin.name.value}: ")
        self._first = CheckedPin(prompt, pin, "new PIN", typed=True)

    def read(self) -> Pin:
        """What was typed both times. :class:`~demail_hw.errors.PinRequired` if it was not the same;
        :class:`~demail_hw.errors.PinRefused` after the first time if it cannot be a PIN."""
        new = self._first.read()
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
