"""The implementations of Reader and CardConnection, each on a bench with the same scripted card."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import pytest

from demail_hw.ccid.reader import CcidReader
from demail_hw.config.schema import BindingConfig
from demail_hw.interfaces import CardLimits, Reader, Timeouts
from demail_hw.polling import pause
from demail_hw.registry import open_reader
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.binding_reader import BindingReader, bind
from demail_hw_drivers.binding_switch import BindingSwitch
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.reader_profiles import reader_profile
from demail_hw_simulators.serial_reader import ReaderOnPty, SerialReader
from demail_hw_simulators.sim_reader import SimulatedReader
from demail_hw_simulators.vpcd import VpcdSlot
from libusb_bed import PRELOADED, plugged_in
from pcsc_client import PcscClient, require_pyscard
from pcscd import READERS, SECONDS, PrivatePcscd

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SERIAL = "53692013000000"
NO_SWITCH = BindingSwitch(pathlib.Path("/nonexistent"))


class ScriptedCard:
    """Says 9000, and before that: the data field to ECHO (INS EE), so many zeros to ZEROS (INS B0, Ne in P1-P2)."""

    def __init__(self) -> None:
        self.atr = ATR
        self.powered = False
        self.resets = 0
        self.commands: list[bytes] = []
        self._off = threading.Condition()

    def power_on(self) -> bytes:
        self.powered = True
        self.resets += 1
        return self.atr

    def power_off(self) -> None:
        with self._off:
            self.powered = False
            self._off.notify_all()

    def forget(self) -> None:
        """As new."""
        self.resets = 0
        self.commands.clear()

    def wait_until_off(self) -> bool:
        """For readers that take the power when they think it right. False if they never do."""
        with self._off:
            return self._off.wait_for(lambda: not self.powered, SECONDS)

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
    """A reader with a card in it, and the hand that moves the card. What it moved, the reader has noticed."""

    serial: str | None = SERIAL
    limits = CardLimits(extended=True, max_command=65544, max_response=65538)

    def __init__(self, reader: Reader, slot: Slot, card: ScriptedCard) -> None:
        self.reader = reader
        self.card = card
        self._slot = slot

    def insert(self, card: SimulatedCard | None = None) -> None:
        self._slot.insert(card or self.card)

    def remove(self) -> None:
        self._slot.remove()

    def replace_unseen(self) -> None:
        """The card is out and in again before anybody looks."""
        self._slot.remove()
        self._slot.insert(self.card)

    def unplug(self) -> None:
        """The reader goes away; where there is none to unplug, the card."""
        self.remove()

    def is_off(self) -> bool:
        """Has the card no power?"""
        return not self.card.powered

    @staticmethod
    def soon() -> float:
        """A deadline that is not missed."""
        return time.monotonic() + 20

    @staticmethod
    def short() -> float:
        """A deadline for what has to miss it."""
        return time.monotonic() + 0.05


class PluggedBench(Bench):
    """With a cable, or a server, that can go away."""

    def __init__(self, reader: Reader, slot: Slot, card: ScriptedCard, unplug: Callable[[], None]) -> None:
        super().__init__(reader, slot, card)
        self._unplug = unplug

    def unplug(self) -> None:
        self._unplug()


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
    cable = LoopbackTransport(device)
    reader = CcidReader(cable, lock=TransactionLock(), grace=Bench.soon, pause=pause)
    yield PluggedBench(reader, device, card, cable.close)
    reader.close()


@contextlib.contextmanager
def usbip() -> Iterator[Bench]:
    card = ScriptedCard()
    device = SimulatedUsbReader(card, serial=SERIAL)
    with UsbIpServer([device], port=0) as server:
        reader = open_reader(f"usbip://127.0.0.1:{server.port}/", timeouts=Timeouts(connect=20))
        yield PluggedBench(reader, device, card, server.close)
        reader.close()


@contextlib.contextmanager
def binding() -> Iterator[Bench]:
    card = ScriptedCard()
    device = SimulatedUsbReader(card, serial=SERIAL)
    with UsbIpServer([device], port=0) as server:
        reader = BindingReader(bind("bench", BindingConfig("127.0.0.1", server.port), switch=NO_SWITCH))
        reader.attach(deadline=Bench.soon())
        yield PluggedBench(reader, device, card, server.close)
        reader.close()


class SerialBench(Bench):
    """A reader on a serial line tells no serial number."""

    serial = None


@contextlib.contextmanager
def serial() -> Iterator[Bench]:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    card = ScriptedCard()
    device = SimulatedUsbReader(card, profile=reader_profile("host_pps"))
    with ReaderOnPty(SerialReader(device)) as line:
        reader = open_reader(f"serial:{line.path}", timeouts=Timeouts(connect=20))
        yield SerialBench(reader, device, card)
        reader.close()


@contextlib.contextmanager
def libusb() -> Iterator[Bench]:
    card = ScriptedCard()
    device = SimulatedUsbReader(card, serial=SERIAL)
    with plugged_in(device) as unplug:
        reader = open_reader(f"libusb:serial={SERIAL}", timeouts=Timeouts(connect=20))
        yield PluggedBench(reader, device, card, unplug)
        reader.close()


class Service(NamedTuple):
    """A PC/SC service, and its first slot."""

    pcscd: PrivatePcscd
    slot: VpcdSlot


class PcscBench(Bench):
    """PC/SC looks at vpcd's slots every 400 ms; vpcd takes and gives 65535 bytes, and has no serial number."""

    serial = None
    limits = CardLimits(extended=True, max_command=65535, max_response=65535)

    def __init__(self, reader: Reader, service: Service, card: ScriptedCard, client: PcscClient) -> None:
        super().__init__(reader, service.slot, card)
        self._service = service
        self._client = client
        self.confused = False

    def insert(self, card: SimulatedCard | None = None) -> None:
        super().insert(card)
        self._client.wait_for_card(READERS[0], present=True)

    def remove(self) -> None:
        super().remove()
        self._client.wait_for_card(READERS[0], present=False)

    def replace_unseen(self) -> None:
        super().replace_unseen()
        self.confused = True

    def unplug(self) -> None:
        """The service ends as in a crash; the next one is there at once."""
        self._service.pcscd.kill()
        self._service.pcscd.start()

    def is_off(self) -> bool:
        return self.card.wait_until_off()


@pytest.fixture(scope="module")
def service(pytestconfig: pytest.Config, tool: Callable[[str], str], pcscd_folder: pathlib.Path) -> Iterator[Service]:
    """It has nothing to do, and need not start anew for each test."""
    require_pyscard(pytestconfig)
    program, library = tool("pcscd"), tool("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
    tool("unshare")
    with PrivatePcscd(pcscd_folder, program=program, library=pathlib.Path(library)) as pcscd:
        yield Service(pcscd, pcscd.slot(None))


@contextlib.contextmanager
def pcsc(service: Service) -> Iterator[Bench]:
    """Starts with a card that PC/SC has seen, and taken the power from."""
    slot = service.slot
    with PcscClient() as client:
        if slot.card is None:
            slot.insert(ScriptedCard())
        client.wait_for_card(READERS[0], present=True)
        card = slot.card
        assert isinstance(card, ScriptedCard)
        assert card.wait_until_off()
        card.forget()
        reader = open_reader(f"pcsc:{READERS[0]}", timeouts=Timeouts(connect=20))
        bench = PcscBench(reader, service, card, client)
        yield bench
        reader.close()
        if bench.confused and slot.card is not None:
            # Whoever lets go of a card in the moment that it is out makes pcsc-lite 1.9.9 call the slot empty, until
            # the thread that looks at the slot has seen it empty too.
            slot.remove()
            slot.wait_until_asked(deadline=Bench.soon())


NEEDS: dict[Callable[..., contextlib.AbstractContextManager[Bench]], str] = {pcsc: "service"}


# What libusb sees is another process' affair: tests/real/test_libusb.py starts it.
OPENERS = [libusb] if PRELOADED else [in_process, ccid, usbip, binding, serial, pcsc]


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Every implementation of Reader, one after the other; no thread of it is left behind."""
    opener = request.param
    needed = [request.getfixturevalue(NEEDS[opener])] if opener in NEEDS else []
    before = set(threading.enumerate())
    with opener(*needed) as opened:
        yield opened
    assert set(threading.enumerate()) <= before
