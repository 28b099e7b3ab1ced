"""A card in a reader on a USB server, behind a link, where everything can be made to fail: the card, its line to the
reader, the reader, the server, the network."""

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from functools import reduce
from operator import xor
from typing import Final, Self, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import demail_hw
from demail_hw import KeyProvider, KeyRole, Timeouts
from demail_hw.ccid.code_points import ChainParameter, MessageType
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import Header
from demail_hw.errors import DeviceBusy
from demail_hw.interfaces import ExportedDevice, Transfer, TransferResult
from demail_hw.usbip.messages import UrbStatus
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.card.timing import TimedAnswer
from demail_hw_simulators.card_link import CardLine, CardLink
from demail_hw_simulators.card_link_faults import LineFault
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.proxy import Proxy
from demail_hw_simulators.reader_profiles import DEFAULT_PROFILE, ReaderProfile, reader_profile

PIN: Final = b"123456"
VERIFY: Final = 0x20
PERFORM_SECURITY_OPERATION: Final = 0x2A
STATUS_QUERY: Final = 4
BULK_OUT, BULK_IN, INTERRUPT_IN = 0x01, 0x82, 0x83
PACKET: Final = 64
PATIENT = Timeouts(connect=20.0, command=20.0)
SECONDS = 20.0

Complete: TypeAlias = Callable[[TransferResult], None]


# --- The card and its line -----------------------------------------------------------------------------------------


class Witness:
    """A card that counts resets, PINs and signatures, and tells when it signs.

    ``says``: what leaves it instead of the response to a signature, ``answers`` to any command with more than a
    header; ``atr``: instead of its ATR.
    """

    def __init__(self, card: SimulatedTcosCard) -> None:
        self.card = card
        self.resets = self.verifies = self.signatures = 0
        self.mend()

    def mend(self) -> None:
        self.when_it_signs: Callable[[], None] = lambda: None
        self.says: Callable[[bytes], bytes] = bytes
        self.answers: Callable[[bytes, bytes], bytes] = lambda _, response: response
        self.atr: Callable[[bytes], bytes] = bytes

    def power_on(self) -> bytes:
        self.resets += 1
        return self.atr(self.card.power_on())

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        response = self.card.transmit(command)
        if len(command) > STATUS_QUERY:
            self.verifies += command[1] == VERIFY
            response = self.answers(command, response)
        if command[1] != PERFORM_SECURITY_OPERATION:
            return response
        self.signatures += 1
        self.when_it_signs()
        return self.says(response)


class Line:
    """A card's line to a reader that another one can take the place of. ``sent``: all that went to the card."""

    def __init__(self, card: SimulatedCard) -> None:
        self.card = CardLine(card)
        self.inner: CardLink = self.card
        self.sent: list[bytes] = []

    @property
    def protocol(self) -> int:
        return self.inner.protocol

    def power_on(self) -> bytes:
        return self.inner.power_on()

    def power_off(self) -> None:
        self.inner.power_off()

    def exchange(self, sent: bytes) -> TimedAnswer:
        self.sent.append(sent)
        return self.inner.exchange(sent)


def with_lrc(block: bytes) -> bytes:
    return block + bytes((reduce(xor, block),))


class Altered(LineFault):
    """A byte of the card's block is another one: 0 is NAD, 1 PCB, 2 LEN. The LRC is right."""

    def __init__(self, index: int, change: Callable[[int], int]) -> None:
        self._index, self._change = index, change

    def to_reader(self, answer: bytes, before: bytes) -> bytes:
        block = bytearray(answer[:-1])
        block[self._index] = self._change(block[self._index])
        return with_lrc(bytes(block))


class Interjection:
    """The card says blocks of its own (without their LRC) before its answer, one after each block that it gets.

    ``for_ever``: the last of them again and again, and never the answer.
    """

    def __init__(self, link: CardLink, *blocks: str, for_ever: bool = False) -> None:
        self._link = link
        self._blocks = [with_lrc(bytes.fromhex(block)) for block in blocks]
        self._for_ever = for_ever
        self._answer: TimedAnswer | None = None

    @property
    def protocol(self) -> int:
        return self._link.protocol

    def power_on(self) -> bytes:
        return self._link.power_on()

    def power_off(self) -> None:
        self._link.power_off()

    def exchange(self, sent: bytes) -> TimedAnswer:
        if self._blocks:
            if self._answer is None:
                self._answer = self._link.exchange(sent)
            keep = self._for_ever and len(self._blocks) == 1
            return TimedAnswer(self._blocks[0] if keep else self._blocks.pop(0), 0.0)
        answer, self._answer = self._answer, None
        return answer or self._link.exchange(sent)


class EndlessChain(Interjection):
    """The card begins a response, and goes on with it for ever."""

    def exchange(self, sent: bytes) -> TimedAnswer:
        if self._answer is None:
            self._answer = self._link.exchange(sent)
            self._pcb = self._answer.response[1] | 0x20
        else:
            self._pcb ^= 0x40
        return TimedAnswer(with_lrc(bytes((0, self._pcb, 252)) + bytes(252)), 0.0)


# --- The reader ----------------------------------------------------------------------------------------------------


class Switch:
    """A device that another one can take the place of."""

    def __init__(self, device: ExportedDevice) -> None:
        self.inner = device

    @property
    def device_descriptor(self) -> bytes:
        return self.inner.device_descriptor

    @property
    def configuration_descriptor(self) -> bytes:
        return self.inner.configuration_descriptor

    @property
    def serial(self) -> str:
        return self.inner.serial

    @property
    def speed(self) -> int:
        return self.inner.speed

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        self.inner.submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        return self.inner.cancel(transfer)

    def reset(self) -> None:
        self.inner.reset()


class Unplugged(Switch):
    """Nothing is there any more, and the server says so of every transfer."""

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        complete(TransferResult(UrbStatus.ENODEV))


class Pending(Switch):
    """A device that leaves some transfers pending: those ``swallow`` is true of. The host may take them back."""

    def __init__(self, device: ExportedDevice) -> None:
        super().__init__(device)
        self.pending: list[Transfer] = []

    def swallow(self, transfer: Transfer) -> bool:
        raise NotImplementedError

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        if self.swallow(transfer):
            self.pending.append(transfer)
        else:
            super().submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        mine = any(each is transfer for each in self.pending)
        self.pending = [each for each in self.pending if each is not transfer]
        return mine or super().cancel(transfer)

    def reset(self) -> None:
        self.pending.clear()
        super().reset()


class Deaf(Pending):
    """From its first XfrBlock on it answers nothing, neither ABORT nor anything else, until it is reset.

    ``stalls``: it refuses the class request for ABORT, else it accepts that and does nothing.
    """

    def __init__(self, device: ExportedDevice, *, stalls: bool = False) -> None:
        super().__init__(device)
        self._stalls = stalls
        self.deaf = False
        self.resets = 0

    def swallow(self, transfer: Transfer) -> bool:
        return self.deaf and transfer.endpoint == BULK_IN

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        self.deaf = self.deaf or (not self.resets and transfer.data[:1] == bytes((MessageType.XFR_BLOCK,)))
        if not self.deaf or self.swallow(transfer):
            super().submit(transfer, complete)
        elif transfer.endpoint != INTERRUPT_IN:
            stalled = self._stalls and transfer.setup
            complete(TransferResult(UrbStatus.EPIPE if stalled else UrbStatus.OK))

    def reset(self) -> None:
        self.resets += 1
        self.deaf = False
        super().reset()


class ShortReads(Switch):
    """Every bulk-IN transfer ends after one packet, however much was asked for."""

    def __init__(self, device: ExportedDevice) -> None:
        super().__init__(device)
        self._rest = b""

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        if transfer.endpoint != BULK_IN:
            super().submit(transfer, complete)
        elif self._rest:
            complete(self._packet(TransferResult(UrbStatus.OK, self._rest)))
        else:
            super().submit(transfer, lambda result: complete(self._packet(result)))

    def _packet(self, result: TransferResult) -> TransferResult:
        packet, self._rest = result.data[:PACKET], result.data[PACKET:]
        return TransferResult(result.status, packet)

    def reset(self) -> None:
        self._rest = b""
        super().reset()


class Preceded(Switch):
    """The next answer to an XfrBlock comes behind others that are made of it."""

    def __init__(self, device: ExportedDevice, *before: Callable[[bytes], bytes]) -> None:
        super().__init__(device)
        self._before = before
        self._messages: list[bytes] = []
        self._armed = False

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        if transfer.endpoint == BULK_OUT:
            self._armed = transfer.data[:1] == bytes((MessageType.XFR_BLOCK,))
        if transfer.endpoint != BULK_IN:
            super().submit(transfer, complete)
        elif self._messages:
            complete(TransferResult(UrbStatus.OK, self._messages.pop(0)))
        else:
            super().submit(transfer, lambda result: complete(self._first(result)))

    def _first(self, result: TransferResult) -> TransferResult:
        if not self._armed or not self._before:
            return result
        first, *self._messages = [*(make(result.data) for make in self._before), result.data]
        self._before = ()
        return TransferResult(result.status, first)


@dataclasses.dataclass(frozen=True, slots=True)
class Instead:
    """A :class:`~demail_hw_simulators.faults.ReaderFault`: any other message."""

    make: Callable[[bytes], bytes]
    endless: bool = False

    def __call__(self, message: bytes) -> bytes:
        return self.make(message)


class ChainForEver(Switch):
    """The card's answer begins a chain of messages (bChainParameter) that has no end."""

    def __init__(self, device: ExportedDevice) -> None:
        super().__init__(device)
        self._command = b""
        self._begun = False

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        if transfer.endpoint == BULK_OUT:
            self._command = transfer.data[:HEADER_SIZE]
            if self._goes_on:
                complete(TransferResult(UrbStatus.OK))
                return
        elif transfer.endpoint == BULK_IN and self._goes_on:
            complete(TransferResult(UrbStatus.OK, self._piece(ChainParameter.CONTINUES)))
            return
        elif transfer.endpoint == BULK_IN and self._is_block:
            self._begun = True
            super().submit(transfer, lambda _: complete(self._first()))
            return
        super().submit(transfer, complete)

    @property
    def _is_block(self) -> bool:
        return self._command[:1] == bytes((MessageType.XFR_BLOCK,))

    @property
    def _goes_on(self) -> bool:
        return self._begun and self._is_block

    def _first(self) -> TransferResult:
        return TransferResult(UrbStatus.OK, self._piece(ChainParameter.BEGINS))

    def _piece(self, chain: ChainParameter) -> bytes:
        seq = Header.decode(self._command).seq
        return Header(MessageType.DATA_BLOCK, 1024, 0, seq, 0, 0, chain).encode() + bytes(1024)


class NoNews(Pending):
    """No NotifySlotChange ever comes."""

    def swallow(self, transfer: Transfer) -> bool:
        return transfer.endpoint == INTERRUPT_IN


class GoneAtTheFirstLook(NoNews):
    """The card goes as soon as the host has heard that it is there, and nothing tells."""

    def __init__(self, device: ExportedDevice, go: Callable[[], None]) -> None:
        super().__init__(device)
        self._go = go
        self._asked = False

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        self._asked = self._asked or transfer.data[:1] == bytes((MessageType.GET_SLOT_STATUS,))
        super().submit(transfer, complete)
        if self._asked and transfer.endpoint == BULK_IN:
            self._go()


class News(Switch):
    """Each interrupt transfer brings this at once, whatever is true: as often as the host asks, up to ``times``."""

    def __init__(self, device: ExportedDevice, *news: bytes, times: int = 1) -> None:
        super().__init__(device)
        self._news = list(news) * times

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        if transfer.endpoint == INTERRUPT_IN and self._news:
            complete(TransferResult(UrbStatus.OK, self._news.pop(0)))
        else:
            super().submit(transfer, complete)


# --- All of it -----------------------------------------------------------------------------------------------------


class Bed:
    """A card in a reader on a USB server, behind a link."""

    def __init__(self, profile: ReaderProfile) -> None:
        self.witness = Witness(open_card("netkey3"))
        self.line = Line(self.witness)
        self.reader = SimulatedUsbReader(self.witness, profile=profile, link=self._line)
        self.device = Switch(self.reader)
        self.opened = 0

    def _line(self, card: SimulatedCard) -> Line:
        self.line = Line(card)
        return self.line

    @classmethod
    @contextlib.contextmanager
    def serve(cls, profile: str | ReaderProfile = DEFAULT_PROFILE) -> Iterator[Self]:
        bed = cls(reader_profile(profile) if isinstance(profile, str) else profile)
        with (
            UsbIpServer([bed.device], port=0) as bed.server,
            Proxy(("127.0.0.1", bed.server.port)) as bed.proxy,
        ):
            yield bed

    server: UsbIpServer
    proxy: Proxy

    @property
    def address(self) -> str:
        return f"usbip://127.0.0.1:{self.proxy.address[1]}/1-1"

    @contextlib.contextmanager
    def open(self, timeouts: Timeouts = PATIENT, address: str = "") -> Iterator[KeyProvider]:
        with demail_hw.open_provider(address or self.address, lambda: PIN, timeouts=timeouts) as provider:
            self.opened += 1
            yield provider

    def mend(self) -> None:
        """Whatever a row has broken. A connection that was silent ends when its cable is there again."""
        self.proxy.release()
        self.proxy.cut()
        self.device.inner = self.reader
        self.line.inner = self.line.card
        self.witness.mend()


def sign(provider: KeyProvider) -> None:
    """And see that it is the signature: of this message, which none before was of."""
    message = secrets.token_bytes(16)
    key = provider.identity(KeyRole.SIGNATURE).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


def wait_until_it_signs(bed: Bed, address: str = "") -> None:
    """By a new provider, as soon as the server has seen the last one go."""
    deadline = time.monotonic() + SECONDS
    while not _signs(bed, address):
        assert time.monotonic() < deadline


def _signs(bed: Bed, address: str) -> bool:
    try:
        with bed.open(address=address) as provider:
            sign(provider)
    except DeviceBusy:
        return False
    return True


def assert_healed(bed: Bed) -> None:
    """A new provider signs, and no try is lost."""
    bed.mend()
    wait_until_it_signs(bed)
    pin = bed.witness.card.file_system.root.pins[0]
    assert pin.tries == pin.maximum_tries
    assert bed.witness.verifies <= bed.opened
