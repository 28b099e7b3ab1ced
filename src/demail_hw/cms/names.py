"""Distinguished names as senders write them (RFC 5280, 4.1.2.4): compared, and shown to people."""

from typing import Final

from asn1crypto import x509

__all__ = ["printable_name", "same_name"]

MAX_NAME: Final = 4096
"""Octets of a name that we look into. The reader of asn1crypto takes quadratic time over a long identifier."""

MAX_SHOWN: Final = 200
_BROKEN: Final = (ValueError, TypeError, KeyError)


def same_name(one: bytes, other: bytes) -> bool:
    """Are these encoded names equal by RFC 5280, 7.1? Senders re-encode them with other string types."""
    if one == other:
        return True
    if len(one) > MAX_NAME:
        return False
    try:
        return bool(x509.Name.load(one) == x509.Name.load(other))
    except _BROKEN:
        return False


def printable_name(name: bytes) -> str:
    """An encoded name for people: one short line without control characters, whoever wrote it."""
    try:
        text = str(x509.Name.load(name).human_friendly) if len(name) <= MAX_NAME else ""
    except _BROKEN:
        text = ""
    shown = "".join(char if char.isprintable() else "?" for char in text[:MAX_SHOWN])
    return shown or "an issuer whose name is broken"
