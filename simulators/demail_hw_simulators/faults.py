"""Faults that one puts between two parts of the stack: a card or a reader that misbehaves on purpose. A network link
that does is :mod:`demail_hw_simulators.proxy`.

Each wraps the real thing and has the same interface, so it goes wherever that goes::

    card = FaultyCard(card, Truncated(2))
    device = FaultyReader(SimulatedUsbReader(card), WrongSequenceNumber())

Nothing here waits or is random: the same commands give the same faults.
"""

import dataclasses
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from demail_hw.ccid.code_points import CommandStatus, IccStatus, MessageType
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import Header, Status
from demail_hw.ccid.slot_errors import SlotErrorCode
from demail_hw.interfaces import ExportedDevice, Transfer, TransferResult
from demail_hw.usb.setup import RequestKind, SetupPacket
from demail_hw.usbip.messages import UrbStatus
from demail_hw_simulators.interfaces import SimulatedCard

__all__ = [
    "CardFault",
    "FaultyCard",
    "FaultyReader",
    "FlippedBit",
    "LyingLength",
    "MuteCard",
    "OneByteResponse",
    "ReaderFault",
    "SlotFailure",
    "TimeExtensionForEver",
    "Truncated",
    "WrongMessageType",
    "WrongSequenceNumber",
    "WrongSlot",
]

_STATUS_WORD_SIZE: Final = 2
_DIRECTION_IN: Final = 0x80
_PERFORM_SECURITY_OPERATION: Final = 0x2A


# --- Cards -----------------------------------------------------------------------------------------------------


class CardFault(Protocol):
    """What becomes of a response APDU."""

    def __call__(self, response: bytes) -> bytes:
        """The response that leaves the card instead; empty for a card that says nothing."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class FlippedBit:
    """The lowest bit of a response byte is wrong: a signature of the right form that is no signature.

    ``index``: which byte. A response with no data is left alone.
    """

    index: int = 0

    def __call__(self, response: bytes) -> bytes:
        """Flip it."""
        if len(response) <= _STATUS_WORD_SIZE + self.index:
            return response
        damaged = bytearray(response)
        damaged[self.index] ^= 1
        return bytes(damaged)


@dataclasses.dataclass(frozen=True, slots=True)
class Truncated:
    """``missing`` bytes at the end of the data are not there; the status word is."""

    missing: int = 2

    def __call__(self, response: bytes) -> bytes:
        """Cut them out."""
        data, status = response[:-_STATUS_WORD_SIZE], response[-_STATUS_WORD_SIZE:]
        return data[: max(0, len(data) - self.missing)] + status


@dataclasses.dataclass(frozen=True, slots=True)
class OneByteResponse:
    """Less than a status word comes."""

    def __call__(self, response: bytes) -> bytes:
        """The first byte of it."""
        return response[-_STATUS_WORD_SIZE:-1]


@dataclasses.dataclass(frozen=True, slots=True)
class MuteCard:
    """Nothing comes. A simulated reader makes ICC_MUTE of it."""

    def __call__(self, _response: bytes) -> bytes:
        """Nothing."""
        return b""


class FaultyCard:
    """A :class:`~demail_hw_simulators.interfaces.SimulatedCard` whose responses to one instruction are faulty.

    The card has acted all the same. ``instruction``: INS; PERFORM SECURITY OPERATION unless told otherwise, ``None``
    for every command. ``after``: how many of these are answered well before.
    """

    def __init__(
        self,
        card: SimulatedCard,
        fault: CardFault,
        *,
        instruction: int | None = _PERFORM_SECURITY_OPERATION,
        after: int = 0,
    ) -> None:
        self._card = card
        self._fault = fault
        self._instruction = instruction
        self._left = after

    def power_on(self) -> bytes:
        """As the card does it."""
        return self._card.power_on()

    def power_off(self) -> None:
        """As the card does it."""
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        """The card's response, with the fault."""
        response = self._card.transmit(command)
        if self._instruction is not None and command[1:2] != bytes((self._instruction,)):
            return response
        if self._left:
            self._left -= 1
            return response
        return self._fault(response)


# --- Readers ---------------------------------------------------------------------------------------------------


class ReaderFault(Protocol):
    """What becomes of a bulk-IN message. ``endless``: is it repeated until the command is aborted?"""

    @property
    def endless(self) -> bool:
        """True if there is no end of it."""
        ...

    def __call__(self, message: bytes) -> bytes:
        """The message that leaves the reader instead."""
        ...


class _Once:
    __slots__ = ()

    @property
    def endless(self) -> bool:
        """It happens once a command."""
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSequenceNumber:
    """bSeq is that of another command, ``offset`` further on; ``endless``: again and again, instead of once."""

    offset: int = 1
    endless: bool = False

    def __call__(self, message: bytes) -> bytes:
        """Change bSeq."""
        header = Header.decode(message)
        return _with_header(header._replace(seq=header.seq + self.offset & 0xFF), message)


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSlot(_Once):
    """bSlot names a slot that the reader does not have."""

    slot: int = 1

    def __call__(self, message: bytes) -> bytes:
        """Change bSlot."""
        return _with_header(Header.decode(message)._replace(slot=self.slot), message)


@dataclasses.dataclass(frozen=True, slots=True)
class WrongMessageType(_Once):
    """bMessageType is that of the answer to something else."""

    message_type: int = MessageType.ESCAPE_DATA

    def __call__(self, message: bytes) -> bytes:
        """Change bMessageType."""
        return _with_header(Header.decode(message)._replace(message_type=self.message_type), message)


@dataclasses.dataclass(frozen=True, slots=True)
class LyingLength(_Once):
    """dwLength is not the number of bytes that follow, but ``difference`` more, or exactly ``length``."""

    difference: int = 1
    length: int | None = None

    def __call__(self, message: bytes) -> bytes:
        """Change dwLength."""
        header = Header.decode(message)
        length = header.length + self.difference if self.length is None else self.length
        return _with_header(header._replace(length=length), message)


@dataclasses.dataclass(frozen=True, slots=True)
class SlotFailure(_Once):
    """The command fails with this bError and bmICCStatus, although the card has acted."""

    code: int = SlotErrorCode.ICC_MUTE
    icc: IccStatus = IccStatus.ACTIVE

    def __call__(self, message: bytes) -> bytes:
        """A failure instead."""
        return _empty(message, Status(self.icc, CommandStatus.FAILED), self.code)


@dataclasses.dataclass(frozen=True, slots=True)
class TimeExtensionForEver:
    """The card asks for more time, and again, until the command is aborted."""

    multiplier: int = 1

    @property
    def endless(self) -> bool:
        """There is no end of it."""
        return True

    def __call__(self, message: bytes) -> bytes:
        """A time extension instead."""
        return _empty(message, Status(IccStatus.ACTIVE, CommandStatus.TIME_EXTENSION), self.multiplier)


Complete: TypeAlias = Callable[[TransferResult], None]


class FaultyReader:
    """An :class:`~demail_hw.interfaces.ExportedDevice` around another one, whose bulk-IN messages are faulty.

    ``command``: only the answers to this bulk-OUT message are touched, those to XfrBlock unless told otherwise.
    ``after``: how many of these are left alone before. ``times``: how many are touched, ``None`` for all.
    """

    def __init__(
        self,
        device: ExportedDevice,
        fault: ReaderFault,
        *,
        command: MessageType = MessageType.XFR_BLOCK,
        after: int = 0,
        times: int | None = None,
    ) -> None:
        self._device = device
        self._fault = fault
        self._command = command
        self._left = after
        self._times = times
        self._armed = False
        self._endless: bytes | None = None

    @property
    def device_descriptor(self) -> bytes:
        """That of the device."""
        return self._device.device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        """That of the device."""
        return self._device.configuration_descriptor

    @property
    def serial(self) -> str:
        """That of the device."""
        return self._device.serial

    @property
    def speed(self) -> int:
        """That of the device."""
        return self._device.speed

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        """The device's own, but for what the fault makes of its answers."""
        if transfer.setup:
            self._look_for_abort(transfer)
        elif not transfer.endpoint & _DIRECTION_IN:
            self._armed = transfer.data[:1] == bytes((self._command,))
        elif self._endless is not None:
            complete(TransferResult(UrbStatus.OK, self._endless))
            return
        else:
            self._device.submit(transfer, lambda result: complete(self._touch(result)))
            return
        self._device.submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        """The device's own."""
        return self._device.cancel(transfer)

    def reset(self) -> None:
        """The device's own; an endless fault ends."""
        self._endless = None
        self._device.reset()

    def _look_for_abort(self, transfer: Transfer) -> None:
        setup = SetupPacket.decode(transfer.setup)
        if setup.kind is RequestKind.CLASS and not setup.direction_in:
            self._endless = None

    def _touch(self, result: TransferResult) -> TransferResult:
        if not self._armed or len(result.data) < HEADER_SIZE:
            return result
        self._armed = False
        if self._left:
            self._left -= 1
            return result
        if self._times is not None:
            if not self._times:
                return result
            self._times -= 1
        message = self._fault(result.data)
        self._endless = message if self._fault.endless else None
        return TransferResult(result.status, message)


def _with_header(header: Header, message: bytes) -> bytes:
    return header.encode() + message[HEADER_SIZE:]


def _empty(message: bytes, status: Status, error: int) -> bytes:
    """An answer of the same type and number, without data."""
    return Header.decode(message)._replace(length=0, byte7=status.encode(), byte8=error, byte9=0).encode()
