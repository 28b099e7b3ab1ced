"""A device on a USB server that is attached to whenever it is needed, and anew whenever it was lost."""

import contextlib
import copy
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceBusy,
    DeviceNotFound,
    HardwareError,
    Outcome,
    ProtocolViolation,
    ReaderError,
    ServerRefused,
    TransferStalled,
    TransportError,
)
from demail_hw.interfaces import Deadline
from demail_hw.usbip.binding import (
    BindingCounters,
    BindingEvent,
    BindingMachine,
    BindingState,
    Failure,
    RetryLimits,
)
from demail_hw_drivers.ccid_reader import reader_over
from demail_hw_drivers.tcp import StopFlag
from demail_hw_drivers.usbip_transport import UsbIpTransport

__all__ = ["Binding", "BindingStatus", "failure_of"]

_ATTEMPT_SECONDS: Final = 10.0
_HEARTBEAT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_DEAF_SECONDS: Final = 10.0
"""A reader that heeds no ABORT for so long is imported anew: not sooner, because that takes the power from a card,
which may still be at work."""
_MENDED_BY_TIME: Final = (DeadlineExceeded, ProtocolViolation, TransferStalled)
_KINDS: Final = (DeviceBusy, DeviceNotFound, ServerRefused)


class BindingStatus(NamedTuple):
    """A binding now. ``seconds``: since it is in this state. ``device``: which it has. ``failures``: in a row.
    ``given_up``: it is off because ``retry.attempts`` failed."""

    name: str
    state: BindingState
    seconds: float
    reason: str
    device: str
    failures: int
    counters: BindingCounters
    given_up: bool


class _Attachment(NamedTuple):
    transport: UsbIpTransport
    reader: CcidReader


class Binding:
    """Holds one device, and attaches to it anew whenever it was lost. Safe for several threads.

    It has no thread of its own: who needs the reader attaches, and one attempt at a time is made; :meth:`keep` does
    so all the time, for a program that gives it a thread. ``connect``: attaches, until a deadline, or until the flag
    is set because nobody wants the device any more. ``is_off``: the switch, which is looked at whenever the reader is
    needed.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[Deadline, StopFlag], UsbIpTransport],
        *,
        limits: RetryLimits | None = None,
        enabled: bool = True,
        is_off: Callable[[], bool] = lambda: False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._connect = connect
        self._is_off = is_off
        self._machine = BindingMachine(limits or RetryLimits(), random=jitter, now=time.monotonic(), enabled=enabled)
        # Held in a transport's turn when that one dies: nothing is asked of a transport while it is held.
        self._changed = threading.Condition()
        self._attachment: _Attachment | None = None
        self._attempting: StopFlag | None = None
        self._enabled = enabled
        self._switched_off = False
        self._closed = False
        self._error: HardwareError | None = None
        self._listeners: list[Callable[[BindingEvent], object]] = []

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._name

    @property
    def status(self) -> BindingStatus:
        """Where it is, and what happened so far."""
        with self._changed:
            machine, held = self._machine, self._attachment
            return BindingStatus(
                self._name,
                machine.state,
                time.monotonic() - machine.since,
                machine.reason,
                _describe(held.transport) if held else "",
                machine.failures_in_row,
                machine.counters,
                machine.given_up,
            )

    def listen(self, listener: Callable[[BindingEvent], object]) -> Callable[[], None]:
        """Have every event told, in order, until what is returned is called. The listener is called in the thread
        that met the event, and must neither wait nor use the reader; the ``put`` of a queue is one."""
        with self._changed:
            self._listeners.append(listener)

        def stop() -> None:
            with self._changed, contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    def reader(self, *, deadline: Deadline) -> CcidReader:
        """The reader, attached; waited for until the deadline.

        Errors: of the kind of the last attempt's, as :class:`~demail_hw.errors.DeviceBusy`, with the state and what
        was tried; at once if the binding is off, or for what no time mends. Nothing was sent to a card.
        """
        return self._wait_for_reader(deadline, deadline)

    def refuse(self) -> HardwareError:
        """Why it has no reader now, as :meth:`reader` raises it, and what to do."""
        return self._refusal()

    def holds(self, reader: CcidReader) -> bool:
        """Is this the reader that is attached now?"""
        with self._changed:
            return self._attachment is not None and self._attachment.reader is reader

    @contextlib.contextmanager
    def abandons_deaf(self, reader: CcidReader) -> Iterator[None]:
        """Whatever is asked of the reader in the ``with`` block: if it has heeded no ABORT for 10 seconds it is let
        go, and the import that comes next resets it. How long the caller would wait is no matter."""
        try:
            yield
        except HardwareError as error:
            if reader.unheeded_seconds >= _DEAF_SECONDS:
                self._abandon(reader, error.message.rstrip("."))
            raise

    def _abandon(self, reader: CcidReader, reason: str) -> None:
        with self._changed:
            held = self._attachment
        if held is not None and held.reader is reader:
            self._lose(held, reason)
            held.transport.close()

    def enable(self) -> None:
        """Switch on in this process, also after it was given up."""
        with self._changed:
            if not self._closed:
                self._enabled = True
                self._tell(self._machine.enable(time.monotonic()))

    def disable(self, reason: str = "It is switched off.") -> None:
        """Switch off in this process: the device is let go, and whoever waits for it is told so."""
        self._enabled = False
        self._let_go(reason)

    def _let_go(self, reason: str) -> None:
        with self._changed:
            self._tell(self._machine.disable(time.monotonic(), reason))
            held, self._attachment = self._attachment, None
            if self._attempting is not None:
                self._attempting.set()
        if held is not None:
            held.reader.close()

    def keep(self) -> None:
        """Keep the device, attach again whenever it is lost, and ask the reader for a sign of life every 5 seconds;
        until :meth:`close`. For a thread of its own."""
        beat = time.monotonic()
        while not self._closed:
            with contextlib.suppress(HardwareError):  # an event told of it
                # One look is shorter than an attempt over a slow link takes.
                self._wait_for_reader(time.monotonic() + _LOOK_SECONDS, math.inf)
                beat = self._watch(beat)
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._is_due(), _LOOK_SECONDS)

    def close(self) -> None:
        """Let the device go for good. Never raises; closing twice is allowed."""
        self._closed = True
        self.disable("It was closed.")

    # --- Attaching ---------------------------------------------------------------------------------------------

    def _wait_for_reader(self, deadline: Deadline, end: Deadline) -> CcidReader:
        """The reader, waited for until the deadline; an attempt that was begun may last until ``end``."""
        while True:
            self._heed_switch()
            with self._changed:
                if self._attachment is not None:
                    return self._attachment.reader
                if not self._may_begin(deadline):
                    continue
                self._tell(self._machine.begin(time.monotonic()))
                attempt = self._machine.attempt
            self._attempt(attempt, end)

    def _heed_switch(self) -> None:
        """The switch turns off what is on, and on again no more than that."""
        off = self._is_off()
        if off and not self._switched_off:
            self._let_go("It is switched off.")
        elif self._switched_off and not off and self._enabled:
            self.enable()
        self._switched_off = off

    def _is_due(self) -> bool:
        due = self._machine.next_attempt()
        return due is not None and due <= time.monotonic()

    def _may_begin(self, deadline: Deadline) -> bool:
        """True if an attempt is due. Else this waits for whatever comes first."""
        machine, now = self._machine, time.monotonic()
        if machine.state is BindingState.OFF or now >= deadline:
            raise self._refusal()
        due = machine.next_attempt()
        if due is not None and due <= now:
            return True
        if self._error is not None and failure_of(self._error) is Failure.PERMANENT and due is not None:
            raise self._refusal()
        self._changed.wait(min(deadline, due or deadline) - now)
        return False

    def _attempt(self, number: int, end: Deadline) -> None:
        """One attempt, of 10 seconds; ``end``: when the caller's own time is over."""
        enough = time.monotonic() + _ATTEMPT_SECONDS
        try:
            held = self._attach(min(end, enough))
        except HardwareError as error:
            if isinstance(error, DeadlineExceeded) and end < enough:
                self._cut_short(number, error)
            else:
                self._fail(number, error, error.message)
        except BaseException as error:
            self._fail(number, None, f"The attempt was interrupted by {type(error).__name__}.")
            raise
        else:
            self._hold(number, held)

    def _attach(self, deadline: Deadline) -> _Attachment:
        with self._stoppable() as stop:
            transport = self._connect(deadline, stop)
        return _Attachment(transport, reader_over(transport))

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[StopFlag]:
        """What ends the attempt in the ``with`` block when the device is let go; set if it was already."""
        with StopFlag() as stop:
            with self._changed:
                self._attempting = stop
                if self._machine.state is BindingState.OFF:
                    stop.set()
            try:
                yield stop
            finally:
                with self._changed:
                    if self._attempting is stop:  # not that of another, after it was switched on again
                        self._attempting = None

    def _hold(self, attempt: int, held: _Attachment) -> None:
        with self._changed:
            event = self._machine.attached(time.monotonic(), attempt, _describe(held.transport))
            if event is not None:
                self._attachment, self._error = held, None
            self._tell(event)
        if event is None:  # it was switched off meanwhile
            held.reader.close()
            return
        held.transport.when_lost(lambda reason: self._lose(held, reason))

    def _lose(self, lost: _Attachment, reason: str) -> None:
        with self._changed:
            if self._attachment is lost:
                self._attachment = None
                self._tell(self._machine.lost(time.monotonic(), f"The reader is lost: {reason}."))

    def _fail(self, attempt: int, error: HardwareError | None, reason: str) -> None:
        kind = Failure.TRANSIENT if error is None else failure_of(error)
        with self._changed:
            event = self._machine.failed(time.monotonic(), attempt, kind, reason)
            if event is not None:  # an attempt that was called off says nothing of the one that goes on
                self._error = error
            self._tell(event)

    def _cut_short(self, attempt: int, error: HardwareError) -> None:
        """By the caller's own deadline: what an attempt before met says more, and this is no failure."""
        with self._changed:
            self._error = self._error or error
            self._tell(self._machine.cut_short(time.monotonic(), attempt, self._error.message))

    def _tell(self, event: BindingEvent | None) -> None:
        """With the lock held, so that the order is that of the events."""
        if event is not None:
            for listener in tuple(self._listeners):
                listener(event)
            self._changed.notify_all()

    def _watch(self, beat: float) -> float:
        """Wait for the end of the attachment, one look long, with a sign of life now and then; when the last was."""
        held = self._attachment
        if held is None:
            return beat
        now = time.monotonic()
        held.transport.watch_end(deadline=now + _LOOK_SECONDS)
        if now < beat + _HEARTBEAT_SECONDS:
            return beat
        with self.abandons_deaf(held.reader):
            held.reader.card_present(deadline=now + _HEARTBEAT_SECONDS)
        return now

    def _refusal(self) -> HardwareError:
        status, error = self.status, self._error
        tried = f" after {_times(status.failures)}" if status.failures else ""
        since = "" if status.state is BindingState.OFF else f", for {status.seconds:.1f} s{tried}"
        text = f"The state of the binding {self._name!r} is {status.state.value}{since}"
        text = f"{text}: {status.reason}" if status.reason else f"{text}."
        if status.state is BindingState.OFF:
            return TransportError(text, transient=False, remedy=self._off_remedy())
        if isinstance(error, ConfigurationError | ReaderError):
            return copy.copy(error)
        kind: type[TransportError] = next((each for each in _KINDS if isinstance(error, each)), TransportError)
        refusal = kind(
            text,
            layer=error.layer if error else None,
            outcome=Outcome.NOT_SENT,
            transient=error is None or failure_of(error) is not Failure.PERMANENT,
            remedy=error.remedy if error else "Wait, or give it more time.",
        )
        refusal.__cause__ = error
        return refusal

    def _off_remedy(self) -> str:
        if self._closed:
            return "Open the reader again."
        if self._switched_off:
            return f"Switch it on: demail-hw binding on {self._name}."
        if self._machine.given_up:
            again = f"bindings.{self._name}.retry.attempts = 0 in the configuration tries for ever"
            return f"Mend what the reason says, then open the reader again; {again}."
        return f"See bindings.{self._name}.enabled in the configuration, then open the reader again."


def failure_of(error: HardwareError) -> Failure:
    """When an attempt that failed by this is tried again.

    A server does not list what somebody uses. So a device that is not there may be in use as well.
    """
    if isinstance(error, DeviceBusy):
        return Failure.BUSY
    if not error.transient and not isinstance(error, _MENDED_BY_TIME):
        return Failure.PERMANENT
    unknown_host = isinstance(error.__cause__, OSError)
    return Failure.BUSY if isinstance(error, DeviceNotFound) and not unknown_host else Failure.TRANSIENT


def _describe(transport: UsbIpTransport) -> str:
    device = transport.identity
    return f"{device.vendor_id:04x}:{device.product_id:04x}, serial {device.serial or 'unknown'}, at {device.bus_id}"


def _times(count: int) -> str:
    return "1 failure" if count == 1 else f"{count} failures"
