"""CCID messages fit to be shown: the data of commands that may carry a PIN, and what a DECIPHER returns, are masked.
So is all of a Secure message, and what an Escape says to a reader whose escapes are not known here, or it to us.

The same bytes are masked as in an APDU trace (:mod:`demail_hw.iso7816.trace`), in an APDU as in the T=1 blocks and
the chains that carry one. Where it is not sure what a block is, it is read every way that it can be meant, and masked
wherever one of them says so: rather a byte too many.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from demail_hw.ccid.class_descriptor import CcidInterface, ExchangeLevel, ccid_interfaces
from demail_hw.ccid.code_points import LevelParameter, MessageType
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import Header
from demail_hw.errors import ProtocolViolation
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import BadBlock, Block, IBlock, checksum_size, decode_block
from demail_hw.iso7816.trace import MASKED, DecipherMask, TraceEntry, mask
from demail_hw.usb.descriptors import DescriptorType, DeviceDescriptor, EndpointDescriptor
from demail_hw.usb.setup import SetupPacket, StandardRequest
from demail_hw.usbip.capture import MASK
from demail_hw.usbip.messages import CmdSubmit, Direction

__all__ = ["CcidMask"]

_IN: Final = int(Direction.IN)
_APDU_LEVELS: Final = frozenset({ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU})
_ENDPOINT_IN: Final = 0x80
_ENDPOINT_NUMBER: Final = 0x0F
_PROLOGUE: Final = 3
_SMALLEST_PACKET: Final = 8
"""Every packet size of a bulk pipe is a multiple (USB 2.0, 5.8.3): a transfer of another length ends a message."""
_STATUS_SIZE: Final = 2
_HEADER_AND_LC: Final = 5
_HEADER_AND_EXTENDED_LC: Final = 7
_LC: Final = 4
_FIRST_ANSWER: Final = 0x80
_COMMANDS: Final = frozenset(kind for kind in MessageType if kind < _FIRST_ANSWER)
_POWER: Final = frozenset({MessageType.ICC_POWER_ON, MessageType.ICC_POWER_OFF})
_ESCAPES: Final = frozenset({MessageType.ESCAPE, MessageType.ESCAPE_DATA})
_UTRUST: Final = 0x04E6
"""The vendor whose escapes are those of :mod:`demail_hw.ccid.utrust_escape`: none has a PIN."""
_BEGINS: Final = frozenset({LevelParameter.WHOLE, LevelParameter.BEGINS})
_ENDS: Final = frozenset({LevelParameter.WHOLE, LevelParameter.ENDS})


class CcidMask:
    """A :data:`~demail_hw.usbip.capture.Mask` for one connection with a device: a conversation for each interface,
    and one for all pipes that belong to none that is known."""

    __slots__ = ("_conversations", "_of_pipe", "_others")

    def __init__(self) -> None:
        self._others = _Conversation()
        self._conversations: dict[int, _Conversation] = {}
        self._of_pipe: dict[tuple[bool, int], _Conversation] = {}

    def __call__(self, command: CmdSubmit, data: bytes) -> bytes:
        """The data of one transfer."""
        if command.endpoint == 0:
            return self._control(command, data)
        inward = command.direction == _IN
        conversation = self._of_pipe.get((inward, command.endpoint), self._others)
        return conversation.answer(command.endpoint, data) if inward else conversation.command(data)

    def _control(self, command: CmdSubmit, data: bytes) -> bytes:
        if command.direction != _IN:
            return MASK * len(data)  # no request of a reader has data; those of a card without a reader hold APDUs
        setup = SetupPacket.decode(command.setup)
        if setup.request == StandardRequest.GET_DESCRIPTOR:
            with contextlib.suppress(ProtocolViolation):  # its first bytes only, or no reader
                self._learn(setup.value >> 8, data)
        return data

    def _learn(self, kind: int, descriptor: bytes) -> None:
        if kind == DescriptorType.CONFIGURATION:
            for interface in ccid_interfaces(descriptor):
                self._know(interface)
        elif kind == DescriptorType.DEVICE:
            known = DeviceDescriptor.decode(descriptor).vendor_id == _UTRUST
            for conversation in (self._others, *self._conversations.values()):
                conversation.known_escapes = known

    def _know(self, interface: CcidInterface) -> None:
        """Which setting and which configuration is used is not seen: those that share a number or a pipe are one
        conversation, of no level that is known, for good, if they differ in it."""
        pipes = tuple(map(_pipe, filter(None, (interface.bulk_out, interface.bulk_in, interface.interrupt_in))))
        met = (self._conversations.get(interface.number), *map(self._of_pipe.get, pipes))
        known = [each for each in met if each is not None]
        level = interface.descriptor.exchange_level
        conversation = known[0] if known else _Conversation(self._others.known_escapes, level)
        if any(each.level is not level for each in known):
            conversation.level = None
        joined = [pipe for pipe, each in self._of_pipe.items() if each in known]
        self._of_pipe.update(dict.fromkeys((*joined, *pipes), conversation))
        numbers = [number for number, each in self._conversations.items() if each in known]
        self._conversations.update(dict.fromkeys((*numbers, interface.number), conversation))


def _pipe(endpoint: EndpointDescriptor) -> tuple[bool, int]:
    """Its direction, is it inward, and its number."""
    return bool(endpoint.address & _ENDPOINT_IN), endpoint.address & _ENDPOINT_NUMBER


class _Conversation:
    """With the reader of one interface. ``level``: None if it is not known; ``known_escapes``: of the device."""

    __slots__ = ("_apdus", "_blocks", "_hidden_in", "_missing_in", "_missing_out", "known_escapes", "level")

    def __init__(self, known_escapes: bool = False, level: ExchangeLevel | None = None) -> None:
        self.known_escapes = known_escapes
        self.level = level
        self._hidden_in: set[int] = set()
        self._missing_out = 0
        self._missing_in: dict[int, int] = {}
        self._forget()

    def _forget(self) -> None:
        """The card lost its power: whatever was under way is over."""
        self._apdus = _Commands()
        self._blocks = _Blocks()

    def command(self, data: bytes) -> bytes:
        """A bulk-OUT transfer."""
        continues, self._missing_out = self._missing_out, _missing(data, self._missing_out)
        if continues or len(data) < HEADER_SIZE or data[0] not in _COMMANDS:
            return MASK * len(data)
        header = Header.decode(data)
        if header.message_type in _POWER:
            self._forget()
        if header.message_type == MessageType.SECURE or self._is_foreign(header.message_type):
            return data[:HEADER_SIZE] + MASK * (len(data) - HEADER_SIZE)
        if header.message_type != MessageType.XFR_BLOCK:
            return data
        block = data[HEADER_SIZE:]
        if header.length != len(block) or self.level is ExchangeLevel.CHARACTER:
            return data[:HEADER_SIZE] + MASK * len(block)
        return data[:HEADER_SIZE] + _union(block, self._readings(header, block))

    def _is_foreign(self, kind: int) -> bool:
        """An escape that may mean anything, or its answer."""
        return kind in _ESCAPES and not self.known_escapes

    def _readings(self, header: Header, block: bytes) -> Iterator[bytes]:
        """What can be meant, masked."""
        surely_t1 = self.level is ExchangeLevel.TPDU and _read(block) is not None
        if self.level not in _APDU_LEVELS:
            yield self._blocks.take(block)
        if not surely_t1:
            level = header.byte8 | header.byte9 << 8
            chains = self.level not in (ExchangeLevel.TPDU, ExchangeLevel.SHORT_APDU)
            yield self._apdus.take(block, begins=not chains or level in _BEGINS, ends=not chains or level in _ENDS)

    def answer(self, endpoint: int, data: bytes) -> bytes:
        """A bulk-IN or interrupt-IN transfer: one may come between two of the other."""
        continues = self._missing_in.get(endpoint, 0)
        self._missing_in[endpoint] = _missing(data, continues)
        if self._hides(endpoint, data, begins=not continues):
            shown = 0 if continues else HEADER_SIZE
            return data[:shown] + MASK * (len(data) - shown)
        if not self._apdus.deciphering and not self._blocks.deciphering:
            return data
        if continues:
            return MASK * len(data)
        if len(data) < HEADER_SIZE or data[0] != MessageType.DATA_BLOCK:
            return data
        block = data[HEADER_SIZE:]
        if self._missing_in[endpoint]:  # its last bytes are no status
            return data[:HEADER_SIZE] + MASK * len(block)
        masked = _response_block(block) if self.level not in _APDU_LEVELS else _response(block)
        return data[:HEADER_SIZE] + masked

    def _hides(self, endpoint: int, data: bytes, *, begins: bool) -> bool:
        """Is this of the answer to an escape that may mean anything?"""
        if begins:
            foreign = len(data) >= HEADER_SIZE and self._is_foreign(data[0])
            (self._hidden_in.add if foreign else self._hidden_in.discard)(endpoint)
        return endpoint in self._hidden_in


def _missing(data: bytes, missing: int) -> int:
    """How many bytes of its message follow this transfer."""
    if not missing and len(data) >= HEADER_SIZE:
        missing = HEADER_SIZE + Header.decode(data).length
    return 0 if len(data) % _SMALLEST_PACKET else max(0, missing - len(data))


# --- Commands ---------------------------------------------------------------------------------------------------


class _Commands:
    """Command APDUs, whole or in the pieces of a chain. ``deciphering``: what comes back is a secret."""

    __slots__ = ("_decipher", "_position", "_shown", "deciphering")

    def __init__(self) -> None:
        self._decipher = DecipherMask()
        self._position = 0
        self._shown: int | None = None
        self.deciphering = False

    def take(self, piece: bytes, *, begins: bool, ends: bool) -> bytes:
        """The next piece, masked."""
        if begins:
            self.deciphering = self._decipher.mark(TraceEntry(mask((piece,)), "")).deciphered
            self._position = 0
            self._shown = _shown(piece)
        if begins and ends:
            return _whole(piece)
        position, self._position = self._position, self._position + len(piece)
        shown = len(piece) if self._shown is None else max(0, min(len(piece), self._shown - position))
        masked = piece[:shown] + MASK * (len(piece) - shown)
        if begins:
            return masked
        # The chain may have been broken off, and this be a command of its own, or the beginning of one.
        if _shown(piece) is not None:
            self._shown = 0
        return _union(piece, iter((masked, _whole(piece))))


def _whole(command: bytes) -> bytes:
    return bytes.fromhex(mask((command,)).replace(MASKED, MASK.hex()))


def _shown(piece: bytes) -> int | None:
    """How many bytes of the chain that this one begins may be shown; ``None`` for all."""
    if len(piece) > 1 and MASKED not in mask((bytes((0, piece[1], 0, 0, 1, 0)),)):
        return None
    return _HEADER_AND_EXTENDED_LC if len(piece) > _LC and not piece[_LC] else _HEADER_AND_LC


class _Blocks:
    """T=1 blocks (ISO/IEC 7816-3:2006, 11) with commands in them."""

    __slots__ = ("_commands", "_last", "_masked", "_more")

    def __init__(self) -> None:
        self._commands = _Commands()
        self._more = False
        self._last = hash(b"")  # not the block, which may hold a PIN
        self._masked = b""

    @property
    def deciphering(self) -> bool:
        """What comes back is a secret."""
        return self._commands.deciphering

    def take(self, encoded: bytes) -> bytes:
        """A block, masked; its error detection code too, because it tells of what is masked."""
        found = _read(encoded)
        if found is None:
            return encoded[:_PROLOGUE] + self._commands.take(encoded[_PROLOGUE:], begins=True, ends=True)
        block, end = found
        if not isinstance(block, IBlock):
            return encoded
        if hash(encoded) != self._last:  # else it is sent again: two in a row differ in N(S)
            self._last = hash(encoded)
            self._masked = self._next(block, encoded, end)
        return self._masked

    def _next(self, block: IBlock, encoded: bytes, end: int) -> bytes:
        begins, self._more = not self._more, block.more
        information = encoded[_PROLOGUE:end]
        masked = self._commands.take(information, begins=begins, ends=not block.more)
        code = encoded[end:] if masked == information else MASK * (len(encoded) - end)
        return encoded[:_PROLOGUE] + masked + code


def _read(encoded: bytes) -> tuple[Block, int] | None:
    """A block, and where its error detection code begins; ``None`` if it is none."""
    for edc in Checksum:
        try:
            return decode_block(encoded, edc), len(encoded) - checksum_size(edc)
        except BadBlock:
            continue
    return None


# --- Responses --------------------------------------------------------------------------------------------------


def _response(response: bytes) -> bytes:
    """Without its data."""
    data = len(response[:-_STATUS_SIZE])
    return MASK * data + response[data:]


def _response_block(encoded: bytes) -> bytes:
    """A block, or whatever comes in its place, without the data."""
    found = _read(encoded)
    if found is None:
        return _response(encoded)
    block, end = found
    if not isinstance(block, IBlock):
        return encoded
    information = encoded[_PROLOGUE:end]
    masked = MASK * len(information) if block.more else _response(information)
    return encoded[:_PROLOGUE] + masked + MASK * (len(encoded) - end)


def _union(data: bytes, readings: Iterator[bytes]) -> bytes:
    """Masked wherever one of the readings is."""
    masked = bytearray(data)
    for reading in readings:
        for index, (shown, true) in enumerate(zip(reading, data, strict=True)):
            if shown != true:
                masked[index] = shown
    return bytes(masked)
