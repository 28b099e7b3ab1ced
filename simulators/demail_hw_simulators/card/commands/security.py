"""Keys at work: MANAGE SECURITY ENVIRONMENT, PERFORM SECURITY OPERATION, GET CHALLENGE (ISO 7816-4 and -8)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.status import StatusWord
from demail_hw.iso7816.tlv import decode_all
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw_simulators.card.commands.answers import (
    DONE,
    Handler,
    done,
    require_field,
    require_no_field,
    require_parameters,
)
from demail_hw_simulators.card.refusal import Refused
from demail_hw_simulators.card.security import CardState

__all__ = ["get_challenge", "manage_security_environment", "perform_security_operation"]

_ALGORITHM: Final = 0x80
_KEY: Final = 0x84
"""Data objects of a control reference template (ISO 7816-4, 10.3)."""

_NO_INDICATOR: Final = 0x00

_TEMPLATES: Final = frozenset(ControlReferenceTemplate)


def manage_security_environment(card: CardState, command: CommandApdu) -> ResponseApdu:
    """MANAGE SECURITY ENVIRONMENT, SET (ISO 7816-4, 11.5.11): the key for signatures or for decipherment.

    6A88: no such key here; 6A81: it is not for this; 6A80: the algorithm is not its own.
    """
    if command.p1 not in card.dialect.environment_p1 or command.p2 not in _TEMPLATES:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    template = ControlReferenceTemplate(command.p2)
    objects = _decode(require_field(command))
    key = card.directory.keys.get(objects[_KEY])
    if key is None:
        raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
    if template not in key.templates:
        raise Refused(StatusWord.FUNCTION_NOT_SUPPORTED)
    if _ALGORITHM in objects and objects[_ALGORITHM] not in card.dialect.algorithms[template]:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    card.environment[template] = key
    return DONE


def _decode(data: bytes) -> Mapping[int, int]:
    """The references in a template, by tag; there must be one of a key."""
    try:
        objects = decode_all(data)
    except ProtocolViolation:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD) from None
    references = {each.tag: each.value[0] for each in objects if len(each.value) == 1}
    if len(references) != len(objects) or _KEY not in references or references.keys() - {_ALGORITHM, _KEY}:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    return references


def perform_security_operation(card: CardState, command: CommandApdu) -> ResponseApdu:
    """PERFORM SECURITY OPERATION (ISO 7816-8): the operation is in P1-P2."""
    operation = _OPERATIONS.get((command.p1, command.p2))
    if operation is None:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    return operation(card, command)


def _compute_digital_signature(card: CardState, command: CommandApdu) -> ResponseApdu:
    data = require_field(command)
    key = card.signature_key()
    card.require(key.rule)
    signature = key.sign(data)
    if key.rule.once:
        card.use_up(key.rule)
    return done(signature)


def _decipher(card: CardState, command: CommandApdu) -> ResponseApdu:
    data = require_field(command)
    key = card.confidentiality_key()
    card.require(key.rule)
    unpad = card.dialect.padding_indicators.get(data[0])
    if unpad is None:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    return done(key.decipher(data[0], data[1:], unpad=unpad))


def _transform_block(card: CardState, command: CommandApdu) -> ResponseApdu:
    """The plain operation on a block without an indicator: so netkey-tool reads the initial PUK of a TCOS 2 card."""
    if not card.dialect.bare_blocks:
        raise Refused(StatusWord.INCORRECT_P1_P2)
    data = require_field(command)
    key = card.confidentiality_key()
    card.require(key.rule)
    return done(key.decipher(_NO_INDICATOR, data, unpad=False))


_Operation: TypeAlias = tuple[int, int]
_OPERATIONS: Final[Mapping[_Operation, Handler]] = MappingProxyType(
    {(0x9E, 0x9A): _compute_digital_signature, (0x80, 0x86): _decipher, (0x84, 0x80): _transform_block}
)


def get_challenge(card: CardState, command: CommandApdu) -> ResponseApdu:
    """GET CHALLENGE (ISO 7816-4, 11.5.3): as many random bytes as are expected."""
    require_parameters(command, 0, 0)
    require_no_field(command)
    return done(card.random(command.ne))
