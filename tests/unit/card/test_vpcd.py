"""The card side of vpcd, with the test in place of vpcd."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from demail_hw.errors import DeadlineExceeded
from demail_hw_simulators import vpcd
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.vpcd import Control, MessageBuffer, VpcdSlot, encode_message

ATR = bytes.fromhex("3B00")
OK = b"\x90\x00"
SECONDS = 20.0


class Card:
    """Says 9000; lets the test look into the middle of a command."""

    def __init__(self, atr: bytes = ATR) -> None:
        self.atr = atr
        self.powered = False
        self.commands: list[bytes] = []
        self.answer = OK
        self.working = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def power_on(self) -> bytes:
        self.powered = True
        return self.atr

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        self.working.set()
        assert self.may_end.wait(SECONDS)
        return self.answer


class Vpcd:
    """The other end: hands out connections, and talks on the last one."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self.connected = threading.Semaphore(0)

    def connect(self) -> socket.socket:
        theirs = socket.create_connection(self.listener.getsockname())
        ours, _ = self.listener.accept()
        ours.settimeout(SECONDS)
        self.connections.append(ours)
        self.connected.release()
        return theirs

    def wait(self) -> None:
        assert self.connected.acquire(timeout=SECONDS)

    def send(self, body: bytes) -> None:
        self.connections[-1].sendall(encode_message(body))

    def receive(self, connection: socket.socket | None = None) -> bytes | None:
        """One message; None if the card hung up."""
        stream = (connection or self.connections[-1]).makefile("rb", buffering=0)
        head = stream.read(2)
        return (stream.read(int.from_bytes(head, "big")) or b"") if head else None

    def ask(self, body: bytes) -> bytes | None:
        connection = self.connections[-1]  # the card may hang up and come back meanwhile
        connection.sendall(encode_message(body))
        return self.receive(connection)

    def atr(self) -> bytes | None:
        return self.ask(bytes((Control.GET_ATR,)))

    def close(self) -> None:
        for connection in (*self.connections, self.listener):
            connection.close()


@pytest.fixture
def reader() -> Iterator[Vpcd]:
    opened = Vpcd()
    yield opened
    opened.close()


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def slot(reader: Vpcd, card: Card) -> Iterator[VpcdSlot]:
    before = set(threading.enumerate())
    with VpcdSlot(reader.connect, card) as running:
        reader.wait()
        yield running
    assert set(threading.enumerate()) <= before


def soon() -> float:
    return time.monotonic() + SECONDS


@pytest.mark.usefixtures("slot")
def test_it_says_its_atr_without_staying_powered(reader: Vpcd, card: Card) -> None:
    assert reader.atr() == ATR
    assert not card.powered


@pytest.mark.usefixtures("slot")
@pytest.mark.parametrize("control", [Control.POWER_ON, Control.RESET])
def test_power_on_and_reset_are_not_answered(reader: Vpcd, card: Card, control: Control) -> None:
    reader.send(bytes((control,)))
    assert reader.atr() == ATR
    assert card.powered


@pytest.mark.usefixtures("slot")
def test_power_off(reader: Vpcd, card: Card) -> None:
    reader.send(bytes((Control.POWER_ON,)))
    reader.send(bytes((Control.POWER_OFF,)))
    assert reader.atr() == ATR
    assert not card.powered


@pytest.mark.usefixtures("slot")
def test_unknown_control_messages_are_ignored(reader: Vpcd, card: Card) -> None:
    reader.send(b"\x7f")
    assert reader.atr() == ATR
    assert card.commands == []


@pytest.mark.usefixtures("slot")
def test_a_command_and_its_answer(reader: Vpcd, card: Card) -> None:
    assert reader.ask(b"\x00\xa4\x00\x0c") == OK
    assert card.commands == [b"\x00\xa4\x00\x0c"]


@pytest.mark.usefixtures("slot")
def test_an_answer_that_does_not_fit_is_wrong_length(reader: Vpcd, card: Card) -> None:
    card.answer = bytes(65536)
    assert reader.ask(b"\x00\xb0\x00\x00\x00\x00\x00") == b"\x67\x00"


@pytest.mark.usefixtures("slot")
def test_bytes_may_come_one_by_one_and_messages_together(reader: Vpcd, card: Card) -> None:
    both = encode_message(b"\x00\xa4\x00\x0c") + encode_message(b"\x00\xb0\x00\x00\x01")
    for octet in both:
        reader.connections[-1].sendall(bytes((octet,)))
    assert (reader.receive(), reader.receive()) == (OK, OK)
    reader.connections[-1].sendall(both)
    assert (reader.receive(), reader.receive()) == (OK, OK)
    assert len(card.commands) == 4


def test_it_comes_back_when_vpcd_went_away(reader: Vpcd, slot: VpcdSlot) -> None:
    assert reader.atr() == ATR
    reader.connections[-1].close()
    reader.wait()
    assert reader.atr() == ATR
    assert slot.card is not None


def test_it_waits_for_a_vpcd_that_does_not_listen_yet(
    reader: Vpcd, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd, "_RETRY_SECONDS", 0.0)
    refusals = iter([ConnectionRefusedError(), ConnectionRefusedError()])

    def connect() -> socket.socket:
        for error in refusals:
            raise error
        return reader.connect()

    with VpcdSlot(connect, card):
        reader.wait()
        assert reader.atr() == ATR


def test_an_empty_slot_has_no_atr(reader: Vpcd, slot: VpcdSlot) -> None:
    slot.remove()
    assert reader.atr() is None
    slot.wait_until_asked(deadline=soon())


def test_a_new_card_is_seen_only_after_the_empty_slot_was(reader: Vpcd, slot: VpcdSlot) -> None:
    slot.remove()
    slot.insert(Card(b"\x3b\x01"))
    assert reader.atr() is None
    reader.wait()
    assert reader.atr() == b"\x3b\x01"


def test_a_command_between_two_cards_reaches_neither(reader: Vpcd, slot: VpcdSlot, card: Card) -> None:
    other = Card()
    slot.remove()
    slot.insert(other)
    assert reader.ask(b"\x00\xa4\x00\x0c") is None
    assert card.commands == other.commands == []


def test_a_card_that_is_pulled_while_it_works_gives_no_answer(reader: Vpcd, slot: VpcdSlot, card: Card) -> None:
    card.may_end.clear()
    connection = reader.connections[-1]
    reader.send(b"\x00\xa4\x00\x0c")
    assert card.working.wait(SECONDS)
    slot.remove()
    card.may_end.set()
    assert reader.receive(connection) is None


def test_swap_is_seen_by_nobody(reader: Vpcd, slot: VpcdSlot) -> None:
    other = Card(b"\x3b\x01")
    assert reader.atr() == ATR
    assert slot.swap(other) is not other
    reader.wait()
    assert reader.atr() == b"\x3b\x01"
    assert reader.ask(b"\x00\xa4\x00\x0c") == OK
    assert other.commands == [b"\x00\xa4\x00\x0c"]


def test_a_card_without_power_hangs_up_and_the_slot_lives_on(reader: Vpcd, slot: VpcdSlot) -> None:
    assert reader.atr() == ATR
    slot.swap(netkey3())
    reader.wait()
    assert reader.ask(b"\x00\xa4\x00\x0c") is None
    reader.wait()
    assert reader.atr() == netkey3().atr


def test_one_card_at_a_time(slot: VpcdSlot) -> None:
    with pytest.raises(RuntimeError):
        slot.insert(Card())
    slot.remove()
    with pytest.raises(RuntimeError):
        slot.remove()
    with pytest.raises(RuntimeError):
        slot.swap(Card())


def test_waiting_for_a_question_has_a_deadline(slot: VpcdSlot) -> None:
    with pytest.raises(DeadlineExceeded):
        slot.wait_until_asked(deadline=time.monotonic())


class Pauses(threading.Event):
    """In place of what ends the slot's thread: each pause between two connections is written down, and is none."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self._story = story

    def wait(self, timeout: float | None = None) -> bool:
        self._story.append("pause")
        return self.is_set()


class Story:
    """A slot whose connections and pauses are written down; it is not running yet."""

    def __init__(self, reader: Vpcd, card: Card | None) -> None:
        self.told: list[str] = []
        self._reader = reader
        self.slot = VpcdSlot(self.connect, card)
        self.slot._stopped = Pauses(self.told)

    def connect(self) -> socket.socket:
        self.told.append("connect")
        return self._reader.connect()


def test_it_pauses_when_the_other_end_takes_the_connection_and_drops_it(reader: Vpcd, card: Card) -> None:
    story = Story(reader, card)
    with story.slot:
        for _ in range(2):
            reader.wait()
            reader.connections[-1].close()
        reader.wait()
        assert story.told[:5] == ["connect", "pause", "connect", "pause", "connect"]


def test_it_comes_back_at_once_where_it_hung_up_itself(reader: Vpcd, card: Card) -> None:
    story = Story(reader, None)
    with story.slot:
        reader.wait()
        assert reader.atr() is None  # that is how an empty slot tells
        reader.wait()
        story.slot.insert(card)
        assert reader.atr() == ATR
        story.slot.swap(Card())
        reader.wait()
        assert story.told == ["connect", "connect", "connect"]


def test_vpcd_has_seen_the_card_when_it_has_the_atr_and_not_before(reader: Vpcd, card: Card) -> None:
    seen = threading.Semaphore(0)
    with VpcdSlot(reader.connect, card, on_seen=seen.release):
        reader.wait()
        assert reader.ask(b"\x00\xa4\x00\x0c") == OK
        assert not seen.acquire(blocking=False)
        assert reader.atr() == ATR
        assert seen.acquire(timeout=SECONDS)


def test_an_empty_slot_is_not_seen(reader: Vpcd, card: Card) -> None:
    seen: list[SimulatedCard | None] = []
    with VpcdSlot(reader.connect, on_seen=lambda: seen.append(slot.card)) as slot:
        reader.wait()
        assert reader.atr() is None
        reader.wait()
        slot.insert(card)
        assert reader.atr() == ATR
    assert seen == [card]


def test_a_connection_that_hears_nothing_waits_and_tells(
    reader: Vpcd, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd, "_SILENT_SECONDS", 0.001)
    silent = threading.Semaphore(0)
    with VpcdSlot(reader.connect, card, on_silence=silent.release):
        reader.wait()
        for _ in range(2):
            assert silent.acquire(timeout=SECONDS)
        assert reader.atr() == ATR  # on the same connection
        assert len(reader.connections) == 1


def test_a_card_that_works_is_not_waited_for_without_end(
    reader: Vpcd, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vpcd, "_CLOSE_SECONDS", 0.0)
    before = set(threading.enumerate())
    card.may_end.clear()
    with VpcdSlot(reader.connect, card):
        reader.wait()
        connection = reader.connections[-1]
        reader.send(b"\x00\xa4\x00\x0c")
        assert card.working.wait(SECONDS)
    (working,) = set(threading.enumerate()) - before
    assert working.daemon
    card.may_end.set()
    working.join(SECONDS)
    assert not working.is_alive()
    assert reader.receive(connection) is None
    assert len(reader.connections) == 1


def test_closing_twice(slot: VpcdSlot) -> None:
    slot.close()
    slot.close()


def test_message_buffer_keeps_what_is_not_whole() -> None:
    buffer = MessageBuffer()
    buffer.feed(b"\x00\x03\x01\x02")
    assert list(buffer) == []
    buffer.feed(b"\x03\x00\x00\x00")
    assert list(buffer) == [b"\x01\x02\x03", b""]


def test_a_message_has_a_longest_length() -> None:
    assert encode_message(bytes(65535))[:2] == b"\xff\xff"
    with pytest.raises(ValueError):
        encode_message(bytes(65536))


class Watched(socket.socket):
    """A TCP socket that writes down what is done with it."""

    done: list[str]

    def setsockopt(self, *arguments: object) -> None:  # type: ignore[override]
        self.done.append("option" if arguments[1] == socket.TCP_QUICKACK else "another")
        super().setsockopt(*arguments)  # type: ignore[call-overload]

    def recv(self, *arguments: int) -> bytes:
        self.done.append("recv")
        return super().recv(*arguments)

    def sendall(self, data: bytes) -> None:  # type: ignore[override]
        self.done.append("send")
        super().sendall(data)


def test_every_receive_asks_for_an_acknowledgement_at_once(card: Card) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watched = Watched()
        watched.done = []
        watched.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection, VpcdSlot(lambda: watched, card) as slot:
            connection.settimeout(SECONDS)
            for _ in range(3):
                connection.sendall(encode_message(b"\x00\xa4\x00\x0c"))
                assert connection.recv(4) == encode_message(OK)
            slot.close()
    assert watched.done[:9] == ["option", "recv", "send"] * 3
