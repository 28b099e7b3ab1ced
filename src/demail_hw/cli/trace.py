"""``demail-hw trace``: what a trace holds, and whether a card still answers so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from demail_hw.address import Address
from demail_hw.cli.card_access import compare_with
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.options import ADDRESS
from demail_hw.cli.output import JsonValue, Report, json_option, printable
from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.command_names import CommandView, answer_meaning, command_name
from demail_hw.iso7816.trace import MASKED, Trace, TraceEntry
from demail_hw.traces.comparison import Difference, Skipped
from demail_hw.traces.files import read_trace

__all__ = ["trace_command"]

_SHOWN_DIGITS: Final = 64
_AFTER_DIFFERENCES: Final = (
    "If the card is another one, or was changed, record it anew: demail-hw --trace FILE COMMAND. If not, see what "
    "was sent before those lines: demail-hw trace show."
)
_INDENT: Final = " " * 6
# Where data objects are what one expects: the response to SELECT, READ and GET DATA, what MSE and PUT DATA send.
_ANSWERS_IN_TLV: Final = frozenset({0xA4, 0xB0, 0xB2, 0xCA, 0xCB})
_COMMANDS_IN_TLV: Final = frozenset({0x22, 0xDA, 0xDB})
_MOST_BYTES: Final = 128
"""A longer row of data objects, such as a certificate, is for another tool."""


@click.group("trace")
def trace_command() -> None:
    """What was recorded with --trace FILE; the address replay:FILE stands in for the card."""


@trace_command.command("show")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def show_command(path: Path, report: Report) -> None:
    """Show a trace in words: each command by its name, its lengths, and what the card said."""
    trace = read_trace(path)
    report.show(_facts(trace), "\n".join(_lines(trace)))


def _facts(trace: Trace) -> dict[str, JsonValue]:
    return {
        "reader": {"name": trace.reader or None, "serial": trace.serial},
        "atr": trace.atr.hex().upper() or None,
        "powered": [{"before": position + 1, "atr": atr.hex().upper()} for position, atr in trace.powered],
        "exchanges": [_exchange(number, entry) for number, entry in enumerate(trace.entries, start=1)],
    }


def _exchange(number: int, entry: TraceEntry) -> JsonValue:
    view = CommandView.of(entry.command)
    return {
        "number": number,
        "line": entry.line,
        "name": command_name(entry.command),
        "command": entry.command,
        **_parts(view),
        "response": entry.data if entry.response else None,
        "status": None if entry.status is None else f"{entry.status:04X}",
        "meaning": _meaning(entry),
        "objects": _objects(_answer_objects(entry, view)),
    }


def _parts(view: CommandView | None) -> dict[str, JsonValue]:
    if view is None:
        return dict.fromkeys(("cla", "ins", "p1", "p2", "nc", "ne", "data", "masked"))
    names = ("cla", "ins", "p1", "p2")
    header: dict[str, JsonValue] = {name: f"{byte:02X}" for name, byte in zip(names, view.header, strict=True)}
    return {**header, "nc": view.nc, "ne": view.ne, "data": view.data, "masked": view.masked}


def _meaning(entry: TraceEntry) -> str:
    if entry.status is not None:
        return answer_meaning(entry.command, entry.status)
    if entry.response:
        return "The response holds no status word that could be read."
    return f"No answer: {entry.failure}" if entry.failure else "No answer."


# --- Data objects ------------------------------------------------------------------------------------------------


def _answer_objects(entry: TraceEntry, view: CommandView | None) -> tuple[tlv.Tlv, ...]:
    return _decode(entry.data) if view and view.header[1] in _ANSWERS_IN_TLV else ()


def _command_objects(view: CommandView) -> tuple[tlv.Tlv, ...]:
    return _decode(view.data) if view.header[1] in _COMMANDS_IN_TLV else ()


def _decode(digits: str) -> tuple[tlv.Tlv, ...]:
    if MASKED in digits:
        return ()
    try:
        return tlv.decode_all(bytes.fromhex(digits), max_size=_MOST_BYTES)
    except ProtocolViolation:
        return ()


def _objects(found: tuple[tlv.Tlv, ...]) -> list[JsonValue]:
    return [
        {"tag": f"{each.tag:02X}", "objects": _objects(each.children)}
        if each.constructed
        else {"tag": f"{each.tag:02X}", "value": each.value.hex()}
        for each in found
    ]


def _objects_text(found: tuple[tlv.Tlv, ...]) -> str:
    return " ".join(
        f"{each.tag:02X}({_objects_text(each.children) if each.constructed else each.value.hex()})" for each in found
    )


# --- Text --------------------------------------------------------------------------------------------------------


def _lines(trace: Trace) -> Iterator[str]:
    serial = f", serial number {printable(trace.serial)}" if trace.serial else ""
    yield f"reader: {printable(trace.reader) or 'not known'}{serial}"
    yield f"ATR: {trace.atr.hex().upper() or 'not known'}"
    powered = dict(trace.powered)
    for position, entry in enumerate(trace.entries):
        if position in powered:
            yield f"powered anew, or changed without us, ATR: {powered[position].hex().upper() or 'not known'}"
        yield from _exchange_lines(position + 1, entry)
    yield f"{len(trace.entries)} exchanges"


def _exchange_lines(number: int, entry: TraceEntry) -> Iterator[str]:
    view = CommandView.of(entry.command)
    yield f"{number:4}  {command_name(entry.command)}  [{entry.command[:8].upper()}, line {entry.line}]"
    if view is not None:
        yield from _data_lines("sent", view.data, _command_objects(view))
        if view.nc is None:
            yield f"{_INDENT}The command is malformed: its length fields contradict its length."
    yield from _data_lines("got", entry.data, _answer_objects(entry, view))
    yield f"{_INDENT}{printable(_meaning(entry))}"


def _data_lines(what: str, digits: str, objects: tuple[tlv.Tlv, ...]) -> Iterator[str]:
    if digits:
        yield f"{_INDENT}{what} {len(digits) // 2}: {_shown(digits)}"
    if objects:
        yield f"{_INDENT}{' ' * len(what)} = {_objects_text(objects)}"


def _shown(digits: str) -> str:
    if MASKED in digits:
        return "masked"
    return digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}..."


# --- Replay ------------------------------------------------------------------------------------------------------


@trace_command.command("replay")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("address", metavar="URI", type=ADDRESS)
@click.option("--use-keys", is_flag=True, help="Send what signs, deciphers or authenticates too.")
@json_option
def replay_command(path: Path, address: Address, use_keys: bool, report: Report) -> None:
    """Send the commands of a trace to the card at URI, and say where it answers otherwise.

    Only what reads is sent: no PIN, nothing that may change the card, and nothing that uses a key without --use-keys.
    Exit code 4 if an answer differs.
    """
    found = compare_with(address, path, use_keys=use_keys)
    result: dict[str, JsonValue] = {
        "sent": found.sent,
        "differences": [_difference(each) for each in found.differences],
        "skipped": [_skipped(each) for each in found.skipped],
    }
    report.show(result, "\n".join(_told(found.sent, found.differences, found.skipped)))
    if found.differences:
        raise click.exceptions.Exit(ExitCode.CARD)


def _difference(each: Difference) -> JsonValue:
    return {
        "line": each.line,
        "command": each.command,
        "expected": each.expected,
        "got": each.got or None,
        "failure": each.failure or None,
    }


def _skipped(each: Skipped) -> JsonValue:
    return {"line": each.line, "command": each.command, "why": each.why}


def _told(sent: int, differences: tuple[Difference, ...], skipped: tuple[Skipped, ...]) -> Iterator[str]:
    for skip in skipped:
        yield f"line {skip.line}: {skip.command}: not sent: {skip.why}"
    for difference in differences:
        yield f"line {difference.line}: {difference.command}: the card answered otherwise"
        yield f"{_INDENT}trace: {_shown(difference.expected)}"
        yield f"{_INDENT}card:  {printable(difference.failure) or _shown(difference.got)}"
    yield f"{sent} commands sent, {len(differences)} differences, {len(skipped)} not sent"
    if differences:
        yield _AFTER_DIFFERENCES
