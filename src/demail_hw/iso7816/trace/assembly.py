"""A trace as it grows, line by line or event by event."""

from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.events import PowerUp

__all__ = ["Assembly"]


class Assembly:
    """A trace as it grows: the attributes are those of :class:`~demail_hw.iso7816.trace.Trace`."""

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []
        self.atr = b""
        self.powered: list[PowerUp] = []
        self.reader = ""
        self.serial: str | None = None

    def power(self, atr: bytes) -> None:
        """Before the first exchange the first time counts."""
        if self.entries:
            self.powered.append(PowerUp(len(self.entries), atr))
        else:
            self.atr = self.atr or atr
