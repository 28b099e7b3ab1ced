"""A card that is open in PC/SC: what is done with it, one call after the other, in the thread of its connection."""

import contextlib
from collections.abc import Iterator
from typing import Final

from demail_hw.errors import CardRemoved, HardwareError, Layer, Outcome, ProtocolViolation
from demail_hw_drivers.pcsc_errors import PcscFailure, ReturnCode, Stage, pcsc_errors
from demail_hw_drivers.pcsc_properties import GET_FEATURE_REQUEST, limits_of, tlv_properties_code
from demail_hw_drivers.pcsc_service import Attribute, CardStatus, Disposition, PcscService, Share

__all__ = ["PcscCard", "read_serial"]

_GONE: Final = frozenset({ReturnCode.W_REMOVED_CARD, ReturnCode.E_NO_SMARTCARD})
_STATUS_WORD: Final = 2
_ATTEMPTS: Final = 10
_OPENING: Final = {Share.EXCLUSIVE: Stage.CONNECTING, Share.SHARED: Stage.JOINING}
_NONE: Final = 0
"""Neither a context nor a card has this handle."""


class PcscCard:
    """A handle of a card, with a context of its own: a call that does not return holds up nobody else.

    Nothing here waits for a deadline. ``epoch`` changes whenever the card may have lost or changed its state.
    ``sound``: False after a call that failed, or has not returned; then only :meth:`release` is left.

    A PIN that we verified does not stay for others: at the end the card loses its power. Where other programs may
    have it too, it is reset if it got a command from us, and else left as it is: a reset disturbs them. The card that
    lies in the reader after ours was taken out is left alone.
    """

    def __init__(self, service: PcscService, reader: str, share: Share) -> None:
        self._service = service
        self._reader = reader
        self.share = share
        self._disposition = Disposition.UNPOWER if share is Share.EXCLUSIVE else Disposition.LEAVE
        self._context = _NONE
        self._card = _NONE
        self._protocol = 0
        self.atr = b""
        self.serial: str | None = None
        self.limits = limits_of(b"")
        self.epoch = 0
        self.sound = False
        self.in_transaction = False
        self._unchecked = False

    def open(self) -> None:
        """Connect, which powers the card."""
        with self._using(_OPENING[self.share]):
            self._context = self._service.establish_context()
            self._card, self._protocol = self._service.connect(self._context, self._reader, self.share)
            self.atr = self._service.status(self._card).atr
        self.limits = limits_of(_read_properties(self._service, self._card))
        self.serial = read_serial(self._service, self._card)

    def begin(self) -> None:
        """Wait until no other program has a transaction, and begin ours.

        Whatever others did with the card before, it is a new epoch. A card that was reset is taken as it is if it
        is the same by its ATR.
        """
        with self._using(Stage.CONNECTED):
            self.epoch += 1
            self._begin()

    def end(self) -> None:
        """End our transaction."""
        with self._using(Stage.CONNECTED):
            self.in_transaction = False
            self._service.end_transaction(self._card)

    def transmit(self, command: list[int]) -> bytes:
        """One command APDU, its response APDU.

        A card that another program has reset is accepted as it is now, and the error says so. The command is not sent
        again.
        """
        if self.share is Share.SHARED:
            self._disposition = Disposition.RESET
        with self._using(Stage.COMMAND):
            answer = self._service.transmit(self._card, self._protocol, command)
            return self._checked(answer)

    def look(self) -> None:
        """Raise if the card is not there any more. One that was reset is there: which it is, is seen when it is used
        next, for that can need power, and here others may be using it."""
        with self._using(Stage.CONNECTED):
            try:
                self._service.status(self._card)
            except PcscFailure as failure:
                if failure.code != ReturnCode.W_RESET_CARD:
                    raise

    def power_cycle(self) -> None:
        """Take the power from the card and give it again; not if it was out meanwhile."""
        with self._using(Stage.CONNECTED):
            self._service.status(self._card)
            self.epoch += 1
            self._protocol = self._service.reconnect(self._card, self.share, Disposition.UNPOWER)
            self.atr = self._service.status(self._card).atr

    def release(self) -> None:
        """Give everything back, once or again. Never raises."""
        card, self._card = self._card, _NONE
        context, self._context = self._context, _NONE
        if card != _NONE:
            self._disconnect(card)
        if context != _NONE:
            self._service.release_context(context)

    def _begin(self) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._service.begin_transaction(self._card)
            except PcscFailure as failure:
                if failure.code != ReturnCode.W_RESET_CARD:
                    raise
                self._acknowledge_reset()
            else:
                self.in_transaction = True
                if self._unchecked:
                    self._check_same()
                return
        raise PcscFailure(ReturnCode.W_RESET_CARD)

    @contextlib.contextmanager
    def _using(self, stage: Stage) -> Iterator[None]:
        """After anything that goes wrong the card is not used again, but for a reset: that harms nobody who knows
        of it."""
        self.sound = False
        try:
            with pcsc_errors(stage):
                yield
        except HardwareError as error:
            code = error.__cause__.code if isinstance(error.__cause__, PcscFailure) else None
            if code in _GONE:
                self._disposition = Disposition.LEAVE
            if code == ReturnCode.W_RESET_CARD:
                self._accept_reset(error)
                self.sound = True
            raise
        self.sound = True

    def _accept_reset(self, error: HardwareError) -> None:
        """Take the card as it is now if it is ours alone at the moment; else the next transaction finds the reset."""
        if self.share is Share.SHARED and not self.in_transaction:
            return
        try:
            with pcsc_errors(Stage.CONNECTED):
                self._acknowledge_reset()
                self._check_same()
        except HardwareError as worse:
            worse.outcome = error.outcome  # what was under way when the reset was found proves no more than before
            raise

    def _acknowledge_reset(self) -> None:
        """Until then the service refuses everything."""
        self.epoch += 1
        self._unchecked = True
        self._protocol = self._service.reconnect(self._card, self.share, Disposition.LEAVE)

    def _check_same(self) -> None:
        """After a reset: is it the same card, as far as its ATR says?"""
        if self._powered().atr != self.atr:
            self._disposition = Disposition.LEAVE
            raise CardRemoved("Another card is in the reader.", outcome=Outcome.NOT_SENT)
        self._unchecked = False

    def _powered(self) -> CardStatus:
        """The card's status. Another program can have left it without power, which nobody else gives it. Only while
        the card is ours alone."""
        status = self._service.status(self._card)
        if status.powered:
            return status
        self._protocol = self._service.reconnect(self._card, self.share, Disposition.UNPOWER)
        return self._service.status(self._card)

    def _checked(self, answer: bytes) -> bytes:
        """pcsc-lite hands up with S_SUCCESS what a reader's driver made of a card that went away."""
        if len(answer) < _STATUS_WORD:
            raise CardRemoved(f"Instead of an answer {len(answer)} bytes came: the card was taken out.")
        if len(answer) > self.limits.max_response:
            raise ProtocolViolation(f"The card answered with {len(answer)} bytes.", layer=Layer.READER)
        return answer

    def _disconnect(self, card: int) -> None:
        """It waits until others have ended their transaction; if the next one is faster than we are, anew."""
        for _ in range(_ATTEMPTS):
            try:
                self._service.disconnect(card, self._disposition)
            except PcscFailure as failure:
                if failure.code == ReturnCode.E_SHARING_VIOLATION:
                    continue
            return


def read_serial(service: PcscService, card: int) -> str | None:
    """The serial number of the reader, if its driver says it."""
    try:
        serial = service.attribute(card, Attribute.VENDOR_IFD_SERIAL_NO)
    except PcscFailure:
        return None
    return serial.rstrip(b"\0").decode(errors="replace") or None


def _read_properties(service: PcscService, card: int) -> bytes:
    """What the reader's driver says of itself; nothing if it says nothing."""
    try:
        code = tlv_properties_code(service.control(card, service.control_code(GET_FEATURE_REQUEST)))
        return b"" if code is None else service.control(card, code)
    except PcscFailure:
        return b""
