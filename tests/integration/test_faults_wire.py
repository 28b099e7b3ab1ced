"""The fault table of the wire, F1 to F48: each fault in the middle of a signature, or where else it belongs.

Each row: a typed error that names its layer and what it proves, the card asked once, no PIN try lost, no wrong
signature; and with the fault gone, the next provider signs, in the same process. Long waits are short deadlines here.
What stands elsewhere too is named in ``ELSEWHERE``.
"""

import ast
import concurrent.futures
import contextlib
import dataclasses
import functools
import pathlib
import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

import demail_hw
from demail_hw import KeyProvider, Timeouts
from demail_hw.ccid.code_points import IccStatus, MessageType
from demail_hw.ccid.framing import HEADER_SIZE
from demail_hw.ccid.messages import BadField
from demail_hw.config.schema import BindingConfig
from demail_hw.errors import (
    CardError,
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    HardwareError,
    Layer,
    NoCard,
    Outcome,
    PinRefused,
    ProtocolViolation,
    ReaderBusy,
    ServerRefused,
    SlotError,
    TransferStalled,
    TransportError,
)
from demail_hw.interfaces import ExportedDevice, PinLedger, Reader
from demail_hw.iso7816.processors import EndlessResponse
from demail_hw.iso7816.t1 import RESYNCHRONISATIONS, RETRIES
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.registry import open_reader
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits
from demail_hw_drivers.binding_reader import BindingReader, bind
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators import card_link_faults as line_faults
from demail_hw_simulators import faults
from demail_hw_simulators.ccid_device import UTRUST_2700F
from demail_hw_simulators.proxy import Link, Proxy
from demail_hw_simulators.reader_profiles import ReaderProfile, reader_profile
from fault_bed import (
    PATIENT,
    PERFORM_SECURITY_OPERATION,
    PIN,
    SECONDS,
    VERIFY,
    Altered,
    Bed,
    ChainForEver,
    Deaf,
    EndlessChain,
    GoneAtTheFirstLook,
    Instead,
    Interjection,
    News,
    NoNews,
    Preceded,
    ShortReads,
    Unplugged,
    assert_healed,
    sign,
    wait_until_it_signs,
)

TESTS = pathlib.Path(__file__).parent.parent
SHORT = Timeouts(connect=20.0, command=0.3)
HURRIED = Timeouts(connect=0.3, command=20.0)
HEADER, ANSWER = 48, 364
"""Of USB/IP; and both answers to a signature: two headers, and a CCID header, 256 bytes and a status word."""


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed.serve() as bed:
        yield bed


def soon() -> float:
    return time.monotonic() + SECONDS


# --- In the middle of a signature ---------------------------------------------------------------------------------


class Fault(NamedTuple):
    """A row. ``inject``: done to a provider that has signed. ``asked``: how many signatures the card was asked for
    by the call that failed."""

    number: int
    name: str
    inject: Callable[[Bed], None]
    kind: type[HardwareError]
    layer: Layer
    outcomes: frozenset[Outcome] = frozenset({Outcome.UNKNOWN})
    timeouts: Timeouts = PATIENT
    asked: range = range(1, 2)
    profile: str = "ext_apdu"


def when_it_signs(action: Callable[[Bed], None]) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.witness.when_it_signs = functools.partial(action, bed)

    return inject


def reader(fault: faults.ReaderFault) -> Callable[[Bed], None]:
    return device(lambda inner: faults.FaultyReader(inner, fault, times=1))


def device(make: Callable[[ExportedDevice], ExportedDevice]) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.device.inner = make(bed.reader)

    return inject


def card(fault: faults.CardFault) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.witness.says = fault

    return inject


def answers(*instructions: int, response: bytes) -> Callable[[Bed], None]:
    """The card says this to these instructions."""

    def inject(bed: Bed) -> None:
        bed.witness.answers = lambda command, genuine: response if command[1] in instructions else genuine

    return inject


def line(fault: line_faults.LineFault, *, after: int = 0, times: int | None = 1) -> Callable[[Bed], None]:
    """Between card and reader, from the next block but ``after`` on; ``times`` None: for ever."""

    def inject(bed: Bed) -> None:
        bed.line.inner = line_faults.FaultyLink(bed.line.card, fault, after=after, times=times)

    return inject


def interjected(*blocks: str, for_ever: bool = False) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.line.inner = Interjection(bed.line.card, *blocks, for_ever=for_ever)

    return inject


def chain_without_end(bed: Bed) -> None:
    bed.line.inner = EndlessChain(bed.line.card)


def lie(change: Callable[[bytes, bytes, bytes], bytes]) -> Callable[[Bed], None]:
    """Of the answers to a signature: both headers, and the data."""

    def forge(answer: bytes) -> bytes | None:
        if len(answer) < ANSWER:
            return None
        return change(answer[:HEADER], answer[HEADER : 2 * HEADER], answer[2 * HEADER :])

    return lambda bed: bed.proxy.forge(forge)


def field(header: bytes, position: int, value: int) -> bytes:
    """A header with one word of it changed: 0 is the command, 1 the number, 5 the status, 6 the length, 8 packets."""
    return header[: 4 * position] + struct.pack(">i", value) + header[4 * position + 4 :]


def add_more(pcb: int) -> int:
    """The M bit of an I-block (ISO/IEC 7816-3:2006, 11.3.2.2)."""
    return pcb | 0x20


def no_more(pcb: int) -> int:
    return pcb & ~0x20


of_before = faults.WrongSequenceNumber(offset=-1)
more_time = faults.TimeExtensionForEver()


def too_long(message: bytes) -> bytes:
    return faults.LyingLength(length=2000)(message[:HEADER_SIZE]) + bytes(2000)


def unplug(bed: Bed) -> None:
    bed.device.inner = Unplugged(bed.reader)


EITHER = frozenset({Outcome.NOT_SENT, Outcome.UNKNOWN})
"""A send that succeeds proves nothing; whether the end was seen before it depends on how long nothing was sent."""
UNDONE = range(2)
LINK, READER, CARD = Layer.TRANSPORT, Layer.READER, Layer.CARD
REFUSED = frozenset({Outcome.REFUSED})
GET_RESPONSE = 0xC0
SELECT_MF = bytes.fromhex("00a4000c023f00")
PPSS = 0xFF
"""A PPS request begins so (ISO/IEC 7816-3:2006, 9.2)."""
BLOCK_KINDS = "IIRS"
"""Of T=1, by the first two bits of the PCB (ISO/IEC 7816-3:2006, 11.3.2.2)."""
WITHOUT_EMPTY_PACKETS = dataclasses.replace(
    UTRUST_2700F, product_id=0xE001, version=0x0515, zero_length_packets=False
)
"""As an SCR331 of old firmware, which is known for it."""
LONGEST = 0xFFFF
on_the_line = functools.partial(Fault, profile="tpdu")
"""Where the host does T=1: one block to the card, two blocks of response."""

FAULTS = [
    Fault(3, "server closes between commands", lambda bed: bed.proxy.cut(), DeviceLost, LINK, EITHER, asked=UNDONE),
    Fault(
        3,
        "server resets between commands",
        lambda bed: bed.proxy.cut(reset=True),
        DeviceLost,
        LINK,
        EITHER,
        asked=UNDONE,
    ),
    Fault(4, "server dies while the card signs", when_it_signs(lambda bed: bed.proxy.cut()), DeviceLost, LINK),
    Fault(
        5,
        "cable cut, nobody is told",
        lambda bed: bed.proxy.fall_silent(),
        DeadlineExceeded,
        LINK,
        timeouts=SHORT,
        asked=UNDONE,
    ),
    Fault(
        5,
        "cable cut while the card signs",
        when_it_signs(lambda bed: bed.proxy.fall_silent()),
        DeadlineExceeded,
        LINK,
        timeouts=SHORT,
    ),
    Fault(6, "server hangs", lambda bed: bed.proxy.stall(), DeadlineExceeded, LINK, timeouts=SHORT, asked=UNDONE),
    Fault(6, "answer held", lambda bed: bed.proxy.stall(to_server=False), DeadlineExceeded, LINK, timeouts=SHORT),
    *(
        Fault(
            9,
            f"cut after {count} bytes of the answers",
            lambda bed, count=count: bed.proxy.cut_after(count),
            kind,
            LINK,
        )
        for count, kind in (
            (0, DeviceLost),
            (20, ProtocolViolation),
            (48, DeviceLost),
            (60, ProtocolViolation),
            (363, ProtocolViolation),
        )
    ),
    Fault(
        10,
        "more than was asked for",
        lie(lambda out, into, data: out + field(into, 6, 5000) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(
        10,
        "a length below zero",
        lie(lambda out, into, data: out + field(into, 6, -1) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(
        10,
        "two gigabytes",
        lie(lambda out, into, data: out + field(into, 6, 2**31 - 1) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(
        10,
        "longer than what is sent",
        lie(lambda out, into, data: out + field(into, 6, len(data) + 1) + data),
        DeadlineExceeded,
        LINK,
        timeouts=SHORT,
    ),
    Fault(
        11,
        "data behind an OUT answer",
        lie(lambda out, into, data: out + b"payload" + into + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(12, "an answer twice", lie(lambda out, into, data: out + out + into + data), ProtocolViolation, LINK),
    Fault(
        12,
        "an unknown number",
        lie(lambda out, into, data: out + field(into, 1, 4711) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(
        13, "an unknown message", lie(lambda out, into, data: out + field(into, 0, 5) + data), ProtocolViolation, LINK
    ),
    Fault(
        13,
        "a status above zero",
        lie(lambda out, into, data: out + field(into, 5, 19) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(
        13,
        "isochronous packets",
        lie(lambda out, into, data: out + field(into, 8, 0x73727170) + data),
        ProtocolViolation,
        LINK,
    ),
    Fault(13, "ENODEV", lie(lambda out, into, _: out + field(field(into, 5, -19), 6, 0)), DeviceLost, LINK),
    Fault(13, "EPROTO", lie(lambda out, into, _: out + field(field(into, 5, -71), 6, 0)), TransportError, LINK),
    Fault(13, "EPIPE", lie(lambda out, into, _: out + field(field(into, 5, -32), 6, 0)), TransferStalled, LINK),
    Fault(16, "data without end", lie(lambda out, into, data: out + bytes(1 << 20)), ProtocolViolation, LINK),
    Fault(20, "reader unplugged", unplug, DeviceLost, LINK, EITHER, asked=range(1)),
    Fault(20, "reader unplugged while the card signs", when_it_signs(unplug), DeviceLost, LINK, EITHER),
    Fault(21, "another bSeq", reader(faults.WrongSequenceNumber()), DeadlineExceeded, READER, timeouts=SHORT),
    Fault(21, "another bSeq for ever", reader(faults.WrongSequenceNumber(endless=True)), ProtocolViolation, READER),
    Fault(
        22, "time extension for ever", reader(faults.TimeExtensionForEver()), DeadlineExceeded, CARD, timeouts=SHORT
    ),
    Fault(23, "dwLength too long", reader(faults.LyingLength(1)), BadField, READER),
    Fault(23, "dwLength too short", reader(faults.LyingLength(-1)), BadField, READER),
    Fault(23, "dwLength of four gigabytes", reader(faults.LyingLength(length=0xFFFFFFFF)), BadField, READER),
    Fault(23, "less than a header", reader(Instead(lambda message: message[:9])), BadField, READER),
    Fault(23, "longer than dwMaxCCIDMessageLength", reader(Instead(too_long)), TransportError, LINK),
    Fault(24, "another message", reader(faults.WrongMessageType()), ProtocolViolation, READER),
    Fault(24, "another slot", reader(faults.WrongSlot()), ProtocolViolation, READER),
    Fault(25, "ICC_MUTE", reader(faults.SlotFailure(0xFE)), CardMute, READER),
    *(
        Fault(25, name, reader(faults.SlotFailure(code)), SlotError, READER)
        for name, code in (
            ("XFR_PARITY_ERROR", 0xFD),
            ("XFR_OVERRUN", 0xFC),
            ("HW_ERROR", 0xFB),
        )
    ),
    Fault(25, "command not supported", reader(faults.SlotFailure(0x00)), SlotError, READER, REFUSED),
    Fault(25, "PIN_TIMEOUT", reader(faults.SlotFailure(0xF0)), SlotError, READER, REFUSED),
    Fault(25, "PIN_CANCELLED", reader(faults.SlotFailure(0xEF)), SlotError, READER, REFUSED),
    Fault(25, "CMD_SLOT_BUSY", reader(faults.SlotFailure(0xE0)), ReaderBusy, READER, frozenset({Outcome.NOT_SENT})),
    Fault(28, "power lost", reader(faults.SlotFailure(icc=IccStatus.INACTIVE)), CardRemoved, READER),
    Fault(29, "ABORT ignored", device(Deaf), DeadlineExceeded, LINK, timeouts=SHORT, asked=range(1)),
    Fault(
        29,
        "ABORT stalled and ignored",
        device(functools.partial(Deaf, stalls=True)),
        DeadlineExceeded,
        LINK,
        timeouts=SHORT,
        asked=range(1),
    ),
    on_the_line(40, "wrong LRC for ever", line(line_faults.WrongEdc(), times=None), CardMute, READER),
    on_the_line(
        40, "wrong LRC once too often", line(line_faults.WrongEdc(), times=1 + RETRIES), ProtocolViolation, CARD
    ),
    on_the_line(
        41, "no block arrives", line(line_faults.DroppedBlock(), times=None), CardMute, READER, asked=range(1)
    ),
    on_the_line(41, "no answer arrives", line(line_faults.DroppedAnswer(), times=None), CardMute, READER),
    on_the_line(42, "S(WTX) for ever", line(line_faults.ExtensionForEver()), DeadlineExceeded, CARD, timeouts=SHORT),
    on_the_line(43, "S(IFS) of 0 for ever", interjected("00c10100", for_ever=True), CardMute, READER),
    on_the_line(43, "S(IFS) of 255 for ever", interjected("00c101ff", for_ever=True), CardMute, READER),
    on_the_line(43, "S(ABORT)", line(line_faults.AbortRequest()), ProtocolViolation, CARD),
    on_the_line(43, "S(RESYNCH) of the card for ever", interjected("00c000", for_ever=True), CardMute, READER),
    on_the_line(44, "NAD for ever", line(Altered(0, lambda _: 0x21), times=None), CardMute, READER),
    on_the_line(44, "LEN 255 for ever", line(Altered(2, lambda _: 0xFF), times=None), CardMute, READER),
    on_the_line(44, "more, but there is no more", line(Altered(1, add_more), after=1), ProtocolViolation, CARD),
    on_the_line(44, "no more, but there is", line(Altered(1, no_more)), CardError, CARD),
    Fault(45, "a response of one byte", card(faults.OneByteResponse()), ProtocolViolation, CARD),
    Fault(45, "a response of nothing", card(faults.MuteCard()), CardMute, READER),
    *(
        Fault(
            46,
            f"{name}, {profile}",
            card(lambda _, size=size: bytes(size)),
            ProtocolViolation,
            layer,
            profile=profile,
        )
        for name, size, profile, layer in (
            ("65535 bytes", LONGEST, "ext_apdu", CARD),
            ("65535 bytes", LONGEST, "tpdu", CARD),
            ("a megabyte", 1 << 20, "ext_apdu", READER),
            ("a megabyte", 1 << 20, "tpdu", CARD),
        )
    ),
    *(
        Fault(
            47,
            f"61{more:02X} for ever, with {size} bytes each",
            answers(PERFORM_SECURITY_OPERATION, GET_RESPONSE, response=bytes((*bytes(size), 0x61, more))),
            EndlessResponse,
            CARD,
        )
        for more, size in ((0x10, 0), (0x10, 16), (0x00, 1))
    ),
    Fault(47, "6C00 where 256 were asked for", card(lambda _: b"\x6c\0"), CardError, CARD, REFUSED),
    Fault(47, "6C10 for ever", card(lambda _: b"\x6c\x10"), CardError, CARD, REFUSED, asked=range(2, 3)),
    Fault(47, "a chain of messages without end", device(ChainForEver), ProtocolViolation, READER),
    on_the_line(47, "a chain of blocks without end", chain_without_end, ProtocolViolation, CARD),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"F{fault.number}: {fault.name}")
def test_in_a_signature(fault: Fault) -> None:
    with Bed.serve(fault.profile) as bed:
        with bed.open(fault.timeouts) as provider:
            sign(provider)
            before = bed.witness.signatures
            fault.inject(bed)
            with pytest.raises(HardwareError) as caught:
                sign(provider)
            error = caught.value
            assert (type(error), error.layer) == (fault.kind, fault.layer)
            assert error.outcome in fault.outcomes
            assert bed.witness.signatures - before in fault.asked
        assert_healed(bed)


# --- What a call gets through -------------------------------------------------------------------------------------


def test_f7_a_signature_waits_once_for_the_network(bed: Bed) -> None:
    slow = Link(delay=0.01)
    with (
        Proxy(("127.0.0.1", bed.server.port), to_client=slow, to_server=slow) as far,
        bed.open(address=f"usbip://127.0.0.1:{far.address[1]}/1-1") as provider,
    ):
        sign(provider)
        before = far.turns
        for _ in range(5):
            sign(provider)
        assert far.turns - before == 5
    assert_healed(bed)


BENIGN = [
    (Link(piece_size=1), Link(piece_size=1)),
    (Link(piece_size=7), Link()),
    (Link(), Link(piece_size=49)),
]


@pytest.mark.parametrize(("to_client", "to_server"), BENIGN)
def test_f8_pieces_make_no_difference(bed: Bed, to_client: Link, to_server: Link) -> None:
    with (
        Proxy(("127.0.0.1", bed.server.port), to_client=to_client, to_server=to_server) as link,
        bed.open(address=f"usbip://127.0.0.1:{link.address[1]}/1-1") as provider,
    ):
        sign(provider)
    assert_healed(bed)


def test_f12_the_order_of_answers_makes_no_difference(bed: Bed) -> None:
    with bed.open() as provider:
        sign(provider)
        lie(lambda out, into, data: into + data + out)(bed)
        sign(provider)
    assert_healed(bed)


def test_f6_an_answer_that_comes_late_is_not_the_next_one(bed: Bed) -> None:
    """Over the same connection to the server: the next command has the answer to itself."""
    with reader_of(bed) as opened:
        connection = opened.connect(deadline=soon())
        answers(SELECT_MF[1], response=b"late\x90\0")(bed)
        bed.proxy.stall(to_server=False)
        with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded):
            connection.transmit((SELECT_MF,), deadline=time.monotonic() + SHORT.command)
        bed.proxy.release()
        bed.witness.mend()
        connection = opened.connect(deadline=soon())
        with connection.transaction(deadline=soon()):
            assert connection.transmit((SELECT_MF,), deadline=soon()) == b"\x90\0"
    assert_healed(bed)


HEALS = [
    (21, "two answers to commands before", "ext_apdu", device(lambda inner: Preceded(inner, *[of_before] * 2))),
    (22, "time extension three times", "ext_apdu", device(lambda inner: Preceded(inner, *[more_time] * 3))),
    (26, "one packet a read", "ext_apdu", device(ShortReads)),
    (27, "no news", "ext_apdu", device(NoNews)),
    (27, "news twice", "ext_apdu", device(lambda inner: News(inner, b"\x50\x03", times=2))),
    (27, "news that the card is out, though it is in", "ext_apdu", device(lambda inner: News(inner, b"\x50\x02"))),
    *(
        (number, f"{name}, block {after}", "tpdu", line(fault, after=after, times=times))
        for number, name, fault, times in (
            (40, "wrong LRC", line_faults.WrongEdc(), 1),
            (40, "wrong LRC as often as may be", line_faults.WrongEdc(), RETRIES),
            (40, "wrong LRC at the card", line_faults.NoiseToCard(), 1),
            (41, "lost block", line_faults.DroppedBlock(), 1),
            (41, "lost answer", line_faults.DroppedAnswer(), 1),
            (44, "wrong N(S)", line_faults.WrongSendSequence(), 1),
            (44, "NAD", Altered(0, lambda _: 0x21), 1),
            (44, "LEN 255", Altered(2, lambda _: 0xFF), 1),
        )
        for after in range(2)
    ),
    (44, "an answer a second time", "tpdu", line(line_faults.RepeatedAnswer(), after=1)),
    (42, "S(WTX) fifty times", "tpdu", interjected(*["00c30101"] * 50)),
    (43, "S(IFS) of 0", "tpdu", interjected("00c10100")),
    (43, "S(IFS) of 255", "tpdu", interjected("00c101ff")),
    (43, "S(RESYNCH) of the card", "tpdu", interjected("00c000")),
]


@pytest.mark.parametrize(
    ("profile", "inject"), [row[2:] for row in HEALS], ids=[f"F{number}: {name}" for number, name, *_ in HEALS]
)
def test_heals_in_a_signature(profile: str, inject: Callable[[Bed], None]) -> None:
    """The card signs once, and for the next signature all is as it was; on the line it took more blocks."""
    with Bed.serve(profile) as bed:
        with bed.open() as provider:
            sign(provider)
            before = bed.witness.signatures
            inject(bed)
            blocks = [blocks_of_a_signature(bed, provider) for _ in range(2)]
            assert bed.witness.signatures - before == 2
            assert profile != "tpdu" or blocks[0] > blocks[1]
        assert_healed(bed)


def blocks_of_a_signature(bed: Bed, provider: KeyProvider) -> int:
    bed.line.sent.clear()
    sign(provider)
    return len(bed.line.sent)


@pytest.mark.parametrize("fault", [line_faults.WrongEdc(), line_faults.DroppedAnswer()], ids=["F40", "F41"])
def test_f40_so_many_tries_then_resynchronisations_then_the_card_is_given_up(fault: line_faults.LineFault) -> None:
    given_up = "I" + "R" * RETRIES + "S" * RESYNCHRONISATIONS
    with Bed.serve("tpdu") as bed:
        with bed.open() as provider:
            sign(provider)
            line(fault, times=None)(bed)
            bed.line.sent.clear()
            with pytest.raises(CardMute):
                sign(provider)
            assert [BLOCK_KINDS[block[1] >> 6] for block in bed.line.sent] == list(given_up)
        assert_healed(bed)


def test_f43_blocks_are_as_short_as_the_card_wants_them() -> None:
    with Bed.serve("tpdu") as bed:
        with bed.open() as provider:
            sign(provider)
            interjected("00c10105")(bed)
            sign(provider)
            bed.line.sent.clear()
            sign(provider)
            assert {block[2] for block in bed.line.sent if BLOCK_KINDS[block[1] >> 6] == "I"} == {5, 57 % 5}
        assert_healed(bed)


@contextlib.contextmanager
def reader_of(bed: Bed) -> Iterator[Reader]:
    with contextlib.closing(open_reader(bed.address, timeouts=PATIENT)) as opened:
        yield opened


@pytest.mark.parametrize("short", [False, True], ids=["long reads", "one packet a read"])
@pytest.mark.parametrize("profile", [UTRUST_2700F, WITHOUT_EMPTY_PACKETS], ids=["empty packets", "none"])
def test_f26_messages_of_whole_packets(profile: ReaderProfile, short: bool) -> None:
    """With the packet of no length behind them, as USB says, and from old firmware without."""
    with Bed.serve(profile) as bed:
        if short:
            device(ShortReads)(bed)
        with reader_of(bed) as opened:
            connection = opened.connect(deadline=soon())
            for length in (2, 53, 54, 55, 118, 119, 1014, 1024, 2048):
                response = bytes(length - 2) + b"\x90\0"
                answers(SELECT_MF[1], response=response)(bed)
                with connection.transaction(deadline=soon()):
                    assert connection.transmit((SELECT_MF,), deadline=soon()) == response
        assert_healed(bed)


def test_f27_the_only_news_are_lost(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card goes while somebody waits for that, and nothing tells."""
    monkeypatch.setattr("demail_hw.polling._LOOK_SECONDS", 0.05)
    device(lambda inner: GoneAtTheFirstLook(inner, bed.reader.remove))(bed)
    with reader_of(bed) as opened:
        opened.wait_for_card(False, deadline=soon())
    bed.reader.insert(bed.witness)
    assert_healed(bed)


def test_f27_what_the_news_do_not_say_the_reader_is_asked() -> None:
    """Card out and in, and nobody hears of it; then a word that it is out, though it is in."""
    with Bed.serve() as bed:
        device(NoNews)(bed)
        with reader_of(bed) as opened:
            opened.wait_for_card(True, deadline=soon())
            bed.reader.remove()
            assert not opened.card_present(deadline=soon())
            with pytest.raises(NoCard):
                opened.connect(deadline=soon())
            bed.reader.insert(bed.witness)
            opened.wait_for_card(True, deadline=soon())
            opened.connect(deadline=soon()).close()
            device(lambda inner: News(inner, b"\x50\x02", times=3))(bed)
            opened.wait_for_card(True, deadline=soon())
            with pytest.raises(DeadlineExceeded):
                opened.wait_for_card(False, deadline=time.monotonic() + SHORT.command)
        assert_healed(bed)


@pytest.mark.parametrize("stalls", [False, True], ids=["ignored", "stalled"])
def test_f29_a_new_import_resets_a_reader_that_does_not_abort(bed: Bed, stalls: bool) -> None:
    """Nothing is mended here: whoever opens it anew has a reader that was reset."""
    deaf = Deaf(bed.reader, stalls=stalls)
    with bed.open(SHORT) as provider:
        sign(provider)
        bed.device.inner = deaf
        with pytest.raises(DeadlineExceeded):
            sign(provider)
        with pytest.raises(HardwareError) as caught:
            sign(provider)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert deaf.deaf
    wait_until_it_signs(bed)
    assert deaf.resets
    assert_healed(bed)


BAD_ATRS: list[tuple[str, Callable[[bytes], bytes], type[HardwareError], Layer]] = [
    ("wrong TCK", lambda atr: atr[:-1] + bytes((atr[-1] ^ 1,)), ProtocolViolation, CARD),
    ("34 bytes", lambda atr: atr.ljust(34, b"\0"), ProtocolViolation, CARD),
    ("no bytes", lambda _: b"", CardMute, READER),
]


@pytest.mark.parametrize(("profile", "resets"), [("ext_apdu", 2), ("host_pps", 3)])
@pytest.mark.parametrize(("atr", "kind", "layer"), [row[1:] for row in BAD_ATRS], ids=[row[0] for row in BAD_ATRS])
def test_f30_a_bad_atr(
    atr: Callable[[bytes], bytes], kind: type[HardwareError], layer: Layer, profile: str, resets: int
) -> None:
    """The card is reset once more, or at each voltage, and no further."""
    with Bed.serve(profile) as bed:
        bed.witness.atr = atr
        with pytest.raises(HardwareError) as caught, bed.open():
            pass
        assert (type(caught.value), caught.value.layer) == (kind, layer)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert bed.witness.resets == resets
        assert_healed(bed)


@pytest.mark.parametrize("atr", [row[1] for row in BAD_ATRS], ids=[row[0] for row in BAD_ATRS])
def test_f30_a_bad_atr_and_then_a_good_one(bed: Bed, atr: Callable[[bytes], bytes]) -> None:
    bed.witness.atr = lambda genuine: atr(genuine) if bed.witness.resets == 1 else genuine
    with bed.open() as provider:
        sign(provider)
    assert bed.witness.resets == 2
    assert_healed(bed)


NAMED = (0x6101, 0x63C0, 0x63C2, 0x6982, 0x6983, 0x6985, 0x6A82, 0x6A88, 0x6C10)
STATUS_WORDS = (*range(0x6000, 0x7000, 0x100), *NAMED)
NEEDED = {"VERIFY": VERIFY, "PERFORM SECURITY OPERATION": PERFORM_SECURITY_OPERATION}
INSTRUCTIONS = NEEDED | {"SELECT": 0xA4, "READ BINARY": 0xB0, "MANAGE SECURITY ENVIRONMENT": 0x22}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_f48_a_status_word_is_no_success_that_is_none(bed: Bed, name: str) -> None:
    """A signature that comes all the same is the signature; a PIN is sent once."""
    for status in STATUS_WORDS:
        bed.witness.verifies = bed.witness.signatures = 0
        answers(INSTRUCTIONS[name], response=status.to_bytes(2, "big"))(bed)
        error = first_error(bed, ledger=MemoryPinLedger())
        assert error is not None or name not in NEEDED
        assert bed.witness.verifies <= 1
        assert bed.witness.signatures <= 1 + (status >> 8 == 0x6C)
    bed.witness.verifies = 0
    assert_healed(bed)


def first_error(bed: Bed, *, pin: bytes = PIN, ledger: PinLedger | None = None) -> HardwareError | None:
    """Of a signature by a new provider."""
    deadline = soon()
    while True:
        try:
            with demail_hw.open_provider(bed.address, lambda: pin, timeouts=PATIENT, ledger=ledger) as provider:
                sign(provider)
        except DeviceBusy:
            assert time.monotonic() < deadline
        except HardwareError as error:
            return error
        else:
            return None


# --- In the middle of a VERIFY --------------------------------------------------------------------------------------

WRONG = b"918273"


@pytest.mark.parametrize(
    ("fail", "timeouts", "kind"),
    [
        (lambda bed: bed.proxy.cut(), PATIENT, DeviceLost),
        (lambda bed: bed.proxy.fall_silent(), SHORT, DeadlineExceeded),
        (lambda bed: bed.proxy.stall(to_server=False), SHORT, DeadlineExceeded),
        (unplug, PATIENT, DeviceLost),
    ],
    ids=["F4: server dies", "F5: cable cut", "F6: server hangs", "F20: reader unplugged"],
)
@pytest.mark.parametrize("pin", [PIN, WRONG], ids=["right", "wrong"])
def test_f4_a_pin_goes_out_again_only_if_the_counter_says_that_it_was_good(
    bed: Bed, fail: Callable[[Bed], None], timeouts: Timeouts, kind: type[HardwareError], pin: bytes
) -> None:
    """The card has answered, and nobody hears it."""

    def answer(command: bytes, response: bytes) -> bytes:
        if command[1] == VERIFY:
            fail(bed)
        return response

    with demail_hw.open_provider(bed.address, lambda: pin, timeouts=timeouts) as provider:
        bed.witness.answers = answer
        with pytest.raises(kind) as caught:
            sign(provider)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert bed.witness.verifies == 1
    bed.mend()
    assert type(first_error(bed, pin=pin)) is (type(None) if pin == PIN else PinRefused)
    assert bed.witness.verifies == (2 if pin == PIN else 1)
    tries = bed.witness.card.file_system.root.pins[0]
    assert tries.maximum_tries - tries.tries == (pin == WRONG)


# --- Before there is a connection -----------------------------------------------------------------------------------


def fails(bed: Bed, address: str, timeouts: Timeouts) -> HardwareError:
    with pytest.raises(HardwareError) as caught, bed.open(timeouts, address):
        pass
    assert (caught.value.layer, caught.value.outcome) == (LINK, Outcome.NOT_SENT)
    assert bed.witness.verifies == 0
    return caught.value


def test_f1_nobody_listens(bed: Bed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert type(fails(bed, f"usbip://127.0.0.1:{port}/1-1", PATIENT)) is TransportError
    assert_healed(bed)


def test_f2_a_connection_is_never_made(bed: Bed) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert type(fails(bed, f"usbip://127.0.0.1:{full.getsockname()[1]}/1-1", HURRIED)) is DeadlineExceeded
    assert_healed(bed)


def test_f6_a_server_that_says_nothing_at_all(bed: Bed) -> None:
    bed.proxy.stall()
    assert type(fails(bed, "", HURRIED)) is DeadlineExceeded
    assert_healed(bed)


@pytest.mark.parametrize("count", [0, 5, 8, 100, 319])
def test_f9_an_import_that_breaks_off(bed: Bed, count: int) -> None:
    with Proxy(("127.0.0.1", bed.server.port), to_client=Link(cut_at=count)) as link:
        error = fails(bed, f"usbip://127.0.0.1:{link.address[1]}/1-1", PATIENT)
    assert type(error) is (ProtocolViolation if count else DeviceLost)
    assert_healed(bed)


IMPORTS = [
    (13, "another version", bytes.fromhex("0100 0003 00000000"), ProtocolViolation),
    (13, "another operation", bytes.fromhex("0111 0005 00000000"), ProtocolViolation),
    (13, "a device error", bytes.fromhex("0111 0003 00000003"), ServerRefused),
    (14, "busy", bytes.fromhex("0111 0003 00000002"), DeviceBusy),
    (14, "busy, as an older Linux says it", bytes.fromhex("0111 0003 00000001"), DeviceBusy),
    (16, "data without end", bytes(1 << 20), ProtocolViolation),
]


@pytest.mark.parametrize(
    ("reply", "kind"), [row[2:] for row in IMPORTS], ids=[f"F{number}: {name}" for number, name, *_ in IMPORTS]
)
def test_in_an_import(bed: Bed, reply: bytes, kind: type[HardwareError]) -> None:
    bed.proxy.forge(lambda _: reply)
    assert type(fails(bed, "", PATIENT)) is kind
    assert_healed(bed)


def test_f14_a_reader_that_somebody_has(bed: Bed) -> None:
    with bed.open():
        with pytest.raises(DeviceBusy) as caught, bed.open():
            pass
        assert (caught.value.layer, caught.value.outcome) == (LINK, Outcome.NOT_SENT)
    assert_healed(bed)


def test_f17_a_device_list_without_end(bed: Bed) -> None:
    bed.proxy.forge(lambda _: bytes.fromhex("0111 0005 00000000 80000000"))
    address = bed.address.removesuffix("1-1")
    assert type(fails(bed, address, PATIENT)) is ProtocolViolation
    assert_healed(bed)


# --- A server that goes and comes -----------------------------------------------------------------------------------

QUICK = RetryLimits(first=0.01, longest=0.05, busy=0.02, stable=0.0)


@contextlib.contextmanager
def bound_to(port: int) -> Iterator[BindingReader]:
    binding = bind("desk", BindingConfig("127.0.0.1", port, retry=QUICK))
    with contextlib.closing(BindingReader(binding)) as bound:
        yield bound


def test_f15_a_usb_server_boots() -> None:
    """All its readers vanish: whoever asks meanwhile is told so at once, or waits. Then everything is done anew,
    import, power, PPS and PIN."""
    bed = Bed(reader_profile("host_pps"))
    with contextlib.ExitStack() as stack:
        with UsbIpServer([bed.device], port=0) as server:
            address = f"usbip://127.0.0.1:{server.port}/1-1"
            provider = stack.enter_context(bed.open(address=address))
            sign(provider)
        with pytest.raises(DeviceLost):
            sign(provider)
        assert type(open_fails(address)) is TransportError
        bound = stack.enter_context(bound_to(server.port))
        with pytest.raises(TransportError, match=r"The state of the binding 'desk' is") as caught:
            bound.connect(deadline=time.monotonic() + SHORT.command)
        assert caught.value.outcome is Outcome.NOT_SENT
        waiting = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)).submit(bound.connect, deadline=soon())
        until_it_backs_off(bound)
        bed.line.sent.clear()
        stack.enter_context(UsbIpServer([bed.device], port=server.port))
        waiting.result(SECONDS)
        assert PPSS in {block[0] for block in bed.line.sent}
        bound.close()
        wait_until_it_signs(bed, address)
    assert bed.witness.verifies == 2


@pytest.mark.parametrize("stalls", [False, True], ids=["ignored", "stalled"])
def test_f29_a_binding_imports_a_reader_anew_that_does_not_abort(
    bed: Bed, stalls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demail_hw_drivers.binding._DEAF_SECONDS", SHORT.command)
    with bound_to(bed.server.port) as bound:
        connection = bound.connect(deadline=soon())
        bed.device.inner = Deaf(bed.reader, stalls=stalls)
        with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded):
            connection.transmit((SELECT_MF,), deadline=time.monotonic() + SHORT.command)
        with pytest.raises(DeadlineExceeded):
            bound.card_present(deadline=time.monotonic() + SHORT.command)
        assert bound.connect(deadline=soon()).alive
        assert bound.binding.status.counters.losses == 1
    assert_healed(bed)


def test_f29_a_binding_keeps_a_reader_that_aborts_when_the_card_is_done(bed: Bed) -> None:
    """Whoever has no time for that takes no power from a card at work."""
    with bound_to(bed.server.port) as bound:
        connection = bound.connect(deadline=soon())
        bed.device.inner = Deaf(bed.reader)
        with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded):
            connection.transmit((SELECT_MF,), deadline=time.monotonic() + SHORT.command)
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                bound.card_present(deadline=time.monotonic() + SHORT.command)
        bed.device.inner = bed.reader
        assert bound.card_present(deadline=soon())
        assert bound.binding.status.counters.losses == 0
    assert_healed(bed)


def test_f29_a_binding_keeps_a_reader_that_aborts(bed: Bed) -> None:
    """Whoever had no time to wait for an answer is told so, and nobody else loses anything."""
    with bound_to(bed.server.port) as bound:
        assert bound.card_present(deadline=soon())
        slow = faults.FaultyReader(bed.reader, more_time, command=MessageType.GET_SLOT_STATUS, times=1)
        bed.device.inner = slow
        with pytest.raises(DeadlineExceeded):
            bound.card_present(deadline=time.monotonic() + SHORT.command)
        assert bound.card_present(deadline=soon())
        assert bound.binding.status.counters.losses == 0
    assert_healed(bed)


def open_fails(address: str) -> HardwareError:
    with pytest.raises(HardwareError) as caught, demail_hw.open_provider(address, lambda: PIN, timeouts=PATIENT):
        pass
    assert (caught.value.layer, caught.value.outcome) == (LINK, Outcome.NOT_SENT)
    return caught.value


def until_it_backs_off(bound: BindingReader) -> None:
    events: queue.SimpleQueue[BindingEvent] = queue.SimpleQueue()
    stop = bound.binding.listen(events.put)
    while events.get(timeout=SECONDS).state is not BindingState.BACK_OFF:
        pass
    stop()


# --- The table ------------------------------------------------------------------------------------------------------

NUMBERS = (*range(1, 18), *range(20, 31), *range(40, 49))
"""Those of the wire; F49 and on are the card's, the PIN's and the process's."""

ELSEWHERE: dict[int, Sequence[str]] = {
    1: ("integration/test_usbip_client.py::test_an_unknown_name",),
    2: ("integration/test_tcp_wire.py::test_an_address_that_says_nothing_leaves_time_for_the_next",),
    3: ("integration/test_usbip_lying_server.py::test_a_send_that_succeeds_proves_nothing",),
    5: (
        "real/test_usbip_half_open.py::test_its_successor_takes_over_and_nobody_else",
        "real/test_usbip_half_open.py::test_without_tls_the_device_is_free_after_one_probe",
        "real/test_usbip_half_open.py::test_without_tls_the_device_is_free_again",
    ),
    12: ("integration/test_usbip_lying_server.py::test_a_late_answer_is_never_taken_for_the_next_one",),
    14: ("integration/test_binding.py::test_the_device_is_found_by_its_serial_number_wherever_it_is",),
    15: ("integration/test_binding.py::test_a_server_that_was_killed_comes_back",),
    40: ("property/test_t1_lossy_line.py::test_a_fault_in_every_place_is_healed",),
    41: ("property/test_t1_lossy_line.py::test_command_is_done_once_or_nobody_knows",),
    42: ("property/test_t1_lossy_line.py::test_any_answers_come_to_an_end",),
    48: ("unit/tcos/test_tcos_status_words.py::test_only_success_is_success",),
}
"""Row -> tests under ``tests/`` that prove more of it."""


def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_no_row_is_missing() -> None:
    own = functions_of("integration/test_faults_wire.py")
    here = {int(name.split("_")[1][1:]) for name in own if name.startswith("test_f")}
    here |= {fault.number for fault in FAULTS} | {number for number, *_ in [*IMPORTS, *HEALS]}
    assert sorted(here) == list(NUMBERS)


@pytest.mark.parametrize(
    ("number", "place"), [(number, place) for number in ELSEWHERE for place in ELSEWHERE[number]]
)
def test_what_stands_elsewhere_stands_there(number: int, place: str) -> None:
    path, _, name = place.partition("::")
    assert name in functions_of(path)
