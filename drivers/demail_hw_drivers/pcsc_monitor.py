"""What is in the readers of PC/SC now, and waiting for it to change. pyscard's own monitor dies with pcscd; this one
waits for the next.

Every question has a context of its own: none outlives a restart of pcscd, and none waits for another.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple, TypeVar

from demail_hw.errors import DeadlineExceeded, DeviceLost, HardwareError, Layer, Outcome
from demail_hw.interfaces import Deadline
from demail_hw_drivers.pcsc_calls import CallThread
from demail_hw_drivers.pcsc_errors import PcscFailure, ReturnCode, Stage, pcsc_errors
from demail_hw_drivers.pcsc_service import PcscService, ReaderState

__all__ = ["Occupancy", "PcscMonitor", "ask", "look_at_readers"]

_Answer = TypeVar("_Answer")

_SLICE_SECONDS: Final = 0.25
"""How long the monitor may not notice that it was closed."""
_PAUSE_SECONDS: Final = 0.1
"""Between two attempts to reach a service that is away; about as often as pcscd itself asks a reader."""
_PASSING: Final = frozenset(
    {
        ReturnCode.E_NO_SERVICE,
        ReturnCode.E_SERVICE_STOPPED,
        ReturnCode.F_COMM_ERROR,
        ReturnCode.E_COMM_DATA_LOST,
        ReturnCode.E_UNKNOWN_READER,
        ReturnCode.E_READER_UNAVAILABLE,
        ReturnCode.E_SHARING_VIOLATION,
    }
)
"""What ends by itself: while the service is started anew it is not there, and then does not know its readers yet."""


def ask(
    thread: CallThread, question: Callable[[], _Answer], *, deadline: Deadline, late: Callable[[], DeadlineExceeded]
) -> _Answer:
    """The answer to the one question that a thread was made for."""
    try:
        with pcsc_errors(Stage.ASKING):
            return thread.call(question, deadline=deadline, late=late)
    finally:
        thread.end(deadline=deadline)


class Occupancy(NamedTuple):
    """Is a card in a reader, and does a program have it? None: nobody could say."""

    card: bool | None
    in_use: bool | None


def look_at_readers(service: PcscService, context: int, names: Collection[str]) -> Mapping[str, Occupancy]:
    """How each reader is now.

    A name that is not ASCII cannot be asked for in the usual way (see :meth:`PcscService.status_change`): its reader
    is connected to, without the card. That has to wait for the end of another program's transaction, and cannot be
    done while one has the card exclusively.
    """
    states = service.status_change(context, {name: ReaderState.UNAWARE for name in names if name.isascii()}, 0)
    found = {name: _occupancy(state) for name, state in states.items()}
    return found | {name: _by_connecting(service, context, name) for name in names if not name.isascii()}


class PcscMonitor:
    """One reader, watched. Safe for several threads.

    ``held``: is a card in the reader, as far as a connection of ours can say that has it exclusively?
    """

    def __init__(self, service: PcscService, reader: str, *, held: Callable[[Deadline], bool | None]) -> None:
        self._service = service
        self._reader = reader
        self._held = held
        self._closed = threading.Event()
        self._threads: set[CallThread] = set()

    def card_present(self, *, deadline: Deadline) -> bool:
        """Is a card in the reader now?

        Errors: :class:`~demail_hw.errors.ReaderBusy` where nobody can say; only with a name that is not ASCII.
        """
        card = self._ask(self._look, deadline)
        if card is None:
            card = self._held(deadline)
        if card is None:
            with pcsc_errors(Stage.ASKING):
                raise PcscFailure(ReturnCode.E_SHARING_VIOLATION)
        return card

    def wait(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in, or until there is none; :meth:`close` ends it too.

        A slot is empty when the service calls it empty: a service or a reader that is away is waited for.
        """
        try:
            if self._reader.isascii():
                self._ask(lambda: self._wait(present, deadline), deadline)
            else:
                self._poll(present, deadline)
        except DeadlineExceeded as error:
            what = "inserted" if present else "taken out"
            raise DeadlineExceeded(
                f"No card was {what} before the deadline.", layer=Layer.READER, outcome=Outcome.NOT_SENT
            ) from error

    def close(self, *, deadline: Deadline) -> None:
        """Let nobody wait any longer."""
        self._closed.set()
        for thread in tuple(self._threads):
            thread.join(deadline=deadline)

    # --- In a thread

    def _ask(self, question: Callable[[], _Answer], deadline: Deadline) -> _Answer:
        self._threads -= {thread for thread in tuple(self._threads) if not thread.alive}
        thread = CallThread(f"PC/SC monitor of {self._reader}")
        self._threads.add(thread)
        return ask(thread, question, deadline=deadline, late=_silent)

    def _look(self) -> bool | None:
        with self._service.context() as context:
            return look_at_readers(self._service, context, [self._reader])[self._reader].card

    def _wait(self, present: bool, deadline: Deadline) -> None:
        """Watch, and begin anew whenever the service went away.

        A service that ends can look like one that refuses us; two refusals in succession are a refusal.
        """
        refused = False
        while True:
            try:
                with self._service.context() as context:
                    self._watch(context, present, deadline)
                return
            except PcscFailure as failure:
                if failure.code not in _PASSING and (refused or failure.code != ReturnCode.W_SECURITY_VIOLATION):
                    raise
                refused = failure.code == ReturnCode.W_SECURITY_VIOLATION
            self._pause(deadline)

    def _watch(self, context: int, present: bool, deadline: Deadline) -> None:
        wanted = ReaderState.PRESENT if present else ReaderState.EMPTY
        state: int = ReaderState.UNAWARE
        while not state & wanted:
            self._check(deadline)
            seconds = min(_SLICE_SECONDS, deadline - time.monotonic())
            state = self._service.status_change(context, {self._reader: state}, max(0.0, seconds))[self._reader]

    # --- By asking again and again

    def _poll(self, present: bool, deadline: Deadline) -> None:
        refused = False
        while True:
            try:
                if self.card_present(deadline=deadline) is present:
                    return
            except HardwareError as error:
                if refused and not error.transient:
                    raise
                refused = not error.transient
            self._pause(deadline)

    def _pause(self, deadline: Deadline) -> None:
        self._check(deadline)
        self._closed.wait(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def _check(self, deadline: Deadline) -> None:
        if self._closed.is_set():
            raise DeviceLost(
                "The reader was closed while it was waited for.", outcome=Outcome.NOT_SENT, layer=Layer.READER
            )
        if time.monotonic() >= deadline:
            raise _silent()


def _by_connecting(service: PcscService, context: int, name: str) -> Occupancy:
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(service.reader_alone(context, name))
        except PcscFailure as failure:
            if failure.code == ReturnCode.E_SHARING_VIOLATION:
                return Occupancy(card=None, in_use=True)
            raise
        return Occupancy(card=service.status(reader).present, in_use=None)


def _occupancy(state: int) -> Occupancy:
    return Occupancy(
        card=bool(state & ReaderState.PRESENT),
        in_use=bool(state & (ReaderState.EXCLUSIVE | ReaderState.INUSE)),
    )


def _silent() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The PC/SC service did not say until the deadline what is in the reader.",
        layer=Layer.READER,
        outcome=Outcome.NOT_SENT,
        remedy="See that pcscd works.",
        transient=True,
    )
