"""Messages against the bytes of CCID 1.10 and of recorded traces."""

import pytest

from demail_hw.ccid.code_points import ClockStatus, CommandStatus, IccStatus, LevelParameter, MessageType
from demail_hw.ccid.messages import (
    Abort,
    BadField,
    Command,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeData,
    GetParameters,
    GetSlotStatus,
    HardwareFault,
    Header,
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
from demail_hw.ccid.parameters import T0ProtocolData, T1ProtocolData, parameters_for
from demail_hw.errors import ReaderError
from demail_hw.iso7816.atr import Atr

EMPTY = SlotChange(present=False, changed=False)
FAILED = Status(IccStatus.INACTIVE, CommandStatus.FAILED)

COMMANDS = [
    (IccPowerOn(), "62 00000000 00 05 000000"),
    (IccPowerOn(1), "62 00000000 00 05 010000"),
    (IccPowerOff(), "63 00000000 00 05 000000"),
    (GetSlotStatus(), "65 00000000 00 05 000000"),
    (XfrBlock((bytes.fromhex("00a40400"),)), "6f 04000000 00 05 000000 00a40400"),
    (XfrBlock((), LevelParameter.NEXT), "6f 00000000 00 05 001000"),
    (XfrBlock((b"\1",), LevelParameter.BEGINS, 3), "6f 01000000 00 05 030100 01"),
    (GetParameters(), "6c 00000000 00 05 000000"),
    (ResetParameters(), "6d 00000000 00 05 000000"),
    (SetParameters(1, bytes.fromhex("9610004300fe00")), "61 07000000 00 05 010000 9610004300fe00"),
    (Escape((b"\x1e",)), "6b 01000000 00 05 000000 1e"),
    (IccClock(1), "6e 00000000 00 05 010000"),
    (T0Apdu(3, 0xC0, 0xFF), "6a 00000000 00 05 03c0ff"),
    (Secure((b"\0\1",), 0x0203, 4), "69 02000000 00 05 040302 0001"),
    (Mechanical(5), "71 00000000 00 05 050000"),
    (Abort(), "72 00000000 00 05 000000"),
    (SetDataRateAndClockFrequency(4800, 412903), "73 08000000 00 05 000000 c0120000 e74c0600"),
]

RESPONSES = [
    (DataBlock(b"\x90\x00"), "80 02000000 00 05 000000 9000"),
    (DataBlock(chain=0x10), "80 00000000 00 05 000010"),
    (DataBlock(b"", Status(IccStatus.ACTIVE, CommandStatus.TIME_EXTENSION), 1), "80 00000000 00 05 800100"),
    (DataBlock(b"", FAILED, 0xFE), "80 00000000 00 05 41fe00"),
    (SlotStatus(Status(IccStatus.INACTIVE), clock=ClockStatus.STOPPED_LOW), "81 00000000 00 05 010001"),
    (SlotStatus(Status(IccStatus.ABSENT)), "81 00000000 00 05 020000"),
    (Parameters(1, bytes.fromhex("9610004300fe00")), "82 07000000 00 05 000001 9610004300fe00"),
    (Parameters(0, b"", FAILED, 7), "82 00000000 00 05 410700"),
    (EscapeData(b"\0\0\1\x40"), "83 04000000 00 05 000000 00000140"),
    (DataRateAndClockFrequency(4800, 412903), "84 08000000 00 05 000000 c0120000 e74c0600"),
    (DataRateAndClockFrequency(status=FAILED), "84 00000000 00 05 410000"),
]


@pytest.mark.parametrize(("command", "text"), COMMANDS, ids=lambda value: type(value).__name__)
def test_command(command: Command, text: str) -> None:
    message = bytes.fromhex(text)
    assert b"".join(command.encode(0, 5)) == message
    header, decoded = decode_command(message)
    assert decoded == command
    assert (header.slot, header.seq) == (0, 5)


@pytest.mark.parametrize(("response", "text"), RESPONSES, ids=lambda value: type(value).__name__)
def test_response(response: Response, text: str) -> None:
    message = bytes.fromhex(text)
    assert b"".join(response.encode(0, 5)) == message
    header, decoded = decode_response(message)
    assert decoded == response
    assert (header.slot, header.seq) == (0, 5)


def test_data_travels_uncopied() -> None:
    secret = bytearray(b"123456")
    header, first, second = XfrBlock((b"\0\x20\0\0\6", secret)).encode(0, 7)
    assert header == bytes.fromhex("6f 0b000000 00 07 000000")
    assert first == b"\0\x20\0\0\6"
    assert second is secret


@pytest.mark.parametrize("message", [XfrBlock((b"123456",)), Secure((b"123456",)), Escape((b"123456",))])
def test_no_repr_shows_data(message: Command) -> None:
    assert "123456" not in repr(message)
    assert "31" not in repr(message)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("", 0),
        ("65 00000000 00 05 0000", 9),
        ("65 01000000 00 05 000000", 1),
        ("65 00000000 00 05 000000 00", 1),
        ("65 01000000 00 05 000000 00", 1),
        ("62 01000000 00 05 000000 00", 1),
        ("73 07000000 00 05 000000 00000000000000", 1),
        ("80 00000000 00 05 000000", 0),
        ("00 00000000 00 05 000000", 0),
        ("6f ffffffff 00 05 000000", 1),
    ],
)
def test_bad_command_names_the_byte(text: str, index: int) -> None:
    with pytest.raises(BadField) as caught:
        decode_command(bytes.fromhex(text))
    assert caught.value.index == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("80 03000000 00 05 000000 9000", 1),
        ("80 01000000 00 05 000000 9000", 1),
        ("81 01000000 00 05 000000 90", 1),
        ("80 00000000 00 05 030000", 7),
        ("80 00000000 00 05 c00000", 7),
        ("6f 00000000 00 05 000000", 0),
        ("84 07000000 00 05 000000 00000000000000", 1),
    ],
)
def test_bad_response_names_the_byte(text: str, index: int) -> None:
    with pytest.raises(BadField) as caught:
        decode_response(bytes.fromhex(text))
    assert caught.value.index == index


def test_reserved_bits_of_the_status_are_not_looked_at() -> None:
    assert Status.decode(0x7D) == FAILED


def test_header_names_its_fields() -> None:
    header = Header.decode(bytes.fromhex("80 02010000 03 04 050607"))
    assert header == Header(MessageType.DATA_BLOCK, 258, 3, 4, 5, 6, 7)
    assert header.encode() == bytes.fromhex("80 02010000 03 04 050607")


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("5003", [SlotChange(True, True)]),
        ("5002", [SlotChange(False, True)]),
        ("5001", [SlotChange(True, False)]),
        ("501c02", [EMPTY, SlotChange(True, True), SlotChange(True, False), EMPTY, SlotChange(False, True)]),
    ],
)
def test_slot_changes(text: str, slots: list[SlotChange]) -> None:
    message = NotifySlotChange(tuple(slots))
    assert message.encode() == bytes.fromhex(text)
    decoded = decode_interrupt(bytes.fromhex(text))
    assert isinstance(decoded, NotifySlotChange)
    assert decoded.slots[: len(slots)] == message.slots
    assert not any(any(slot) for slot in decoded.slots[len(slots) :])


def test_hardware_error() -> None:
    assert HardwareFault(0, 7, 1).encode() == bytes.fromhex("51000701")
    assert decode_interrupt(bytes.fromhex("51000701")) == HardwareFault(0, 7, 1)


@pytest.mark.parametrize("text", ["", "50", "510007", "5100070100", "8003"])
def test_noise_on_the_interrupt_endpoint_is_a_violation(text: str) -> None:
    with pytest.raises(BadField):
        decode_interrupt(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("atr", "protocol", "data"),
    [
        # The ATR and the parameters of the trace.
        ("3bff9600008131fe4380318065b0850300ef120fff82900019", 1, "9610004300fe00"),
        # T=0 only, TA1 = 11 and all else by default, in both conventions.
        ("3b00", 0, "1100000a00"),
        ("3f00", 0, "1102000a00"),
        # TA1 = 18, TC1 = 05, TC2 = 07.
        ("3bd018054007", 0, "1800050700"),
        # T=1 without specific bytes: IFSC 32, BWI 4, CWI 13.
        ("3b800181", 1, "1110004d002000"),
        # T=1 by the specific mode, although T=0 is offered first; CRC.
        ("3b8090017120450104", 1, "11110045002000"),
    ],
)
def test_parameters_follow_the_atr(atr: str, protocol: int, data: str) -> None:
    assert parameters_for(Atr.decode(bytes.fromhex(atr))) == SetParameters(protocol, bytes.fromhex(data))


def test_protocol_data_round_trip() -> None:
    t0 = T0ProtocolData(0x18, 2, 5, 7, 3)
    t1 = T1ProtocolData(0x96, 0x11, 0, 0x43, 0, 254, 0)
    assert T0ProtocolData.decode(t0.encode()) == t0
    assert T1ProtocolData.decode(t1.encode()) == t1


@pytest.mark.parametrize("decode", [T0ProtocolData.decode, T1ProtocolData.decode])
def test_protocol_data_of_the_wrong_length_is_a_violation(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(BadField):
        decode(bytes(6))


def test_card_that_speaks_another_protocol_is_refused() -> None:
    with pytest.raises(ReaderError, match="T=14"):
        parameters_for(Atr.decode(bytes.fromhex("3b800e8e")))
