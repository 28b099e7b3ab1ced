"""A reader on a serial line as a UsbTransport: the same CCID host works with it."""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

from demail_hw.ccid.code_points import ClassRequest
from demail_hw.ccid.host import NEED_DATA, CcidHost, NeedData
from demail_hw.ccid.messages import Escape, EscapeData, Response
from demail_hw.ccid.serial_framing import (
    GEMPC_TWIN,
    NAK_FRAME,
    READ_FIRMWARE,
    REPORT_SLOT_CHANGES,
    FrameReader,
    FrameReceived,
    Garbled,
    NakReceived,
    SerialEvent,
    SlotChanged,
    TimeRequested,
    encode_frame,
    is_command,
)
from demail_hw.errors import (
    DeadlineExceeded,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Outcome,
    TransferStalled,
    TransportError,
)
from demail_hw.interfaces import Buffers, Deadline, UsbIdentity
from demail_hw.usb.descriptors import (
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
)
from demail_hw.usb.setup import RequestKind, SetupPacket
from demail_hw_drivers.serial_ccid_line import SerialLine

__all__ = ["SerialCcidPort"]

_STREAM: Final = 1
"""wMaxPacketSize of a line that has no packets."""
_OUT, _IN, _INTERRUPT = 0x01, 0x82, 0x83
_NOTIFICATION_SIZE: Final = 8
_NOTHING_NEW: Final = b"\x50"
_LOOK_SECONDS: Final = 0.25
_SILENT_SECONDS: Final = 1.0
"""A frame whose next byte is later than this lost one on its way."""
_MOST_REPEATS: Final = 3
_MOST_NEWS: Final = 16
_LINGER_SECONDS: Final = 1.0
_UNKNOWN_NAME: Final = "serial CCID reader"
_ALIVE: Final = ""


def _configuration() -> bytes:
    endpoints = (
        EndpointDescriptor(_OUT, TransferType.BULK, _STREAM, 0),
        EndpointDescriptor(_IN, TransferType.BULK, _STREAM, 0),
        EndpointDescriptor(_INTERRUPT, TransferType.INTERRUPT, _NOTIFICATION_SIZE, 1),
    )
    interface = InterfaceDescriptor(0, 0, SMART_CARD_CLASS, 0, 0, 0, endpoints, GEMPC_TWIN.encode())
    return ConfigurationDescriptor(1, 0, 0x80, 0, (interface,)).encode()


class SerialCcidPort:
    """A :class:`~demail_hw.interfaces.UsbTransport` without USB: what a GemPC Twin's descriptors would say is fixed.

    The line has no control pipe: an ABORT request is its bulk message alone. The card's coming and going is told only
    in front of answers, so :meth:`interrupt_in` returns now and then with nothing new, and who waits asks the slot.

    An answer that arrives damaged is asked for again; a command is never sent again. In a forked child it is dead.
    What a reader echoes arrives in bytes that nobody can wipe: they are freed at once.
    """

    def __init__(self, line: SerialLine, url: str) -> None:
        self._line = line
        self._identity = UsbIdentity(0, 0, None, None, url)
        self._configuration = _configuration()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._frames = FrameReader()
        self._messages: collections.deque[bytes] = collections.deque()
        self._news: collections.deque[bytes] = collections.deque(maxlen=_MOST_NEWS)
        self._closed = threading.Event()
        self._dead = _ALIVE
        self._sent = False
        self._repeats = 0

    def configure(self, *, deadline: Deadline) -> None:
        """Ask who it is, and have it tell of the card.

        Errors: :class:`~demail_hw.errors.DeviceNotFound` if nothing at the line answers like a reader.
        """
        with self._turn(deadline):
            self._frames.receive_data(self._line.read_now())
            self._frames.give_up()
        host = CcidHost(max_message_length=GEMPC_TWIN.max_message_length, packet_size=_STREAM)
        url = self._identity.bus_id
        try:
            firmware = _ask(self, host, READ_FIRMWARE, deadline)
            _ask(self, host, REPORT_SLOT_CHANGES, deadline)
        except DeadlineExceeded as error:
            raise DeviceNotFound(
                f"Nothing at {url} answers like a GemPC Twin.",
                remedy="See that the reader has power; a COM server needs 115200 bit/s, 8 data bits, 2 stop bits.",
            ) from error
        name = "".join(filter(str.isprintable, firmware.decode("latin-1"))) or _UNKNOWN_NAME
        self._identity = self._identity._replace(product=name)

    @property
    def identity(self) -> UsbIdentity:
        """Its firmware's name, and where it is; it has no serial number."""
        return self._identity

    @property
    def configuration(self) -> bytes:
        """What the configuration descriptor of such a reader would be."""
        return self._configuration

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:  # noqa: ARG002  the seam's
        """Nothing is sent: of all requests only ABORT means something here, and its bulk message says it."""
        packet = SetupPacket.decode(setup)
        if packet.kind is RequestKind.CLASS and packet.request == ClassRequest.ABORT:
            return b""
        raise TransferStalled("A serial reader has no control pipe.")

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        """One message to the reader."""
        with self._turn(deadline):
            self._write(data)

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        """One message of the reader, or the first ``length`` bytes of it."""
        with self._turn(deadline):
            return self._message(length, deadline)

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        """One message each way."""
        with self._turn(deadline):
            self._write(out)
            return self._message(length, deadline)

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        """What the reader told of the card; a NotifySlotChange of no slots if it told nothing for a while."""
        with self._turn(deadline):
            self._read_what_is_there()
            if self._news:
                return self._news.popleft()
        if not self._closed.wait(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic()))):
            with self._turn(deadline):
                self._read_what_is_there()
                return self._news.popleft() if self._news else _NOTHING_NEW
        raise self._lost()

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        """A line does not halt."""

    def close(self) -> None:
        """Let the line go. Never raises; closing twice is allowed."""
        self._dead = self._dead or "it was closed"
        self._closed.set()
        if self._lock.acquire(timeout=_LINGER_SECONDS):
            self._line.close()
            self._lock.release()

    # --- Inside a turn -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """The line is one thread's to the end of the ``with`` block. Foreign exceptions are mapped here."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _too_late()
        try:
            if os.getpid() != self._pid:
                raise DeviceLost("The reader belongs to the process that opened it.", outcome=Outcome.NOT_SENT)
            if self._dead:
                raise self._lost()
            if time.monotonic() >= deadline:
                raise _too_late()
            self._sent = False
            self._repeats = 0
            yield
        except OSError as error:
            self._dead = f"the serial line broke ({error})"
            raise DeviceLost(
                f"The serial line {self._identity.bus_id} broke: {error}.",
                outcome=Outcome.UNKNOWN if self._sent else Outcome.NOT_SENT,
                remedy="Check the cable, then open the reader again.",
            ) from error
        finally:
            self._lock.release()

    def _write(self, message: Buffers) -> None:
        self._read_what_is_there()
        self._sent = True
        self._line.write(encode_frame(message))

    def _message(self, length: int, deadline: Deadline) -> bytes:
        heard = time.monotonic()
        while not self._messages:
            if self._dead:
                raise DeviceLost("The reader was closed.", outcome=Outcome.UNKNOWN)
            now = time.monotonic()
            if now >= deadline:
                raise DeadlineExceeded("The serial reader did not answer until the deadline.")
            data = self._line.read(self._frames.wanted)
            if data:
                heard = now
                self._frames.receive_data(data)
                self._take_events()
            elif self._frames.partial and now - heard > _SILENT_SECONDS:
                self._frames.give_up()
                self._ask_again("its end did not come")
        message = self._messages.popleft()
        if len(message) > length:
            self._messages.appendleft(message[length:])
        return message[:length]

    def _read_what_is_there(self) -> None:
        self._frames.receive_data(self._line.read_now())
        self._take_events()

    def _take_events(self) -> None:
        while not isinstance(event := self._frames.next_event(), NeedData):
            self._take(event)

    def _take(self, event: SerialEvent) -> None:
        match event:
            case FrameReceived(message):
                if not is_command(message):  # the echo of ours says nothing
                    self._messages.append(message)
            case SlotChanged(notification):
                self._news.append(notification)
            case Garbled(why):
                self._ask_again(why)
            case NakReceived():
                self._refused()
            case TimeRequested():
                pass  # the caller's deadline says how long

    def _ask_again(self, why: str) -> None:
        """Have the reader say its last answer once more. One that nobody waits for is dropped."""
        if not self._sent:
            return
        self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            raise TransportError(
                f"The serial line damages what the reader says: {why}.",
                outcome=Outcome.UNKNOWN,
                remedy="Check cable and line settings: 115200 bit/s, 8 data bits, no parity, 2 stop bits.",
            )
        self._line.write((NAK_FRAME,))

    def _refused(self) -> None:
        """After a NAK of ours, theirs may be for that one."""
        if self._sent:
            raise TransportError(
                "The command arrived at the serial reader damaged, and was thrown away.",
                outcome=Outcome.UNKNOWN if self._repeats else Outcome.NOT_SENT,
                remedy="Try again; if it comes back, check cable and line settings.",
            )

    def _lost(self) -> HardwareError:
        return DeviceLost(
            f"The reader is lost: {self._dead}.", remedy="Open the reader again.", outcome=Outcome.NOT_SENT
        )


def _ask(port: SerialCcidPort, host: CcidHost, command: bytes, deadline: Deadline) -> bytes:
    """An escape command and its answer; none if the reader does not know it."""
    message = port.exchange(host.send(Escape((command,))), host.read_length, deadline=deadline)
    host.receive_data(message)
    event = host.next_event()
    while event is NEED_DATA or not isinstance(event, Response):
        host.receive_data(port.bulk_in(host.read_length, deadline=deadline))
        event = host.next_event()
    return event.data if isinstance(event, EscapeData) else b""


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline was over before anything was sent to the reader.", outcome=Outcome.NOT_SENT, transient=True
    )
