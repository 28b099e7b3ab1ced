"""How long a card takes: a model with a seed, and a card that takes so long. Off unless somebody asks for it.

A command takes the card's own time, which scatters, and the time that its characters and those of the answer take on
the wire (T=1 of ISO 7816-3, 11).
"""

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.atr import Atr
from demail_hw.iso7816.status import StatusWord
from demail_hw_simulators.card.commands.table import Instruction
from demail_hw_simulators.card.personality import TimingSpec
from demail_hw_simulators.interfaces import SimulatedCard

__all__ = ["DEFAULT_CLOCK", "TimedAnswer", "TimedCard", "TimingModel", "Wire", "waiting_time"]

DEFAULT_CLOCK: Final = 4_800_000
"""The uTrust 2700 F's, in Hz (dwDefaultClock)."""

_DEFAULT_FI: Final = 372
_DEFAULT_DI: Final = 1
_CHARACTER_ETU: Final = 12
_SHORTEST_CHARACTER_ETU: Final = 11
"""Of T=1 with N = 255 (ISO 7816-3, 11.2)."""
_LEAST_GUARD_TIME: Final = 255
_BLOCK_GUARD_ETU: Final = 22
_BLOCK_OVERHEAD: Final = 4
"""NAD, PCB, LEN and LRC."""
_IFSD: Final = 254
_BASIC_WAITING_TIME: Final = 960
_T1: Final = 1
_STATUS_SIZE: Final = 2
_DONE: Final = StatusWord.NORMAL_PROCESSING.to_bytes(_STATUS_SIZE, "big")


class Wire(NamedTuple):
    """What the ATR says of the line, after the reader has chosen the fastest rate that it offers.

    ``etu`` and ``character`` in seconds; ``ifsc``: bytes in a block to the card.
    """

    etu: float
    character: float
    ifsc: int

    @classmethod
    def of(cls, atr: bytes, *, clock: int = DEFAULT_CLOCK) -> "Wire":
        """``clock``: in Hz. :class:`~demail_hw.errors.ProtocolViolation` if it is no ATR."""
        decoded = Atr.decode(atr)
        etu = _fi(decoded) / ((decoded.di or _DEFAULT_DI) * clock)
        guard = decoded.extra_guard_time
        length = _SHORTEST_CHARACTER_ETU if guard == _LEAST_GUARD_TIME else _CHARACTER_ETU + guard
        return cls(etu, length * etu, decoded.t1.ifsc)

    def seconds(self, command: int, response: int) -> float:
        """How long a command and a response of so many bytes travel, in blocks of which each but the last is
        acknowledged by an R-block."""
        blocks = 2 * (_blocks(command, self.ifsc) + _blocks(response, _IFSD)) - 2
        characters = command + response + blocks * _BLOCK_OVERHEAD
        return characters * self.character + blocks * _BLOCK_GUARD_ETU * self.etu


def _fi(atr: Atr) -> int:
    return _DEFAULT_FI if atr.clock_rate is None else atr.clock_rate.fi


def _blocks(length: int, size: int) -> int:
    return max(1, -(-length // size))


def waiting_time(atr: bytes, *, clock: int = DEFAULT_CLOCK) -> float:
    """How long a card may be silent, in seconds: BWT of T=1 or WWT of T=0 (ISO 7816-3, 11.4.3 and 10.2).

    For an ATR that is none, that of a card whose ATR says nothing.
    """
    try:
        decoded = Atr.decode(atr)
    except ProtocolViolation:
        decoded = Atr.decode(b"\x3b\x00")
    if decoded.protocols[0] != _T1:
        return _BASIC_WAITING_TIME * decoded.wi * _fi(decoded) / clock
    etu = _fi(decoded) / ((decoded.di or _DEFAULT_DI) * clock)
    # Here Fd is 372, whatever TA1 says.
    return 11 * etu + (1 << decoded.t1.bwi) * _BASIC_WAITING_TIME * _DEFAULT_FI / clock


class TimingModel:
    """How long one card takes. The same seed and the same commands give the same times."""

    __slots__ = ("_operations", "_random", "_spec", "_wire")

    def __init__(self, spec: TimingSpec, *, atr: bytes, seed: int, clock: int = DEFAULT_CLOCK) -> None:
        self._spec = spec
        self._operations = {operation.answer: operation.mean for operation in spec.operations}
        self._wire = Wire.of(atr, clock=clock)
        self._random = random.Random(seed)  # noqa: S311  a simulated duration is no secret

    def seconds(self, command: bytes, response: bytes) -> float:
        """For a command APDU and its response APDU, wire included."""
        scatter = max(0.0, self._random.gauss(1.0, self._spec.spread))
        return scatter * self._own_time(command, response) + self._wire.seconds(len(command), len(response))

    def _own_time(self, command: bytes, response: bytes) -> float:
        instruction = command[1] if len(command) > 1 else None
        if instruction == Instruction.PERFORM_SECURITY_OPERATION and response.endswith(_DONE):
            return self._operations.get(len(response) - _STATUS_SIZE, self._spec.other)
        return self._spec.other if instruction is None else self._spec.commands.get(instruction, self._spec.other)


class TimedAnswer(NamedTuple):
    """A response APDU, and how long the card works on it, in seconds."""

    response: bytes
    seconds: float


class TimedCard:
    """A :class:`~demail_hw_simulators.interfaces.SimulatedCard` that takes its time.

    ``sleep``: how it waits. A reader that has better things to do than to wait asks :meth:`work` and waits itself.
    """

    def __init__(
        self, card: SimulatedCard, model: TimingModel, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._card = card
        self._model = model
        self._sleep = sleep

    def power_on(self) -> bytes:
        """As the card does it, in no time."""
        return self._card.power_on()

    def power_off(self) -> None:
        """As the card does it."""
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        """The card's response, when it is due."""
        answer = self.work(command)
        self._sleep(answer.seconds)
        return answer.response

    def work(self, command: bytes) -> TimedAnswer:
        """The card's response, now, and when it is due. The card has acted already."""
        response = self._card.transmit(command)
        return TimedAnswer(response, self._model.seconds(command, response))
