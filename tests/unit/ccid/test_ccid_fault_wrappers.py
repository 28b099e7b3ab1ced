"""The faults themselves: each does what it says, and no more."""

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest

from demail_hw.ccid.code_points import MessageType
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.faults import (
    BYTE_BY_BYTE,
    WHOLE,
    CardFault,
    FaultyCard,
    FaultyReader,
    FlippedBit,
    LinkFault,
    LinkFaults,
    LyingLength,
    MuteCard,
    OneByteResponse,
    ReaderFault,
    SlotFailure,
    TimeExtensionForEver,
    Truncated,
    WrongMessageType,
    WrongSequenceNumber,
    WrongSlot,
)

PSO = bytes.fromhex("002a9e9a")
SELECT = bytes.fromhex("00a40400")
RESPONSE = bytes.fromhex("010203049000")


class Card:
    powered = False

    def power_on(self) -> bytes:
        self.powered = True
        return b"\x3b\0"

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, _command: bytes) -> bytes:
        return RESPONSE


@pytest.mark.parametrize(
    ("fault", "response"),
    [
        (FlippedBit(), "000203049000"),
        (FlippedBit(3), "010203059000"),
        (FlippedBit(4), "010203049000"),
        (Truncated(), "01029000"),
        (Truncated(9), "9000"),
        (OneByteResponse(), "90"),
        (MuteCard(), ""),
    ],
)
def test_card_fault_touches_the_instruction_it_is_for(fault: CardFault, response: str) -> None:
    card = FaultyCard(Card(), fault)
    assert card.transmit(SELECT) == RESPONSE
    assert card.transmit(PSO) == bytes.fromhex(response)
    assert FaultyCard(Card(), fault, instruction=None).transmit(SELECT) == bytes.fromhex(response)


def test_card_fault_comes_after_some_good_answers() -> None:
    card = FaultyCard(Card(), MuteCard(), after=2)
    assert [len(card.transmit(PSO)) for _ in range(4)] == [6, 6, 0, 0]


def test_faulty_card_is_powered_like_any_other() -> None:
    inner = Card()
    card = FaultyCard(inner, MuteCard())
    assert card.power_on() == b"\x3b\0"
    assert inner.powered
    card.power_off()
    assert not inner.powered


def command(device: FaultyReader, text: str) -> str:
    results: list[TransferResult] = []
    device.submit(Transfer(0x01, data=bytes.fromhex(text)), results.append)
    device.submit(Transfer(0x82, 1088), results.append)
    return results[1].data.hex() if len(results) == 2 else "pending"


GET_SLOT_STATUS = "65000000000003000000"
XFR = "6f0400000000030000002a9e9a00"
GOOD = "80060000000003000000010203049000"


def powered(fault: ReaderFault, **options: int) -> FaultyReader:
    device = FaultyReader(SimulatedUsbReader(Card()), fault, **options)
    command(device, "62000000000000000000")
    return device


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (WrongSequenceNumber(), "80060000000004000000010203049000"),
        (WrongSequenceNumber(254), "80060000000001000000010203049000"),
        (WrongSlot(), "80060000000103000000010203049000"),
        (WrongMessageType(), "83060000000003000000010203049000"),
        (LyingLength(), "80070000000003000000010203049000"),
        (LyingLength(-1), "80050000000003000000010203049000"),
        (LyingLength(length=0xFFFFFFFF), "80ffffffff0003000000010203049000"),
        (SlotFailure(), "8000000000000340fe00"),
        (TimeExtensionForEver(3), "80000000000003800300"),
    ],
)
def test_reader_fault_touches_the_answers_it_is_for(fault: ReaderFault, answer: str) -> None:
    assert command(powered(fault), GET_SLOT_STATUS) == "81000000000003000000"
    assert command(powered(fault), XFR) == answer
    assert command(powered(fault, after=1), XFR) == GOOD
    assert command(powered(fault, times=0), XFR) == GOOD
    assert command(powered(fault, command=MessageType.GET_SLOT_STATUS), XFR) == GOOD


def read(device: FaultyReader) -> str:
    results: list[TransferResult] = []
    device.submit(Transfer(0x82, 1088), results.append)
    return results[0].data.hex() if results else "pending"


@pytest.mark.parametrize("end", [lambda device: device.reset(), lambda device: abort(device)])
def test_time_extension_ends_with_an_abort_or_a_reset(end: Callable[[FaultyReader], None]) -> None:
    device = powered(TimeExtensionForEver())
    extension = command(device, XFR)
    assert [read(device) for _ in range(20)] == [extension] * 20
    end(device)
    assert read(device) == "pending"


def abort(device: FaultyReader) -> None:
    device.submit(Transfer(0, setup=bytes.fromhex("2101000400000000")), lambda _: None)


def test_faulty_reader_is_the_same_device() -> None:
    inner = SimulatedUsbReader(None)
    device = FaultyReader(inner, SlotFailure())
    assert device.device_descriptor == inner.device_descriptor
    assert device.configuration_descriptor == inner.configuration_descriptor
    assert (device.serial, device.speed) == (inner.serial, inner.speed)
    pending = Transfer(0x82, 64)
    device.submit(pending, lambda _: None)
    assert device.cancel(pending)


# --- Links -------------------------------------------------------------------------------------------------------


class Echo:
    """A TCP server on the loopback interface that says what it hears, to one client after the other."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Echo":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                try:
                    while data := client.recv(4096):
                        client.sendall(data)
                except OSError:
                    pass


def talk(fault: LinkFault, data: bytes, *, to_server: LinkFault = WHOLE) -> bytes:
    """What comes back of data, until all of it has or the link is cut."""
    received = b""
    with (
        Echo() as echo,
        LinkFaults(echo.listener.getsockname(), fault, to_server=to_server) as link,
        socket.create_connection(link.address, 20) as client,
        # A link that was cut while it had something to read is reset.
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(data)
        while len(received) < len(data) and (piece := client.recv(4096)):
            received += piece
    return received


@pytest.mark.parametrize("fault", [WHOLE, BYTE_BY_BYTE, LinkFault(piece_size=7), LinkFault(cut_after=2000)])
def test_link_that_only_cuts_segments_loses_nothing(fault: LinkFault) -> None:
    data = bytes(range(256)) * 4
    assert talk(fault, data) == data
    assert talk(WHOLE, data, to_server=fault) == data


@pytest.mark.parametrize("count", [0, 1, 100])
def test_link_is_cut_after_so_many_bytes(count: int) -> None:
    data = bytes(range(200))
    assert talk(LinkFault(cut_after=count), data) == data[:count]
    assert talk(LinkFault(piece_size=1, cut_after=count), data) == data[:count]


def test_link_to_a_server_that_is_not_there_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    with LinkFaults(nobody, WHOLE) as link, socket.create_connection(link.address, 5) as client:
        assert client.recv(1) == b""


def test_pieces_of_a_link() -> None:
    assert list(WHOLE.pieces(b"abc", 5)) == [b"abc"]
    assert list(BYTE_BY_BYTE.pieces(b"abc", 5)) == [b"a", b"b", b"c"]
    assert list(LinkFault(cut_after=6).pieces(b"abc", 5)) == [b"a"]
    assert LinkFault(cut_after=6).cuts(6)
    assert not LinkFault(cut_after=6).cuts(5)
    assert not WHOLE.cuts(1 << 30)
