"""What ``demail-hw attach`` does once it knows what is to be attached: with the standard library alone."""

import contextlib
import dataclasses
import datetime
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeAlias

from demail_hw.address import Address
from demail_hw.cli.exit_codes import SIGNALLED
from demail_hw.cli.systemd_notify import READY, STOPPING, notify, watchdog
from demail_hw.foreign_text import printable
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits

if TYPE_CHECKING:
    from demail_hw_drivers.vhci_attach import VhciAttachment

__all__ = ["Show", "Target", "keep_attached"]

Show: TypeAlias = Callable[[Mapping[str, str], str], None]
"""Takes facts, and the same as a line for people."""

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is to be attached, and how long it is tried. ``is_off``: the switch of a binding."""

    address: Address
    limits: RetryLimits = dataclasses.field(default_factory=RetryLimits)
    is_off: Callable[[], bool] = lambda: False


def keep_attached(reader: Address, target: Target, show: Show) -> None:
    """Attach, and stay attached until a signal, or until the reader is detached; systemd hears of it too.

    ``reader``: what the target was named by. Errors: as :meth:`~demail_hw_drivers.vhci_attach.VhciAttachment.run`.
    """
    from demail_hw_drivers.vhci_attach import VhciAttachment

    attachment = VhciAttachment(
        target.address,
        limits=target.limits,
        tell=lambda event: _tell(show, reader, event),
        beat=watchdog(),
        is_off=target.is_off,
    )
    with attachment, _stopped_by_signals(attachment):
        end = attachment.run()
        notify(STOPPING)
        show({"reader": str(reader), "end": end.value}, f"{reader}: {end.value}")


def _tell(show: Show, reader: Address, event: BindingEvent) -> None:
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=time.monotonic() - event.at)
    facts = {
        "reader": str(reader),
        "at": at.isoformat(),
        "before": event.before.value,
        "state": event.state.value,
        "reason": event.reason,
    }
    text = f"{event.state.value}{f': {event.reason}' if event.reason else ''}"
    show(facts, printable(f"{at.astimezone().isoformat(' ', 'seconds')}  {reader}  {text}"))
    ready = [READY] if event.state is BindingState.ATTACHED else []
    notify("\n".join((*ready, printable(f"STATUS={text}"))))


@contextlib.contextmanager
def _stopped_by_signals(attachment: "VhciAttachment") -> Iterator[None]:
    """The first signal lets the device go and ends well; another one, in the middle of that, ends at once."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature of a signal handler
        if stopped:
            raise SystemExit(SIGNALLED + number)
        stopped.append(number)
        attachment.stop()

    stopped: list[int] = []
    # Not one that is ignored: nohup does that with SIGHUP.
    handled = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
