"""CCID codecs for every value and any bytes, and both machines glued together with no transport at all."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.ccid.class_descriptor import CcidDescriptor, Features, find_ccid_interface
from demail_hw.ccid.code_points import ClockStatus, CommandStatus, IccStatus
from demail_hw.ccid.device import ApduReceived, CcidDevice, EscapeReceived, PowerOffRequested, PowerOnRequested, Reply
from demail_hw.ccid.exchange_levels import ApduExchange, ExtendedApduLevel
from demail_hw.ccid.host import NEED_DATA, CcidHost
from demail_hw.ccid.messages import (
    Abort,
    Command,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeData,
    GetParameters,
    GetSlotStatus,
    HardwareFault,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    Mechanical,
    NotifySlotChange,
    Parameters,
    ResetParameters,
    Response,
    Secure,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotChange,
    SlotStatus,
    Status,
    T0Apdu,
    XfrBlock,
    decode_command,
    decode_interrupt,
    decode_response,
)
from demail_hw.ccid.parameters import T0ProtocolData, T1ProtocolData
from demail_hw.errors import ProtocolViolation
from demail_hw_simulators.ccid_device import UTRUST_2700F

BYTE = st.integers(0, 0xFF)
WORD = st.integers(0, 0xFFFF)
DWORD = st.integers(0, 0xFFFFFFFF)
DATA = st.binary(max_size=300)
BUFFERS = st.binary(min_size=1, max_size=300).map(lambda data: (data,)) | st.just(())
STATUS = st.builds(Status, st.sampled_from(IccStatus), st.sampled_from(CommandStatus))
DONE = st.builds(Status, st.sampled_from(IccStatus))

COMMANDS = st.one_of(
    st.builds(IccPowerOn, BYTE),
    st.sampled_from([IccPowerOff(), GetSlotStatus(), GetParameters(), ResetParameters(), Abort()]),
    st.builds(XfrBlock, BUFFERS, WORD, BYTE),
    st.builds(Secure, BUFFERS, WORD, BYTE),
    st.builds(Escape, BUFFERS),
    st.builds(SetParameters, BYTE, DATA),
    st.builds(IccClock, BYTE),
    st.builds(Mechanical, BYTE),
    st.builds(T0Apdu, BYTE, BYTE, BYTE),
    st.builds(SetDataRateAndClockFrequency, DWORD, DWORD),
)
RESPONSES = st.one_of(
    st.builds(DataBlock, DATA, STATUS, BYTE, BYTE),
    st.builds(SlotStatus, STATUS, BYTE, st.sampled_from(ClockStatus)),
    st.builds(Parameters, BYTE, DATA, STATUS, BYTE),
    st.builds(EscapeData, DATA, STATUS, BYTE),
    st.builds(DataRateAndClockFrequency, DWORD, DWORD, DONE, BYTE),
)


@given(COMMANDS, BYTE, BYTE)
def test_command_round_trip(command: Command, slot: int, seq: int) -> None:
    header, decoded = decode_command(b"".join(command.encode(slot, seq)))
    assert (header.slot, header.seq, decoded) == (slot, seq, command)


@given(RESPONSES, BYTE, BYTE)
def test_response_round_trip(response: Response, slot: int, seq: int) -> None:
    header, decoded = decode_response(b"".join(response.encode(slot, seq)))
    assert (header.slot, header.seq, decoded) == (slot, seq, response)


@given(st.lists(st.builds(SlotChange, st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_slot_changes_round_trip(slots: list[SlotChange]) -> None:
    decoded = decode_interrupt(NotifySlotChange(tuple(slots)).encode())
    assert isinstance(decoded, NotifySlotChange)
    assert list(decoded.slots[: len(slots)]) == slots


@given(st.builds(HardwareFault, BYTE, BYTE, BYTE))
def test_hardware_error_round_trip(fault: HardwareFault) -> None:
    assert decode_interrupt(fault.encode()) == fault


@given(st.builds(T0ProtocolData, *[BYTE] * 5))
def test_t0_parameters_round_trip(data: T0ProtocolData) -> None:
    assert T0ProtocolData.decode(data.encode()) == data


@given(st.builds(T1ProtocolData, *[BYTE] * 7))
def test_t1_parameters_round_trip(data: T1ProtocolData) -> None:
    assert T1ProtocolData.decode(data.encode()) == data


@given(
    st.builds(
        CcidDescriptor,
        **{"version": WORD, "lcd_layout": WORD, "features": DWORD.map(Features)}
        | dict.fromkeys(("max_slot_index", "voltage_support", "clocks_supported", "data_rates_supported"), BYTE)
        | dict.fromkeys(("class_get_response", "class_envelope", "pin_support", "max_busy_slots"), BYTE)
        | dict.fromkeys(("protocols", "default_clock", "maximum_clock", "data_rate", "max_data_rate"), DWORD)
        | dict.fromkeys(("max_ifsd", "synchronous_protocols", "mechanical", "max_message_length"), DWORD),
    )
)
def test_class_descriptor_round_trip(descriptor: CcidDescriptor) -> None:
    assert CcidDescriptor.decode(descriptor.encode()) == descriptor
    configuration = dataclasses.replace(UTRUST_2700F, descriptor=descriptor).configuration_descriptor()
    assert find_ccid_interface(configuration).descriptor == descriptor


HEADED = st.builds(
    lambda kind, length, rest, data: bytes((kind,)) + length.to_bytes(4, "little") + rest + data,
    BYTE,
    st.integers(0, 20) | DWORD,
    st.binary(min_size=5, max_size=5),
    st.binary(max_size=20),
)
"""Bytes that look like a message, so that the decoders get beyond the first check."""


@pytest.mark.parametrize(
    "decode",
    [
        decode_command,
        decode_response,
        decode_interrupt,
        CcidDescriptor.decode,
        find_ccid_interface,
        T0ProtocolData.decode,
        T1ProtocolData.decode,
    ],
    ids=lambda decode: decode.__qualname__,
)
@given(encoded=st.binary(max_size=80) | HEADED)
def test_any_bytes_are_a_value_or_a_violation(decode: Callable[[bytes], object], encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        decode(encoded)


@given(st.integers(0, 180), BYTE)
def test_one_changed_byte_in_a_configuration_is_a_value_or_a_violation(index: int, byte: int) -> None:
    encoded = bytearray(UTRUST_2700F.configuration_descriptor())
    encoded[index % len(encoded)] = byte
    with contextlib.suppress(ProtocolViolation):
        find_ccid_interface(bytes(encoded))


@given(st.lists(st.binary(max_size=70) | HEADED, max_size=8))
def test_host_takes_any_bytes(transfers: list[bytes]) -> None:
    host = CcidHost(max_message_length=64, packet_size=8)
    host.send(XfrBlock((b"\0\xa4\4\0",)))
    for transfer in transfers:
        host.receive_data(transfer)
        try:
            while host.next_event() is not NEED_DATA:
                pass
        except ProtocolViolation:
            return
        assert 0 < host.read_length <= 64 + 8


@given(st.lists(st.binary(max_size=70) | HEADED | COMMANDS.map(lambda c: b"".join(c.encode(0, 1))), max_size=12))
def test_device_answers_any_bytes(transfers: list[bytes]) -> None:
    """Whatever it is sent, it raises nothing, and what it says is a message."""
    device = CcidDevice(UTRUST_2700F.descriptor, packet_size=8)
    device.card_inserted()
    for transfer in transfers:
        device.receive_data(transfer)
        for reply in serve(device, lambda apdu: apdu):
            decode_response(reply)


# --- Host and device, glued --------------------------------------------------------------------------------------

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
LINKS = {
    "whole": (64, lambda message: [message]),
    "byte by byte": (1, lambda message: [message[i : i + 1] for i in range(len(message))]),
    "packets": (64, lambda message: [message[i : i + 64] for i in range(0, len(message), 64)]),
    "packets and zero-length ones": (
        64,
        lambda message: (
            [b"", *(message[i : i + 64] for i in range(0, len(message), 64))]
            + ([b""] if len(message) % 64 == 0 else [])
        ),
    ),
}


def serve(device: CcidDevice, card: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Everything that the device says now."""
    while (event := device.next_event()) is not NEED_DATA:
        match event:
            case Reply(message):
                yield message
            case PowerOnRequested():
                yield device.answer(ATR).message
            case PowerOffRequested():
                yield device.answer().message
            case EscapeReceived(data):
                yield device.answer(data).message
            case ApduReceived(apdu):
                yield device.answer(card(apdu)).message


@pytest.mark.parametrize("link", LINKS)
@given(
    apdus=st.lists(st.tuples(st.integers(1, 400), st.integers(2, 400)), min_size=1, max_size=4),
    max_length=st.integers(43, 200) | st.just(1034),
)
def test_apdus_go_through_every_link(link: str, apdus: list[tuple[int, int]], max_length: int) -> None:
    packet_size, pieces = LINKS[link]
    descriptor = dataclasses.replace(UTRUST_2700F.descriptor, max_message_length=max_length)
    host = CcidHost(max_message_length=max_length, packet_size=packet_size)
    device = CcidDevice(descriptor, packet_size=packet_size)
    device.card_inserted()
    seen: list[bytes] = []

    def run(command: Command) -> Response:
        for piece in pieces(b"".join(host.send(command))):
            device.receive_data(piece)
        for message in serve(device, lambda apdu: seen.append(apdu) or bytes(answer_length)):
            for piece in pieces(message):
                host.receive_data(piece)
        event = host.next_event()
        assert isinstance(event, Response)
        return event

    answer_length = 0
    run(IccPowerOn())
    level = ExtendedApduLevel(descriptor)
    for command_length, answer_length in apdus:
        command = bytes(index & 0xFF for index in range(command_length))
        response = through(level.exchange((command[:5], command[5:])), run)
        assert response == bytes(answer_length)
        assert seen.pop() == command
        assert not seen


def through(exchange: ApduExchange, run: Callable[[Command], Response]) -> bytes:
    """The response APDU of an exchange whose blocks are run one by one."""
    block = next(exchange)
    while True:
        answer = run(block)
        assert isinstance(answer, DataBlock)
        try:
            block = exchange.send(answer)
        except StopIteration as done:
            response: bytes = done.value
            return response
