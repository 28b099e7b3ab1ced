"""The fault table of the wire, F1 to F48: each fault in the middle of a signature, or where else it belongs.

Each row: a typed error that names its layer and what it proves, the card asked once, no PIN try lost, no wrong
signature; and with the fault gone, the next provider signs, in the same process. Long waits are short deadlines here.
Rows of a layer that has a bench of its own stand there, and are named in ``ELSEWHERE``.
"""

import ast
import contextlib
import functools
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import demail_hw
from demail_hw import KeyProvider, KeyRole, Timeouts
from demail_hw.ccid.code_points import IccStatus
from demail_hw.ccid.messages import BadField
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    HardwareError,
    Layer,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
    ServerRefused,
    SlotError,
    TransportError,
)
from demail_hw.interfaces import ExportedDevice, Transfer, TransferResult
from demail_hw.usbip.messages import UrbStatus
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators import faults
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.proxy import Link, Proxy

TESTS = pathlib.Path(__file__).parent.parent
PIN = b"123456"
VERIFY, PERFORM_SECURITY_OPERATION = 0x20, 0x2A
STATUS_QUERY = 4
PATIENT = Timeouts(connect=20.0, command=20.0)
SHORT = Timeouts(connect=20.0, command=0.3)
HURRIED = Timeouts(connect=0.3, command=20.0)
SECONDS = 20.0
HEADER, ANSWER = 48, 364
"""Of USB/IP; and both answers to a signature: two headers, and a CCID header, 256 bytes and a status word."""


class Witness:
    """A card that counts PINs, and tells when it signs."""

    def __init__(self, card: SimulatedTcosCard) -> None:
        self.card = card
        self.verifies = 0
        self.signatures = 0
        self.when_it_signs: Callable[[], None] = lambda: None
        self.says: Callable[[bytes], bytes] = bytes

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        self.verifies += command[1] == VERIFY and len(command) > STATUS_QUERY
        response = self.card.transmit(command)
        if command[1] != PERFORM_SECURITY_OPERATION:
            return response
        self.signatures += 1
        self.when_it_signs()
        return self.says(response)


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

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        self.inner.submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        return self.inner.cancel(transfer)

    def reset(self) -> None:
        self.inner.reset()


class Unplugged(Switch):
    """Nothing is there any more, and the server says so of every transfer."""

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        complete(TransferResult(UrbStatus.ENODEV))


class Bed:
    """A card in a reader on a USB server, behind a link; everything can be made to fail."""

    def __init__(self, server: UsbIpServer, device: Switch, witness: Witness, proxy: Proxy) -> None:
        self.server, self.device, self.witness, self.proxy = server, device, witness, proxy
        self.reader = device.inner
        self.opened = 0

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
        self.witness.when_it_signs, self.witness.says = (lambda: None), bytes


@pytest.fixture
def bed() -> Iterator[Bed]:
    witness = Witness(open_card("netkey3"))
    device = Switch(SimulatedUsbReader(witness))
    with UsbIpServer([device], port=0) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        yield Bed(server, device, witness, proxy)


def sign(provider: KeyProvider) -> None:
    """And see that it is the signature."""
    key = provider.identity(KeyRole.SIGNATURE).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())


def signs(bed: Bed) -> bool:
    try:
        with bed.open() as provider:
            sign(provider)
    except DeviceBusy:
        return False
    return True


def assert_healed(bed: Bed) -> None:
    """A new provider signs, as soon as the server has seen the last one go, and no try is lost."""
    bed.mend()
    deadline = time.monotonic() + SECONDS
    while not signs(bed):
        assert time.monotonic() < deadline
    pin = bed.witness.card.file_system.root.pins[0]
    assert pin.tries == pin.maximum_tries
    assert bed.witness.verifies <= bed.opened


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


def when_it_signs(action: Callable[[Bed], None]) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.witness.when_it_signs = functools.partial(action, bed)

    return inject


def reader(fault: faults.ReaderFault) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.device.inner = faults.FaultyReader(bed.reader, fault, times=1)

    return inject


def card(fault: faults.CardFault) -> Callable[[Bed], None]:
    def inject(bed: Bed) -> None:
        bed.witness.says = fault

    return inject


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


def unplug(bed: Bed) -> None:
    bed.device.inner = Unplugged(bed.reader)


EITHER = frozenset({Outcome.NOT_SENT, Outcome.UNKNOWN})
"""A send that succeeds proves nothing; whether the end was seen before it depends on how long nothing was sent."""
UNDONE = range(2)
LINK, READER, CARD = Layer.TRANSPORT, Layer.READER, Layer.CARD

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
    Fault(24, "another message", reader(faults.WrongMessageType()), ProtocolViolation, READER),
    Fault(24, "another slot", reader(faults.WrongSlot()), ProtocolViolation, READER),
    Fault(25, "ICC_MUTE", reader(faults.SlotFailure(0xFE)), CardMute, READER),
    *(
        Fault(25, name, reader(faults.SlotFailure(code)), SlotError, READER)
        for name, code in (("XFR_PARITY_ERROR", 0xFD), ("XFR_OVERRUN", 0xFC), ("HW_ERROR", 0xFB))
    ),
    Fault(
        25, "command not supported", reader(faults.SlotFailure(0x00)), SlotError, READER, frozenset({Outcome.REFUSED})
    ),
    Fault(25, "CMD_SLOT_BUSY", reader(faults.SlotFailure(0xE0)), ReaderBusy, READER, frozenset({Outcome.NOT_SENT})),
    Fault(28, "power lost", reader(faults.SlotFailure(icc=IccStatus.INACTIVE)), CardRemoved, READER),
    Fault(45, "a response of one byte", card(faults.OneByteResponse()), ProtocolViolation, CARD),
    Fault(45, "a response of nothing", card(faults.MuteCard()), CardMute, READER),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"F{fault.number}: {fault.name}")
def test_in_a_signature(bed: Bed, fault: Fault) -> None:
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
    """On the same connection: whatever comes of it, it is no wrong signature."""
    with bed.open(SHORT) as provider:
        sign(provider)
        bed.proxy.stall(to_server=False)
        with pytest.raises(DeadlineExceeded):
            sign(provider)
        bed.proxy.release()
        with contextlib.suppress(HardwareError):
            sign(provider)
    assert_healed(bed)


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


# --- The table ------------------------------------------------------------------------------------------------------

NUMBERS = (*range(1, 18), *range(20, 31), *range(40, 49))
"""Those of the wire; F49 and on are the card's, the PIN's and the process's."""

ELSEWHERE: dict[int, Sequence[str]] = {
    1: ("integration/test_usbip_client.py::test_an_unknown_name",),
    2: ("integration/test_tcp_wire.py::test_an_address_that_says_nothing_leaves_time_for_the_next",),
    3: ("integration/test_usbip_lying_server.py::test_a_send_that_succeeds_proves_nothing",),
    5: ("real/test_usbip_half_open.py::test_without_tls_the_device_is_free_again",),
    12: ("integration/test_usbip_lying_server.py::test_a_late_answer_is_never_taken_for_the_next_one",),
    14: ("integration/test_binding.py::test_the_device_is_found_by_its_serial_number_wherever_it_is",),
    15: (
        "integration/test_binding.py::test_a_server_that_was_killed_comes_back",
        "integration/test_binding.py::test_keys_work_again_after_their_provider_was_opened_anew",
    ),
    26: (
        "unit/ccid/test_ccid_host.py::test_message_is_put_together_from_packets",
        "unit/ccid/test_ccid_host.py::test_zero_length_packets_between_messages_are_noise",
        "unit/ccid/test_ccid_reader.py::test_reader_that_omits_zero_length_packets_is_read_in_two_steps",
    ),
    27: (
        "unit/ccid/test_ccid_reader.py::test_lost_notification_is_made_up_for_by_asking",
        "integration/test_usbip_lying_server.py::test_news_in_the_middle_of_an_exchange_are_filed_beside_it",
        "unit/ccid/test_ccid_simulated_reader.py::test_only_the_newest_news_counts",
    ),
    29: ("unit/ccid/test_ccid_reader.py::test_abort_that_is_ignored_keeps_the_reader_out_of_step",),
    30: (
        "unit/ccid/test_ccid_reader.py::test_bad_atr_is_a_violation",
        "unit/ccid/test_ccid_reader.py::test_card_that_stays_mute_is_an_error_after_two_resets",
    ),
    40: (
        "property/test_t1_lossy_line.py::test_a_fault_in_every_place_is_healed",
        "unit/ccid/test_ccid_every_profile.py::test_one_fault_on_the_line_is_healed",
    ),
    41: (
        "property/test_t1_lossy_line.py::test_command_is_done_once_or_nobody_knows",
        "unit/iso7816/test_iso7816_t1.py::test_card_that_does_not_resynchronise_is_given_up",
    ),
    42: (
        "property/test_t1_lossy_line.py::test_any_answers_come_to_an_end",
        "unit/ccid/test_ccid_card_link.py::test_extension_for_ever_goes_on_until_the_card_is_reset",
    ),
    43: (
        "unit/iso7816/test_iso7816_t1_blocks.py::test_bad_block_says_what_an_r_block_answers",
        "unit/iso7816/test_iso7816_t1.py::test_chain_that_the_card_aborts_is_over",
    ),
    44: (
        "unit/iso7816/test_iso7816_t1.py::test_command_is_done_although",
        "unit/iso7816/test_iso7816_t1.py::test_response_that_comes_late_is_not_taken_for_the_next_one",
    ),
    46: (
        "unit/iso7816/test_iso7816_channel.py::test_a_response_of_65537_bytes_is_a_violation",
        "unit/ccid/test_ccid_exchange_levels.py::test_longest_response_is_taken_and_a_longer_one_is_not",
    ),
    47: (
        "unit/iso7816/test_iso7816_processors.py::test_get_response_is_sent_as_often_as_is_allowed",
        "property/test_t1_lossy_line.py::test_endless_response_has_an_end",
    ),
    48: (
        "unit/iso7816/test_iso7816_channel.py::test_any_status_word_is_handed_up_unchanged_and_a_pin_is_sent_once",
        "unit/tcos/test_tcos_status_words.py::test_the_outcome_is_what_the_status_word_proves",
    ),
}
"""Row -> tests under ``tests/`` that prove it, or prove it too."""


def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_no_row_is_missing() -> None:
    own = functions_of("integration/test_faults_wire.py")
    here = {int(name.split("_")[1][1:]) for name in own if name.startswith("test_f")}
    here |= {fault.number for fault in FAULTS} | {number for number, *_ in IMPORTS}
    assert sorted(here | ELSEWHERE.keys()) == list(NUMBERS)


@pytest.mark.parametrize(
    ("number", "place"), [(number, place) for number in ELSEWHERE for place in ELSEWHERE[number]]
)
def test_what_stands_elsewhere_stands_there(number: int, place: str) -> None:
    path, _, name = place.partition("::")
    assert name in functions_of(path)
