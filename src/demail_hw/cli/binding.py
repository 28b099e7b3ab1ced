"""``demail-hw binding``: the bindings of the configuration, looked at, watched, switched off and on."""

import contextlib
import datetime
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from demail_hw.cli.output import JsonValue, Report, json_option, printable
from demail_hw.cli.simulator_process import ended_by_signals
from demail_hw.config.loading import load_configuration, read_configuration
from demail_hw.config.schema import BindingConfig
from demail_hw.errors import ConfigurationError, HardwareError
from demail_hw.pin_ledger import state_directory
from demail_hw.registry import find_readers
from demail_hw.usbip.binding import BindingEvent, BindingState

if TYPE_CHECKING:
    from demail_hw_drivers.binding_switch import BindingSwitch

__all__ = ["binding_command"]

_NO_BINDINGS: Final = "the configuration has no bindings"
_UNSEEN: Final = "absent, or in use"


@click.group("binding")
def binding_command() -> None:
    """The bindings of the configuration: readers on USB servers that are attached to whenever they are needed."""


@binding_command.command("status")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def status_command(names: tuple[str, ...], report: Report) -> None:
    """Tell of each binding whether it is on, and what its server lists now. No device is taken."""
    configuration = load_configuration()
    bindings = {name: configuration.binding(name) for name in names or sorted(configuration.bindings)}
    facts = [_status(name, config) for name, config in bindings.items()]
    report.show({"bindings": list(facts)}, _table(facts) if facts else _NO_BINDINGS)


@binding_command.command("watch")
@click.argument("name")
@json_option
def watch_command(name: str, report: Report) -> None:
    """Attach, stay attached, and tell every event in a line, until Ctrl-C or until all of retry.attempts failed. The
    reader is held meanwhile."""
    from demail_hw_drivers.binding_reader import bind

    config = load_configuration().binding(name)
    if not config.enabled:
        raise ConfigurationError(
            f"The binding {name!r} is not enabled.", remedy=f"Write enabled = true into [bindings.{name}]."
        )
    events: queue.SimpleQueue[BindingEvent] = queue.SimpleQueue()
    binding = bind(name, config)
    binding.listen(events.put)
    keeper = threading.Thread(target=binding.keep, name=f"binding {name}")
    with ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        keeper.start()
        try:
            while True:
                event = events.get()
                given_up = event.state is BindingState.OFF and binding.status.given_up
                report.show(_event_facts(name, event), _event_line(name, event, waits=not given_up))
                if given_up:
                    raise binding.refuse()
        finally:
            binding.close()
            keeper.join()


@binding_command.command("off")
@click.argument("name")
@json_option
def off_command(name: str, report: Report) -> None:
    """Switch a binding off: whoever keeps the device lets it go, and nobody attaches until it is switched on."""
    load_configuration().binding(name)
    _switch().switch_off(name)
    report.show({"binding": name, "on": False}, f"{name}: switched off")


@binding_command.command("on")
@click.argument("name")
@json_option
def on_command(name: str, report: Report) -> None:
    """Switch a binding on again. One that is not enabled in the configuration stays off."""
    loaded = read_configuration()
    enabled = loaded.configuration.binding(name).enabled
    _switch().switch_on(name)
    stays = f"the switch is on, but bindings.{name}.enabled is false in {loaded.file}"
    report.show({"binding": name, "on": True, "enabled": enabled}, printable(f"{name}: {'on' if enabled else stays}"))


def _switch() -> "BindingSwitch":
    from demail_hw_drivers.binding_switch import BindingSwitch

    return BindingSwitch(state_directory())


def _status(name: str, config: BindingConfig) -> dict[str, JsonValue]:
    on = not _switch().is_off(name)
    listed, trouble, remedy = _listed(name, config)
    return {
        "binding": name,
        "host": config.host,
        "device": config.serial or config.vid_pid or config.bus_id,
        "mode": config.mode.value,
        "enabled": config.enabled,
        "on": on,
        "state": _state(config, listed, trouble, on=on),
        "listed": list(listed),
        "trouble": trouble,
        "remedy": remedy,
    }


def _listed(name: str, config: BindingConfig) -> tuple[Sequence[str], str | None, str]:
    """The free readers that can be the device; what is in the way, and what to do."""
    try:
        return [info.address for info in find_readers(config.address_of(name))], None, ""
    except HardwareError as error:
        return (), error.message, error.remedy


def _state(config: BindingConfig, listed: Sequence[str], trouble: str | None, *, on: bool) -> str:
    """The first that is true. A listing tells no serial numbers."""
    states = (
        (not config.enabled, "not enabled"),
        (not on, "switched off"),
        (trouble is not None, "not reached"),
        (not listed, "not listed"),
        (config.serial is not None, "perhaps free"),
        (len(listed) > 1, "several fit"),
    )
    return next((state for applies, state in states if applies), "free")


_HEAD: Final = ("binding", "mode", "state", "device", "on the server")
_GAP: Final = "  "


def _table(bindings: Sequence[Mapping[str, JsonValue]]) -> str:
    rows = [_HEAD, *map(_row, bindings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(facts: Mapping[str, JsonValue]) -> tuple[str, ...]:
    listed = facts["listed"]
    assert isinstance(listed, list)
    remedy = f" {facts['remedy']}" if facts["remedy"] else ""
    seen = f"{facts['trouble']}{remedy}" if facts["trouble"] else ", ".join(map(str, listed)) or _UNSEEN
    device = f"{facts['device'] or 'the only reader'} at {facts['host']}"
    return tuple(map(printable, (str(facts["binding"]), str(facts["mode"]), str(facts["state"]), device, seen)))


def _event_facts(name: str, event: BindingEvent) -> dict[str, JsonValue]:
    return {
        "binding": name,
        "at": _moment(event).isoformat(),
        "before": event.before.value,
        "state": event.state.value,
        "reason": event.reason,
    }


def _event_line(name: str, event: BindingEvent, *, waits: bool) -> str:
    at = _moment(event).astimezone().isoformat(" ", "seconds")
    hint = f"Waiting for: demail-hw binding on {name}" if waits and event.state is BindingState.OFF else ""
    return printable("  ".join(filter(None, (at, name, event.state.value, event.reason, hint))))


def _moment(event: BindingEvent) -> datetime.datetime:
    ago = datetime.timedelta(seconds=time.monotonic() - event.at)
    return datetime.datetime.now(datetime.UTC) - ago
