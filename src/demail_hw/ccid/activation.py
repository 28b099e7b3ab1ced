"""From an ATR to a card that takes APDUs, as the class descriptor asks for it (CCID 1.10, 3.2 and table 5.1-1).

::

    what the reader does itself       what is left to the host, in this order
    0x40  negotiates parameters       at the TPDU level: ask for the protocol
    0x80  PPS from the parameters     SetParameters
    neither, at the TPDU level        PPS, SetParameters
    0x400 not, T=1 at the TPDU level  ... and S(IFS request)

It does no I/O: a generator yields the commands, is sent the responses, or has the reader's refusals thrown in, and
returns the exchange level.
"""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from demail_hw.ccid.class_descriptor import CcidDescriptor, ExchangeLevel, Features
from demail_hw.ccid.code_points import ProtocolNumber
from demail_hw.ccid.exchange_levels import ExtendedApduLevel, Level, ShortApduLevel
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import Command, DataBlock, GetParameters, Parameters, Response, XfrBlock
from demail_hw.ccid.parameters import parameters_for
from demail_hw.ccid.tpdu_levels import T0Level, T1Level, t1_blocks_through
from demail_hw.errors import CardMute, Layer, Outcome, ProtocolViolation, ReaderError, SlotError
from demail_hw.iso7816.atr import DEFAULT_FI_DI, Atr, HistoricalBytes
from demail_hw.iso7816.pps import Pps, fastest
from demail_hw.iso7816.t1 import DEFAULT_IFSD, T1
from demail_hw.iso7816.t1_blocks import BLOCK_OVERHEAD, MAX_INFORMATION

__all__ = ["Activation", "PpsFailed", "activate", "check_reader"]

Activation: TypeAlias = Generator[Command, Response, Level]
"""A card on its way to its exchange level."""

_APDU_LEVELS: Final[Mapping[ExchangeLevel, Callable[[CcidDescriptor], Level]]] = MappingProxyType(
    {ExchangeLevel.EXTENDED_APDU: ExtendedApduLevel, ExchangeLevel.SHORT_APDU: ShortApduLevel}
)
_UNCHANGEABLE_PARAMETERS: Final = range(0x01, 0x80)
"""An index of a byte says "I do not let you change this": the reader has chosen itself."""

_OTHER_READER: Final = "Use another reader, or another card."


class PpsFailed(ReaderError):
    """The card did not agree to a PPS. It loses its power, and then takes what needs none (ISO 7816-3, 9.1)."""


class _Choice(NamedTuple):
    """Protocol and speed to work at; Fi and Di as TA1 has them."""

    protocol: int
    fi_di: int


def check_reader(descriptor: CcidDescriptor) -> None:
    """Can APDUs be exchanged with this reader at all?

    Errors: :class:`~demail_hw.errors.ReaderError` for one that exchanges characters, nothing was sent;
    :class:`~demail_hw.errors.ProtocolViolation` for one whose messages hold no data.
    """
    level = descriptor.exchange_level
    if level is ExchangeLevel.CHARACTER:
        raise ReaderError(
            f"The reader exchanges {level.value} (dwFeatures {descriptor.features:08X}); only readers that exchange"
            " TPDUs or APDUs are supported.",
            remedy="Use a reader of the TPDU or an APDU level, such as a uTrust 2700 F.",
        )
    least = HEADER_SIZE + 1 + (BLOCK_OVERHEAD if level is ExchangeLevel.TPDU else 0)
    if descriptor.max_message_length < least:
        raise ProtocolViolation(
            f"The reader broke the CCID protocol: its messages have {descriptor.max_message_length} bytes at most.",
            layer=Layer.READER,
        )


def activate(descriptor: CcidDescriptor, atr: Atr, *, negotiate: bool = True) -> Activation:
    """Make a card that was just reset ready for APDUs. ``negotiate``: False after a PPS failed.

    Errors, no command was sent: :class:`PpsFailed`; :class:`~demail_hw.errors.ReaderError` if reader and card have no
    protocol in common, and what is thrown in; :class:`~demail_hw.errors.CardMute` if T=1 does not begin.
    """
    features, level = descriptor.features, descriptor.exchange_level
    protocol = atr.first_protocol
    if Features.AUTO_PARAMETERS_NEGOTIATION not in features:
        choice = _choose(descriptor, atr) if negotiate else _Choice(protocol, DEFAULT_FI_DI)
        if level is ExchangeLevel.TPDU and Features.AUTO_PPS not in features:
            choice = yield from _agree(atr, choice)
        yield from _set_parameters(atr, choice)
        protocol = choice.protocol
    elif level is ExchangeLevel.TPDU:
        protocol = yield from _ask_reader(protocol)
    make = _APDU_LEVELS.get(level)
    return (yield from _begin(descriptor, atr, protocol)) if make is None else make(descriptor)


# --- Protocol and parameters --------------------------------------------------------------------------------------


def _choose(descriptor: CcidDescriptor, atr: Atr) -> _Choice:
    """The first protocol of the card that the reader speaks, at the fastest that both can.

    A card in specific mode works as TA2 says, whoever likes that (ISO/IEC 7816-3:2006, 6.3.1 and 8.3).
    """
    mode = atr.specific_mode
    offered = atr.protocols if mode is None else (mode.protocol,)
    common = [t for t in offered if descriptor.protocols >> t & 1]
    if not common:
        named = ", ".join(f"T={t}" for t in offered)
        raise ReaderError(f"The card speaks {named}, which the reader does not understand.", remedy=_OTHER_READER)
    if mode is None:
        return _Choice(common[0], fastest(atr, clock=descriptor.default_clock, max_rate=descriptor.max_data_rate))
    if mode.implicit:
        raise ReaderError("The card works at a speed that its answer to reset does not tell.", remedy=_OTHER_READER)
    return _Choice(mode.protocol, atr.ta1)


def _agree(atr: Atr, choice: _Choice) -> Generator[Command, Response, _Choice]:
    """PPS by the host, unless the card works so anyway (ISO 7816-3, 9)."""
    if atr.specific_mode is not None or choice == (atr.protocols[0], DEFAULT_FI_DI):
        return choice
    request = Pps(choice.protocol, None if choice.fi_di == DEFAULT_FI_DI else choice.fi_di)
    try:
        block = yield XfrBlock((request.encode(),))
        answer = Pps.decode(block.data if isinstance(block, DataBlock) else b"")
    except (CardMute, SlotError, ProtocolViolation) as error:
        raise PpsFailed("The card does not answer the PPS.", outcome=Outcome.NOT_SENT) from error
    if not answer.answers(request):
        raise PpsFailed("The card answers the PPS with another one.", outcome=Outcome.NOT_SENT)
    return _Choice(choice.protocol, answer.agreed)


def _set_parameters(atr: Atr, choice: _Choice) -> Generator[Command, Response, None]:
    try:
        yield parameters_for(atr, choice.protocol, choice.fi_di)
    except SlotError as error:
        if error.code not in _UNCHANGEABLE_PARAMETERS:
            raise


def _ask_reader(first: int) -> Generator[Command, Response, int]:
    """The protocol that the reader has negotiated."""
    response = yield GetParameters()
    return response.protocol if isinstance(response, Parameters) else first


# --- The TPDU level -----------------------------------------------------------------------------------------------


def _begin(descriptor: CcidDescriptor, atr: Atr, protocol: int) -> Activation:
    match protocol:
        case ProtocolNumber.T0:
            return T0Level(extended=_understands_extended(atr))
        case ProtocolNumber.T1:
            return T1Level((yield from _begin_t1(descriptor, atr)))
        case _:
            raise ReaderError(f"The reader works with protocol {protocol:02X}, which is not supported.")


def _begin_t1(descriptor: CcidDescriptor, atr: Atr) -> Generator[Command, Response, T1]:
    """With S(IFS request) as the first block, unless the reader has sent it (CCID 1.10, table 5.1-1)."""
    limit = min(MAX_INFORMATION, descriptor.message_limit - HEADER_SIZE - BLOCK_OVERHEAD)
    ifsd = min(limit, descriptor.max_ifsd) or DEFAULT_IFSD
    t1 = T1(ifsc=atr.t1.ifsc, checksum=atr.t1.checksum, limit=limit)
    if ifsd != DEFAULT_IFSD and Features.AUTO_IFSD not in descriptor.features:
        yield from t1_blocks_through(t1.negotiate_ifsd(ifsd))
    return t1


def _understands_extended(atr: Atr) -> bool:
    """What the card's historical bytes say of itself; nothing else tells it."""
    try:
        capabilities = HistoricalBytes.decode(atr.historical).card_capabilities
    except ProtocolViolation:
        return False
    return capabilities is not None and capabilities.extended_length
