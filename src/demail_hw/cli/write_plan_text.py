"""What is to be written into a certificate file of the card, or was, as JSON and in sentences for people."""

from cryptography import x509

from demail_hw.card_manager.file_writing import Write
from demail_hw.card_manager.write_plans import KeyUse, WritePlan
from demail_hw.cli.certificate_text import certificate_facts, entry_facts, subject_of
from demail_hw.cli.output import JsonValue

__all__ = ["done_text", "intention", "plan_facts", "would_text", "write_facts"]


def plan_facts(plan: WritePlan) -> dict[str, JsonValue]:
    """For JSON."""
    return {
        "file": plan.file.name,
        "size": plan.size,
        "before": entry_facts(plan.before),
        "form": plan.form.value if plan.form else None,
        "bytes": plan.length,
        "identity": None if plan.use is None else _use_facts(plan.use),
        "warnings": list(plan.warnings),
        **certificate_facts(plan.certificate),
    }


def _use_facts(use: KeyUse) -> JsonValue:
    return {
        "key": f"{use.key.reference:02X}",
        "role": use.key.role.value,
        "before": certificate_facts(use.before) or None,
        "after": certificate_facts(use.after) or None,
    }


def write_facts(write: Write) -> JsonValue:
    """For JSON."""
    return {"offset": write.offset, "bytes": len(write.data)}


def intention(plan: WritePlan) -> str:
    """What is about to be done, before a question."""
    there = subject_of(plan.before.certificate) or plan.before.state.value
    if plan.certificate is None or plan.form is None:
        what = f"{plan.file.name} becomes empty; now it holds: {there}."
    else:
        what = (
            f"{plan.file.name} gets the certificate {subject_of(plan.certificate)} ({plan.form.value}, {plan.length} "
            f"of {plan.size} bytes); now it holds: {there}."
        )
    return f"{what}{_use_line(plan.use, 'from then on')}"


def _use_line(use: KeyUse | None, when: str) -> str:
    """Which certificate whatever signs or opens TLS with the key shows; a line of its own, or nothing."""
    if use is None or use.before is use.after is None:
        return ""
    if use.before == use.after:
        return f"\nThe {use.key.label} is used with the same certificate as before: {_named(use.after)}."
    return f"\nThe {use.key.label} is used with {_named(use.after)} {when}; before with {_named(use.before)}."


def _named(certificate: x509.Certificate | None) -> str:
    """With its number: a renewed one has the same subject."""
    if certificate is None:
        return "no certificate"
    until = certificate.not_valid_after_utc.date().isoformat()
    return f"{subject_of(certificate)} (serial number {certificate.serial_number:X}, until {until})"


def would_text(plan: WritePlan) -> str:
    """Of a dry run."""
    if not plan.writes:
        return done_text(plan)
    writes = "\n".join(f"  UPDATE BINARY at {write.offset}: {len(write.data)} bytes" for write in plan.writes)
    return f"{intention(plan)}\n{writes}\nNothing was written."


def done_text(plan: WritePlan) -> str:
    """Of the deed."""
    if not plan.writes:
        what = "is empty" if plan.certificate is None else "holds this certificate"
        return f"{plan.file.name} {what} already; nothing was written.{_use_line(plan.use, 'from now on')}"
    if plan.certificate is None:
        return f"{plan.file.name} is empty now.{_use_line(plan.use, 'from now on')}"
    return (
        f"{plan.file.name} holds the certificate {subject_of(plan.certificate)} now; it was read back."
        f"{_use_line(plan.use, 'from now on')}"
    )
