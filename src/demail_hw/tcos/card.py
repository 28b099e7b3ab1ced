"""A TCOS card: files, PINs, security environment and keys, with as few commands as the card's state allows."""

import dataclasses
import enum
from typing import Final

from demail_hw.errors import CardError, FileNotFound, ProtocolViolation, UnexpectedCard
from demail_hw.interfaces import Buffer, CardConnection, Deadline
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.apdu import MAX_SHORT_NE, CommandApdu, ResponseApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.processors import CommandChaining
from demail_hw.iso7816.status import StatusWord, retries_left
from demail_hw.secrets import PinPermit
from demail_hw.tcos import commands
from demail_hw.tcos.answers import check, check_pin_answer
from demail_hw.tcos.layout import Application, KeySlot, PinSlot, Profile, PublicKeyFile
from demail_hw.tcos.open_file import OpenFile, size_of
from demail_hw.tcos.public_key_file import EXPONENT_RECORD, MODULUS_RECORD, PublicKeyParts, RecordForm, decode_number

__all__ = ["PinState", "PinStatus", "TcosCard"]

_NORMAL_PROCESSING: Final = int(StatusWord.NORMAL_PROCESSING)
_EF_GDO: Final = 0x2F02
_ICCSN_TAG: Final = 0x5A
_END_OF_FILE: Final = frozenset({StatusWord.END_OF_FILE_REACHED, StatusWord.WRONG_P1_P2})
_MAX_FILE: Final = 0x8000  # READ BINARY's offset ends there
_MAX_READS: Final = 256  # of one file: a card that gives a byte at a time is not waited for
_LONGEST_HEADER: Final = 8  # of a TLV object, in bytes
_UNWRITTEN: Final = 0xFF
_BLANK: Final = b"\x00\xff"
"""What a serial number is made of that was never written."""


class PinState(enum.Enum):
    """What VERIFY without data tells about a PIN."""

    READY = "ready"
    VERIFIED = "verified"
    BLOCKED = "blocked"
    NULL_PIN = "NullPIN"
    ABSENT = "absent"
    UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True, slots=True)
class PinStatus:
    """State of a PIN; ``retries_left`` is known in the states READY and BLOCKED alone."""

    state: PinState
    retries_left: int | None = None


_PIN_STATES: Final[dict[int, PinStatus]] = {
    StatusWord.NORMAL_PROCESSING: PinStatus(PinState.VERIFIED),
    StatusWord.AUTHENTICATION_METHOD_BLOCKED: PinStatus(PinState.BLOCKED, 0),
    StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED: PinStatus(PinState.NULL_PIN),
    StatusWord.REFERENCED_DATA_NOT_FOUND: PinStatus(PinState.ABSENT),
    StatusWord.INCORRECT_DATA_FIELD: PinStatus(PinState.ABSENT),
}


class TcosCard:
    """The card behind a connection.

    Every method sends commands and must be called inside ``connection.transaction()``; what this object remembers
    of the card's state (application, security environment, verified PIN) holds as long as the connection's epoch.
    """

    __slots__ = ("_application", "_channel", "_connection", "_environment", "_epoch", "_verified", "profile")

    def __init__(self, connection: CardConnection, profile: Profile, *, channel: Channel | None = None) -> None:
        self.profile = profile
        self._channel = channel or Channel(connection)
        self._connection = connection
        self._forget(connection.epoch)

    def forget(self) -> None:
        """Believe nothing of the card's state any more; sends nothing."""
        self._forget(self._epoch)

    def _forget(self, epoch: int) -> None:
        self._epoch = epoch
        self._application: Application | None = None
        self._environment: KeySlot | None = None
        self._verified: frozenset[PinSlot] = frozenset()

    def _catch_up(self) -> None:
        epoch = self._connection.epoch
        if epoch != self._epoch:
            self._forget(epoch)

    def _send(self, command: CommandApdu, deadline: Deadline) -> ResponseApdu:
        return self._channel.send(command, deadline=deadline)

    # --- files

    def _select(self, application: Application, deadline: Deadline) -> None:
        self._catch_up()
        if self._application is application:
            return
        self._leave_application()
        self._enter(application, deadline)

    def _enter(self, application: Application, deadline: Deadline) -> None:
        command = commands.select_application(application)
        check(self._send(command, deadline), command)
        self._application = application

    def _leave_application(self) -> None:
        # Local PINs and key references belong to the current DF. Whether a local PIN stays verified when its DF is
        # left, the standard leaves to the card (ISO 7816-4, clause 9: security status): so it is asked.
        self._application = None
        self._environment = None
        self._verified = frozenset(pin for pin in self._verified if pin.application is None)

    def serial_number(self, *, deadline: Deadline) -> str:
        """The ICCSN in EF.GDO as hexadecimal digits (ISO 7812-1, DIN 66291).

        Errors: :class:`~demail_hw.errors.UnexpectedCard` if there is none, or one that tells no card from another.
        """
        self._catch_up()
        self._leave_application()
        command = commands.select_master_file()
        check(self._send(command, deadline), command)
        try:
            content = self._read_current(_EF_GDO, deadline)
        except FileNotFound as error:
            raise UnexpectedCard("The card has no EF.GDO and so no serial number.", command=error.command) from error
        number = tlv.find(tlv.decode_all(content), _ICCSN_TAG)
        if number is None:
            raise UnexpectedCard("The card's EF.GDO holds no serial number.")
        if not number.value.strip(_BLANK):
            raise UnexpectedCard(
                "The serial number in the card's EF.GDO is blank.",
                remedy="Use another card: this one cannot be told from others, and gets no PIN.",
            )
        return number.value.hex().upper()

    def read_file(self, application: Application, file_id: int, *, deadline: Deadline) -> bytes:
        """The content of a transparent EF, to the end of its first TLV object, or else to its end.

        Errors: :class:`~demail_hw.errors.FileNotFound`.
        """
        self._select(application, deadline)
        return self._read_current(file_id, deadline)

    def _read_current(self, file_id: int, deadline: Deadline) -> bytes:
        select = commands.select_elementary_file(file_id)
        check(self._send(select, deadline), select)
        content = bytearray()
        wanted = _MAX_FILE
        for _ in range(_MAX_READS):
            command = commands.read_binary(len(content), min(MAX_SHORT_NE, wanted - len(content)))
            response = self._send(command, deadline)
            content += check(response, command, also=_END_OF_FILE)
            if response.status != _NORMAL_PROCESSING or not response.data or content[0] == _UNWRITTEN:
                break
            wanted = min(_MAX_FILE, _object_length(content[:_LONGEST_HEADER]))
            if len(content) >= wanted:
                break
        return bytes(content[:wanted])

    def open_file(self, application: Application, file_id: int, *, deadline: Deadline) -> OpenFile:
        """Select a transparent EF to read and write it; it stays open until another method is called.

        Errors: :class:`~demail_hw.errors.FileNotFound`; :class:`~demail_hw.errors.ProtocolViolation` if the card does
        not say how long it is.
        """
        self._select(application, deadline)
        command = commands.select_for_control_parameters(file_id)
        size = size_of(check(self._send(command, deadline), command))
        return OpenFile(self._channel, size)

    def read_public_key(self, application: Application, file: PublicKeyFile, *, deadline: Deadline) -> PublicKeyParts:
        """An EF.PK: record 1 is the modulus, record 2 the exponent.

        Errors: :class:`~demail_hw.errors.FileNotFound` if there is no such file; any other
        :class:`~demail_hw.errors.CardError` if it is broken, or a record of it is missing.
        """
        self._select(application, deadline)
        select = commands.select_elementary_file(file.identifier)
        check(self._send(select, deadline), select)
        modulus = self._read_number(MODULUS_RECORD, file.form, deadline)
        exponent = self._read_number(EXPONENT_RECORD, file.form, deadline)
        return PublicKeyParts(modulus, exponent)

    def _read_number(self, record: int, form: RecordForm, deadline: Deadline) -> int:
        command = commands.read_record(record)
        try:
            content = check(self._send(command, deadline), command)
        except FileNotFound as error:  # half a file is not none
            raise CardError(error.message, status=error.status, command=error.command) from error
        return decode_number(content, form)

    # --- PINs

    def _select_for(self, pin: PinSlot, deadline: Deadline) -> None:
        if pin.application is not None:
            self._select(pin.application, deadline)
        else:
            self._catch_up()

    def pin_status(self, pin: PinSlot, *, deadline: Deadline) -> PinStatus:
        """Ask for the tries left; spends none."""
        try:
            self._select_for(pin, deadline)
        except FileNotFound:  # not every card has every application
            return PinStatus(PinState.ABSENT)
        status = _pin_status_of(self._send(commands.pin_status(pin.reference), deadline).status)
        if status.state is not PinState.VERIFIED:
            self._verified -= {pin}
        return status

    def verify(self, pin: PinSlot, permit: PinPermit, *, deadline: Deadline) -> None:
        """VERIFY with a permit of the PIN guard, once.

        Errors: :class:`~demail_hw.errors.PinIncorrect`, :class:`~demail_hw.errors.PinBlocked` and their kin.
        """
        self._select_for(pin, deadline)
        command = commands.verify(permit)
        self._verified -= {pin}  # a wrong one closes what a right one opened
        check_pin_answer(self._send(command, deadline), command, pin.name.value)
        self._verified |= {pin}

    def change(self, pin: PinSlot, permit: PinPermit, *, deadline: Deadline) -> None:
        """CHANGE REFERENCE DATA with a permit of the PIN guard, once: the old PIN or the NullPIN, and the new one.

        Errors: as for :meth:`verify`, of the old one.
        """
        self._select_for(pin, deadline)
        command = commands.change_reference_data(permit)
        self._verified -= {pin}
        check_pin_answer(self._send(command, deadline), command, pin.name.value)

    def unblock(self, pin: PinSlot, puk: PinSlot, permit: PinPermit, *, deadline: Deadline) -> None:
        """RESET RETRY COUNTER with a permit of the PIN guard, once: the PUK and the new PIN.

        Errors: as for :meth:`verify`, of the PUK.
        """
        self._select_for(pin, deadline)
        command = commands.reset_retry_counter(permit)
        self._verified -= {pin, puk}
        check_pin_answer(self._send(command, deadline), command, puk.name.value)

    def is_verified(self, pin: PinSlot) -> bool:
        """Whether the PIN was verified here, or was believed to be, since the card last lost its state."""
        self._catch_up()
        return pin in self._verified

    def believe(self, pin: PinSlot) -> None:
        """The card says that the PIN is verified, and the caller gave it that PIN before."""
        self._verified |= {pin}

    # --- keys

    def longest_block(self, key: KeySlot) -> int:
        """The longest block that :meth:`decipher` can send, in bytes: TCOS does not understand command chaining."""
        return CommandChaining.for_limits(self._connection.limits).max_nc - len(key.access.padding_indicator)

    def prepare(self, key: KeySlot, *, deadline: Deadline) -> None:
        """Select the key's application and set its security environment, unless both hold already."""
        self._select(key.application, deadline)
        if self._environment is key:
            return
        before, self._environment = self._environment, None
        if key.access.environment is not None:
            command = commands.manage_security_environment(key.access.environment, key.reference)
            check(self._send(command, deadline), command)
        elif before is not None:
            # Whether the default key still is the default after MSE for another one, no document tells. Selecting
            # the application makes it so. That its local PINs stay verified, for no DF is left, is assumed.
            self._enter(key.application, deadline)
        self._environment = key

    def compute_digital_signature(self, key: KeySlot, data: Buffer, *, deadline: Deadline) -> bytes:
        """PSO CDS: an RSA key pads the DigestInfo and signs it, an EC key signs the digest. One command when the key
        is prepared."""
        return self._perform(key, commands.compute_digital_signature(data), deadline)

    def decipher(self, key: KeySlot, block: Buffer, *, deadline: Deadline) -> bytes:
        """PSO DECIPHER: the raw RSA operation on a block of the modulus' length. One command when prepared."""
        return self._perform(key, commands.decipher(key.access.padding_indicator, block), deadline)

    def _perform(self, key: KeySlot, command: CommandApdu, deadline: Deadline) -> bytes:
        try:
            if self._environment is not key or self._connection.epoch != self._epoch:
                self.prepare(key, deadline=deadline)
            response = self._send(command, deadline)
            if key.once:
                self._use_up(key)
            return response.data if response.status == _NORMAL_PROCESSING else check(response, command)
        except BaseException:
            # What was assumed of the card's state was wrong, or may be: the next operation begins anew.
            self.forget()
            raise

    def _use_up(self, key: KeySlot) -> None:
        """The PINs that open the key are to be given again, or the card is to say that it wants none."""
        self._verified = frozenset(pin for pin in self._verified if key.application not in pin.opens)


def _pin_status_of(status: int) -> PinStatus:
    left = retries_left(status)
    if left is not None:
        return PinStatus(PinState.READY if left else PinState.BLOCKED, left)
    return _PIN_STATES.get(status, PinStatus(PinState.UNREADABLE))


def _object_length(content: Buffer) -> int:
    """The length of the TLV object that a file begins with; the longest file if it begins with none."""
    try:
        header = tlv.decode_header(content)
    except ProtocolViolation:
        return _MAX_FILE
    return header.size + header.length
