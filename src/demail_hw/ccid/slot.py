"""One slot of a reader over a USB transport: every command passes here, and is in step or the card is lost."""

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from demail_hw.ccid.activation import PpsFailed, activate, check_reader
from demail_hw.ccid.class_descriptor import CcidInterface
from demail_hw.ccid.code_points import CommandStatus, IccStatus, PowerSelect
from demail_hw.ccid.exchange_levels import ExtendedApduLevel, Level
from demail_hw.ccid.host import CcidHost, Event, NeedData, TimeExtension
from demail_hw.ccid.messages import (
    Command,
    DataBlock,
    Escape,
    EscapeData,
    GetSlotStatus,
    IccPowerOff,
    IccPowerOn,
    Response,
    Status,
    XfrBlock,
)
from demail_hw.ccid.slot_errors import SlotErrorCode, slot_error
from demail_hw.errors import (
    CardRemoved,
    DeadlineExceeded,
    HardwareError,
    Layer,
    NoCard,
    Outcome,
    ProtocolViolation,
    ReaderError,
    TransferStalled,
)
from demail_hw.interfaces import Buffers, CardLimits, Deadline, UsbTransport
from demail_hw.iso7816.atr import Atr
from demail_hw.lost_connection import LostConnection

__all__ = ["Slot"]

_ACTIVE: Final = Status.decode(0)
_MIN_RESPONSE: Final = 2
_UNPLUG: Final = "Open the reader anew; if that does not help, unplug it."
_CLASS_OF: Final[Mapping[PowerSelect, int]] = MappingProxyType(
    {PowerSelect.VOLTAGE_5_0: 1, PowerSelect.VOLTAGE_3_0: 2, PowerSelect.VOLTAGE_1_8: 4}
)
"""As :attr:`~demail_hw.iso7816.atr.Atr.classes` has it."""
_SAYS_NOTHING_OF_THE_CARD: Final = frozenset({SlotErrorCode.CMD_SLOT_BUSY, SlotErrorCode.CMD_ABORTED})
"""Why an IccPowerOn failed, where another voltage changes nothing."""


class Slot:
    """The only slot of a reader. Not safe for threads: its caller holds the card's lock.

    ``epoch`` changes whenever the card's state may have been lost: by power on and off, by removal, and by a command
    whose answer did not come. After such a command the reader is out of step until :meth:`recover`, which every
    operation but :meth:`transmit` begins with, under its own deadline. ``lost``: why the epoch changed the last time.
    ``owner``: who powered the card last. ``powered``: it may have power. ``now``: the clock.
    """

    def __init__(
        self,
        transport: UsbTransport,
        interface: CcidInterface,
        *,
        first_read: int | None,
        now: Callable[[], float] = float,
    ) -> None:
        self.epoch = 0
        self.lost = LostConnection.by()
        self.owner: object = None
        self.powered = False
        self._now = now
        self._unheeded_since: float | None = None
        self._transport = transport
        self._interface = interface
        check_reader(interface.descriptor)
        # Which level it is depends on the card too: this one stands until there is a card.
        self._level: Level = ExtendedApduLevel(interface.descriptor)
        self._host = CcidHost(
            max_message_length=interface.descriptor.message_limit,
            packet_size=interface.bulk_in.max_packet_size,
            first_read=first_read,
        )
        self._halted = False
        selects = interface.descriptor.power_selects
        # Twice where there is no choice: a card that sat badly at its first reset often answers the second.
        self._power_selects = selects if len(selects) > 1 else selects * 2

    @property
    def limits(self) -> CardLimits:
        """What fits through to the card that was powered last."""
        return self._level.limits

    @property
    def unheeded_seconds(self) -> float:
        """How long ago the first ABORT was sent that was not heeded, nor any since; 0 if the last one was."""
        return 0.0 if self._unheeded_since is None else self._now() - self._unheeded_since

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU."""
        exchange = self._level.exchange(command)
        block = next(exchange)
        first = True
        extended = False
        try:
            while True:
                extended = extended or block.waiting > 0
                try:
                    answer = self._transfer(block, deadline)
                except ReaderError as error:
                    block = exchange.throw(error)
                    first = False
                else:
                    first = False
                    block = exchange.send(answer)
        except StopIteration as done:
            return self._complete(done.value)
        except BaseException as error:
            self._broke_off(error, first)
            if extended and isinstance(error, DeadlineExceeded):
                raise _no_answer(extended) from error
            raise

    def card_status(self, *, deadline: Deadline) -> IccStatus:
        """Is a card there, and has it power? A card without is lost to whoever had it."""
        self.recover(deadline=deadline)
        response = self._run(GetSlotStatus(), deadline)
        if _failed(response) and response.error != SlotErrorCode.ICC_MUTE:
            raise slot_error(response, outcome=Outcome.NOT_SENT)
        if response.status.icc is not IccStatus.ACTIVE:
            self.lose()
            self.powered = False
        return response.status.icc

    def power_on(self, *, deadline: Deadline) -> bytes:
        """Reset the card and bring it to where it takes APDUs: the ATR.

        A card that cannot be brought there loses its power again, unless the deadline is over before.
        """
        self.recover(deadline=deadline)
        try:
            return self._bring_up(deadline)
        except HardwareError as error:
            if self.powered:
                with contextlib.suppress(HardwareError):
                    self.power_off(deadline=deadline)
            self.lost = LostConnection.by(error)
            raise

    def _bring_up(self, deadline: Deadline) -> bytes:
        try:
            return self._reset(deadline, negotiate=True)
        except PpsFailed:
            self.power_off(deadline=deadline)
            return self._reset(deadline, negotiate=False)

    def power_off(self, *, deadline: Deadline) -> None:
        """Take the power from the card."""
        self.recover(deadline=deadline)
        self.lose()
        response = self._run(IccPowerOff(), deadline)
        if _failed(response) and response.status.icc is IccStatus.ACTIVE:
            raise slot_error(response, outcome=Outcome.NOT_SENT)
        self.powered = False

    def escape(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """A command of the reader's vendor."""
        self.recover(deadline=deadline)
        response = self._run(Escape(command), deadline)
        if _failed(response) or not isinstance(response, EscapeData):
            raise slot_error(response, for_card=False)
        return response.data

    def lose(self, error: BaseException | None = None) -> None:
        """Whatever the card knew is not to be relied on; for this error, if there was one."""
        self.epoch += 1
        self.lost = LostConnection.by(error)

    def recover(self, *, deadline: Deadline) -> None:
        """Bring the reader back into step: abort what is still under way (CCID 1.10, 5.3.1)."""
        began = self._now()
        try:
            self._bring_into_step(deadline)
        except HardwareError as error:
            if self._unheeded_since is None and error.outcome is not Outcome.NOT_SENT:
                self._unheeded_since = began
            raise
        self._unheeded_since = None

    def _bring_into_step(self, deadline: Deadline) -> None:
        if self._halted:
            self._transport.clear_halt(self._interface.bulk_out.address, deadline=deadline)
            self._transport.clear_halt(self._interface.bulk_in.address, deadline=deadline)
            self._host.forget()
            self._halted = False
        # What there is of a message whose transfer broke off can swallow the answer to the first one.
        with contextlib.suppress(ProtocolViolation):
            self._abort(deadline)
        self._abort(deadline)

    def _abort(self, deadline: Deadline) -> None:
        if not self._host.outstanding:
            return
        setup, message = self._host.abort(self._interface.number)
        try:
            with contextlib.suppress(TransferStalled):
                # A reader without this request ends what it does, or refuses the message: both bring it into step.
                self._transport.control(setup, deadline=deadline)
            self._exchange(message, deadline)
        except TransferStalled as error:
            error.remedy = error.remedy or _UNPLUG
            raise

    def _run(self, command: Command, deadline: Deadline) -> Response:
        """One command and its response, whatever that says."""
        message = self._host.send(command)
        try:
            return self._exchange(message, deadline)
        except BaseException as error:
            # Also KeyboardInterrupt: a late answer must never be taken for the answer to the next command.
            self._out_of_step(error)
            raise

    def _exchange(self, message: Buffers, deadline: Deadline) -> Response:
        host = self._host
        try:
            host.receive_data(self._transport.exchange(message, host.read_length, deadline=deadline))
            event = host.next_event()
            if isinstance(event, (NeedData, TimeExtension)):
                return self._read_on(event, deadline)
        except TransferStalled:
            self._halted = True
            raise
        return event

    def _read_on(self, event: Event | NeedData, deadline: Deadline) -> Response:
        extended = False
        while isinstance(event, (NeedData, TimeExtension)):
            extended = extended or isinstance(event, TimeExtension)
            try:
                transfer = self._transport.bulk_in(self._host.read_length, deadline=deadline)
            except DeadlineExceeded as error:
                raise _no_answer(extended) from error
            except HardwareError as error:
                error.outcome = Outcome.UNKNOWN  # The command was sent, whatever became of this transfer.
                raise
            self._host.receive_data(transfer)
            event = self._host.next_event()
        return event

    def _out_of_step(self, error: BaseException) -> None:
        if isinstance(error, HardwareError) and error.outcome is Outcome.NOT_SENT:
            self._host.withdraw()
        else:
            self.lose(error)

    def _transfer(self, block: XfrBlock, deadline: Deadline) -> DataBlock:
        response = self._run(block, deadline)
        if response.status is _ACTIVE and isinstance(response, DataBlock):
            return response
        if response.status.icc is IccStatus.INACTIVE:
            raise CardRemoved("The card lost its power.")
        raise slot_error(response)

    def _broke_off(self, error: BaseException, first: bool) -> None:
        """An APDU did not come to its end: only if its first block was plainly refused is the card as before."""
        if first and isinstance(error, HardwareError) and error.outcome is not Outcome.UNKNOWN:
            return
        self.lose(error)
        if isinstance(error, HardwareError):
            error.outcome = Outcome.UNKNOWN

    def _complete(self, response: bytes) -> bytes:
        if len(response) < _MIN_RESPONSE:
            self.lose()
            raise ProtocolViolation(
                f"The card answered with {len(response)} bytes, which hold no status word.", layer=Layer.CARD
            ) from None
        return response

    def _reset(self, deadline: Deadline, *, negotiate: bool) -> bytes:
        first, *others = self._power_selects
        select, response = first, self._power_on(first, deadline)
        for other in others:
            if not _may_answer_yet(response, select):
                break
            self.power_off(deadline=deadline)
            select, response = other, self._power_on(other, deadline)
        if response.status.icc is IccStatus.ABSENT:
            self.powered = False
            raise NoCard("No card is in the reader.")
        if _failed(response) or not isinstance(response, DataBlock):
            raise slot_error(response, outcome=Outcome.NOT_SENT)
        self._level = self._activate(Atr.decode(response.data), deadline, negotiate=negotiate)
        return response.data

    def _power_on(self, select: PowerSelect, deadline: Deadline) -> Response:
        self.lose()
        self.powered = True
        return self._run(IccPowerOn(select), deadline)

    def _activate(self, atr: Atr, deadline: Deadline, *, negotiate: bool) -> Level:
        steps = activate(self._interface.descriptor, atr, negotiate=negotiate)
        try:
            command = next(steps)
            while True:
                response = self._run(command, deadline)
                if _failed(response):
                    command = steps.throw(slot_error(response, outcome=Outcome.NOT_SENT))
                else:
                    command = steps.send(response)
        except StopIteration as done:
            level: Level = done.value
            return level


def _failed(response: Response) -> bool:
    return response.status.command is CommandStatus.FAILED


def _may_answer_yet(response: Response, select: PowerSelect) -> bool:
    """Was this no complete and valid answer to reset, or that of a card for other voltages, though it is there?"""
    if _failed(response):
        return response.status.icc is not IccStatus.ABSENT and response.error not in _SAYS_NOTHING_OF_THE_CARD
    try:
        classes = Atr.decode(response.data if isinstance(response, DataBlock) else b"").classes
    except ProtocolViolation:
        return True
    return classes is not None and select in _CLASS_OF and not classes & _CLASS_OF[select]


def _no_answer(extended: bool) -> DeadlineExceeded:
    if extended:
        return DeadlineExceeded("The card asked for more time until the deadline.", layer=Layer.CARD)
    return DeadlineExceeded("The reader did not answer in time.", layer=Layer.READER)
