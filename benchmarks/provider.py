"""Opening the keys of a null card at each depth, with the counters that its layers keep."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.counts import Counts
from benchmarks.depth import Depth
from benchmarks.null_card import NullCard
from benchmarks.peer import Peer
from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.interfaces import Reader, Timeouts, UsbTransport
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.usbip_client import connect
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.sim_reader import SimulatedReader

__all__ = ["MeasuredProvider", "open_depths", "open_keys"]

# Under valgrind everything takes fifty times as long.
_TIMEOUTS = Timeouts(connect=120.0, command=120.0)
_TEST_PIN = b"123456"


class MeasuredProvider(NamedTuple):
    """Keys, and what they cost so far."""

    provider: TcosKeyProvider
    counts: Callable[[], Counts]


def _deadline() -> float:
    return time.monotonic() + _TIMEOUTS.command


@contextlib.contextmanager
def open_keys(reader: Reader) -> Iterator[TcosKeyProvider]:
    """The keys of the card in a reader."""
    with contextlib.ExitStack() as resources:
        resources.callback(reader.close)
        connection = reader.connect(deadline=_deadline())
        resources.callback(connection.close)
        session = CardSession(reader, connection, timeouts=_TIMEOUTS)
        yield TcosKeyProvider(session, CallablePinSource(lambda: _TEST_PIN), ledger=MemoryPinLedger())


@contextlib.contextmanager
def open_depths(peer: Peer) -> Iterator[dict[Depth, MeasuredProvider]]:
    """The keys of a null card at every depth; that of USB/IP is the peer's."""
    with _in_process() as first, _ccid() as second, _usb_ip(peer) as third:
        yield {Depth.IN_PROCESS: first, Depth.CCID: second, Depth.USB_IP: third}


@contextlib.contextmanager
def _in_process() -> Iterator[MeasuredProvider]:
    card = NullCard(netkey3())

    def counts() -> Counts:
        commands, out, back = card.counters
        return Counts(commands, 0, 0, 0, 0, 0, out, back)

    with open_keys(SimulatedReader(card)) as provider:
        yield MeasuredProvider(provider, counts)


@contextlib.contextmanager
def _ccid() -> Iterator[MeasuredProvider]:
    card = NullCard(netkey3())
    device = SimulatedUsbReader(card)
    transport = LoopbackTransport(device)

    def counts() -> Counts:
        urbs, round_trips, out, back = transport.counters
        received, sent = device.messages
        return Counts(card.counters.commands, received, sent, urbs, round_trips, 0, out, back)

    with open_keys(_reader(transport)) as provider:
        yield MeasuredProvider(provider, counts)


@contextlib.contextmanager
def _usb_ip(peer: Peer) -> Iterator[MeasuredProvider]:
    transport = connect(Address.parse(peer.address), deadline=_deadline())

    def counts() -> Counts:
        urbs, round_trips, sends, out, back = transport.counters
        card, messages = peer.counters()
        return Counts(card.commands, messages.received, messages.sent, urbs, round_trips, sends, out, back)

    with open_keys(_reader(transport)) as provider:
        yield MeasuredProvider(provider, counts)


def _reader(transport: UsbTransport) -> CcidReader:
    return CcidReader(transport, lock=TransactionLock(), grace=_deadline, pause=pause)
