"""Which bytes of a CCID conversation a capture shows."""

import dataclasses

import pytest

from demail_hw.ccid.capture_mask import CcidMask
from demail_hw.iso7816.atr import Checksum
from demail_hw.iso7816.t1_blocks import IBlock, RBlock, encode_block
from demail_hw.usb.descriptors import ConfigurationDescriptor
from demail_hw.usb.setup import get_descriptor
from demail_hw.usbip.messages import CmdSubmit, Direction
from demail_hw_simulators.reader_profiles import configuration_of, reader_profile

PIN = b"918273"
VERIFY = bytes.fromhex("0020008106") + PIN
MASKED = bytes.fromhex("0020008106") + b"******"
DECIPHER = bytes.fromhex("002A8086 02 8100 00")
SIGN = bytes.fromhex("002A9E9A 02 AABB 00")


def submit(direction: Direction, endpoint: int, length: int, setup: bytes = bytes(8)) -> CmdSubmit:
    return CmdSubmit(1, 0x10002, direction, endpoint, 0, length, 0, 0, 0, setup)


def out(mask: CcidMask, data: bytes) -> bytes:
    return mask(submit(Direction.OUT, 1, len(data)), data)


def answered(mask: CcidMask, block: bytes) -> bytes:
    message = bytes((0x80, *len(block).to_bytes(4, "little"), 0, 0, 0, 0, 0)) + block
    masked = mask(submit(Direction.IN, 2, 1034), message)
    assert masked[:10] == message[:10]
    return masked[10:]


def xfr(block: bytes, level: int = 0) -> bytes:
    return bytes((0x6F, *len(block).to_bytes(4, "little"), 0, 0, 0, *level.to_bytes(2, "little"))) + block


def sent(mask: CcidMask, block: bytes, level: int = 0) -> bytes:
    message = xfr(block, level)
    masked = out(mask, message)
    assert masked[:10] == message[:10]
    return masked[10:]


def mask_for(profile: str) -> CcidMask:
    """One that has seen the reader's descriptor, or none."""
    mask = CcidMask()
    if profile:
        data = reader_profile(profile).configuration_descriptor()
        setup = get_descriptor(2, 0, len(data)).encode()
        assert mask(submit(Direction.IN, 0, 9, get_descriptor(2, 0, 9).encode()), data[:9]) == data[:9]
        assert mask(submit(Direction.IN, 0, len(data), setup), data) == data
    return mask


def configuration(profile: str, *, number: int = 0, alternate: int = 0) -> ConfigurationDescriptor:
    """Of one interface, with this number and alternate setting."""
    decoded = ConfigurationDescriptor.decode(reader_profile(profile).configuration_descriptor())
    interface = dataclasses.replace(decoded.interfaces[0], number=number, alternate_setting=alternate)
    return dataclasses.replace(decoded, interfaces=(interface,))


def show(mask: CcidMask, *configurations: ConfigurationDescriptor) -> None:
    for index, each in enumerate(configurations):
        data = each.encode()
        assert mask(submit(Direction.IN, 0, len(data), get_descriptor(2, index, len(data)).encode()), data) == data


def t1(information: bytes, *, more: bool = False, sequence: int = 0, edc: Checksum = Checksum.LRC) -> bytes:
    return b"".join(map(bytes, encode_block(IBlock(sequence, (information,), more), edc)))


EVERY = ["", "ext_apdu", "short_apdu", "tpdu"]


@pytest.mark.parametrize("profile", EVERY)
def test_an_apdu(profile: str) -> None:
    mask = mask_for(profile)
    assert sent(mask, VERIFY) == MASKED
    assert sent(mask, SIGN) == SIGN
    assert answered(mask, b"signed\x90\x00") == b"signed\x90\x00"


def test_a_device_of_two_interfaces_has_two_conversations() -> None:
    """Of levels of their own; and what a card decrypts is hidden, whatever the other one is told meanwhile."""
    mask = CcidMask()
    data = configuration_of(reader_profile("utrust_4701_f"), reader_profile("utrust_4701_f_cl"))
    mask(submit(Direction.IN, 0, len(data), get_descriptor(2, 0, len(data)).encode()), data)

    def also(block: bytes, level: int) -> bytes:
        return mask(submit(Direction.OUT, 4, 10 + len(block)), xfr(block, level))[10:]

    also(VERIFY[:7], 1)
    assert also(VERIFY[7:], 2) == b"****"
    sent(mask, t1(DECIPHER))
    also(SIGN, 0)
    secret = t1(b"secret\x90\x00")
    assert b"secret" not in answered(mask, secret)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("number", [0, 1])
def test_configurations_that_differ_in_level_hide_a_pin_at_either(order: int, number: int) -> None:
    """Whichever was shown last, and be it shown again; also where only the pipes are the same."""
    mask = CcidMask()
    both = (configuration("tpdu"), configuration("ext_apdu", number=number))[::order]
    show(mask, *both, *both, both[1])
    assert PIN not in sent(mask, t1(VERIFY))
    assert PIN not in sent(mask, VERIFY)
    sent(mask, t1(DECIPHER))
    assert b"secret" not in answered(mask, t1(b"secret\x90\x00"))


def test_alternate_settings_that_differ_in_level_hide_a_pin_at_either() -> None:
    mask = CcidMask()
    first, other = configuration("tpdu"), configuration("ext_apdu", alternate=1)
    show(mask, dataclasses.replace(first, interfaces=first.interfaces + other.interfaces))
    assert PIN not in sent(mask, t1(VERIFY))
    assert PIN not in sent(mask, VERIFY)


@pytest.mark.parametrize("profile", ["", "tpdu"])
@pytest.mark.parametrize("edc", Checksum)
def test_a_block(profile: str, edc: Checksum) -> None:
    mask = mask_for(profile)
    block = t1(VERIFY, edc=edc)
    code = len(block) - 3 - len(VERIFY)
    assert sent(mask, block) == block[:3] + MASKED + b"*" * code
    ready = b"".join(map(bytes, encode_block(RBlock(1), edc)))
    assert sent(mask, ready) == ready
    plain = t1(SIGN, sequence=1, edc=edc)
    assert sent(mask, plain) == plain


def test_the_chain_of_a_reader_with_apdus() -> None:
    mask = mask_for("ext_apdu")
    assert (
        sent(mask, bytes.fromhex("00240000 00 000C") + PIN, level=1) == bytes.fromhex("00240000 00 000C") + b"******"
    )
    assert sent(mask, b"", level=0x10) == b""
    assert sent(mask, PIN, level=3) == b"******"
    assert sent(mask, PIN + b"\x00", level=2) == b"*******"
    assert sent(mask, SIGN) == SIGN


def test_the_chain_of_blocks() -> None:
    mask = mask_for("tpdu")
    first = t1(VERIFY[:8], more=True)
    assert sent(mask, first) == first[:8] + b"***" + b"*"
    assert sent(mask, first) == first[:8] + b"***" + b"*", "it is sent again"
    assert sent(mask, t1(VERIFY[8:], sequence=1)) == b"\x00\x40\x03" + b"***" + b"*"
    plain = t1(SIGN, sequence=0)
    assert sent(mask, plain) == plain


def test_a_chain_that_was_broken_off_hides_no_pin() -> None:
    mask = mask_for("tpdu")
    begun = t1(SIGN[:6], more=True)
    assert sent(mask, begun) == begun
    assert PIN not in sent(mask, t1(VERIFY))
    mask = mask_for("ext_apdu")
    sent(mask, SIGN[:6], level=1)
    assert PIN not in sent(mask, VERIFY, level=2)


def test_a_block_that_is_sent_again_is_masked_again() -> None:
    mask = mask_for("tpdu")
    first, last = t1(VERIFY[:8], more=True), t1(VERIFY[8:], sequence=1)
    shown = [sent(mask, block) for block in (first, first, last, last)]
    assert shown[0] == shown[1]
    assert shown[2] == shown[3]
    assert PIN[3:] not in shown[3]
    assert sent(mask, t1(SIGN)) == t1(SIGN)


@pytest.mark.parametrize("power", [0x62, 0x63, None])
@pytest.mark.parametrize("sequence", [0, 1])
def test_a_verify_behind_a_chain_of_blocks_that_was_broken_off(power: int | None, sequence: int) -> None:
    mask = mask_for("tpdu")
    sent(mask, t1(SIGN[:4], more=True))
    if power is not None:
        out(mask, bytes((power, 0, 0, 0, 0, 0, 0, 0, 0, 0)))
    shown = sent(mask, t1(VERIFY[:8], more=True, sequence=sequence))
    shown += sent(mask, t1(VERIFY[8:], sequence=1 - sequence))
    assert PIN[:3] not in shown
    assert PIN[3:] not in shown


def test_an_interrupt_between_two_parts_of_what_was_deciphered() -> None:
    mask = mask_for("ext_apdu")
    sent(mask, DECIPHER)
    answer = bytes((0x80, 102, 0, 0, 0, 0, 0, 0, 0, 0)) + bytes(range(100)) + b"\x90\x00"
    shown = mask(submit(Direction.IN, 2, 64), answer[:64])
    assert mask(submit(Direction.IN, 3, 8), b"\x50\x03") == b"\x50\x03"
    shown += mask(submit(Direction.IN, 2, 64), answer[64:])
    assert shown == answer[:10] + b"*" * 102


@pytest.mark.parametrize("profile", ["", "tpdu"])
@pytest.mark.parametrize(
    "block",
    [
        t1(VERIFY)[:-1] + b"\x00",  # a wrong code
        b"\x00\x00\x02" + VERIFY + b"\x00",  # a length that is too short
        b"\x00\x00\xff" + VERIFY,  # and too long
    ],
)
def test_a_block_that_is_none_hides_no_pin(profile: str, block: bytes) -> None:
    masked = sent(mask_for(profile), block)
    assert PIN not in masked
    assert len(masked) == len(block)


@pytest.mark.parametrize("profile", EVERY)
@pytest.mark.parametrize("cut", [4, 10, 14, 16, 18])
def test_a_message_in_pieces_is_not_shown(profile: str, cut: int) -> None:
    message = xfr(VERIFY)
    message += bytes(-len(message) % 8)
    message = message[:1] + (len(message) - 10).to_bytes(4, "little") + message[5:]
    mask = mask_for(profile)
    masked = out(mask, message[:cut]) + out(mask, message[cut:])
    assert PIN[:3] not in masked
    assert PIN[3:] not in masked
    assert len(masked) == len(message)


def test_a_short_transfer_ends_a_message_that_is_not_whole() -> None:
    mask = mask_for("ext_apdu")
    out(mask, xfr(SIGN)[:-3])
    assert sent(mask, SIGN) == SIGN


def test_what_a_card_deciphered_is_masked() -> None:
    mask = mask_for("ext_apdu")
    sent(mask, DECIPHER)
    assert answered(mask, b"key\x61\x05") == b"***\x61\x05"
    sent(mask, bytes.fromhex("00C0000005"))
    assert answered(mask, b"more!\x90\x00") == b"*****\x90\x00"
    sent(mask, SIGN)
    assert answered(mask, b"signed\x90\x00") == b"signed\x90\x00"


def test_what_a_card_deciphered_is_masked_in_blocks() -> None:
    mask = mask_for("tpdu")
    sent(mask, t1(DECIPHER))
    assert answered(mask, t1(b"key", more=True)) == b"\x00\x20\x03" + b"****"
    ready = b"".join(map(bytes, encode_block(RBlock(1))))
    sent(mask, ready)
    assert answered(mask, t1(b"end\x90\x00", sequence=1)) == b"\x00\x40\x05" + b"***\x90\x00*"
    assert mask(submit(Direction.IN, 3, 8), b"\x50\x02") == b"\x50\x02"


def test_other_messages_are_shown() -> None:
    mask = CcidMask()
    for message in ("62 00000000 00 01 000000", "65 00000000 00 07 000000"):
        assert out(mask, bytes.fromhex(message)) == bytes.fromhex(message)


def test_what_is_secure_is_not_shown() -> None:
    head = bytes.fromhex("69 0D000000 00 01 000000")
    assert out(mask_for("ext_apdu"), head + b"\x02" + PIN + PIN) == head + b"*" * 13


def saw_vendor(mask: CcidMask, vendor: int) -> CcidMask:
    descriptor = bytearray(reader_profile("ext_apdu").device_descriptor())
    descriptor[8:10] = vendor.to_bytes(2, "little")
    setup = get_descriptor(1, 0, 18).encode()
    assert mask(submit(Direction.IN, 0, 18, setup), bytes(descriptor)) == descriptor
    return mask


@pytest.mark.parametrize(("vendor", "shown"), [(None, False), (0x072F, False), (0x04E6, True)])
def test_an_escape_is_shown_where_its_meaning_is_known(vendor: int | None, shown: bool) -> None:
    mask = CcidMask() if vendor is None else saw_vendor(CcidMask(), vendor)
    head, answer = bytes.fromhex("6B 06000000 00 01 000000"), bytes.fromhex("83 3C000000 00 01 000000") + PIN * 10
    assert out(mask, head + PIN) == head + (PIN if shown else b"*" * 6)
    seen = mask(submit(Direction.IN, 2, 64), answer[:64]) + mask(submit(Direction.IN, 2, 64), answer[64:])
    assert seen == (answer if shown else answer[:10] + b"*" * 60)
    other = bytes.fromhex("81 00000000 00 01 000000")
    assert mask(submit(Direction.IN, 2, 64), other) == other


def test_a_request_with_data_is_not_shown() -> None:
    assert CcidMask()(submit(Direction.OUT, 0, 3, bytes.fromhex("2165000000000300")), b"PIN") == b"***"
