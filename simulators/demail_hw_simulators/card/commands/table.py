"""Instruction byte -> class byte and handler."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from demail_hw_simulators.card.commands import data, management, pins, security, select
from demail_hw_simulators.card.commands.answers import Handler

__all__ = ["COMMANDS", "Command", "Instruction"]


class Instruction(enum.IntEnum):
    """INS (ISO 7816-4, 5.4.2; ISO 7816-8 and -9; AA and EE are TCOS')."""

    DEACTIVATE_FILE = 0x04
    VERIFY = 0x20
    MANAGE_SECURITY_ENVIRONMENT = 0x22
    CHANGE_REFERENCE_DATA = 0x24
    PERFORM_SECURITY_OPERATION = 0x2A
    RESET_RETRY_COUNTER = 0x2C
    ACTIVATE_FILE = 0x44
    GET_CHALLENGE = 0x84
    SELECT = 0xA4
    LIST = 0xAA
    READ_BINARY = 0xB0
    READ_RECORD = 0xB2
    UPDATE_BINARY = 0xD6
    UPDATE_RECORD = 0xDC
    CREATE_FILE = 0xE0
    APPEND_RECORD = 0xE2
    DELETE_FILE = 0xE4
    SET_PERMANENT = 0xEE


class Command(NamedTuple):
    """``cla``: the only class byte that the instruction has here."""

    cla: int
    handler: Handler


_INTERINDUSTRY: Final = 0x00
_TCOS: Final = 0x80

COMMANDS: Final[Mapping[int, Command]] = MappingProxyType(
    {
        Instruction.DEACTIVATE_FILE: Command(_INTERINDUSTRY, management.deactivate_file),
        Instruction.VERIFY: Command(_INTERINDUSTRY, pins.verify),
        Instruction.MANAGE_SECURITY_ENVIRONMENT: Command(_INTERINDUSTRY, security.manage_security_environment),
        Instruction.CHANGE_REFERENCE_DATA: Command(_INTERINDUSTRY, pins.change_reference_data),
        Instruction.PERFORM_SECURITY_OPERATION: Command(_INTERINDUSTRY, security.perform_security_operation),
        Instruction.RESET_RETRY_COUNTER: Command(_INTERINDUSTRY, pins.reset_retry_counter),
        Instruction.ACTIVATE_FILE: Command(_INTERINDUSTRY, management.activate_file),
        Instruction.GET_CHALLENGE: Command(_INTERINDUSTRY, security.get_challenge),
        Instruction.SELECT: Command(_INTERINDUSTRY, select.select),
        Instruction.LIST: Command(_TCOS, management.list_or_identify),
        Instruction.READ_BINARY: Command(_INTERINDUSTRY, data.read_binary),
        Instruction.READ_RECORD: Command(_INTERINDUSTRY, data.read_record),
        Instruction.UPDATE_BINARY: Command(_INTERINDUSTRY, data.update_binary),
        Instruction.UPDATE_RECORD: Command(_INTERINDUSTRY, data.update_record),
        Instruction.CREATE_FILE: Command(_TCOS, management.create_file),
        Instruction.APPEND_RECORD: Command(_INTERINDUSTRY, data.append_record),
        Instruction.DELETE_FILE: Command(_TCOS, management.delete_file),
        Instruction.SET_PERMANENT: Command(_TCOS, management.set_permanent),
    }
)
"""Any other instruction is answered 6D00, GET RESPONSE among them: a T=1 card has nothing left to give."""
