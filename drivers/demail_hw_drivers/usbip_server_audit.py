"""The server's audit: a line for each import, granted or not, and one when the device is free again."""

import dataclasses
import datetime
import enum
import json
import logging
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["AuditAction", "AuditLine", "AuditSink", "log_audit", "now"]

_LOG = logging.getLogger(__name__)


class AuditAction(enum.Enum):
    """What happened."""

    IMPORT = "import"
    RELEASE = "release"


@dataclasses.dataclass(frozen=True, slots=True)
class AuditLine:
    """``time``: UTC, RFC 3339. ``certificate``: the peer's SHA-256 fingerprint, empty without TLS.

    ``result``: of an import ``granted``, ``no such device``, ``not allowed`` or ``busy``; of a release, why it ended.
    The last four belong to a release: transfers, their bytes, and seconds since the import. No payload is ever in it.
    """

    time: str
    action: AuditAction
    peer: str
    certificate: str
    subject: str
    bus_id: str
    serial: str
    result: str
    urbs: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0

    def as_json(self) -> str:
        """One line; whatever a peer sent stands in it as an ASCII string."""
        return json.dumps(
            {**dataclasses.asdict(self), "action": self.action.value, "seconds": round(self.seconds, 3)}
        )

    def __str__(self) -> str:
        facts = {**dataclasses.asdict(self), "seconds": f"{self.seconds:.3f}"}
        del facts["action"], facts["time"]
        return f"{self.action.value} " + " ".join(f"{key}={json.dumps(value)}" for key, value in facts.items())


AuditSink: TypeAlias = Callable[[AuditLine], None]
"""Takes a line, from any thread. ``OSError`` if it cannot: that is logged, and the service goes on."""


def log_audit(line: AuditLine) -> None:
    """The usual sink: the log, at level INFO."""
    _LOG.info("%s", line)


def now() -> str:
    """The present moment as an audit line has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
