"""The one USB/IP server: it exports whatever implements :class:`~demail_hw.interfaces.ExportedDevice`.

USB/IP has no authentication and no encryption: whoever reaches the port can take any device that is free.
So it listens on the loopback interface unless it is told otherwise.
"""

import contextlib
import errno
import functools
import logging
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

from demail_hw.errors import ProtocolViolation, TransportError
from demail_hw.interfaces import Buffer, ExportedDevice, Transfer, TransferResult
from demail_hw.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor
from demail_hw.usbip.events import NEED_DATA, Submitted
from demail_hw.usbip.messages import (
    DEFAULT_PORT,
    MAX_BUS_ID,
    CmdSubmit,
    CmdUnlink,
    DevlistEntry,
    Direction,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    TransferFlag,
    UrbStatus,
    UsbDevice,
    UsbInterface,
    UsbipStatus,
)
from demail_hw.usbip.server import UsbIpServerConnection
from demail_hw_drivers.tcp import rest_of, timeval, tune

__all__ = ["ServerCounters", "UsbIpServer"]

_LOG = logging.getLogger(__name__)

_OPERATION_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0
_PAUSE_MS: Final = 100
_MAX_CONNECTIONS: Final = 64
_BACKLOG: Final = 16
_RECEIVE_SIZE: Final = 1 << 12
_MAX_GATHER: Final = 256
_CONTROL_ENDPOINT: Final = 0
_DIRECTION_SHIFT: Final = 7
_IN: Final = int(Direction.IN)
_OK: Final = int(UrbStatus.OK)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__
_SHORT_NOT_OK: Final = int(TransferFlag.SHORT_NOT_OK)
_BUS_NUMBER = re.compile(r"(\d{1,4})-")
_FIRST_DEVICE_NUMBER: Final = 2
_STOP_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ServerCounters(NamedTuple):
    """What a server did so far. ``refused``: imports and connections that were not granted.

    The last five count the URB phase only; ``sends`` are system calls.
    """

    imports: int = 0
    refused: int = 0
    urbs: int = 0
    unlinks: int = 0
    sends: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, other: "ServerCounters") -> "ServerCounters":
        """The sum of two."""
        return ServerCounters(*map(sum, zip(self, other, strict=True)))


class _Export:
    """A device on offer, and who has it."""

    def __init__(self, bus_id: str, device: ExportedDevice, device_number: int) -> None:
        descriptor = DeviceDescriptor.decode(device.device_descriptor)
        configuration = ConfigurationDescriptor.decode(device.configuration_descriptor)
        settings = {interface.number: interface for interface in reversed(configuration.interfaces)}
        self.device = device
        self.endpoints = frozenset(
            endpoint.address for interface in configuration.interfaces for endpoint in interface.endpoints
        )
        bus = _BUS_NUMBER.match(bus_id)
        self.usb_device = UsbDevice(
            path=f"/demail-hw/{bus_id}",
            bus_id=bus_id,
            bus_number=int(bus[1]) or 1 if bus else 1,
            device_number=device_number,
            speed=device.speed,
            vendor_id=descriptor.vendor_id,
            product_id=descriptor.product_id,
            device_version=descriptor.device_version,
            device_class=descriptor.device_class,
            device_subclass=descriptor.device_subclass,
            device_protocol=descriptor.device_protocol,
            configuration_value=configuration.value,
            configurations=descriptor.configurations,
            interface_count=len(settings),
        )
        self.entry = DevlistEntry(
            self.usb_device,
            tuple(
                UsbInterface(interface.interface_class, interface.interface_subclass, interface.interface_protocol)
                for _, interface in sorted(settings.items())
            ),
        )
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    def claim(self) -> bool:
        """Take the device; False if somebody has it."""
        return self._lock.acquire(blocking=False)

    def release(self) -> None:
        self._lock.release()


class UsbIpServer:
    """Exports devices; each can be imported by one client at a time.

    ``devices``: by bus id, or in a row as ``1-1``, ``1-2``, ... ``port`` 0 takes a free one.
    A context manager: it serves inside the ``with`` block.

    A device that somebody has is hidden from the device list, as Linux' usbipd does. Its import is answered with
    DEV_BUSY, where usbipd says NA: every client knows both, and only the first says why.
    """

    def __init__(
        self,
        devices: Mapping[str, ExportedDevice] | Sequence[ExportedDevice],
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
    ) -> None:
        named = devices if isinstance(devices, Mapping) else {f"1-{n}": d for n, d in enumerate(devices, start=1)}
        self._exports: dict[str, _Export] = {}
        for number, (bus_id, device) in enumerate(named.items(), start=_FIRST_DEVICE_NUMBER):
            if not bus_id.isascii() or not 0 < len(bus_id) <= MAX_BUS_ID:
                raise ValueError(f"{bus_id!r} is no bus id")
            self._exports[bus_id] = _Export(bus_id, device, number)
        self._host = host
        self._port = port
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._connections: dict[_Connection, threading.Thread] = {}
        self._finished = ServerCounters()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on: the real one once it is started."""
        return self._port

    @property
    def bus_ids(self) -> tuple[str, ...]:
        """What it exports."""
        return tuple(self._exports)

    @property
    def counters(self) -> ServerCounters:
        """What it did so far."""
        with self._lock:
            connections, finished = tuple(self._connections), self._finished
        return functools.reduce(ServerCounters.plus, (c.counters for c in connections), finished)

    def start(self) -> Self:
        """Listen, and serve in threads of its own. ``RuntimeError`` if it was started before.

        Errors: :class:`~demail_hw.errors.TransportError` if the address cannot be had.
        """
        if self._listener is not None or self._stopping:
            raise RuntimeError("a server is started once")
        self._listener = _listen(self._host, self._port)
        self._port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept_forever, args=(self._listener,), name="usbip-accept", daemon=True
        )
        with _stop_signals_blocked():
            self._acceptor.start()
        return self

    def close(self) -> None:
        """Hang up on everybody and wait, for a few seconds at most, until the devices are reset."""
        self._stopping = True
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            connections = tuple(self._connections.items())
        for connection, _ in connections:
            connection.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        threads = [thread for _, thread in connections]
        if self._acceptor is not None:
            threads.append(self._acceptor)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._listener is not None:
            self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept_forever(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    _pause(listener)
                continue
            self._admit(sock, f"{peer[0]}:{peer[1]}")

    def _admit(self, sock: socket.socket, peer: str) -> None:
        connection = _Connection(sock, peer, self._exports)
        thread = threading.Thread(target=self._serve, args=(connection,), name=f"usbip-{peer}", daemon=True)
        with self._lock:
            # Started inside the lock, so that close() never meets a thread that was not.
            if self._stopping or len(self._connections) >= _MAX_CONNECTIONS or not _started(thread):
                self._finished = self._finished.plus(ServerCounters(refused=1))
                sock.close()
            else:
                self._connections[connection] = thread

    def _serve(self, connection: "_Connection") -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]
                self._finished = self._finished.plus(connection.counters)


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """No thread that is started here takes a signal that stops the program, nor does any that it starts.

    Python handles signals in the main thread, which does not wake up for one that another thread has taken.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise TransportError(
            f"The USB/IP server cannot listen on {host}:{port}: {error.strerror}.",
            remedy="Choose another address or port, or stop the server that has it.",
            transient=False,
        ) from error


def _started(thread: threading.Thread) -> bool:
    """Start it; False if the system has no room for another thread."""
    try:
        thread.start()
    except RuntimeError as error:
        _LOG.warning("a connection was refused: %s", error)
        return False
    return True


def _pause(listener: socket.socket) -> None:
    """Wait a little for resources, or until the listener is shut down."""
    poller = select.poll()
    poller.register(listener, 0)
    poller.poll(_PAUSE_MS)


@contextlib.contextmanager
def _peer_errors(peer: str) -> Iterator[None]:
    """What a peer does wrong ends its own connection, and nothing else."""
    try:
        yield
    except ProtocolViolation as error:
        _LOG.warning("%s: %s", peer, error.message)
    except OSError as error:
        _LOG.debug("%s: connection lost: %s", peer, error)


class _Connection:
    """One TCP connection from accept to close."""

    def __init__(self, sock: socket.socket, peer: str, exports: Mapping[str, _Export]) -> None:
        self._sock = sock
        self._peer = peer
        self._exports = exports
        self._machine = UsbIpServerConnection()
        self._session: _Session | None = None
        self._refused = 0

    @property
    def counters(self) -> ServerCounters:
        own = ServerCounters(refused=self._refused)
        return own if self._session is None else own.plus(self._session.counters)

    def hang_up(self) -> None:
        """End it from any thread; its own thread cleans up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        with self._sock, _peer_errors(self._peer):
            tune(self._sock)
            match self._operation():
                case OpReqDevlist():
                    self._reply(OpRepDevlist(tuple(e.entry for e in self._exports.values() if not e.busy)))
                case OpReqImport(bus_id):
                    self._import(bus_id)
                case None:
                    pass

    def _operation(self) -> OpReqDevlist | OpReqImport | None:
        """The request, if it comes whole and in time."""
        deadline = time.monotonic() + _OPERATION_SECONDS
        while (event := self._machine.next_event()) is NEED_DATA:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._sock.settimeout(left)
            self._machine.receive_data(self._sock.recv(_RECEIVE_SIZE))
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(_SEND_SECONDS))
        return event if isinstance(event, OpReqDevlist | OpReqImport) else None

    def _reply(self, reply: OpRepDevlist | OpRepImport) -> None:
        _send_all(self._sock, self._machine.send(reply))

    def _import(self, bus_id: str) -> None:
        export = self._exports.get(bus_id)
        if export is None:
            self._refuse(bus_id, UsbipStatus.NODEV)
        elif not export.claim():
            self._refuse(bus_id, UsbipStatus.DEV_BUSY)
        else:
            try:
                self._export(export)
            finally:
                export.release()

    def _refuse(self, bus_id: str, status: UsbipStatus) -> None:
        self._refused += 1
        _LOG.info("refused bus_id=%r status=%s peer=%s", bus_id, status.name, self._peer)
        self._reply(OpRepImport(None, status))

    def _export(self, export: _Export) -> None:
        session = self._session = _Session(self._sock, self._machine, export)
        bus_id, serial = export.usb_device.bus_id, export.device.serial
        _LOG.info("import bus_id=%s serial=%s peer=%s", bus_id, serial, self._peer)
        try:
            self._reply(OpRepImport(export.usb_device))
            session.run()
        finally:
            session.end()
            _LOG.info(
                "release bus_id=%s serial=%s peer=%s urbs=%d", bus_id, serial, self._peer, session.counters.urbs
            )


class _Session:
    """The URB phase: an imported device and its one client.

    ``_lock`` keeps the machine and the order on the wire. It is never held while the device is called, because
    the device may complete a transfer in any thread, holding locks of its own.
    """

    def __init__(self, sock: socket.socket, machine: UsbIpServerConnection, export: _Export) -> None:
        self._sock = sock
        self._machine = machine
        self._device = export.device
        self._endpoints = export.endpoints
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False
        self._outgoing: list[Buffer] = []
        self._transfers: dict[int, Transfer] = {}
        self._late_unlinks: dict[int, list[int]] = {}
        self._urbs = self._unlinks = self._sends = self._bytes_in = self._bytes_out = 0

    @property
    def counters(self) -> ServerCounters:
        with self._lock:
            return ServerCounters(1, 0, self._urbs, self._unlinks, self._sends, self._bytes_in, self._bytes_out)

    def run(self) -> None:
        """Serve until the client goes away."""
        while self._serve_batch():
            data = self._sock.recv(_RECEIVE_SIZE)
            self._bytes_in += len(data)
            self._machine.receive_data(data)

    def end(self) -> None:
        """Whatever the device still completes is nobody's any more."""
        with self._lock:
            self._over = True
        self._device.reset()

    def _serve_batch(self) -> bool:
        """Everything that was received; the answers that are ready go out in one send."""
        while True:
            with self._lock:
                event = self._machine.next_event()
                if event is NEED_DATA:
                    self._flush()
                    return True
            match event:
                case Submitted():
                    self._submit(event.command, event.data)
                case CmdUnlink():
                    self._unlink(event)
                case _:
                    return False

    def _submit(self, command: CmdSubmit, data: bytes) -> None:
        self._urbs += 1
        endpoint = command.endpoint
        address = endpoint | command.direction << _DIRECTION_SHIFT
        length = command.transfer_buffer_length if command.direction == _IN else 0
        setup = command.setup if endpoint == _CONTROL_ENDPOINT else b""
        transfer = self._transfers[command.seqnum] = Transfer(address, length, setup=setup, data=data)
        complete = functools.partial(self._complete, command)
        if endpoint == _CONTROL_ENDPOINT or address in self._endpoints:
            self._device.submit(transfer, complete)
        else:
            complete(TransferResult(UrbStatus.EPIPE))

    def _complete(self, command: CmdSubmit, result: TransferResult) -> None:
        """Called by the device, from any thread."""
        status, length, data = _outcome(command, result)
        seqnum = command.seqnum
        with self._lock:
            if self._over or self._transfers.pop(seqnum, None) is None:
                return
            self._outgoing += self._machine.send(_new(RetSubmit, (seqnum, status, length, 0, 0, 0)), data)
            if self._late_unlinks:
                for unlink in self._late_unlinks.pop(seqnum, ()):
                    self._outgoing += self._machine.send(RetUnlink(unlink, UrbStatus.OK))
            # The connection's own thread is in a batch and sends at its end.
            if threading.get_ident() != self._thread:
                with contextlib.suppress(OSError):
                    self._flush()

    def _unlink(self, command: CmdUnlink) -> None:
        self._unlinks += 1
        target = command.unlink_seqnum
        transfer = self._transfers.get(target)
        cancelled = transfer is not None and self._device.cancel(transfer)
        with self._lock:
            if target in self._transfers and not cancelled:
                # It is being completed: the RET_SUBMIT comes first.
                self._late_unlinks.setdefault(target, []).append(command.seqnum)
                return
            self._transfers.pop(target, None)
            status = UrbStatus.ECONNRESET if cancelled else UrbStatus.OK
            self._outgoing += self._machine.send(RetUnlink(command.seqnum, status))

    def _flush(self) -> None:
        """Send what is ready; the lock is held."""
        while self._outgoing:
            batch, self._outgoing = self._outgoing[:_MAX_GATHER], self._outgoing[_MAX_GATHER:]
            try:
                sent, calls = _send_all(self._sock, batch)
            except OSError:
                # The stream has a hole now. Nobody may write behind it, and the reading thread must notice.
                self._over = True
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
                raise
            self._sends += calls
            self._bytes_out += sent


def _outcome(command: CmdSubmit, result: TransferResult) -> tuple[int, int, bytes]:
    """Status, actual length and data of a RET_SUBMIT: never more than the client asked for."""
    asked = command.transfer_buffer_length
    if command.direction != _IN:
        return result.status, asked if result.status == _OK else 0, b""
    length = len(result.data)
    if length > asked:
        # More than asked for once crashed client kernels; to USB it is a babble.
        return UrbStatus.EOVERFLOW, 0, b""
    if length < asked and command.transfer_flags & _SHORT_NOT_OK and result.status == _OK:
        return UrbStatus.EREMOTEIO, length, result.data
    return result.status, length, result.data


def _send_all(sock: socket.socket, buffers: Sequence[Buffer]) -> tuple[int, int]:
    """Send a gather list: bytes and system calls. ``OSError`` also if the peer takes nothing for long."""
    total = sum(map(len, buffers))
    sent = sock.sendmsg(buffers)
    calls = 1
    while sent < total:
        sent += sock.sendmsg(rest_of(buffers, sent))
        calls += 1
    return total, calls
