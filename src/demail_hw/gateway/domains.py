"""What a gateway answers to ``GET /domains``: the De-Mail domains of the certificate's owner.

The interfaces of the real gateways are not public; this one is the simulated gateway's.
"""

import dataclasses
import json
import re
from typing import Final, Self

from demail_hw.errors import ProtocolViolation

__all__ = ["DOMAINS_PATH", "DomainList"]

DOMAINS_PATH: Final = "/domains"

_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+", re.ASCII)
"""RFC 1123, 2.1; at least two labels."""
_MAX_DOMAIN: Final = 253


@dataclasses.dataclass(frozen=True, slots=True)
class DomainList:
    """``owner``: the organisation that the gateway takes the card's holder for."""

    owner: str
    domains: tuple[str, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From JSON (RFC 8259). ``ValueError`` if it is not JSON, ``ProtocolViolation`` if it says something else."""
        try:
            value: object = json.loads(body)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
        if not isinstance(value, dict):
            raise ProtocolViolation("The answer is not a JSON object.")
        return cls(_owner(value.get("owner")), _domains(value.get("domains")))


def _owner(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ProtocolViolation("'owner' is not a printable string.")
    return value


def _domains(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ProtocolViolation("'domains' is not a list.")
    return tuple(map(_domain, value))


def _domain(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_DOMAIN or not _DOMAIN.fullmatch(value):
        raise ProtocolViolation("'domains' holds something that is not a domain name.")
    return value
