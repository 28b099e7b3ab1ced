"""A simulated smart card reader: a USB device of the CCID class with a simulated card in its slot.

The reader is the uTrust 2700 F as its public descriptor dump shows it (firmware 0.03, names of 2013), or any other
of :mod:`demail_hw_simulators.reader_profiles`. At the APDU levels it does T=0 and T=1 itself, and how is not
simulated; at the TPDU level the host does, and the card has an end of its line
(:mod:`demail_hw_simulators.card_link`).
"""

import math
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from demail_hw.ccid.class_descriptor import ExchangeLevel
from demail_hw.ccid.code_points import ClassRequest, IccStatus
from demail_hw.ccid.device import (
    ApduReceived,
    CcidDevice,
    DeviceEvent,
    EscapeReceived,
    ParametersProposed,
    PowerOffRequested,
    PowerOnRequested,
    Reply,
    TpduReceived,
)
from demail_hw.ccid.host import NEED_DATA
from demail_hw.ccid.slot_errors import SlotErrorCode
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.usb.setup import Recipient, RequestKind, SetupPacket, StandardRequest
from demail_hw.usb.standard_requests import StandardRequests
from demail_hw.usbip.messages import UrbStatus, UsbSpeed
from demail_hw_simulators.card.timing import TimedAnswer, TimedCard, waiting_time
from demail_hw_simulators.card_link import CardLine, CardLink, CardOfClasses
from demail_hw_simulators.card_link_reader import ReaderLine
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.reader_profiles import (
    BULK_PACKET,
    DEFAULT_PROFILE,
    INTERRUPT_PACKET,
    ReaderProfile,
    reader_profile,
)

__all__ = ["UTRUST_2700F", "MessageCounters", "ReaderProfile", "SimulatedUsbReader", "start_timer"]

_HERTZ: Final = 1000
"""A descriptor's clocks are in kHz."""
_MOST_UNREAD: Final = 16
"""Messages that wait for a host that does not read them; a real reader has room for one."""

_DWORD = struct.Struct(">I")


UTRUST_2700F: Final = reader_profile(DEFAULT_PROFILE)
"""The uTrust 2700 F, sold as CLOUD 2700 F when it was dumped: extended APDUs, 1034 bytes a message."""

Complete: TypeAlias = Callable[[TransferResult], None]

Later: TypeAlias = Callable[[float, Callable[[], None]], Callable[[], object]]
"""Call a function after so many seconds, in any thread; what comes back takes that back."""


def start_timer(seconds: float, function: Callable[[], None]) -> Callable[[], object]:
    """In a thread of its own, which ends when it is taken back."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer.cancel


_OK: Final = int(UrbStatus.OK)
_ACCEPTED: Final = TransferResult(_OK)
# Makes a named tuple from its fields, at half the price of calling its class.
_new: Final = tuple.__new__


class MessageCounters(NamedTuple):
    """CCID messages on the bulk pipes: commands that were acted on, and answers."""

    received: int
    sent: int


class _Pending(NamedTuple):
    transfer: Transfer
    complete: Complete


class SimulatedUsbReader:
    """An :class:`~demail_hw.interfaces.ExportedDevice`: a reader with one slot, and a card or none in it.

    Cards come and go with :meth:`insert` and :meth:`remove`, from any thread. A command is worked on inside
    ``submit``, unless the card is a :class:`~demail_hw_simulators.card.timing.TimedCard`: its answer comes when it is
    due, and until then a time extension each half of the waiting time. ``later``: how the reader waits for that.
    ``link``: at the TPDU level, the card's end of the line; a faulty one, say.
    """

    def __init__(
        self,
        card: SimulatedCard | None,
        *,
        serial: str = "53692013000000",
        profile: ReaderProfile = UTRUST_2700F,
        later: Later = start_timer,
        link: Callable[[SimulatedCard], CardLink] = CardLine,
    ) -> None:
        self._profile = profile
        self._serial = serial
        self._device_descriptor = profile.device_descriptor()
        self._configuration_descriptor = profile.configuration_descriptor()
        self._requests = StandardRequests(
            self._device_descriptor,
            self._configuration_descriptor,
            profile.strings(serial),
        )
        self._lock = threading.RLock()
        self._link = link
        self._line: ReaderLine | None = None
        self._card: SimulatedCard | None = None
        self._ccid = CcidDevice(profile.descriptor, packet_size=BULK_PACKET, aborts=profile.aborts)
        self._escapes = _Escapes(profile, serial) if profile.escapes else None
        self._bulk_in = _InPipe(BULK_PACKET, zero_length_packets=profile.zero_length_packets)
        self._interrupt_in = _InPipe(INTERRUPT_PACKET, zero_length_packets=False)
        self._received = 0
        self._later = later
        self._work: _Work | None = None
        self._extension_interval = 0.0
        self._endpoints: Mapping[int, Callable[[Transfer, Complete], None]] = {
            profile.bulk_out: self._submit_bulk_out,
            profile.bulk_in: self._bulk_in.submit,
            profile.interrupt_in: self._interrupt_in.submit,
        }
        if card is not None:
            self._put(card)
        self._notify()

    @property
    def profile(self) -> ReaderProfile:
        """What it is."""
        return self._profile

    @property
    def device_descriptor(self) -> bytes:
        """18 bytes (USB 2.0, 9.6.1)."""
        return self._device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        """The whole configuration (USB 2.0, 9.6.3)."""
        return self._configuration_descriptor

    @property
    def serial(self) -> str:
        """The serial number string."""
        return self._serial

    @property
    def speed(self) -> int:
        """Full speed."""
        return UsbSpeed.FULL

    @property
    def powered(self) -> bool:
        """True while the card has power."""
        return self._ccid.icc is IccStatus.ACTIVE

    @property
    def messages(self) -> MessageCounters:
        """What it did since it was made."""
        return MessageCounters(self._received, self._bulk_in.written)

    def insert(self, card: SimulatedCard) -> None:
        """Put a card into the slot, in place of one that may be there."""
        with self._lock:
            if self._card is not None:
                self.remove()
            self._put(card)
            if self._escapes is not None:
                self._escapes.insertions += 1
            self._notify()

    def _put(self, card: SimulatedCard) -> None:
        self._card = card
        descriptor = self._profile.descriptor
        if descriptor.exchange_level is ExchangeLevel.TPDU:
            self._line = ReaderLine(self._link(card), descriptor)
        self._ccid.card_inserted()

    def remove(self) -> None:
        """Take the card out; without one nothing happens."""
        with self._lock:
            if self._card is None:
                return
            self._give_up()
            self._power_off()
            self._card = self._line = None
            reply = self._ccid.card_removed()
            if reply is not None:
                self._bulk_in.write(reply.message)
            self._notify()

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        """Begin a transfer."""
        with self._lock:
            submit = self._endpoints.get(transfer.endpoint)
            if submit is None:
                complete(self._control(transfer))
            elif self._requests.halted(transfer.endpoint):
                complete(TransferResult(UrbStatus.EPIPE))
            else:
                submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        """Take back a pending transfer."""
        with self._lock:
            return self._bulk_in.cancel(transfer) or self._interrupt_in.cancel(transfer)

    def reset(self) -> None:
        """A bus reset: the card has no power, nothing is pending, and the host is told of the card anew."""
        with self._lock:
            self._give_up()
            self._power_off()
            self._ccid.reset()
            self._requests.reset()
            self._bulk_in.reset()
            self._interrupt_in.reset()
            self._notify()

    def _submit_bulk_out(self, transfer: Transfer, complete: Complete) -> None:
        if self._bulk_in.unread >= _MOST_UNREAD:
            self._requests.halt(self._profile.bulk_out)
            complete(TransferResult(UrbStatus.EPIPE))
            return
        # The host's controller has its acknowledgement before the firmware looks at the message.
        complete(_ACCEPTED)
        self._ccid.receive_data(transfer.data)
        while (event := self._ccid.next_event()) is not NEED_DATA:
            self._received += 1
            reply = self._handle(event)
            if reply is not None:
                self._bulk_in.write(reply.message)

    def _handle(self, event: DeviceEvent) -> Reply | None:
        match event:
            case ApduReceived(apdu):
                return self._transmit(apdu)
            case TpduReceived(tpdu, waiting):
                return self._pass_on(tpdu, waiting)
            case ParametersProposed(protocol, fi_di):
                return self._propose(protocol, fi_di)
            case Reply():
                if self._work is not None:
                    self._give_up_aborted()
                return event
            case PowerOnRequested(power_select):
                return self._power_on(power_select)
            case PowerOffRequested():
                self._power_off()
                return self._ccid.answer()
            case EscapeReceived(data):
                answer = self._escapes.answer(data) if self._escapes is not None else None
                return self._ccid.answer(answer) if answer else self._ccid.fail(SlotErrorCode.CMD_NOT_SUPPORTED)

    def _transmit(self, apdu: bytes) -> Reply | None:
        if isinstance(self._card, TimedCard):
            self._begin(self._card.work(apdu))
            return None
        return self._answer(self._card.transmit(apdu) if self._card is not None else b"")

    def _pass_on(self, tpdu: bytes, waiting: int) -> Reply | None:
        """At the TPDU level the card asks for more time itself in T=1; in T=0 the reader hears its NULL bytes."""
        if self._line is None:
            return self._answer(b"")
        answer = self._line.exchange(tpdu, waiting)
        if not answer.seconds:
            return self._answer(answer.response)
        self._begin(answer, silent=self._line.asks_itself)
        return None

    def _propose(self, protocol: int, fi_di: int) -> Reply:
        if self._line is not None and self._line.propose(protocol, fi_di):
            return self._ccid.answer()
        return self._ccid.fail(SlotErrorCode.ICC_PROTOCOL_NOT_SUPPORTED)

    def _answer(self, response: bytes) -> Reply:
        return self._ccid.answer(response) if response else self._ccid.fail(SlotErrorCode.ICC_MUTE)

    def _power_on(self, power_select: int) -> Reply:
        if isinstance(self._card, CardOfClasses) and not self._card.answers_at(power_select):
            return self._answer(b"")
        source = self._line or self._card
        atr = source.power_on() if source is not None else b""
        clock = self._profile.descriptor.default_clock * _HERTZ
        self._extension_interval = waiting_time(atr, clock=clock) / 2
        return self._answer(atr)

    def _begin(self, answer: TimedAnswer, *, silent: bool = False) -> None:
        self._work = _Work(answer.response, answer.seconds, math.inf if silent else self._extension_interval)
        self._go_on(self._work)

    def _go_on(self, work: "_Work") -> None:
        """Wait until the answer is due, or the host has to hear that it is not."""
        step = min(work.left, work.interval)
        work.left -= step
        work.stop = self._later(step, lambda: self._elapsed(work))

    def _elapsed(self, work: "_Work") -> None:
        with self._lock:
            if work is not self._work:
                return
            if work.left > 0:
                self._bulk_in.write(self._ccid.extend_time().message)
                self._go_on(work)
            else:
                self._work = None
                self._bulk_in.write(self._answer(work.response).message)

    def _give_up_aborted(self) -> None:
        """An abort has ended the command: nobody waits for its answer any more."""
        if not self._ccid.busy:
            self._give_up()

    def _give_up(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.stop()

    def _power_off(self) -> None:
        source = self._line or self._card
        if source is not None and self.powered:
            source.power_off()

    def _notify(self) -> None:
        """Only the newest news counts: what was not fetched yet is replaced."""
        self._interrupt_in.replace(self._ccid.slot_change.encode())

    def _control(self, transfer: Transfer) -> TransferResult:
        setup = SetupPacket.decode(transfer.setup)
        if setup.kind is RequestKind.CLASS:
            return self._class_request(setup)
        data = self._requests.answer(setup, transfer.data)
        if data is None:
            return TransferResult(UrbStatus.EPIPE)
        if setup.request == StandardRequest.SET_CONFIGURATION:
            self._notify()
        return TransferResult(UrbStatus.OK, data)

    def _class_request(self, setup: SetupPacket) -> TransferResult:
        """ABORT is the only class request of this family (CCID 1.10, 5.3)."""
        known = setup.request == ClassRequest.ABORT and self._profile.aborts
        if setup.recipient != Recipient.INTERFACE or not known or setup.direction_in:
            return TransferResult(UrbStatus.EPIPE)
        reply = self._ccid.abort(setup.value)
        self._give_up_aborted()
        if reply is not None:
            self._bulk_in.write(reply.message)
        return TransferResult(UrbStatus.OK)


class _Work:
    """What a card works on: its answer, the seconds that are left when the next wait is over, the seconds between two
    time extensions, how to stop waiting."""

    __slots__ = ("interval", "left", "response", "stop")

    def __init__(self, response: bytes, left: float, interval: float) -> None:
        self.response = response
        self.left = left
        self.interval = interval
        self.stop: Callable[[], object] = _nothing


def _nothing() -> None:
    """There is nothing to stop."""


class _InPipe:
    """An IN endpoint: packets of the device meet the transfers of the host (USB 2.0, 5.8.3).

    A transfer ends when it is full or when a short packet comes. What the host has not asked for yet waits.
    ``written``: messages of the device so far.
    """

    def __init__(self, packet_size: int, *, zero_length_packets: bool) -> None:
        self._packet_size = packet_size
        self._zero_length_packets = zero_length_packets
        self._messages: deque[bytes] = deque()
        self._transfers: deque[_Pending] = deque()
        self._received = b""
        self.written = 0

    @property
    def unread(self) -> int:
        """Messages that the host has not asked for."""
        return len(self._messages)

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        """The host asks."""
        self._transfers.append(_new(_Pending, (transfer, complete)))
        self._meet()

    def write(self, message: bytes) -> None:
        """The device has a message."""
        self.written += 1
        self._messages.append(message)
        self._meet()

    def replace(self, message: bytes) -> None:
        """The device has a message that makes the ones before it void."""
        self._messages.clear()
        self.write(message)

    def cancel(self, transfer: Transfer) -> bool:
        """The host does not ask any more."""
        for index, pending in enumerate(self._transfers):
            if pending.transfer is transfer:
                del self._transfers[index]
                if index == 0:
                    # What it had received so far goes with it.
                    self._received = b""
                return True
        return False

    def reset(self) -> None:
        """Nothing is pending on either side."""
        self._messages.clear()
        self._transfers.clear()
        self._received = b""

    def _meet(self) -> None:
        while self._transfers and self._messages:
            message = self._messages.popleft()
            length = self._transfers[0].transfer.length
            if len(message) % self._packet_size and len(message) <= length and not self._received:
                # The usual case, without a look at its packets: the last one is short and ends the transfer.
                self._transfers.popleft().complete(_new(TransferResult, (_OK, message)))
            else:
                self._take_packet(self._cut(message), length)

    def _cut(self, message: bytes) -> bytes:
        """The first packet; the rest of the message stays, were it only the packet of no length at its end."""
        packet, rest = message[: self._packet_size], message[self._packet_size :]
        if rest or (self._zero_length_packets and len(packet) == self._packet_size):
            self._messages.appendleft(rest)
        return packet

    def _take_packet(self, packet: bytes, length: int) -> None:
        self._received += packet
        if len(packet) == self._packet_size and len(self._received) < length:
            return
        received, self._received = self._received, b""
        # A packet that is longer than what is left of the transfer is a babble.
        fits = len(received) <= length
        result = TransferResult(UrbStatus.OK, received) if fits else TransferResult(UrbStatus.EOVERFLOW)
        self._transfers.popleft().complete(result)


class _Escape(NamedTuple):
    """A setting that an escape command gets and sets: 4 bytes, the most significant one first."""

    get: bytes
    set: bytes
    value: int


_SETTINGS: Final = (
    _Escape(b"\x80\x00", b"\x80\x01", 0x0000_0140),  # ETU
    _Escape(b"\x81\x00\x00", b"\x81\x01\x00", 0x0000_2580),  # character waiting time, in etu
    _Escape(b"\x81\x00\x01", b"\x81\x01\x01", 0x0000_035D),  # block waiting time, in 1.25 ms
    _Escape(b"\x82\x00\x00", b"\x82\x01\x00", 0x0000_0000),  # character guard time, in etu
    _Escape(b"\x82\x00\x01", b"\x82\x01\x01", 0x0000_0018),  # block guard time, in etu
)
_INFO: Final = b"\x1e"
_LED: Final = 0xB2
_LED_ENABLE, _LED_DISABLE, _LED_GET = 0x00, 0x01, 0xFF
_INSERTION_COUNTER: Final = bytes.fromhex("FF7004E60100")
_SUCCESS: Final = b"\x90\x00"
_INFO_LAYOUT = struct.Struct("<BBBHHBBB")
_INFO_SERIAL_SIZE: Final = 28
_INFO_MODES: Final = 0x03
"""EMV and memory cards; ISO cards are always understood."""


class _Escapes:
    """The escape commands of the family that are documented; the others are unknown to it.

    Block and character times that no manual gives an example for are plausible values.
    """

    def __init__(self, profile: ReaderProfile, serial: str) -> None:
        self.insertions = 0
        self._led = _LED_ENABLE
        self._values = {setting.get: setting.value for setting in _SETTINGS}
        self._info = _INFO_LAYOUT.pack(
            profile.version >> 8,
            profile.version & 0xFF,
            _INFO_MODES,
            profile.descriptor.protocols,
            0,
            0,
            profile.descriptor.max_slot_index + 1,
            _INFO_SERIAL_SIZE,
        ) + serial.encode("utf-16-le")[:_INFO_SERIAL_SIZE].ljust(_INFO_SERIAL_SIZE, b"\0")

    def answer(self, command: bytes) -> bytes | None:
        """What the reader returns, or ``None`` if it does not know the command."""
        if command == _INFO:
            return self._info
        if command == _INSERTION_COUNTER:
            return _DWORD.pack(self.insertions) + _SUCCESS
        if command[:1] == bytes((_LED,)):
            return self._led_control(command[1:])
        return self._get_or_set(command)

    def _get_or_set(self, command: bytes) -> bytes | None:
        if command in self._values:
            return _DWORD.pack(self._values[command])
        for setting in _SETTINGS:
            head, value = command[: len(setting.set)], command[len(setting.set) :]
            if head == setting.set and len(value) == _DWORD.size:
                (self._values[setting.get],) = _DWORD.unpack(value)
                return value
        return None

    def _led_control(self, argument: bytes) -> bytes | None:
        if argument == bytes((_LED_GET,)):
            return bytes((self._led,))
        if argument in (bytes((_LED_ENABLE,)), bytes((_LED_DISABLE,))):
            (self._led,) = argument
            return argument
        return None
