"""Access rules as data: which PIN opens what (ISO 7816-4, 9.3)."""

import dataclasses
from typing import Final

__all__ = ["ALWAYS", "LOCAL_REFERENCE", "NEVER", "READ_ONLY", "AccessRule", "FileRules", "any_pin"]

LOCAL_REFERENCE: Final = 0x80
"""Set in the reference of a PIN or key of the current DF, clear in one of the MF (ISO 7816-4, 11.5.1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class AccessRule:
    """``references``: the PINs of which any one opens the object; ``None``: it is free, empty: it is shut.

    ``once``: one use needs the PIN anew.
    """

    references: frozenset[int] | None
    once: bool = False


ALWAYS: Final = AccessRule(None)
NEVER: Final = AccessRule(frozenset())


def any_pin(*references: int, once: bool = False) -> AccessRule:
    """Any one of these PINs; local references mean the DF in which the object lies."""
    return AccessRule(frozenset(references), once)


@dataclasses.dataclass(frozen=True, slots=True)
class FileRules:
    """What each kind of access to a file needs. ``create``: making files in a DF."""

    read: AccessRule = ALWAYS
    update: AccessRule = NEVER
    create: AccessRule = NEVER
    delete: AccessRule = NEVER


READ_ONLY: Final = FileRules()
"""Free to read, and nothing else."""
