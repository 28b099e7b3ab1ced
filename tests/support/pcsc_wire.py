"""A card behind a private PC/SC service, and everybody's hands on it: ours, another program's, and a person's."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from demail_hw.interfaces import CardConnection, Deadline, Reader, ShareMode
from demail_hw.registry import open_reader
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.interfaces import SimulatedCard
from pcsc_client import ForeignProgram, PcscClient
from pcscd import READERS, SECONDS, PrivatePcscd

__all__ = ["READER", "GatedCard", "Wire", "open_wire", "short", "soon"]

READER: Final = READERS[0]


def soon() -> Deadline:
    """A deadline that is not missed."""
    return time.monotonic() + SECONDS


def short() -> Deadline:
    """A deadline for what has to miss it."""
    return time.monotonic() + 0.05


class GatedCard:
    """A card that thinks about each command for as long as the gate is shut."""

    def __init__(self, card: SimulatedCard) -> None:
        self.card = card
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.off = threading.Event()
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        self.off.clear()
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()
        self.off.set()

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        self.busy.set()
        assert self.gate.wait(SECONDS)
        return self.card.transmit(command)


class Wire:
    """The first reader, with a NetKey 3 card in it."""

    def __init__(self, pcscd: PrivatePcscd, foreign: ForeignProgram) -> None:
        self.pcscd = pcscd
        self.card = GatedCard(netkey3())
        self.slot = pcscd.slot(self.card)
        self.foreign = foreign
        self.reader: Reader = open_reader(f"pcsc:{READER}")

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE) -> CardConnection:
        return self.reader.connect(share, deadline=soon())

    def remove(self) -> None:
        """Take the card out; PC/SC has noticed."""
        self.slot.remove()
        self._notice(present=False)

    def insert(self, card: SimulatedCard) -> None:
        """Put a card in; PC/SC has noticed."""
        self.slot.insert(card)
        self._notice(present=True)

    def _notice(self, *, present: bool) -> None:
        with PcscClient() as client:
            client.wait_for_card(READER, present=present)


@contextlib.contextmanager
def open_wire(pcscd: PrivatePcscd) -> Iterator[Wire]:
    """No thread of ours is left at the end; one that was given up ends when its call returns."""
    with ForeignProgram(pcscd.environment) as foreign:
        wire = Wire(pcscd, foreign)
        before = set(threading.enumerate())
        yield wire
        wire.card.gate.set()
        wire.reader.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(SECONDS)
            assert not thread.is_alive()
