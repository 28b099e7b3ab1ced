"""What the commands of one operating system look like where ISO 7816 leaves it open, as data."""

import dataclasses
from collections.abc import Mapping

from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw.tcos.public_key_file import RecordForm

__all__ = ["Dialect"]


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    """One operating system's commands.

    ``extended_length``: whether it understands extended length fields. ``environment_p1``: P1 of MANAGE SECURITY
    ENVIRONMENT. ``algorithms``: the algorithm references that MSE accepts; they may always be left out.

    ``padding_indicators``: those that DECIPHER accepts, and whether the card takes the padding away for them.
    ``bare_blocks``: whether PSO with P1-P2 = 8480 takes a block without an indicator.
    ``public_key_records``: the form of EF.PK.

    ``null_pin``: what stands for the old PIN when the first one is set. ``longest_pin``: in bytes.
    ``change_verifies``: whether a PIN counts as verified after it was changed by its own old value.

    ``keeps_local_pins``: whether a verified PIN of a DF stays so when another DF becomes current.
    ``keeps_environment``: whether the security environment outlives the selection of the DF that is current already.
    """

    extended_length: bool
    environment_p1: frozenset[int]
    algorithms: Mapping[ControlReferenceTemplate, frozenset[int]]
    padding_indicators: Mapping[int, bool]
    bare_blocks: bool
    public_key_records: RecordForm
    null_pin: bytes
    longest_pin: int
    change_verifies: bool
    keeps_local_pins: bool
    keeps_environment: bool
