"""What is fuzzed: the decoders and machines that take a stranger's bytes. Any bytes are a value or a typed error.

A machine gets its bytes in pieces: the first byte says how long they are, or each has its length in front.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Final, TypeAlias

from demail_hw.address import Address
from demail_hw.card_manager.certificate_input import parse_certificate
from demail_hw.ccid.capture_mask import CcidMask
from demail_hw.ccid.class_descriptor import CcidDescriptor, find_ccid_interface
from demail_hw.ccid.device import ApduReceived, CcidDevice, DeviceEvent, EscapeReceived, PowerOnRequested, Reply
from demail_hw.ccid.host import NEED_DATA as CCID_NEED_DATA
from demail_hw.ccid.host import CcidHost
from demail_hw.ccid.messages import XfrBlock, decode_command, decode_interrupt, decode_response
from demail_hw.ccid.parameters import T0ProtocolData, T1ProtocolData
from demail_hw.ccid.serial_framing import FrameReader
from demail_hw.ccid.utrust_escape import ReaderInfo
from demail_hw.cms import ber
from demail_hw.cms.container import cms_octets
from demail_hw.cms.content_encryption import content_cipher
from demail_hw.cms.enveloped_data import EnvelopedData, KeyTransRecipientInfo
from demail_hw.cms.key_transport import key_transport_padding
from demail_hw.config.loading import parse_configuration
from demail_hw.errors import HardwareError
from demail_hw.gateway.handshake import HandshakeObserver, Sender
from demail_hw.iso7816 import t0, tlv
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.atr import Atr, Checksum, HistoricalBytes
from demail_hw.iso7816.pps import Pps
from demail_hw.iso7816.t1 import DEFAULT_IFSD, T1
from demail_hw.iso7816.t1_blocks import MAX_INFORMATION, decode_block
from demail_hw.iso7816.tpdu import Transmission
from demail_hw.iso7816.trace import Trace, mask
from demail_hw.pin_sources import parse_pin_source
from demail_hw.usb.descriptors import ConfigurationDescriptor, DescriptorType, DeviceDescriptor, decode_string
from demail_hw.usb.setup import SetupPacket, get_descriptor
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.access import AccessRule
from demail_hw.usbip.capture import Capture
from demail_hw.usbip.client import UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Submitted
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    CmdSubmit,
    CmdUnlink,
    Direction,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    RetSubmit,
    UsbDevice,
    decode_reply,
    decode_request,
)
from demail_hw.usbip.pcapng import Endpoint, TcpFrames
from demail_hw.usbip.pump import UrbPump
from demail_hw.usbip.server import UsbIpServerConnection
from demail_hw.wut.control import verdict_on
from demail_hw.wut.inventory import InfoHeader, PortEntry, read_inventory
from demail_hw_simulators.reader_profiles import reader_profile

__all__ = ["TARGETS", "Target"]

Target: TypeAlias = Callable[[bytes], None]

DEVICE: Final = UsbDevice("/sys/1-1", "1-1", 1, 2, 2, 0x04E6, 0x5710, 3, 0, 0, 0, 1, 1, 1)
GRANTED: Final = OpRepImport(DEVICE).encode()
PROFILE: Final = reader_profile("ext_apdu")
SHOWN: Final = ShownDescriptors(PROFILE.device_descriptor(), (PROFILE.configuration_descriptor(),))
T1_BLOCK: Final = 3 + MAX_INFORMATION + 2
CRC, NEGOTIATED = 0x01, 0x02
SELECT: Final = bytes.fromhex("00a4000c023f00")
SIGN: Final = bytes.fromhex("002a9e9a33") + bytes(0x33) + b"\0"
T0_TPDU: Final = 5 + 255
RET_SUBMIT: Final = RetSubmit(0, 0, 0).encode()[:4]
LONG: Final = bytes.fromhex("00d60000000100") + bytes(256)
READ: Final = bytes.fromhex("00b0000000")


def _pieces(data: bytes) -> Iterator[bytes]:
    size = (data[0] if data else 0) or len(data) or 1
    return (data[start : start + size] for start in range(1, len(data), size))


def _prefixed(data: bytes, size: int = 1) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start = at + size
        at = start + int.from_bytes(data[at:start], "big")
        yield data[start:at]


def _refusing(*kinds: type[Exception]) -> Callable[[Target], Target]:
    """The target may raise these, and nothing else."""

    def wrap(target: Target) -> Target:
        def run(data: bytes) -> None:
            with contextlib.suppress(*kinds):
                target(data)

        return run

    return wrap


def _decoders(*decoders: Callable[[bytes], object]) -> Target:
    """Several of them, each on the same bytes."""

    def run(data: bytes) -> None:
        for decode in decoders:
            with contextlib.suppress(HardwareError):
                decode(data)

    return run


def _texts(parse: Callable[[str], object]) -> Target:
    def run(data: bytes) -> None:
        with contextlib.suppress(HardwareError, ValueError):
            parse(data.decode("utf-8", "surrogateescape"))

    return run


def _submit(seqnum: int, direction: Direction, length: int, endpoint: int = 1) -> CmdSubmit:
    return CmdSubmit(seqnum, DEVICE.devid, direction, endpoint, 0, length, 0, 0, 0, bytes(8))


@_refusing(HardwareError)
def _client(data: bytes) -> None:
    client = UsbIpClient()
    client.send(OpReqImport("1-1"))
    client.receive_data(GRANTED)
    client.next_event()
    client.send(_submit(1, Direction.OUT, 3), (b"abc",))
    client.send(_submit(2, Direction.IN, 64))
    client.send(CmdUnlink(3, DEVICE.devid, 2))
    for piece in _pieces(data):
        client.receive_data(piece)
        while client.next_event() is not NEED_DATA:
            pass


@_refusing(HardwareError)
def _import(data: bytes) -> None:
    for request in (OpReqImport("1-1"), OpReqDevlist()):
        client = UsbIpClient()
        client.send(request)
        for piece in _pieces(data):
            client.receive_data(piece)
            while client.next_event() is not NEED_DATA:
                pass


@_refusing(HardwareError)
def _server(data: bytes) -> None:
    server = UsbIpServerConnection()
    for piece in _pieces(data):
        server.receive_data(piece)
        while (event := server.next_event()) is not NEED_DATA:
            if isinstance(event, OpReqImport):
                server.send(OpRepImport(DEVICE))
            elif isinstance(event, Submitted) and event.command.seqnum % 2:
                server.send(RetSubmit(event.command.seqnum, -32, 0))


def _asks(seqnum: int, kind: DescriptorType, index: int = 0) -> bytes:
    setup = get_descriptor(kind, index, 255).encode()
    return CmdSubmit(seqnum, DEVICE.devid, Direction.IN, 0, 0, 255, 0, 0, 0, setup).encode()


@_refusing(HardwareError)
def _pump(data: bytes) -> None:
    """What is shown to the kernel as a descriptor is what was shown before."""
    pump = UrbPump(SHOWN)
    pump.from_kernel(_submit(1, Direction.OUT, 3).encode() + b"abc" + _submit(2, Direction.IN, 64).encode())
    pump.from_kernel(CmdUnlink(3, DEVICE.devid, 2).encode())
    asked = {4: SHOWN.device, 5: SHOWN.configurations[0], 6: b""}
    kinds = (DescriptorType.DEVICE, DescriptorType.CONFIGURATION)
    pump.from_kernel(b"".join(map(_asks, asked, (*kinds, DescriptorType.CONFIGURATION), (0, 0, 1))))
    pump.from_kernel(_asks(7, DescriptorType.STRING, 1))
    for number, piece in enumerate(_pieces(data)):
        if number % 3 == 2:
            pump.from_kernel(piece)
            continue
        for head, answer in itertools.pairwise((*pump.from_server(piece), b"")):
            seqnum = int.from_bytes(head[4:8], "big") if len(head) == HEADER_SIZE else 0
            reply = decode_reply(head) if seqnum in asked and head[:4] == RET_SUBMIT else None
            if isinstance(reply, RetSubmit) and reply.actual_length:
                assert asked[seqnum].startswith(bytes(answer))


def _capture(data: bytes) -> None:
    frames = TcpFrames(Endpoint("192.0.2.1", 50000), Endpoint("192.0.2.2", 3240))
    capture = Capture(frames, CcidMask(), write=lambda _: None, now=lambda: 0)
    capture.to_server(OpReqImport("1-1").encode() + _submit(1, Direction.IN, 1034, 2).encode())
    capture.to_client(GRANTED)
    for number, piece in enumerate(_pieces(data)):
        (capture.to_client if number % 2 else capture.to_server)(piece)
    capture.to_server(b"")
    capture.to_client(b"")


def _mask_ccid(data: bytes) -> None:
    """A mask never raises and keeps lengths."""
    masks = CcidMask()
    for piece in _pieces(data):
        direction = Direction(piece[0] & 1)
        shown = masks(_submit(1, direction, len(piece), endpoint=1 + direction), piece[1:])
        assert len(shown) == len(piece) - 1


@_refusing(HardwareError)
def _ccid_host(data: bytes) -> None:
    host = CcidHost(max_message_length=271, packet_size=8)
    host.send(XfrBlock((b"\0\xa4\4\0",)))
    for piece in _pieces(data):
        host.receive_data(piece)
        while host.next_event() is not CCID_NEED_DATA:
            pass
        assert 0 < host.read_length <= 271 + 8


def _ccid_device(data: bytes) -> None:
    """It answers everything with a message."""
    device = CcidDevice(PROFILE.descriptor, packet_size=8)
    device.card_inserted()
    for piece in _pieces(data):
        device.receive_data(piece)
        while (event := device.next_event()) is not CCID_NEED_DATA:
            decode_response(_reply(device, event).message)


def _reply(device: CcidDevice, event: DeviceEvent) -> Reply:
    match event:
        case PowerOnRequested():
            return device.answer(b"\x3b\0")
        case ApduReceived() | EscapeReceived():
            return device.answer(b"\x90\0")
        case Reply():
            return event
        case _:
            return device.answer()


@_refusing(HardwareError)
def _t1(data: bytes) -> None:
    """The card says these blocks; no block of ours is too long for it, and each exchange ends."""
    mode = data[0] if data else 0
    card = _prefixed(data[1:])
    t1 = T1(ifsc=DEFAULT_IFSD, checksum=Checksum.CRC if mode & CRC else Checksum.LRC)
    if mode & NEGOTIATED:
        _play(t1.negotiate_ifsd(MAX_INFORMATION), card, T1_BLOCK)
    for command in (SELECT, SIGN, LONG):
        _play(t1.exchange((command,)), card, T1_BLOCK)


@_refusing(HardwareError)
def _t0(data: bytes) -> None:
    card = _prefixed(data)
    for command in (SELECT, SIGN, READ, LONG):
        _play(t0.exchange((command,)), card, T0_TPDU)


def _play(exchange: Generator[Transmission, bytes, object], card: Iterator[bytes], longest: int) -> None:
    """Until it is done, or the card has said all."""
    with contextlib.suppress(StopIteration):
        sent = next(exchange)
        for answer in card:
            assert 0 < sum(map(len, sent.data)) <= longest
            sent = exchange.send(answer)


def _cms(data: bytes) -> None:
    """All but the decryption."""
    with contextlib.suppress(HardwareError):
        _walk(ber.decode(data))
    with contextlib.suppress(HardwareError):
        message = EnvelopedData.decode(cms_octets(data))
        for recipient in message.recipients:
            if isinstance(recipient, KeyTransRecipientInfo):
                with contextlib.suppress(HardwareError):
                    key_transport_padding(recipient.key_encryption)
        content_cipher(message.content)


def _walk(element: ber.Element) -> None:
    for read in (element.octets, element.integer, element.object_identifier):
        with contextlib.suppress(HardwareError):
            read()
    for child in element.children:
        _walk(child)


def _tls_handshake(data: bytes) -> None:
    """Both ends in turn. An observer never raises."""
    seen = HandshakeObserver()
    for sender, piece in zip(itertools.cycle(Sender), _prefixed(data, 2), strict=False):
        seen.note(sender, piece)
    assert seen.version is None or seen.server_hello is not None


def _serial(data: bytes) -> None:
    reader = FrameReader()
    for piece in _pieces(data):
        reader.receive_data(piece)
        while reader.next_event() is not CCID_NEED_DATA:
            pass


def _apdus(data: bytes) -> None:
    mask((data,))
    for decode in (CommandApdu.decode, ResponseApdu.decode):
        with contextlib.suppress(HardwareError):
            decode(data)


TARGETS: Final[Mapping[str, Target]] = {
    "access_rule": _texts(AccessRule.parse),
    "address": _texts(Address.parse),
    "apdu": _apdus,
    "atr": _decoders(Atr.decode, HistoricalBytes.decode, Pps.decode),
    "capture": _capture,
    "capture_mask": _mask_ccid,
    "ccid_device": _ccid_device,
    "ccid_host": _ccid_host,
    "ccid_messages": _decoders(decode_command, decode_response, decode_interrupt),
    "ccid_parameters": _decoders(T0ProtocolData.decode, T1ProtocolData.decode, ReaderInfo.decode),
    "certificate": _decoders(parse_certificate),
    "cms": _cms,
    "configuration": _texts(parse_configuration),
    "descriptors": _decoders(
        DeviceDescriptor.decode,
        ConfigurationDescriptor.decode,
        CcidDescriptor.decode,
        find_ccid_interface,
        decode_string,
        SetupPacket.decode,
    ),
    "pin_source": _texts(parse_pin_source),
    "serial_framing": _serial,
    "t0": _t0,
    "t1": _t1,
    "t1_block": _decoders(decode_block, lambda data: decode_block(data, Checksum.CRC)),
    "tls_handshake": _tls_handshake,
    "tlv": _decoders(tlv.decode_all, tlv.decode_header),
    "trace": _texts(Trace.parse),
    "usbip_client": _client,
    "usbip_import": _import,
    "usbip_messages": _decoders(decode_request, decode_reply, UsbDevice.decode),
    "usbip_pump": _pump,
    "usbip_server": _server,
    "wut": _decoders(read_inventory, InfoHeader.decode, PortEntry.decode, verdict_on),
}
"""By the name of their folder in the corpus."""
