"""A device of a USB server kept on this kernel: attached, and attached anew whenever it was lost."""

import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, HardwareError
from demail_hw.usbip.binding import BindingEvent, BindingMachine, BindingState, Failure, RetryLimits
from demail_hw.usbip.messages import DEFAULT_PORT
from demail_hw.usbip.pump import PumpCounters
from demail_hw_drivers.binding import failure_of
from demail_hw_drivers.tcp import StopFlag
from demail_hw_drivers.tls_stream import TLS_PORT
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_serials import SerialMemory
from demail_hw_drivers.vhci import Origin, Vhci
from demail_hw_drivers.vhci_link import LinkEnd, VhciLink

__all__ = ["VhciAttachment", "device_of", "server_of"]

_PORTS: Final = {"usbip": DEFAULT_PORT, "usbips": TLS_PORT}

_ATTEMPT_SECONDS: Final = 10.0
_TICK_SECONDS: Final = 1.0


class VhciAttachment:
    """Keeps one device on this kernel. :meth:`run` does it in the thread that calls it; a context manager.

    ``address``: of the reader, ``usbip:`` or ``usbips:``. ``tell`` is called with every event, ``beat`` about once a
    second, for a watchdog, but not during an attempt (10 seconds at most). ``is_off``: a switch, looked at as often.
    """

    def __init__(
        self,
        address: Address,
        *,
        vhci: Vhci | None = None,
        limits: RetryLimits | None = None,
        tell: Callable[[BindingEvent], object] = lambda _: None,
        beat: Callable[[], object] = lambda: None,
        is_off: Callable[[], bool] = lambda: False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._address = address
        self._serials = SerialMemory()
        self._server = server_of(address)
        self._vhci = vhci or Vhci()
        self._tell = tell
        self._beat = beat
        self._is_off = is_off
        self._stop = StopFlag()
        self._machine = BindingMachine(limits or RetryLimits(), random=jitter, now=time.monotonic())
        self._link: VhciLink | None = None

    @property
    def machine(self) -> BindingMachine:
        """Where it is, and what happened so far."""
        return self._machine

    @property
    def port(self) -> int | None:
        """The kernel's port; None while the device is not attached."""
        return self._link.port if self._link else None

    @property
    def counters(self) -> PumpCounters:
        """What went through since the device was attached last."""
        return self._link.counters if self._link else PumpCounters()

    def run(self) -> LinkEnd:
        """Attach and stay attached, until :meth:`stop`, or until somebody detaches the device in the kernel.

        Errors: :class:`~demail_hw.errors.ConfigurationError` at once for a kernel without the module or a user who
        may not; what the last attempt failed by, when time does not mend it or the limits are reached.
        """
        self._vhci.check()
        while not self._stop.wait(self._seconds_to_wait()):
            self._beat()
            self._heed_switch()
            if self._is_due() and (end := self._attempt()) is not None:
                return end
        return LinkEnd.STOPPED

    def stop(self) -> None:
        """Let the device go; from a signal handler or any thread."""
        self._stop.set()

    def close(self) -> None:
        """Let what it holds go."""
        self._stop.close()

    def __enter__(self) -> "VhciAttachment":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _seconds_to_wait(self) -> float:
        due = self._machine.next_attempt()
        return min(_TICK_SECONDS, _TICK_SECONDS if due is None else due - time.monotonic())

    def _is_due(self) -> bool:
        due = self._machine.next_attempt()
        return due is not None and due <= time.monotonic()

    def _heed_switch(self) -> None:
        if self._is_off():
            self._say(self._machine.disable(time.monotonic()))
        elif self._machine.state is BindingState.OFF:
            self._say(self._machine.enable(time.monotonic()))

    def _attempt(self) -> LinkEnd | None:
        """One attempt, and the attachment that it led to. None if it is to be tried again."""
        self._say(self._machine.begin(time.monotonic()))
        attempt = self._machine.counters.attempts
        try:
            link = self._attach()
        except HardwareError as error:
            if self._stop.wait(0.0):
                return LinkEnd.STOPPED
            self._fail(attempt, error)
            return None
        self._link = link
        try:
            self._say(self._machine.attached(time.monotonic(), attempt, f"It is at port {link.port} of this kernel."))
            ended = self._carry(link)
        finally:
            self._link = None
            link.close()
        if isinstance(ended, LinkEnd):
            return ended
        # Told once the device is free: whoever hears of it may take it.
        self._lose(ended)
        return None

    def _attach(self) -> VhciLink:
        deadline = time.monotonic() + _ATTEMPT_SECONDS
        transport = connect(self._address, deadline=deadline, serials=self._serials, stop=self._stop)
        try:
            wire, device, pump = transport.hand_over(deadline=deadline)
        except BaseException:
            transport.close()
            raise
        return VhciLink(
            wire, device, pump, self._vhci, Origin(*self._server, device.bus_id, device_of(self._address))
        )

    def _carry(self, link: VhciLink) -> LinkEnd | HardwareError | None:
        """What ended it; None for the switch."""
        try:
            return link.run(self._stop, self._beat_attached)
        except HardwareError as error:
            return error
        except _SwitchedOff:
            return None

    def _lose(self, error: HardwareError | None) -> None:
        if error is None:
            self._say(self._machine.disable(time.monotonic()))
            return
        self._say(self._machine.lost(time.monotonic(), error.message))
        self._give_up_if_off(error)

    def _beat_attached(self) -> None:
        self._beat()
        if self._is_off():
            raise _SwitchedOff

    def _fail(self, attempt: int, error: HardwareError) -> None:
        kind = failure_of(error)
        self._say(self._machine.failed(time.monotonic(), attempt, kind, error.message))
        # A service that worked once waits: a person may be renewing the certificate right now.
        if kind is Failure.PERMANENT and not self._machine.counters.attachments:
            raise error
        self._give_up_if_off(error)

    def _give_up_if_off(self, error: HardwareError) -> None:
        if self._machine.state is BindingState.OFF:
            raise error

    def _say(self, event: BindingEvent | None) -> None:
        if event is not None:
            with contextlib.suppress(BrokenPipeError):
                self._tell(event)


def server_of(address: Address) -> tuple[str, int]:
    """Host and port of the server that an address names.

    Errors: :class:`~demail_hw.errors.ConfigurationError` for what is on no USB/IP server, or is less than a device.
    """
    if address.interface is not None:
        raise ConfigurationError(
            "The kernel has the whole device, with all its interfaces.", remedy="Leave ?interface= out."
        )
    port = _PORTS.get(address.scheme)
    if port is None:
        raise ConfigurationError(
            f"A reader at {address.scheme}: is on no USB/IP server, so the kernel cannot attach it.",
            remedy="Name a reader by usbip: or usbips:.",
        )
    return address.host, address.port or port


def device_of(address: Address) -> str:
    """Which device an address means, as the port file has it: the address without what says how it is reached.

    Errors: as :func:`server_of`.
    """
    host, port = server_of(address)
    selector = address.selector.lower() if address.vendor_product else address.selector
    return str(Address(address.scheme, host, port, selector, reader=address.reader))


class _SwitchedOff(Exception):
    """Raised and caught here: out of the loop of a link."""
