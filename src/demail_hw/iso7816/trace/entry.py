"""One exchange of a trace."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from demail_hw.interfaces import Buffers
from demail_hw.iso7816.trace.masking import MASKED, mask

__all__ = ["TraceEntry"]

_STATUS_DIGITS: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class TraceEntry:
    """One exchange. ``command``: masked, ``response``: data and status; both in lower-case hexadecimal.

    An empty ``response``: none came, and ``failure`` says why, if it is known. ``line``: where it stands in the text
    it was read from, or 0. ``deciphered``: it is known that the response is what a DECIPHER returns.
    """

    command: str
    response: str
    line: int = dataclasses.field(default=0, compare=False)
    failure: str = dataclasses.field(default="", compare=False)
    deciphered: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def record(cls, command: Buffers, response: bytes) -> "TraceEntry":
        """An exchange as it went over the wire."""
        return cls(mask(command), response.hex())

    @property
    def status(self) -> int | None:
        """SW1-SW2; ``None`` if none came, or is masked."""
        digits = self.response[-_STATUS_DIGITS:]
        return int(digits, 16) if len(digits) == _STATUS_DIGITS and MASKED not in digits else None

    @property
    def data(self) -> str:
        """The response without its status."""
        return self.response[:-_STATUS_DIGITS]

    def hidden(self) -> "TraceEntry":
        """The same with the data of the response masked."""
        status = self.response[-_STATUS_DIGITS:]
        return dataclasses.replace(self, response=MASKED * (len(self.data) // 2) + status)

    def lines(self) -> Iterator[str]:
        """The lines without their ends."""
        yield f"> {self.command}"
        yield from self.answer_lines()

    def answer_lines(self) -> Iterator[str]:
        """What follows the command's line."""
        if self.response:
            yield f"< {self.data} {self.response[-_STATUS_DIGITS:]}"
        elif self.failure:
            yield f"# no answer: {self.failure}"
