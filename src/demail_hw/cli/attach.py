"""``demail-hw attach`` and ``detach``: a reader of a USB server as one of this machine, for every program on it."""

import contextlib
import dataclasses
import datetime
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from demail_hw.address import Address
from demail_hw.cli.exit_codes import SIGNALLED
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option, printable
from demail_hw.cli.systemd_notify import READY, STOPPING, notify
from demail_hw.errors import ConfigurationError, DeviceNotFound
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits

if TYPE_CHECKING:
    from demail_hw_drivers.vhci import Origin, Vhci
    from demail_hw_drivers.vhci_attach import VhciAttachment

__all__ = ["attach_command", "detach_command", "watchdog"]

_BINDING: Final = "binding"
_WATCHDOG: Final = "WATCHDOG=1"
_MICROSECONDS: Final = 1_000_000
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """What is to be attached, and how long it is tried. ``is_off``: the switch of a binding."""

    address: Address
    limits: RetryLimits = dataclasses.field(default_factory=RetryLimits)
    is_off: Callable[[], bool] = lambda: False


@click.command("attach")
@click.argument("reader", type=ADDRESS, metavar="READER")
@click.option(
    "--attempts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Give up after N failures one after the other; 0 for never.  [default: 0, or as the binding says]",
)
@json_option
def attach_command(reader: Address, attempts: int | None, report: Report) -> None:
    """Attach a reader of a USB server to this kernel, and keep it attached until it is stopped or the reader is
    detached. READER is usbip:, usbips:, or binding:NAME with mode = "kernel" in the configuration.

    It needs root and the module vhci-hcd. Every program finds the reader then as if it were plugged in here, through
    pcsc: too. What the server sends is checked before the kernel sees it. Without a kernel, and without root, the
    usbip: address does the same for this program alone.
    """
    from demail_hw_drivers.vhci_attach import VhciAttachment

    target = _target(reader)
    limits = target.limits if attempts is None else dataclasses.replace(target.limits, attempts=attempts)
    beat = watchdog()
    attachment = VhciAttachment(
        target.address,
        limits=limits,
        tell=lambda event: _tell(report, reader, event),
        beat=beat,
        is_off=target.is_off,
    )
    with attachment, _stopped_by_signals(attachment):
        end = attachment.run()
        notify(STOPPING)
        report.show({"reader": str(reader), "end": end.value}, f"{reader}: {end.value}")


@click.command("detach")
@click.argument("what", metavar="PORT|READER")
@json_option
def detach_command(what: str, report: Report) -> None:
    """Take a reader off this kernel, by the port that usbip port shows, or by the address that it was attached by.
    The attach that keeps it ends then."""
    from demail_hw_drivers.vhci import Vhci

    vhci = Vhci()
    vhci.check()
    number = int(what) if what.isdecimal() else _port_of(vhci, ADDRESS.convert(what, None, None))
    vhci.detach(number)
    report.show({"detached": number}, f"port {number}: detached")


def _target(reader: Address) -> _Target:
    if reader.scheme != _BINDING:
        from demail_hw_drivers.usbips_reader import with_tls_files

        return _Target(with_tls_files(reader))
    from demail_hw.config.loading import load_configuration
    from demail_hw.config.schema import BindingMode
    from demail_hw.pin_ledger import state_directory
    from demail_hw_drivers.binding_switch import BindingSwitch

    name = reader.selector
    config = load_configuration().binding(name)
    if config.mode is not BindingMode.KERNEL or not config.enabled:
        raise ConfigurationError(
            f"The binding {name!r} is not one that the kernel attaches.",
            remedy='Write mode = "kernel", and see that it is enabled; or use it as it is, by its address.',
        )
    switch = BindingSwitch(state_directory())
    return _Target(config.address_of(name), config.retry, lambda: switch.is_off(name))


def _port_of(vhci: "Vhci", reader: Address) -> int:
    """The port whose device came from there."""
    from demail_hw_drivers.vhci_attach import server_of

    wanted = server_of(_target(reader).address)
    origins = {port.number: vhci.origin(port.number) for port in vhci.ports()}
    found = [number for number, origin in origins.items() if _came_from(origin, wanted, reader.bus_id)]
    if len(found) != 1:
        count = f"Ports {', '.join(map(str, found))} have devices" if found else "No port has a device"
        raise DeviceNotFound(f"{count} of {reader}.", remedy="Name the port: usbip port shows them.")
    return found[0]


def _came_from(origin: "Origin | None", server: tuple[str, int], bus_id: str | None) -> bool:
    return origin is not None and (origin.host, origin.port) == server and bus_id in (None, origin.bus_id)


def _tell(report: Report, reader: Address, event: BindingEvent) -> None:
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=time.monotonic() - event.at)
    facts: dict[str, JsonValue] = {
        "reader": str(reader),
        "at": at.isoformat(),
        "before": event.before.value,
        "state": event.state.value,
        "reason": event.reason,
    }
    text = f"{event.state.value}{f': {event.reason}' if event.reason else ''}"
    report.show(facts, printable(f"{at.astimezone().isoformat(' ', 'seconds')}  {reader}  {text}"))
    ready = [READY] if event.state is BindingState.ATTACHED else []
    notify("\n".join((*ready, printable(f"STATUS={text}"))))


def watchdog(environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """What tells systemd that we live (sd_watchdog_enabled(3)): at most twice in its time, however often it is
    called; nothing where no watchdog is set for this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return lambda: None
    pause = int(environment.get("WATCHDOG_USEC", "0")) / _MICROSECONDS / 2
    return _Watchdog(pause, environment) if pause else lambda: None


class _Watchdog:
    def __init__(self, pause: float, environment: Mapping[str, str]) -> None:
        self._pause = pause
        self._environment = environment
        self._due = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._pause
            notify(_WATCHDOG, self._environment)


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
