"""How PINs are, as commands say it: for a program, and for a person."""

from demail_hw.card_manager.pin_states import PinReport
from demail_hw.cli.output import JsonValue

__all__ = ["pin_facts", "pin_line", "pin_text"]


def pin_facts(report: PinReport) -> JsonValue:
    """For a program."""
    record = report.record
    return {
        "pin": report.pin.name.value,
        "state": report.status.state.value,
        "retries_left": report.status.retries_left,
        "ledger": None
        if record is None
        else {"state": record.state.value, "operation": record.operation.value, "at": record.at.isoformat()},
        "sentence": report.sentence,
        "next_step": report.next_step,
    }


def pin_line(report: PinReport) -> str:
    """One of a list."""
    return f"{report.pin.name.value:8}{pin_text(report)}"


def pin_text(report: PinReport) -> str:
    """How it is, and what to do next."""
    return f"{report.sentence} {report.next_step}".rstrip()
