"""The implementations of Reader and CardConnection, each on a bench with the same scripted card."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from demail_hw.ccid.reader import CcidReader
from demail_hw.interfaces import Reader, Timeouts
from demail_hw.registry import open_reader
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.sim_reader import SimulatedReader

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SERIAL = "53692013000000"


class ScriptedCard:
    """Says 9000, and before that: the data field to ECHO (INS EE), so many zeros to ZEROS (INS B0, Ne in P1-P2)."""

    def __init__(self) -> None:
        self.atr = ATR
        self.powered = False
        self.resets = 0
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        self.powered = True
        self.resets += 1
        return self.atr

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        match command[1]:
            case 0xEE:
                data = command[7:-2]
            case 0xB0:
                data = bytes(int.from_bytes(command[2:4], "big"))
            case _:
                data = b""
        return data + b"\x90\x00"


class Slot(Protocol):
    """Where a card can be put in and taken out."""

    def insert(self, card: SimulatedCard) -> None: ...

    def remove(self) -> object: ...


class Bench:
    """A reader with a card in it, and the hand that moves the card."""

    def __init__(self, reader: Reader, slot: Slot, card: ScriptedCard) -> None:
        self.reader = reader
        self.card = card
        self._slot = slot

    def insert(self, card: SimulatedCard | None = None) -> None:
        self._slot.insert(card or self.card)

    def remove(self) -> None:
        self._slot.remove()

    @staticmethod
    def soon() -> float:
        """A deadline that is not missed."""
        return time.monotonic() + 20

    @staticmethod
    def short() -> float:
        """A deadline for what has to miss it."""
        return time.monotonic() + 0.05


@contextlib.contextmanager
def in_process() -> Iterator[Bench]:
    card = ScriptedCard()
    reader = SimulatedReader(card, serial=SERIAL)
    yield Bench(reader, reader, card)
    reader.close()


@contextlib.contextmanager
def ccid() -> Iterator[Bench]:
    card = ScriptedCard()
    device = SimulatedUsbReader(card, serial=SERIAL)
    reader = CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=Bench.soon)
    yield Bench(reader, device, card)
    reader.close()


@contextlib.contextmanager
def usbip() -> Iterator[Bench]:
    card = ScriptedCard()
    device = SimulatedUsbReader(card, serial=SERIAL)
    with UsbIpServer([device], port=0) as server:
        reader = open_reader(f"usbip://127.0.0.1:{server.port}/", timeouts=Timeouts(connect=20))
        yield Bench(reader, device, card)
        reader.close()


@pytest.fixture(params=[in_process, ccid, usbip], ids=lambda opener: opener.__name__)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Every implementation of Reader, one after the other; no thread of it is left behind."""
    before = set(threading.enumerate())
    opener: Callable[[], contextlib.AbstractContextManager[Bench]] = request.param
    with opener() as opened:
        yield opened
    assert set(threading.enumerate()) <= before
