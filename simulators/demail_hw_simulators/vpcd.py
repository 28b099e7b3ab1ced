"""The card side of vpcd, the virtual reader of PC/SC: any PC/SC program then has a simulated card.

vpcd listens, the card connects. A message is two bytes of length, most significant first, and a body. A body of one
byte is a control message; any other is a command APDU, which the card answers. Nothing says hello or goodbye; a card
is present as long as it answers the question for its ATR, which pcscd asks every 400 ms. (Source: virtualsmartcard
0.8, observed on the wire.)
"""

import contextlib
import enum
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self, TypeAlias

from demail_hw.errors import DeadlineExceeded, Layer, Outcome
from demail_hw.interfaces import Deadline
from demail_hw_simulators.interfaces import SimulatedCard

__all__ = ["DEFAULT_PORT", "Control", "MessageBuffer", "VpcdSlot", "connect_to", "encode_message"]

DEFAULT_PORT: Final = 35963
"""vpcd's first slot; the second has the next port."""

_LENGTH_SIZE: Final = 2
_LONGEST: Final = 0xFFFF
_RECEIVE_SIZE: Final = 1 << 16
_RETRY_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 3.0
"""Several of pcscd's questions would fit in."""
_CLOSE_SECONDS: Final = 2.0
_QUICK_ACKNOWLEDGE: Final = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""
_WRONG_LENGTH: Final = b"\x67\x00"
_NO_ANSWER: Final = b""

Connect: TypeAlias = Callable[[], socket.socket]
Listener: TypeAlias = Callable[[], None]


class Control(enum.IntEnum):
    """The control messages. Only ``GET_ATR`` is answered."""

    POWER_OFF = 0x00
    POWER_ON = 0x01
    RESET = 0x02
    GET_ATR = 0x04


def encode_message(body: bytes) -> bytes:
    """Length and body. ``ValueError`` over 65535 bytes."""
    if len(body) > _LONGEST:
        raise ValueError(f"a message of {len(body)} bytes does not fit")
    return len(body).to_bytes(_LENGTH_SIZE, "big") + body


class MessageBuffer:
    """Bytes in, bodies of messages out."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """What came from the socket."""
        self._buffer += data

    def __iter__(self) -> Iterator[bytes]:
        """Each message that is complete; it is taken out."""
        while len(self._buffer) >= _LENGTH_SIZE:
            end = _LENGTH_SIZE + int.from_bytes(self._buffer[:_LENGTH_SIZE], "big")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH_SIZE:end])
            del self._buffer[:end]
            yield body


def _ignore() -> None:
    """Nobody listens."""


def connect_to(host: str, port: int) -> Connect:
    """How a slot reaches the vpcd that listens there."""
    return lambda: socket.create_connection((host, port), timeout=_CONNECT_SECONDS)


class VpcdSlot:
    """A slot of vpcd with a card in it, or none: connects, serves, and connects again when vpcd went away.

    A context manager; one thread runs in it. ``connect`` gives a connected socket, or raises ``OSError`` as long as
    nobody listens; it is tried again every half second, and half a second after the other end hung up.

    A connection is not a place in the reader: vpcd serves one at a time, and others wait unseen in its queue. The
    thread calls ``on_seen`` each time that vpcd has got the card's ATR, and ``on_silence`` for every three seconds in
    which a new connection has heard nothing: something else is in the slot.

    An empty slot is connected too, and hangs up when it is asked for its ATR: that is how vpcd finds that it is empty
    (an answer of no bytes would leave it waiting for ever). A card that was taken out stays out until vpcd has asked.
    vpcd knows cards by nothing but their answers: two that follow each other faster are one to it, and to programs
    that have it open. :meth:`swap` does that on purpose.
    """

    def __init__(
        self,
        connect: Connect,
        card: SimulatedCard | None = None,
        *,
        on_seen: Listener = _ignore,
        on_silence: Listener = _ignore,
    ) -> None:
        self._connect = connect
        self._on_seen = on_seen
        self._on_silence = on_silence
        self._changed = threading.Condition()
        self._card = card
        self._atr: bytes | None = None
        self._absence_due = False
        self._asked = False
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._hung_up = False
        self._thread = threading.Thread(target=self._run, name="vpcd slot", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave vpcd: the card is gone. Closing twice is allowed.

        A card that works on a command, or ``connect``, is not waited for longer than two seconds: it ends in a daemon
        thread, and nobody gets its answer.
        """
        self._stopped.set()
        with self._changed:
            self._hang_up()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)

    # --- the hand

    @property
    def card(self) -> SimulatedCard | None:
        """The card in the slot."""
        return self._card

    def insert(self, card: SimulatedCard) -> None:
        """Put a card in. ``RuntimeError`` if there is one."""
        with self._changed:
            if self._card is not None:
                raise RuntimeError("there is a card in the slot")
            self._put(card)

    def remove(self) -> SimulatedCard:
        """Take the card out, whatever it is doing: a command that it works on gets no answer. ``RuntimeError`` if
        there is none."""
        with self._changed:
            card, self._card = self._card, None
            if card is None:
                raise RuntimeError("there is no card in the slot")
            self._absence_due = True
            self._asked = False
            self._changed.notify_all()
        return card

    def swap(self, card: SimulatedCard) -> SimulatedCard:
        """Another card in place of this one, faster than vpcd can see: the connection breaks, and the next one
        finds the new card. ``RuntimeError`` if there is none."""
        with self._changed:
            before = self._card
            if before is None:
                raise RuntimeError("there is no card in the slot")
            self._put(card)
            self._hang_up()
        return before

    def wait_until_asked(self, *, deadline: Deadline) -> None:
        """Wait until vpcd has asked for the ATR since the last change, and has learned what is true now.

        Errors: :class:`~demail_hw.errors.DeadlineExceeded`.
        """
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: self._asked and not self._absence_due, left):
                raise DeadlineExceeded("vpcd did not ask for the card.", layer=Layer.READER, outcome=Outcome.NOT_SENT)

    def _put(self, card: SimulatedCard) -> None:
        self._card = card
        self._atr = None
        self._asked = False
        self._changed.notify_all()

    def _hang_up(self) -> None:
        self._hung_up = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # --- the wire

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._hung_up = False
            with contextlib.suppress(OSError), self._connect() as connection:
                self._serve(connection)
            # Whoever hangs up on purpose comes back at once, so that vpcd's next question finds an answer. Anybody
            # else would try without end where the other side takes each connection and drops it.
            if not self._hung_up:
                self._stopped.wait(_RETRY_SECONDS)

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            self._socket = connection
            if self._stopped.is_set():
                return
        received = MessageBuffer()
        connection.settimeout(_SILENT_SECONDS)
        while data := self._receive(connection):
            connection.settimeout(None)
            received.feed(data)
            for body in received:
                if not self._handle(connection, body):
                    with self._changed:
                        self._hang_up()
                    return

    def _receive(self, connection: socket.socket) -> bytes:
        """What comes next; of a connection that has heard nothing yet it is told."""
        while True:
            try:
                return _receive(connection)
            except TimeoutError:
                self._on_silence()

    def _handle(self, connection: socket.socket, body: bytes) -> bool:
        """Answer one message. False: nobody is there to answer it."""
        if len(body) == 1 and body[0] != Control.GET_ATR:
            self._set_power(body[0])
            return True
        answer = self._answer_to_reset() if len(body) == 1 else self._transmit(body)
        if answer == _NO_ANSWER:
            return False
        connection.sendall(encode_message(answer))  # one write: vpcd reads the two parts one by one
        if len(body) == 1:
            self._on_seen()
        return True

    def _visible(self) -> SimulatedCard | None:
        """The card that vpcd may know of: none until it has missed the one before."""
        return None if self._absence_due else self._card

    def _set_power(self, code: int) -> None:
        with self._changed:
            card = self._visible()
        if card is not None:
            if code in (Control.POWER_OFF, Control.RESET):
                card.power_off()
            if code in (Control.POWER_ON, Control.RESET):
                self._atr = card.power_on()

    def _answer_to_reset(self) -> bytes:
        with self._changed:
            card = self._visible()
            self._asked = True
            self._absence_due = False
            self._changed.notify_all()
            if card is None:
                return _NO_ANSWER
            if self._atr is None:
                self._atr = card.power_on()
                card.power_off()
            return self._atr

    def _transmit(self, command: bytes) -> bytes:
        """The response APDU; nothing if there is no card to give it, or none any more."""
        card = self._visible()
        if card is None:
            return _NO_ANSWER
        try:
            answer = card.transmit(command)
        except RuntimeError:  # it has no power: another one was there when vpcd gave some
            return _NO_ANSWER
        if self._card is not card:
            return _NO_ANSWER
        return answer if len(answer) <= _LONGEST else _WRONG_LENGTH


def _receive(connection: socket.socket) -> bytes:
    """What comes next. vpcd sends length and body one by one, with Nagle's algorithm: unless its peer acknowledges
    at once, each command takes 40 ms. The option must be set anew each time (tcp(7))."""
    if _QUICK_ACKNOWLEDGE is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGE, 1)
    return connection.recv(_RECEIVE_SIZE)
