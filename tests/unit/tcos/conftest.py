"""A card that says what a test says."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import pytest

from demail_hw.interfaces import Buffers, CardLimits, Deadline
from demail_hw.iso7816.limits import EXTENDED_LIMITS

Answer: TypeAlias = Callable[[bytes], bytes]


class ScriptedConnection:
    """A powered card that answers each command as ``answer`` does; ``sent``: the commands in hexadecimal."""

    epoch = 0

    def __init__(self, answer: Answer, *, atr: str = "", limits: CardLimits = EXTENDED_LIMITS) -> None:
        self.answer = answer
        self.atr = bytes.fromhex(atr)
        self.limits = limits
        self.sent: list[str] = []

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        return nullcontext()

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        encoded = b"".join(command)
        self.sent.append(encoded.hex())
        return self.answer(encoded)

    def reset(self, *, deadline: Deadline) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@pytest.fixture
def scripted() -> type[ScriptedConnection]:
    """The class itself: each test says what its card answers."""
    return ScriptedConnection
