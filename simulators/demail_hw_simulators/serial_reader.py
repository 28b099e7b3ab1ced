"""A simulated serial reader: a simulated USB reader behind the framing of a GemPC Twin, on a pseudo-terminal, or on a
TCP port as a COM server has it.

What frames, checksums and echoes is :class:`SerialReader`; it knows no line. :class:`ReaderOnPty` and
:class:`ReaderOnTcp` are lines to it.
"""

import os
import pty
import selectors
import socket
import threading
import tty
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, TypeAlias

from demail_hw.ccid.class_descriptor import find_ccid_interface
from demail_hw.ccid.code_points import ClassRequest, IccStatus, MessageType
from demail_hw.ccid.host import NEED_DATA
from demail_hw.ccid.messages import Escape, EscapeData, Header, NotifySlotChange, Status, decode_command
from demail_hw.ccid.serial_framing import (
    NAK_FRAME,
    READ_FIRMWARE,
    REPORT_SLOT_CHANGES,
    FrameReader,
    FrameReceived,
    Garbled,
    NakReceived,
    encode_frame,
)
from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import ExportedDevice, Transfer, TransferResult
from demail_hw.usb.setup import SetupPacket

__all__ = ["FIRMWARE", "ReaderOnPty", "ReaderOnTcp", "SerialReader"]

Write: TypeAlias = Callable[[bytes], object]

FIRMWARE: Final = b"GemTwin-V2.00-SIM"
"""What it says of itself."""
_UNKNOWN_OF_LIBCCID: Final = b"\x6a"
"""libccid asks this of every serial reader, and takes an empty answer."""
_LONGEST_READ: Final = 4096
_CLASS_REQUEST_TO_INTERFACE: Final = 0x21
_CLOSE_SECONDS: Final = 5.0


class SerialReader:
    """The firmware between the line and a reader. ``device``: of the profile ``host_pps``, which is the GemPC Twin's.

    ``echo``: says back what the host says, before the answer, as a GemPC Twin does and others do not. ``write`` is
    called from any thread, one at a time.
    """

    def __init__(self, device: ExportedDevice, *, echo: bool = True) -> None:
        self._device = device
        self._pipes = find_ccid_interface(device.configuration_descriptor)
        self._echo = echo
        # Never held while the device is called: the device calls back with a lock of its own.
        self._lock = threading.Lock()
        self._write: Write = _nowhere
        self._frames = FrameReader()
        self._last = b""
        self._reports = False
        self._news = b""
        self._icc = IccStatus.ABSENT
        self._escapes: Mapping[bytes, Callable[[], bytes]] = {
            READ_FIRMWARE: lambda: FIRMWARE,
            REPORT_SLOT_CHANGES: self._report,
            _UNKNOWN_OF_LIBCCID: bytes,
        }

    def plug(self, write: Write) -> None:
        """A host is at the line: begin anew."""
        self._device.reset()
        self._frames.give_up()
        with self._lock:
            self._write = write
            self._last = self._news = b""
            self._reports = False
        self._ask_for_answer()
        self._ask_for_news()

    def receive(self, data: bytes) -> None:
        """What came from the host. Calls come from one thread at a time."""
        self._frames.receive_data(data)
        while (event := self._frames.next_event()) is not NEED_DATA:
            match event:
                case FrameReceived(message):
                    self._take(message)
                case NakReceived():
                    self._say(self._last)
                case Garbled():
                    self._say(NAK_FRAME)
                case _:
                    pass  # noise

    def _take(self, message: bytes) -> None:
        if self._echo:
            self._say(b"".join(encode_frame((message,))))
        try:
            header, command = decode_command(message)
        except ProtocolViolation:
            self._pass_on(message)
            return
        escape = self._escapes.get(b"".join(command.data)) if isinstance(command, Escape) else None
        if escape is not None:
            self._answer(b"".join(EscapeData(escape(), Status(self._icc)).encode(header.slot, header.seq)))
            return
        if header.message_type == MessageType.ABORT:
            self._abort(header)
        self._pass_on(message)

    def _pass_on(self, message: bytes) -> None:
        self._device.submit(Transfer(self._pipes.bulk_out.address, data=message), _done)

    def _abort(self, header: Header) -> None:
        """There is no control pipe: the message alone says it."""
        value = header.seq << 8 | header.slot
        setup = SetupPacket(_CLASS_REQUEST_TO_INTERFACE, ClassRequest.ABORT, value)
        self._device.submit(Transfer(0, setup=setup.encode()), _done)

    def _report(self) -> bytes:
        self._reports = True
        return b""

    # --- From the reader

    def _ask_for_answer(self) -> None:
        longest = self._pipes.descriptor.message_limit
        self._device.submit(Transfer(self._pipes.bulk_in.address, longest), self._answered)

    def _ask_for_news(self) -> None:
        pipe = self._pipes.interrupt_in
        if pipe is not None:
            self._device.submit(Transfer(pipe.address, pipe.max_packet_size), self._heard)

    def _answered(self, result: TransferResult) -> None:
        self._answer(result.data)
        self._ask_for_answer()

    def _answer(self, message: bytes) -> None:
        """The news of the slot stands in front of it."""
        with self._lock:
            if self._reports and self._news:
                self._write(self._news)
                self._news = b""
            self._last = b"".join(encode_frame((message,)))
            self._write(self._last)

    def _say(self, data: bytes) -> None:
        with self._lock:
            self._write(data)

    def _heard(self, result: TransferResult) -> None:
        (change,) = NotifySlotChange.decode(result.data).slots[:1]
        with self._lock:
            self._news = result.data
            self._icc = IccStatus.INACTIVE if change.present else IccStatus.ABSENT
        self._ask_for_news()


class _Line:
    """A thread that carries bytes to the reader; a context manager."""

    def __init__(self, reader: SerialReader, name: str) -> None:
        self._reader = reader
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._stop)
        self._running = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut the line. Closing twice is allowed."""
        if self._wake.fileno() < 0:
            return
        self._wake.close()
        self._thread.join(_CLOSE_SECONDS)
        self._reader.plug(_nowhere)
        self._selector.close()
        self._woken.close()

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select():
                key.data()

    def _stop(self) -> None:
        self._running = False


class ReaderOnPty(_Line):
    """The reader at a pseudo-terminal. ``path``: what the host opens, in place of a serial device."""

    def __init__(self, reader: SerialReader) -> None:
        super().__init__(reader, "serial reader on a pty")
        # Open at both ends: while no host has it, the master's end would be an error to read.
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._selector.register(self._master, selectors.EVENT_READ, self._read)
        reader.plug(self._send)

    def close(self) -> None:
        """Cut the line."""
        super().close()
        for end in (self._master, self._slave):
            if end >= 0:
                os.close(end)
        self._master = self._slave = -1

    def _read(self) -> None:
        self._reader.receive(os.read(self._master, _LONGEST_READ))

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]


class ReaderOnTcp(_Line):
    """The reader at a TCP port, raw, one host at a time. ``port``: the real one."""

    def __init__(self, reader: SerialReader, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(reader, "serial reader on TCP")
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Cut the line."""
        super().close()
        self._hang_up()
        self._listener.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.unregister(self._listener)
        self._selector.register(connection, selectors.EVENT_READ, self._read)
        self._connection = connection
        self._reader.plug(self._send)

    def _read(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_LONGEST_READ)
        except ConnectionError:
            data = b""
        if data:
            self._reader.receive(data)
            return
        self._reader.plug(_nowhere)
        self._selector.unregister(self._connection)
        self._hang_up()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, data: bytes) -> None:
        # A host that went away meanwhile is noticed where it is read.
        connection = self._connection
        if connection is not None:
            try:
                connection.sendall(data)
            except OSError:
                return


def _nowhere(_data: bytes) -> None:
    """Nobody is at the line."""


def _done(_result: TransferResult) -> None:
    """A frame that was taken says nothing."""
