"""A card that a test can stop or cut off in the middle of a PIN command, behind USB/IP: its users are processes.

Nothing here waits for a time: a gate is reached, and opened.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from child_process import Child
from demail_hw.interfaces import PinRecord
from demail_hw.pin_ledger import FilePinLedger
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card.pins import CardPin
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from exported import wait_until_free

__all__ = [
    "CLIENT",
    "ICCSN",
    "RIGHT",
    "SECONDS",
    "TRIES",
    "WRONG",
    "Bench",
    "Gate",
    "WatchedCard",
    "same_card",
    "serving",
]

SECONDS: Final = 60
ICCSN: Final = "89490173510080407136"
RIGHT: Final = "123456"
WRONG: Final = "975310"
TRIES: Final = 15
"""As many as a status word can tell."""
CLIENT: Final = Path(__file__).with_name("pin_client.py")
_NAMES: Final = {0x20: "VERIFY", 0x24: "CHANGE", 0x2C: "RESET RETRY", 0x2A: "PSO"}
_STATUS: Final = "PIN status"
_HEADER: Final = 4

Act: TypeAlias = Callable[[bytes], bytes]
Fault: TypeAlias = Callable[[Act, bytes], bytes]
"""What happens in the place of a command: it is given how the card would act, and the command."""


class WatchedCard:
    """Notes its PIN commands by name. ``faults``: what happens instead, by the name of the command."""

    def __init__(self, card: SimulatedTcosCard | None = None) -> None:
        self.card = card or netkey3()
        self.sent: list[str] = []
        self.faults: dict[str, Fault] = {}

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        name = _NAMES.get(command[1], "")
        if name == "VERIFY" and len(command) == _HEADER:
            name = _STATUS
        elif name:
            self.sent.append(name)
        fault = self.faults.get(name)
        return fault(self.card.transmit, command) if fault else self.card.transmit(command)

    @property
    def verifies(self) -> int:
        """How many VERIFYs with a PIN it has seen."""
        return self.sent.count("VERIFY")

    @property
    def pin(self) -> CardPin:
        """The global PIN, as it lies in the card."""
        return self.card.file_system.root.pins[0]

    @property
    def puk(self) -> CardPin:
        return self.card.file_system.root.pins[1]

    def lose_power(self) -> bytes:
        """In the middle of a command; nothing is answered."""
        self.card.power_off()
        return b""


def same_card(count: int) -> Sequence[WatchedCard]:
    """One card in several readers: what one of them does to a PIN, all have done. It has :data:`TRIES`."""
    first = netkey3()
    for pin in first.file_system.root.pins.values():
        pin.tries = pin.maximum_tries = TRIES
    return [
        WatchedCard(SimulatedTcosCard(first.file_system, atr=first.atr, dialect=first._dialect)) for _ in range(count)
    ]


class Gate:
    """A :data:`Fault`: the card stops before or after it has acted, until the gate is opened."""

    def __init__(self, *, acted: bool) -> None:
        self._acted = acted
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, act: Act, command: bytes) -> bytes:
        answer = act(command) if self._acted else None
        self._reached.set()
        assert self._open.wait(SECONDS)
        return act(command) if answer is None else answer

    def wait(self) -> None:
        """Until the card stands at it."""
        assert self._reached.wait(SECONDS)

    def open(self) -> None:
        self._open.set()


class Bench:
    """A card in a USB/IP server's reader, the folder of the ledger, and clients."""

    def __init__(self, server: UsbIpServer, cards: Sequence[WatchedCard], folder: Path) -> None:
        self._server = server
        self.card = cards[0]
        self.cards = cards
        self.folder = folder
        self.addresses = [f"usbip://127.0.0.1:{server.port}/{bus_id}" for bus_id in server.bus_ids]

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def records(self) -> dict[str, PinRecord]:
        """What the ledger knows."""
        return dict(FilePinLedger(self.folder).records(ICCSN))

    def client(self, pin: str = RIGHT, **order: Any) -> Child:
        """Another process that signs with the PIN (see pin_client.py). ``under``: as for :class:`Child`."""
        under = order.pop("under", ())
        order = {"address": self.address, "state": str(self.folder), "pin": pin, **order}
        return Child(CLIENT, json.dumps(order), under=under)

    def sign(self, pin: str = RIGHT, **order: Any) -> dict[str, Any]:
        """A start of a service: what became of its signature."""
        self.wait_until_free()
        with self.client(pin, **order) as client:
            return cast("dict[str, Any]", client.hear_json())

    def words(self, *arguments: str, pins: Sequence[str] = (), reader: int = 0) -> list[str]:
        """What ``demail-hw`` is told; ``{card}`` is the address, ``{0}`` the source of the first PIN, and so on."""
        sources = [f"file:{self._pin_file(number, pin)}" for number, pin in enumerate(pins)]
        words = [word.format(*sources, card=self.addresses[reader]) for word in arguments]
        return ["--state-dir", str(self.folder), *words]

    def run(self, *arguments: str, pins: Sequence[str] = (), reader: int = 0) -> subprocess.CompletedProcess[str]:
        """``demail-hw``, as for :meth:`words`."""
        self.wait_until_free(reader)
        return subprocess.run(
            [sys.executable, "-m", "demail_hw.cli", *self.words(*arguments, pins=pins, reader=reader)],
            capture_output=True,
            text=True,
            input="De-Mail",
            timeout=SECONDS,
            check=False,
        )

    def run_sign(self, pin: str = RIGHT) -> subprocess.CompletedProcess[str]:
        """``demail-hw sign``."""
        return self.run("sign", "{card}", "-", "--key", "signature", "--pin", "{0}", "-o", os.devnull, pins=[pin])

    def _pin_file(self, number: int, pin: str) -> Path:
        path = self.folder.parent / f"pin-{number}"
        path.touch(0o600)
        path.write_text(pin)
        return path

    def wait_until_free(self, reader: int = 0) -> None:
        """Until the server has noticed that a client is gone."""
        bus_id = self._server.bus_ids[reader]
        assert wait_until_free(self._server, bus_id, deadline=time.monotonic() + SECONDS)


@contextlib.contextmanager
def serving(folder: Path, *cards: WatchedCard) -> Iterator[Bench]:
    """One reader a card; a new card unless told otherwise. Every gate is opened at the end."""
    cards = cards or (WatchedCard(),)
    with UsbIpServer([SimulatedUsbReader(card) for card in cards], port=0) as server:
        try:
            yield Bench(server, cards, folder)
        finally:
            for card in cards:
                for fault in card.faults.values():
                    if isinstance(fault, Gate):
                        fault.open()
