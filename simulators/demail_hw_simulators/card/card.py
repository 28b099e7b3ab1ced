"""The simulated TCOS card: bytes in, bytes out."""

import collections
import os
from collections.abc import Callable
from typing import Final

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.table import COMMANDS
from demail_hw_simulators.card.dialect import Dialect
from demail_hw_simulators.card.file_system import FileSystem
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["LOG_LENGTH", "SimulatedTcosCard"]

LOG_LENGTH: Final = 4096
"""How many instructions the log holds; older ones are forgotten."""

_FIRST_INTERINDUSTRY: Final = range(0x20)
_CHAINING: Final = 0x10
_SECURE_MESSAGING: Final = 0x0C
_LONGEST_CORRECTION: Final = 256
_CORRECT_NE: Final = 0x6C00
_LENGTH_FIELD: Final = 4
_EXTENDED: Final = 0x00


class SimulatedTcosCard:
    """A :class:`~demail_hw_simulators.interfaces.SimulatedCard`. Files, PIN counters and keys outlive its power.

    ``instructions`` counts the commands by INS, ``log`` has the INS bytes in order, ``resets`` counts the times it
    was powered. None of them ever holds data of a command. ``random``: random bytes by number.
    """

    __slots__ = (
        "_dialect",
        "_information",
        "_random",
        "_short_only",
        "_state",
        "atr",
        "file_system",
        "instructions",
        "log",
        "resets",
    )

    def __init__(
        self,
        file_system: FileSystem,
        *,
        atr: bytes,
        dialect: Dialect,
        information: bytes = b"",
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.file_system = file_system
        self.atr = atr
        self.instructions: collections.Counter[int] = collections.Counter()
        self.log: collections.deque[int] = collections.deque(maxlen=LOG_LENGTH)
        self.resets = 0
        self._dialect = dialect
        self._short_only = not dialect.extended_length
        self._information = information
        self._random = random
        self._state: CardState | None = None

    @property
    def powered(self) -> bool:
        """True between :meth:`power_on` and :meth:`power_off`."""
        return self._state is not None

    def power_on(self) -> bytes:
        """Cold reset (ISO 7816-3, 6.2): the ATR; MF, no PIN verified, default security environment."""
        self.resets += 1
        self._state = CardState(
            self.file_system, dialect=self._dialect, information=self._information, random=self._random
        )
        return self.atr

    def power_off(self) -> None:
        """Everything volatile is forgotten."""
        self._state = None

    def transmit(self, command: bytes) -> bytes:
        """One command APDU, one response APDU. ``RuntimeError`` without power; the card itself never raises."""
        state = self._state
        if state is None:
            raise RuntimeError("the card has no power")
        if self._short_only and _is_extended(command):
            return ResponseApdu(b"", StatusWord.WRONG_LENGTH).encode()
        try:
            return self._answer(state, CommandApdu.decode(command)).encode()
        except ProtocolViolation:
            return ResponseApdu(b"", StatusWord.WRONG_LENGTH).encode()
        except Refused as refusal:
            return ResponseApdu(b"", refusal.status).encode()

    def _answer(self, state: CardState, command: CommandApdu) -> ResponseApdu:
        self.instructions[command.ins] += 1
        self.log.append(command.ins)
        known = COMMANDS.get(command.ins)
        if known is None or command.cla != known.cla:
            raise Refused(_why_unknown(command, known is not None))
        before = state.snapshot()
        response = known.handler(state, command)
        if len(response.data) > command.ne:
            # Refused is not done (ISO 7816-4, 5.6). What answers with data changes nothing that outlives the power.
            state.restore(before)
            raise Refused(_wrong_ne(command.ne, len(response.data)))
        return response


def _is_extended(command: bytes) -> bool:
    """Has it an extended length field (ISO 7816-4, 5.2)?"""
    return len(command) > _LENGTH_FIELD + 1 and command[_LENGTH_FIELD] == _EXTENDED


def _why_unknown(command: CommandApdu, instruction_known: bool) -> int:
    """What is wrong with a class byte (ISO 7816-4, 5.4.1), or else with the instruction."""
    cla = command.cla
    if cla and cla in _FIRST_INTERINDUSTRY:
        if cla & _CHAINING:
            return StatusWord.COMMAND_CHAINING_NOT_SUPPORTED
        if cla & _SECURE_MESSAGING:
            return StatusWord.SECURE_MESSAGING_NOT_SUPPORTED
        return StatusWord.LOGICAL_CHANNEL_NOT_SUPPORTED
    if instruction_known or cla not in _CLASSES:
        return StatusWord.CLASS_NOT_SUPPORTED
    return StatusWord.INSTRUCTION_NOT_SUPPORTED


_CLASSES: Final = frozenset(command.cla for command in COMMANDS.values())


def _wrong_ne(ne: int, length: int) -> int:
    """6Cxx says how long the answer is; without any Le, or if that is too long to say, 6700 (ISO 7816-4, 5.6)."""
    if ne and length <= _LONGEST_CORRECTION:
        return _CORRECT_NE | length % _LONGEST_CORRECTION
    return StatusWord.WRONG_LENGTH
