"""What stands in for pyscard's functions where the real service cannot be made to do it."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

__all__ = ["ATR", "EMPTY", "EXCLUSIVE", "GARBAGE", "INUSE", "PRESENT", "UNPOWERED", "FakeScard", "Gate"]

ATR = bytes.fromhex("3BBF96008131FE5D00640411030131C073F701D00090007D")
GARBAGE = [0xFF] * 65548
EMPTY, PRESENT, EXCLUSIVE, INUSE = 0x10, 0x20, 0x80, 0x100
POWERED, UNPOWERED = 0x34, 0x04
NO_CONTEXT, NO_CARD = 0x80100003, 0x80100003
UNSUPPORTED_FEATURE = 0x8010001F


class FakeScard:
    """The module ``smartcard.scard``, with a service whose readers all have the same card.

    ``script``: what a function gives the next times, or what it calls to know; then it does what it should.
    ``states``: name and state of each reader. ``held``: readers that cannot be had before a gate is open, as while
    another program has a transaction. ``contexts`` and ``cards``: what is open. ``dispositions``: with what cards
    were let go. ``reconnects``: the same, of those that were kept.
    """

    def __init__(self) -> None:
        self.script: defaultdict[str, deque[Any]] = defaultdict(deque)
        self.states: dict[str, int] = {"Reader 00 00": PRESENT}
        self.held: dict[str, Gate] = {}
        self.serials: dict[str, bytes] = {}
        self.properties: bytes | None = None
        self.atr = ATR
        self.commands: list[bytes] = []
        self.dispositions: list[int] = []
        self.reconnects: list[int] = []
        self.contexts: set[int] = set()
        self.cards: dict[int, str] = {}
        self._handles = iter(range(1, 1000))

    def _scripted(self, name: str) -> Any:
        if not self.script[name]:
            return None
        answer = self.script[name].popleft()
        return answer() if callable(answer) else answer

    def SCardEstablishContext(self, scope: int) -> list[Any]:
        if (answer := self._scripted("SCardEstablishContext")) is not None:
            return list(answer)
        context = next(self._handles)
        self.contexts.add(context)
        return [0, context]

    def SCardReleaseContext(self, context: int) -> int:
        self.contexts.remove(context)
        return 0

    def SCardListReaders(self, context: int, groups: list[str]) -> list[Any]:
        assert context in self.contexts
        return self._scripted("SCardListReaders") or [0, list(self.states)]

    def SCardGetStatusChange(self, context: int, timeout: int, states: list[tuple[str, int]]) -> list[Any]:
        assert context in self.contexts
        assert all(name.isascii() for name, _ in states), "the process would have crashed"
        return self._scripted("SCardGetStatusChange") or [0, [(name, self.states[name], []) for name, _ in states]]

    def SCardConnect(self, context: int, reader: str, share: int, protocols: int) -> list[Any]:
        assert context in self.contexts
        if (answer := self._scripted("SCardConnect")) is not None:
            return list(answer)
        if reader in self.held:
            self.held[reader]()
        card = next(self._handles)
        self.cards[card] = reader
        return [0, card, 2 if protocols else 0]

    def SCardReconnect(self, card: int, share: int, protocols: int, disposition: int) -> list[Any]:
        assert card in self.cards
        self.reconnects.append(disposition)
        return self._scripted("SCardReconnect") or [0, 2]

    def SCardDisconnect(self, card: int, disposition: int) -> int:
        if answer := self._scripted("SCardDisconnect"):
            return int(answer)
        del self.cards[card]
        self.dispositions.append(disposition)
        return 0

    def SCardBeginTransaction(self, card: int) -> int:
        assert card in self.cards
        return self._scripted("SCardBeginTransaction") or 0

    def SCardEndTransaction(self, card: int, disposition: int) -> int:
        assert card in self.cards
        return self._scripted("SCardEndTransaction") or 0

    def SCardStatus(self, card: int) -> list[Any]:
        reader = self.cards[card]
        state = POWERED if self.states[reader] & PRESENT else 0x02
        return self._scripted("SCardStatus") or [0, reader, state, 2, list(self.atr)]

    def SCardTransmit(self, card: int, protocol: int, command: list[int]) -> list[Any]:
        assert card in self.cards
        self.commands.append(bytes(command))
        return self._scripted("SCardTransmit") or [0, [0x90, 0x00]]

    def SCardControl(self, card: int, code: int, command: list[int]) -> list[Any]:
        if self.properties is None:
            return [UNSUPPORTED_FEATURE, GARBAGE]
        features = bytes.fromhex("060442330006 120442330012")
        return [0, list(self.properties if code == 0x42330012 else features)]

    def SCardGetAttrib(self, card: int, attribute: int) -> list[Any]:
        serial = self.serials.get(self.cards[card])
        return [UNSUPPORTED_FEATURE, GARBAGE] if serial is None else [0, list(serial)]

    @staticmethod
    def SCARD_CTL_CODE(function: int) -> int:
        return 0x42000000 + function


class Gate:
    """A call that hangs until it is let go, and then gives this answer."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> Any:
        self.reached.set()
        assert self.open.wait(20)
        return self._answer()
