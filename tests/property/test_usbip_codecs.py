"""USB and USB/IP codecs: what goes in comes out, in any pieces, and no bytes raise anything but a violation."""

import contextlib
from collections.abc import Callable, Sequence
from random import Random as Shuffler
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffer
from demail_hw.usb.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    decode_string,
    encode_string,
)
from demail_hw.usb.setup import SetupPacket
from demail_hw.usb.standard_requests import StandardRequests
from demail_hw.usbip.client import ClientEvent, UsbIpClient
from demail_hw.usbip.events import NEED_DATA, NeedData, Submitted, UrbCompleted, UrbUnlinked
from demail_hw.usbip.messages import (
    MAX_TRANSFER_LENGTH,
    CmdSubmit,
    CmdUnlink,
    DevlistEntry,
    OpHeader,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    UsbDevice,
    UsbInterface,
    UsbipStatus,
    decode_bus_id,
    decode_count,
    decode_reply,
    decode_request,
)
from demail_hw.usbip.server import ServerEvent, UsbIpServerConnection

Event = TypeVar("Event")

bytes_8 = st.integers(0, 0xFF)
bytes_16 = st.integers(0, 0xFFFF)
bytes_32 = st.integers(0, 0xFFFFFFFF)
int_32 = st.integers(-(2**31), 2**31 - 1)
lengths = st.integers(0, MAX_TRANSFER_LENGTH)
no_packets = st.sampled_from((0, -1))
directions = st.integers(0, 1)


def texts(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=size - 1)


interfaces = st.builds(UsbInterface, bytes_8, bytes_8, bytes_8)
devices = st.builds(
    UsbDevice,
    texts(256),
    texts(32),
    bytes_16,
    bytes_16,
    bytes_32,
    *(bytes_16 for _ in range(3)),
    *(bytes_8 for _ in range(5)),
    st.integers(0, 32),
)


@st.composite
def entries(draw: st.DrawFn) -> DevlistEntry:
    device = draw(devices)
    count = device.interface_count
    return DevlistEntry(device, tuple(draw(st.lists(interfaces, min_size=count, max_size=count))))


requests = st.one_of(
    st.builds(
        CmdSubmit,
        bytes_32,
        bytes_32,
        directions,
        st.integers(0, 15),
        bytes_32,
        lengths,
        int_32,
        no_packets,
        int_32,
        st.binary(min_size=8, max_size=8),
    ),
    st.builds(CmdUnlink, bytes_32, bytes_32, bytes_32),
)
statuses = st.integers(-(2**31), 0)
replies = st.one_of(
    st.builds(RetSubmit, bytes_32, statuses, lengths, int_32, no_packets, int_32),
    st.builds(RetUnlink, bytes_32, statuses),
)


@given(requests)
def test_requests_round_trip(request: CmdSubmit | CmdUnlink) -> None:
    assert len(request.encode()) == 48
    assert decode_request(request.encode()) == request


@given(replies)
def test_replies_round_trip(reply: RetSubmit | RetUnlink) -> None:
    assert len(reply.encode()) == 48
    assert decode_reply(reply.encode()) == reply


@given(devices)
def test_devices_round_trip(device: UsbDevice) -> None:
    assert UsbDevice.decode(device.encode()) == device


endpoint_descriptors = st.builds(
    EndpointDescriptor,
    bytes_8,
    bytes_8,
    bytes_16,
    bytes_8,
    st.sampled_from((b"", b"\x02\x25", b"\x07\x30\0\0\0\0\0")),
)
interface_descriptors = st.builds(
    InterfaceDescriptor,
    *(bytes_8 for _ in range(6)),
    st.lists(endpoint_descriptors, max_size=4).map(tuple),
    st.sampled_from((b"", b"\x02\x21", b"\x04\x21\x10\x01" * 2)),
)
configurations = st.builds(
    ConfigurationDescriptor,
    *(bytes_8 for _ in range(4)),
    st.lists(interface_descriptors, max_size=4).map(tuple),
    st.sampled_from((b"", b"\x08\x0b\0\0\0\0\0\0")),
)


@given(configurations)
def test_configurations_round_trip(configuration: ConfigurationDescriptor) -> None:
    assert ConfigurationDescriptor.decode(configuration.encode()) == configuration


@given(st.builds(DeviceDescriptor, *(n for n in (bytes_16, *[bytes_8] * 4, *[bytes_16] * 3, *[bytes_8] * 4))))
def test_device_descriptors_round_trip(device: DeviceDescriptor) -> None:
    assert DeviceDescriptor.decode(device.encode()) == device


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_strings_round_trip(text: str) -> None:
    assert decode_string(encode_string(text)) == text


@given(st.builds(SetupPacket, bytes_8, bytes_8, bytes_16, bytes_16, bytes_16))
def test_setup_packets_round_trip_and_are_answered(setup: SetupPacket) -> None:
    assert SetupPacket.decode(setup.encode()) == setup
    device = DeviceDescriptor(0x0200, 0, 0, 0, 8, 1, 2, 3, 1, 2, 3, 1).encode()
    configuration = ConfigurationDescriptor(1, 0, 0x80, 50).encode()
    answer = StandardRequests(device, configuration, ("a",)).answer(setup)
    assert answer is None or len(answer) <= setup.length


DECODERS: Sequence[Callable[[bytes], object]] = (
    decode_request,
    decode_reply,
    decode_bus_id,
    decode_count,
    decode_string,
    OpHeader.decode,
    UsbDevice.decode,
    UsbInterface.decode,
    DeviceDescriptor.decode,
    ConfigurationDescriptor.decode,
    SetupPacket.decode,
)


@given(
    st.one_of(
        st.binary(max_size=400),
        st.sampled_from((8, 9, 18, 32, 48, 312)).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    )
)
def test_arbitrary_bytes_are_decoded_or_a_violation(data: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ProtocolViolation):
            decode(data)


@given(configurations, st.integers(0, 200), bytes_8)
def test_a_configuration_with_one_wrong_byte_is_decoded_or_a_violation(
    configuration: ConfigurationDescriptor, position: int, value: int
) -> None:
    raw = bytearray(configuration.encode())
    raw[position % len(raw)] = value
    with contextlib.suppress(ProtocolViolation):
        assert ConfigurationDescriptor.decode(raw).encode() == raw


READER = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 3, 0, 0, 0, 1, 1, 1)


def imported_client() -> UsbIpClient:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    client.receive_data(OpRepImport(READER).encode())
    client.next_event()
    client.send(CmdSubmit(1, READER.devid, 0, 1, 0, 4), (b"data",))
    client.send(CmdSubmit(2, READER.devid, 1, 2, 0, 64))
    client.send(CmdUnlink(3, READER.devid, 2))
    return client


def listing_client() -> UsbIpClient:
    client = UsbIpClient()
    client.send(OpReqDevlist())
    return client


def importing_client() -> UsbIpClient:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    return client


def exporting_server() -> UsbIpServerConnection:
    server = UsbIpServerConnection()
    server.receive_data(OpReqImport("1-1").encode())
    server.next_event()
    server.send(OpRepImport(READER))
    return server


MACHINES: Sequence[Callable[[], UsbIpClient | UsbIpServerConnection]] = (
    UsbIpClient,
    listing_client,
    importing_client,
    imported_client,
    UsbIpServerConnection,
    exporting_server,
)

plausible = st.one_of(
    st.binary(max_size=100),
    requests.map(lambda request: request.encode()),
    replies.map(lambda reply: reply.encode()),
    st.builds(lambda *fields: RetSubmit(*fields).encode(), st.integers(0, 3), statuses, st.integers(0, 70)),
    st.builds(lambda code: OpHeader(code).encode(), st.sampled_from((0x8003, 0x8005, 0x0003, 0x0005))),
)


@given(st.sampled_from(MACHINES), st.lists(plausible, max_size=6), st.booleans())
def test_machines_survive_arbitrary_bytes(
    make: Callable[[], UsbIpClient | UsbIpServerConnection], pieces: list[bytes], close: bool
) -> None:
    machine = make()
    with contextlib.suppress(ProtocolViolation):
        for piece in (*filter(None, pieces), *((b"",) if close else ())):
            machine.receive_data(piece)
            for _ in range(len(piece) + 1):
                if machine.next_event() is NEED_DATA:
                    break


# --- Client and server on a link that keeps no boundaries ---------------------------------------------------------

links = st.sampled_from(("whole", "bytes", "coalesced"))


class FakeLink:
    """Carries what one machine sends to the other, in pieces of its own, and collects the events."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.client = UsbIpClient()
        self.server = UsbIpServerConnection()
        self._held: dict[bool, list[bytes]] = {True: [], False: []}

    def to_server(self, buffers: Sequence[Buffer]) -> None:
        self._held[True].append(b"".join(buffers))

    def to_client(self, buffers: Sequence[Buffer]) -> None:
        self._held[False].append(b"".join(buffers))

    def server_events(self) -> list[ServerEvent]:
        return deliver(self.server.receive_data, self.server.next_event, self._pieces(True))

    def client_events(self) -> list[ClientEvent]:
        return deliver(self.client.receive_data, self.client.next_event, self._pieces(False))

    def _pieces(self, upwards: bool) -> list[bytes]:
        held, self._held[upwards] = self._held[upwards], []
        match self.how:
            case "bytes":
                return [bytes((byte,)) for byte in b"".join(held)]
            case "coalesced":
                return [b"".join(held)]
            case _:
                return held


def deliver(
    receive: Callable[[bytes], None], next_event: Callable[[], Event | NeedData], pieces: list[bytes]
) -> list[Event]:
    events: list[Event] = []
    for piece in filter(None, pieces):
        receive(piece)
        while (event := next_event()) is not NEED_DATA:
            events.append(event)
    return events


def imported_link(how: str) -> FakeLink:
    link = FakeLink(how)
    link.to_server(link.client.send(OpReqImport("1-1")))
    assert link.server_events() == [OpReqImport("1-1")]
    link.to_client(link.server.send(OpRepImport(READER)))
    assert link.client_events() == [OpRepImport(READER)]
    return link


@given(links, st.lists(entries(), max_size=3))
def test_a_device_list_over_any_link(how: str, listed: list[DevlistEntry]) -> None:
    link = FakeLink(how)
    link.to_server(link.client.send(OpReqDevlist()))
    assert link.server_events() == [OpReqDevlist()]
    link.to_client(link.server.send(OpRepDevlist(tuple(listed))))
    assert link.client_events() == [OpRepDevlist(tuple(listed))]


@given(links, st.sampled_from([status for status in UsbipStatus if status]))
def test_a_refused_import_over_any_link(how: str, status: UsbipStatus) -> None:
    link = FakeLink(how)
    link.to_server(link.client.send(OpReqImport("1-1")))
    assert link.server_events() == [OpReqImport("1-1")]
    link.to_client(link.server.send(OpRepImport(None, status)))
    assert link.client_events() == [OpRepImport(None, status)]


transfers = st.lists(
    st.tuples(st.sampled_from(("out", "in", "unlinked")), st.binary(max_size=200), st.sampled_from((0, -32, -121))),
    max_size=8,
)


@given(links, transfers, st.randoms(use_true_random=False))
def test_transfers_over_any_link(how: str, wanted: list[tuple[str, bytes, int]], order: Shuffler) -> None:
    link = imported_link(how)
    commands = [
        CmdSubmit(link.client.next_seqnum(), READER.devid, int(kind != "out"), 1, 0, len(data))
        for kind, data, _ in wanted
    ]
    for command, (kind, data, _) in zip(commands, wanted, strict=True):
        link.to_server(link.client.send(command, (data,) if kind == "out" else ()))
    assert link.server_events() == [
        Submitted(command, data if kind == "out" else b"")
        for command, (kind, data, _) in zip(commands, wanted, strict=True)
    ]

    expected: list[ClientEvent] = []
    pairs = list(zip(commands, wanted, strict=True))
    order.shuffle(pairs)
    for command, (kind, data, status) in pairs:
        if kind == "unlinked":
            unlink = CmdUnlink(link.client.next_seqnum(), READER.devid, command.seqnum)
            link.to_server(link.client.send(unlink))
            assert link.server_events() == [unlink]
            link.to_client(link.server.send(RetUnlink(unlink.seqnum, UrbStatus.ECONNRESET)))
            expected.append(UrbUnlinked(command.seqnum, UrbStatus.ECONNRESET, pending=True))
        else:
            answer = data if kind == "in" else b""
            link.to_client(link.server.send(RetSubmit(command.seqnum, status, len(data)), answer))
            expected.append(UrbCompleted(command.seqnum, status, answer))
    assert link.client_events() == expected
    assert len(link.client.pending) == len(link.server.pending) == 0
