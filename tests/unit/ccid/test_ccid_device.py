"""The device machine: what a reader answers, to the byte."""

import pytest

from demail_hw.ccid.code_points import IccStatus
from demail_hw.ccid.device import (
    ApduReceived,
    CcidDevice,
    DeviceEvent,
    EscapeReceived,
    PowerOffRequested,
    PowerOnRequested,
    Reply,
)
from demail_hw.ccid.host import NEED_DATA, NeedData
from demail_hw.ccid.slot_errors import SlotErrorCode
from demail_hw_simulators.ccid_device import UTRUST_2700F

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
POWER_ON = "62 00000000 00 05 000000"
XFR = "6f 04000000 00 06 000000 00a40400"


def make_device(icc: IccStatus = IccStatus.ACTIVE) -> CcidDevice:
    device = CcidDevice(UTRUST_2700F.descriptor, packet_size=64)
    if icc is not IccStatus.ABSENT:
        device.card_inserted()
    if icc is IccStatus.ACTIVE:
        assert event(device, POWER_ON) == PowerOnRequested(0)
        device.answer(ATR)
    assert device.icc is icc
    return device


def event(device: CcidDevice, text: str) -> DeviceEvent | NeedData:
    device.receive_data(bytes.fromhex(text))
    return device.next_event()


def reply(text: str) -> Reply:
    return Reply(bytes.fromhex(text))


def test_apdu_reaches_the_card_and_its_response_the_host() -> None:
    device = make_device()
    assert event(device, XFR) == ApduReceived(bytes.fromhex("00a40400"))
    assert device.busy
    assert device.answer(b"\x90\0") == reply("80 02000000 00 06 000000 9000")
    assert not device.busy


@pytest.mark.parametrize(
    ("icc", "text", "answer"),
    [
        (IccStatus.ABSENT, "65 00000000 00 05 000000", "81 00000000 00 05 020000"),
        (IccStatus.INACTIVE, "65 00000000 00 05 000000", "81 00000000 00 05 010000"),
        (IccStatus.ACTIVE, "65 00000000 00 05 000000", "81 00000000 00 05 000000"),
        # ICC_MUTE without a card, or with one that has no power.
        (IccStatus.ABSENT, POWER_ON, "80 00000000 00 05 42fe00"),
        (IccStatus.ABSENT, XFR, "80 00000000 00 06 42fe00"),
        (IccStatus.INACTIVE, XFR, "80 00000000 00 06 41fe00"),
        (IccStatus.INACTIVE, "6c 00000000 00 05 000000", "82 00000000 00 05 41fe00"),
        # The index of the byte that is wrong: length, slot, bPowerSelect, bProtocolNum, wLevelParameter.
        (IccStatus.ACTIVE, "65 01000000 00 05 000000", "81 00000000 00 05 400100"),
        (IccStatus.ACTIVE, "6f 05000000 00 05 000000 00a40400", "80 00000000 00 05 400100"),
        (IccStatus.ACTIVE, "6f ffffffff 00 05 000000 00a40400", "80 00000000 00 05 400100"),
        (IccStatus.ACTIVE, "6f 00000000 00 05 000000", "80 00000000 00 05 400100"),
        (IccStatus.ACTIVE, "65 00000000 01 05 000000", "81 00000000 01 05 420500"),
        (IccStatus.ACTIVE, "62 00000000 00 05 040000", "80 00000000 00 05 400700"),
        (IccStatus.ACTIVE, "61 07000000 00 05 020000 9610004300fe00", "82 00000000 00 05 400700"),
        (IccStatus.ACTIVE, "61 05000000 00 05 010000 9610004300", "82 00000000 00 05 400100"),
        (IccStatus.ACTIVE, "6e 00000000 00 05 020000", "81 00000000 00 05 400700"),
        (IccStatus.ACTIVE, "6f 01000000 00 05 000200 00", "80 00000000 00 05 400800"),
        (IccStatus.ACTIVE, "6f 01000000 00 05 000300 00", "80 00000000 00 05 400800"),
        (IccStatus.ACTIVE, "6f 00000000 00 05 001000", "80 00000000 00 05 400800"),
        (IccStatus.ACTIVE, "6f 01000000 00 05 000400 00", "80 00000000 00 05 400800"),
        # Not supported: Secure, Mechanical, and what is no command.
        (IccStatus.ACTIVE, "69 00000000 00 05 000000", "80 00000000 00 05 400000"),
        (IccStatus.ACTIVE, "71 00000000 00 05 010000", "81 00000000 00 05 400000"),
        (IccStatus.ACTIVE, "99 00000000 00 05 000000", "81 00000000 00 05 400000"),
        # Parameters: set by the reader from the ATR, by the host, and by default.
        (IccStatus.ACTIVE, "6c 00000000 00 05 000000", "82 07000000 00 05 000001 9610004300fe00"),
        (IccStatus.ACTIVE, "61 05000000 00 05 000000 1100000a00", "82 05000000 00 05 000000 1100000a00"),
        (IccStatus.ACTIVE, "6d 00000000 00 05 000000", "82 05000000 00 05 000000 1100000a00"),
        (IccStatus.ACTIVE, "6e 00000000 00 05 010000", "81 00000000 00 05 000001"),
        (IccStatus.ACTIVE, "6a 00000000 00 05 000000", "81 00000000 00 05 000000"),
        (IccStatus.ACTIVE, "73 08000000 00 05 000000 c012000067320000", "84 08000000 00 05 000000 c012000067320000"),
    ],
)
def test_answer_of_the_machine_itself(icc: IccStatus, text: str, answer: str) -> None:
    device = make_device(icc)
    assert event(device, text) == reply(answer)
    assert not device.busy


def test_message_over_the_limit_is_refused() -> None:
    device = make_device()
    assert event(device, "6f 01040000 00 05 000000" + "00" * 1025) == reply("80 00000000 00 05 400100")


def test_less_than_a_header_is_dropped() -> None:
    device = make_device()
    assert event(device, "65 00000000 00 05 0000") is NEED_DATA
    assert event(device, XFR) == ApduReceived(bytes.fromhex("00a40400"))


def test_power_off_leaves_the_card_inactive() -> None:
    device = make_device()
    assert event(device, "63 00000000 00 06 000000") == PowerOffRequested()
    assert device.answer() == reply("81 00000000 00 06 010001")
    assert device.icc is IccStatus.INACTIVE


def test_broken_atr_is_for_the_host_to_see() -> None:
    device = make_device(IccStatus.INACTIVE)
    event(device, POWER_ON)
    assert device.answer(b"\xff") == reply("80 01000000 00 05 000000 ff")


def test_failure_of_the_card() -> None:
    device = make_device()
    event(device, XFR)
    assert device.fail(SlotErrorCode.XFR_PARITY_ERROR) == reply("80 00000000 00 06 40fd00")


def test_escape() -> None:
    device = make_device()
    assert event(device, "6b 01000000 00 05 000000 1e") == EscapeReceived(b"\x1e")
    assert device.answer(b"\1\2") == reply("83 02000000 00 05 000000 0102")


def test_second_command_finds_the_slot_busy() -> None:
    device = make_device()
    event(device, XFR)
    assert event(device, "65 00000000 00 07 000000") == reply("81 00000000 00 07 40e000")
    assert device.answer(b"\x90\0") == reply("80 02000000 00 06 000000 9000")


def test_answer_that_nobody_waits_for_is_a_mistake() -> None:
    device = make_device()
    for act in (device.answer, device.extend_time, lambda: device.fail(0xFE)):
        with pytest.raises(RuntimeError):
            act()


def test_removal_ends_the_command_and_is_notified() -> None:
    device = make_device()
    event(device, XFR)
    assert device.card_removed() == reply("80 00000000 00 06 42fe00")
    assert device.slot_change.encode().hex() == "5002"
    device.card_inserted()
    assert device.slot_change.encode().hex() == "5003"
    assert device.card_removed() is None


# --- Chaining ----------------------------------------------------------------------------------------------------


def test_command_chain_can_begin_anew() -> None:
    device = make_device()
    more = reply("80 00000000 00 05 000010")
    assert event(device, "6f 01000000 00 05 000100 aa") == more
    assert event(device, "6f 01000000 00 05 000100 00") == more
    assert event(device, "6f 01000000 00 05 000300 a4") == more
    assert event(device, "6f 02000000 00 05 000200 0400") == ApduReceived(bytes.fromhex("00a40400"))


def test_endless_command_chain_is_an_overrun() -> None:
    device = make_device()
    block = "00040000 00 05 00{:02x}00" + "00" * 1024
    event(device, "6f" + block.format(1))
    replies = [event(device, "6f" + block.format(3)) for _ in range(64)]
    assert set(replies[:-1]) == {reply("80 00000000 00 05 000010")}
    assert replies[-1] == reply("80 00000000 00 05 40fc00")


def test_response_chain_is_lost_with_the_power() -> None:
    device = make_device()
    event(device, XFR)
    assert device.answer(bytes(1025)).message[9] == 1
    event(device, POWER_ON)
    device.answer(ATR)
    assert event(device, "6f 00000000 00 05 001000") == reply("80 00000000 00 05 400800")


def test_request_for_the_next_block_has_no_data() -> None:
    device = make_device()
    event(device, XFR)
    device.answer(bytes(1025))
    assert event(device, "6f 01000000 00 05 001000 00") == reply("80 00000000 00 05 400100")


# --- Abort (CCID 1.10, 5.3.1) ------------------------------------------------------------------------------------

ABORT_8 = "72 00000000 00 08 000000"
DONE_8 = "81 00000000 00 08 000000"


def test_abort_request_then_message() -> None:
    device = make_device()
    event(device, XFR)
    assert device.abort(0x0800) is None
    assert event(device, "65 00000000 00 07 000000") == reply("81 00000000 00 07 40ff00")
    assert event(device, ABORT_8) == reply(DONE_8)
    assert not device.busy
    assert event(device, XFR) == ApduReceived(bytes.fromhex("00a40400"))


def test_abort_message_then_request() -> None:
    device = make_device()
    event(device, XFR)
    assert event(device, ABORT_8) is NEED_DATA
    assert event(device, "65 00000000 00 07 000000") == reply("81 00000000 00 07 40ff00")
    assert device.abort(0x0800) == reply(DONE_8)
    assert not device.busy


def test_abort_of_another_slot_changes_nothing() -> None:
    device = make_device()
    assert device.abort(0x0801) is None
    assert event(device, XFR) == ApduReceived(bytes.fromhex("00a40400"))


def test_reset_takes_power_and_all_that_was_under_way() -> None:
    device = make_device()
    event(device, XFR)
    device.abort(0x0800)
    device.receive_data(bytes.fromhex("6f 00040000 00 09 000000") + bytes(54))
    device.reset()
    assert device.icc is IccStatus.INACTIVE
    assert not device.busy
    assert event(device, POWER_ON) == PowerOnRequested(0)
