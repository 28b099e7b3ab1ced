"""What pcscd with libccid sent to a reader, and what it was answered, byte for byte through both machines."""

from collections.abc import Iterator

import pytest

from demail_hw.ccid.code_points import ChainParameter, LevelParameter
from demail_hw.ccid.device import ApduReceived, CcidDevice, PowerOffRequested, PowerOnRequested, Reply
from demail_hw.ccid.exchange_levels import ApduExchange, ExtendedApduLevel
from demail_hw.ccid.host import NEED_DATA, CcidHost, TimeExtension
from demail_hw.ccid.messages import DataBlock, NotifySlotChange, SlotChange, XfrBlock, decode_command, decode_response
from demail_hw_simulators.ccid_device import UTRUST_2700F
from recorded_ccid import Line, read_trace

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
MAX_LENGTH = UTRUST_2700F.descriptor.max_message_length


def restore(to_reader: bool, header: bytes, data: bytes) -> bytes:
    """A message of which the recorder kept the first 30 bytes: one byte goes on, then come Le or the status word."""
    length = int.from_bytes(header[1:5], "little")
    if length == len(data):
        return header + data
    last = header[8] in (LevelParameter.WHOLE, LevelParameter.ENDS) if to_reader else header[9] in (
        ChainParameter.WHOLE,
        ChainParameter.ENDS,
    )  # fmt: skip
    end = (b"\0\0" if to_reader else b"\x90\0") if last else b""
    return header + data + data[-1:] * (length - len(data) - len(end)) + end


TRACE = read_trace("ext-apdu", restore)


def card(apdu: bytes) -> bytes:
    """What the card of the trace answers."""
    match apdu[1]:
        case 0xB0:
            return bytes(256) + b"\x90\0"
        case 0xEE:
            return apdu[7:-2] + b"\x90\0"
        case _:
            return b"\x90\0"


def answers(device: CcidDevice, message: bytes) -> list[bytes]:
    """The answers of a device whose card is the one of the trace."""
    device.receive_data(message)
    match device.next_event():
        case Reply(answer):
            return [answer]
        case PowerOnRequested():
            return [device.answer(ATR).message]
        case PowerOffRequested():
            return [device.answer().message]
        case ApduReceived(apdu):
            extensions = [device.extend_time().message for _ in range(2 if apdu[1] == 0xD0 else 0)]
            return [*extensions, device.answer(card(apdu)).message]
        case event:
            raise AssertionError(event)


def test_trace_is_whole() -> None:
    assert len(TRACE) == 54
    assert [line.name for line in TRACE[:2]] == ["GetSlotStatus", "SlotStatus"]
    assert max(len(line.message) for line in TRACE) == MAX_LENGTH


def test_device_machine_answers_as_recorded() -> None:
    device = CcidDevice(UTRUST_2700F.descriptor, packet_size=64)
    device.card_inserted()
    expected: list[bytes] = []
    for line in TRACE:
        if line.to_reader:
            assert not expected
            expected = answers(device, line.message)
        else:
            assert line.message == expected.pop(0)
    assert not expected


def test_device_machine_powers_off_as_recorded() -> None:
    device = CcidDevice(UTRUST_2700F.descriptor, packet_size=64)
    device.card_inserted()
    answers(device, bytes.fromhex("62 00 00 00 00 00 05 00 00 00"))
    (answer,) = answers(device, bytes.fromhex("63 00 00 00 00 00 7a 00 00 00"))
    assert answer == bytes.fromhex("81 00 00 00 00 00 7a 01 00 01")


def test_host_machine_sends_and_understands_the_recording() -> None:
    host = CcidHost(max_message_length=MAX_LENGTH, packet_size=64)
    extensions = 0
    for line in TRACE:
        if line.to_reader:
            _, command = decode_command(line.message)
            assert b"".join(host.send(command)) == line.message
            continue
        host.receive_data(line.message)
        event = host.next_event()
        if isinstance(event, TimeExtension):
            extensions += 1
            assert event.multiplier == 1
            assert host.outstanding
        else:
            assert event == decode_response(line.message)[1]
            assert not host.outstanding
        assert host.next_event() is NEED_DATA
    assert extensions == 2


@pytest.mark.parametrize("length", [300, 1100, 3000])
def test_extended_apdu_level_cuts_apdus_as_recorded(length: int) -> None:
    start = f"00ee000000{length:04x}"
    apdu = (bytes.fromhex(start), b"\1" * length, b"\0\0")
    lines = iter(TRACE[next(i for i, line in enumerate(TRACE) if line.message[10:].hex().startswith(start)) :])
    exchange = ExtendedApduLevel(UTRUST_2700F.descriptor).exchange(apdu)
    assert drive(exchange, lines) == b"\1" * length + b"\x90\0"


def drive(exchange: ApduExchange, lines: Iterator[Line]) -> bytes:
    """Compare every block with the recorded one, and give the recorded answer to it."""
    block = next(exchange)
    while True:
        _, recorded = decode_command(next(lines).message)
        assert isinstance(recorded, XfrBlock)
        assert (b"".join(block.data), block.level) == (b"".join(recorded.data), recorded.level)
        _, answer = decode_response(next(lines).message)
        assert isinstance(answer, DataBlock)
        try:
            block = exchange.send(answer)
        except StopIteration as done:
            response: bytes = done.value
            return response


def test_slot_change_of_the_trace() -> None:
    assert NotifySlotChange((SlotChange(present=True, changed=True),)).encode().hex() == "5003"
