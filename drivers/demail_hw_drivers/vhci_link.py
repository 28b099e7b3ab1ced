"""Carries USB/IP between the kernel and a server, until one of them ends it: each message through a UrbPump."""

import contextlib
import enum
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Final

from demail_hw.errors import DeviceLost, Outcome
from demail_hw.interfaces import Buffers
from demail_hw.usbip.messages import UsbDevice
from demail_hw.usbip.pump import PumpCounters, UrbPump
from demail_hw_drivers.tcp import StopFlag, Wire, rest_of, send_some
from demail_hw_drivers.vhci import Origin, Vhci

__all__ = ["LinkEnd", "VhciLink"]

_RECEIVE_SIZE: Final = 1 << 16
_TICK_MS: Final = 1000
_SEND_SECONDS: Final = 10.0
_UNLINK_SECONDS: Final = 10.0
_LINGER_SECONDS: Final = 1.0
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class LinkEnd(enum.Enum):
    """Who ended a link that nothing broke."""

    STOPPED = "stopped"
    DETACHED = "detached"


class VhciLink:
    """A device of a server on a port of this kernel, from its making to :meth:`close`.

    ``wire``: the connection, after the import and with nothing pending. It is closed here, also if the kernel refuses
    the device. Errors: as :meth:`~demail_hw_drivers.vhci.Vhci.attach`.
    """

    def __init__(self, wire: Wire, device: UsbDevice, pump: UrbPump, vhci: Vhci, origin: Origin) -> None:
        self._wire = wire
        self._vhci = vhci
        self._origin = origin
        self._pump = pump
        self._due: dict[int, float] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(wire.close)
            # The kernel asks for a stream socket and no more: this one ends here, so that nothing reaches it unread.
            self._kernel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(self._kernel.close)
            with theirs:
                self.port = vhci.attach(theirs, device)
            undo.callback(vhci.forget, self.port, origin)
            self._kernel.settimeout(_SEND_SECONDS)
            vhci.remember(self.port, origin)
            undo.pop_all()

    @property
    def counters(self) -> PumpCounters:
        """What went through so far."""
        return self._pump.counters

    def run(self, stop: StopFlag, beat: Callable[[], object]) -> LinkEnd:
        """Carry, and call ``beat`` every second or more often, until somebody ends it.

        Errors: :class:`~demail_hw.errors.DeviceLost`; as :class:`~demail_hw.usbip.pump.UrbPump`.
        """
        poller = select.poll()
        for descriptor in (stop, self._kernel, self._wire):
            poller.register(descriptor.fileno(), _READABLE)
        with _losses():
            self._carry_answers()  # TLS may hold some since its handshake
            while True:
                ready = {descriptor for descriptor, _ in poller.poll(_TICK_MS)}
                beat()
                if stop.fileno() in ready:
                    return LinkEnd.STOPPED
                if self._wire.fileno() in ready:
                    self._carry_answers()
                if self._kernel.fileno() in ready and not self._carry_requests():
                    return LinkEnd.DETACHED
                self._check_silence()

    def close(self) -> None:
        """Take the device off the kernel and let the server have it back. Never raises."""
        # Before the port is free: the file may be somebody else's then.
        self._vhci.forget(self.port, self._origin)
        # Its end of the socket pair: the kernel takes the device off the port when it sees that.
        self._kernel.close()
        with contextlib.suppress(OSError):
            self._wire.finish(_LINGER_SECONDS)
        self._wire.close()

    def _carry_answers(self) -> None:
        while (data := self._wire.receive_now()) is not None:
            if not data:
                raise DeviceLost("The USB server closed the connection.")
            self._send_kernel(self._pump.from_server(data))

    def _carry_requests(self) -> bool:
        """False at the end of the kernel's interest."""
        try:
            data = self._kernel.recv(_RECEIVE_SIZE)
        except ConnectionResetError:  # it left while something for it was under way
            return False
        if not data:
            return False
        requests = self._pump.from_kernel(data)
        if requests and not self._wire.send(requests, deadline=time.monotonic() + _SEND_SECONDS):
            raise DeviceLost(f"The USB server took no data for {_SEND_SECONDS:.0f} seconds.")
        return True

    def _send_kernel(self, buffers: Buffers) -> None:
        # A kernel that has left is noticed where it is read from.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while buffers:
                buffers = rest_of(buffers, send_some(self._kernel, buffers))

    def _check_silence(self) -> None:
        """A server that hangs keeps its connection alive, and one that lies says other things meanwhile. No device
        delays the answer to an unlink: that tells."""
        now = time.monotonic()
        self._due = {seqnum: self._due.get(seqnum, now + _UNLINK_SECONDS) for seqnum in self._pump.unlinking}
        if min(self._due.values(), default=now) < now:
            raise DeviceLost(f"The USB server did not take back a transfer for {_UNLINK_SECONDS:.0f} seconds.")


@contextlib.contextmanager
def _losses() -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise DeviceLost(f"TLS with the USB server broke: {why}.", outcome=Outcome.UNKNOWN) from error
    except OSError as error:
        raise DeviceLost(f"The connection to the USB server broke: {error.strerror or error}.") from error
