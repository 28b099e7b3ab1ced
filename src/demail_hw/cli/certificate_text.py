"""A certificate, and a file of the card that holds one, as JSON and as a line for people."""

from cryptography import x509

from demail_hw.card_manager.certificates import CertificateEntry
from demail_hw.cli.output import JsonValue
from demail_hw.foreign_text import printable
from demail_hw.keys.validity import Validity, validity_of

__all__ = ["certificate_facts", "entry_facts", "entry_line", "subject_of"]


def entry_facts(entry: CertificateEntry) -> dict[str, JsonValue]:
    """For JSON."""
    file, key = entry.file, entry.key
    return {
        "file": file.name,
        "kind": file.kind.value,
        "writable": file.writable,
        "state": entry.state.value,
        "form": entry.form.value if entry.form else None,
        "key": f"{key.reference:02X}" if key else None,
        "role": key.role.value if key else None,
        "in_use": entry.in_use,
        "validity": None if entry.certificate is None else validity_of(entry.certificate).value,
        "problem": entry.problem or None,
        **certificate_facts(entry.certificate),
    }


def certificate_facts(certificate: x509.Certificate | None) -> dict[str, JsonValue]:
    """For JSON; nothing without one."""
    if certificate is None:
        return {}
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial_number": f"{certificate.serial_number:X}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


def entry_line(entry: CertificateEntry, next_step: str) -> str:
    """For people."""
    file, certificate = entry.file, entry.certificate
    kind = f"{file.kind.value}{', writable' if file.writable else ''}"
    problem = f": {entry.problem}" if entry.problem else ""
    then = f"{'' if problem.endswith('.') else '.'} {next_step}" if next_step else ""
    if certificate is None:
        return f"{file.name:11}{kind:28}{entry.state.value}{problem}{then}"
    key = f"{entry.key.label}: " if entry.key else ""
    use = ", in use" if entry.in_use else ""
    return f"{file.name:11}{kind:28}{key}{subject_of(certificate)}, {_days(certificate)}{use}{problem}{then}"


def _days(certificate: x509.Certificate) -> str:
    first, last = (each.date() for each in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    match validity_of(certificate):
        case Validity.NOT_YET:
            return f"not valid before {first}, until {last}"
        case Validity.VALID:
            return f"until {last}"
        case Validity.EXPIRED:
            return f"expired {last}"


def subject_of(certificate: x509.Certificate | None) -> str:
    """For a terminal."""
    return "" if certificate is None else printable(certificate.subject.rfc4514_string())
