"""What is fuzzed: the decoders and machines that take a stranger's bytes. Any bytes are a value or a typed error.

A machine gets its bytes in pieces: the first byte says how long they are.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
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
from demail_hw.config.loading import parse_configuration
from demail_hw.errors import HardwareError
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.apdu import CommandApdu, ResponseApdu
from demail_hw.iso7816.atr import Atr, Checksum, HistoricalBytes
from demail_hw.iso7816.pps import Pps
from demail_hw.iso7816.t1_blocks import decode_block
from demail_hw.iso7816.trace import Trace, mask
from demail_hw.pin_sources import parse_pin_source
from demail_hw.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, decode_string
from demail_hw.usb.setup import SetupPacket
from demail_hw.usbip.access import AccessRule
from demail_hw.usbip.capture import Capture
from demail_hw.usbip.client import UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Submitted
from demail_hw.usbip.messages import (
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


def _pieces(data: bytes) -> Iterator[bytes]:
    size = (data[0] if data else 0) or len(data) or 1
    return (data[start : start + size] for start in range(1, len(data), size))


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


@_refusing(HardwareError)
def _pump(data: bytes) -> None:
    pump = UrbPump()
    pump.from_kernel(_submit(1, Direction.OUT, 3).encode() + b"abc" + _submit(2, Direction.IN, 64).encode())
    pump.from_kernel(CmdUnlink(3, DEVICE.devid, 2).encode())
    for number, piece in enumerate(_pieces(data)):
        (pump.from_kernel if number % 3 == 2 else pump.from_server)(piece)


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
    "t1_block": _decoders(decode_block, lambda data: decode_block(data, Checksum.CRC)),
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
