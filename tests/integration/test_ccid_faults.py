"""Readers, cards and links that misbehave: a typed error each, nothing sent twice, and the reader usable again.

Reliability sheet: F8, F9, F21 to F25, F28, F45.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from demail_hw.ccid.code_points import IccStatus
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    HardwareError,
    Layer,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
    SlotError,
)
from demail_hw.interfaces import CardConnection, ExportedDevice, Reader, Timeouts
from demail_hw.polling import pause
from demail_hw.registry import open_reader
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import UTRUST_2700F, SimulatedUsbReader
from demail_hw_simulators.faults import (
    CardFault,
    FaultyCard,
    FaultyReader,
    LyingLength,
    MuteCard,
    OneByteResponse,
    ReaderFault,
    SlotFailure,
    TimeExtensionForEver,
    WrongMessageType,
    WrongSequenceNumber,
    WrongSlot,
)
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.proxy import Link, Proxy

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SIGN = (b"\0\x2a\x9e\x9a\x33", bytes(51), b"\0")
SIGNATURE = bytes(range(256)) + b"\x90\0"
TIMEOUTS = Timeouts(connect=20)


def soon() -> float:
    return time.monotonic() + 20


def short() -> float:
    """A deadline for what has to miss it."""
    return time.monotonic() + 0.2


class Card:
    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        return ATR

    def power_off(self) -> None:
        pass

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return SIGNATURE


Opener: TypeAlias = Callable[[ExportedDevice], contextlib.AbstractContextManager[Reader]]


@contextlib.contextmanager
def loopback(device: ExportedDevice) -> Iterator[Reader]:
    reader = CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=soon, pause=pause)
    with contextlib.closing(reader):
        yield reader


@contextlib.contextmanager
def usbip(device: ExportedDevice) -> Iterator[Reader]:
    with (
        UsbIpServer([device], port=0) as server,
        contextlib.closing(open_reader(f"usbip://127.0.0.1:{server.port}/", timeouts=TIMEOUTS)) as reader,
    ):
        yield reader


@pytest.fixture(params=[loopback, usbip], ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


def sign(connection: CardConnection, *, deadline: float) -> bytes:
    with connection.transaction(deadline=soon()):
        return connection.transmit(SIGN, deadline=deadline)


@pytest.mark.parametrize(
    ("fault", "deadline", "kind", "layer"),
    [
        (WrongSequenceNumber(), short, DeadlineExceeded, Layer.READER),
        (WrongSequenceNumber(endless=True), soon, ProtocolViolation, Layer.READER),
        (TimeExtensionForEver(), short, DeadlineExceeded, Layer.CARD),
        (WrongSlot(), soon, ProtocolViolation, Layer.READER),
        (WrongMessageType(), soon, ProtocolViolation, Layer.READER),
        (LyingLength(1), soon, ProtocolViolation, Layer.READER),
        (LyingLength(-1), soon, ProtocolViolation, Layer.READER),
        (LyingLength(length=0xFFFFFFFF), soon, ProtocolViolation, Layer.READER),
        (SlotFailure(), soon, CardMute, Layer.READER),
        (SlotFailure(icc=IccStatus.INACTIVE), soon, CardRemoved, Layer.READER),
        (SlotFailure(icc=IccStatus.ABSENT), soon, CardRemoved, Layer.READER),
        (SlotFailure(0xFB), soon, SlotError, Layer.READER),
        (SlotFailure(0xFD), soon, SlotError, Layer.READER),
        (SlotFailure(0xFF), soon, SlotError, Layer.READER),
    ],
)
def test_reader_fault_is_a_typed_error_and_the_next_connection_works(
    opener: Opener, fault: ReaderFault, deadline: Callable[[], float], kind: type[HardwareError], layer: Layer
) -> None:
    card = Card()
    with opener(FaultyReader(SimulatedUsbReader(card), fault, times=1)) as reader:
        connection = reader.connect(deadline=soon())
        with pytest.raises(kind) as caught:
            sign(connection, deadline=deadline())
        assert (caught.value.layer, caught.value.outcome) == (layer, Outcome.UNKNOWN)
        with pytest.raises(DeviceLost if kind is DeadlineExceeded else CardRemoved) as lost:
            sign(connection, deadline=soon())
        assert lost.value.outcome is Outcome.NOT_SENT
        assert len(card.commands) == 1
        assert sign(reader.connect(deadline=soon()), deadline=soon()) == SIGNATURE


@pytest.mark.parametrize(
    ("code", "kind", "outcome"),
    [
        (0xE0, ReaderBusy, Outcome.NOT_SENT),
        (0x00, SlotError, Outcome.REFUSED),
        (0x08, SlotError, Outcome.REFUSED),
    ],
)
def test_plain_refusal_leaves_the_connection_alive(
    opener: Opener, code: int, kind: type[HardwareError], outcome: Outcome
) -> None:
    with opener(FaultyReader(SimulatedUsbReader(Card()), SlotFailure(code), times=1)) as reader:
        connection = reader.connect(deadline=soon())
        with pytest.raises(kind) as caught:
            sign(connection, deadline=soon())
        assert caught.value.outcome is outcome
        assert sign(connection, deadline=soon()) == SIGNATURE


@pytest.mark.parametrize(
    ("fault", "kind", "layer"),
    [(OneByteResponse(), ProtocolViolation, Layer.CARD), (MuteCard(), CardMute, Layer.READER)],
)
def test_card_fault_is_a_typed_error(
    opener: Opener, fault: CardFault, kind: type[HardwareError], layer: Layer
) -> None:
    card = Card()
    with opener(SimulatedUsbReader(FaultyCard(card, fault))) as reader:
        connection = reader.connect(deadline=soon())
        with pytest.raises(kind) as caught:
            sign(connection, deadline=soon())
        assert (caught.value.layer, caught.value.outcome) == (layer, Outcome.UNKNOWN)
        assert len(card.commands) == 1
        with pytest.raises(CardRemoved):
            sign(connection, deadline=soon())


def test_reader_that_exaggerates_how_long_its_messages_are_works_all_the_same(opener: Opener) -> None:
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, max_message_length=0xFFFFFFFF)
    device = SimulatedUsbReader(Card(), profile=dataclasses.replace(UTRUST_2700F, descriptor=descriptor))
    with opener(device) as reader:
        connection = reader.connect(deadline=soon())
        assert sign(connection, deadline=soon()) == SIGNATURE
        with connection.transaction(deadline=soon()), pytest.raises(ValueError):
            connection.transmit((bytes(connection.limits.max_command + 1),), deadline=soon())


@contextlib.contextmanager
def faulty_link(card: Card, to_client: Link, to_server: Link) -> Iterator[str]:
    """The address of a reader behind a link that misbehaves."""
    with (
        UsbIpServer([SimulatedUsbReader(card)], port=0) as server,
        Proxy(("127.0.0.1", server.port), to_client=to_client, to_server=to_server) as proxy,
    ):
        host, port = proxy.address
        yield f"usbip://{host}:{port}/1-1"


def test_link_that_gives_one_byte_at_a_time_changes_nothing() -> None:
    with (
        faulty_link(Card(), Link(piece_size=1), Link(piece_size=1)) as address,
        contextlib.closing(open_reader(address, timeouts=TIMEOUTS)) as reader,
    ):
        connection = reader.connect(deadline=soon())
        for _ in range(3):
            assert sign(connection, deadline=soon()) == SIGNATURE


def sign_once(address: str) -> HardwareError | None:
    """What went wrong on the way from nothing to a signature."""
    try:
        with contextlib.closing(open_reader(address, timeouts=TIMEOUTS)) as reader:
            assert sign(reader.connect(deadline=soon()), deadline=soon()) == SIGNATURE
    except HardwareError as error:
        return error
    return None


def test_link_that_is_cut_anywhere_is_a_typed_error_and_nothing_is_sent_twice() -> None:
    """Cut a little later each time, until everything goes through."""
    outcomes: list[Outcome] = []
    for count in range(0, 1 << 14, 53):
        card = Card()
        with faulty_link(card, Link(cut_at=count), Link()) as address:
            error = sign_once(address)
        if error is None:
            break
        assert error.layer is Layer.TRANSPORT
        assert len(card.commands) <= 1
        assert not card.commands or error.outcome is Outcome.UNKNOWN
        outcomes.append(error.outcome)
    assert outcomes[0] is Outcome.NOT_SENT
    assert outcomes[-1] is Outcome.UNKNOWN
    assert len(outcomes) > 10
