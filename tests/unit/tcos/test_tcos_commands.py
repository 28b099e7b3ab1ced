"""The bytes of each command, as foreign clients of these cards send them."""

import pytest

from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.secrets import Pin
from demail_hw.tcos import commands
from demail_hw.tcos.layout import Application, KeySlot, Profile
from demail_hw.tcos.netkey import NKS
from demail_hw.tcos.profiles import IDKEY, NETKEY2, NETKEY3, SIGNATURE_CARD_V2
from permits import permit


def encoded(command: CommandApdu) -> str:
    return b"".join(command.encode()).hex()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (commands.select_master_file(), "00a4000c023f00"),
        (commands.select_application(NKS), "00a4040c07d2760000030102"),
        (commands.select_application(Application.by_path("DF07", "DF07")), "00a4080c02df07"),
        (commands.select_elementary_file(0x2F02), "00a4020c022f02"),
        (commands.read_binary(0), "00b0000000"),
        (commands.read_binary(0x102, 16), "00b0010210"),
        (commands.read_record(2), "00b2020400"),
        (commands.select_for_control_parameters(0x4331), "00a4020402433100"),
        (commands.update_binary(0x102, b"\xaa\xbb"), "00d6010202aabb"),
        (commands.update_binary(1, bytes(255)), "00d60001ff" + "00" * 255),
        (commands.pin_status(0x81), "00200081"),
        (commands.compute_digital_signature(b"\xaa" * 51), "002a9e9a33" + "aa" * 51 + "00"),
        (commands.decipher(b"\x00", b"\xbb" * 256), "002a808600010100" + "bb" * 256 + "0100"),
        (commands.decipher(b"\x02", b"\xbb" * 128), "002a80868102" + "bb" * 128 + "80"),
    ],
)
def test_bytes(command: CommandApdu, expected: str) -> None:
    assert encoded(command) == expected


def key_of(profile: Profile, reference: int) -> KeySlot:
    return next(key for key in profile.keys if key.reference == reference)


@pytest.mark.parametrize(
    ("profile", "reference", "expected"),
    [
        (NETKEY3, 0x80, "002241b606800102840180"),  # scdaemon
        (NETKEY3, 0x82, "002241b803840182"),  # OpenSC
        (NETKEY2, 0x81, "0022c1b803840181"),  # OpenSC on TCOS 2
        (IDKEY, 0x84, "002241b803840184"),  # OpenSC on an IDKey
        (SIGNATURE_CARD_V2, 0x80, "002241b603840180"),
    ],
)
def test_bytes_of_mse(profile: Profile, reference: int, expected: str) -> None:
    environment = key_of(profile, reference).access.environment
    assert environment is not None
    assert encoded(commands.manage_security_environment(environment, reference)) == expected


def test_a_signature_key_of_tcos_2_needs_no_mse() -> None:
    assert key_of(NETKEY2, 0x80).access.environment is None


def test_verify_spends_its_permit_and_copies_no_pin() -> None:
    pin = Pin(bytearray(b"123456"))
    leave = permit(0x81, pin)
    command = commands.verify(leave)
    assert encoded(command) == "0020008106313233343536"
    assert "123456" not in repr(command)
    assert "313233343536" not in repr(command)
    with pytest.raises(RuntimeError):
        commands.verify(leave)
    pin.wipe()
    assert b"".join(command.encode())[5:] == bytes(6)


@pytest.mark.parametrize("offset", [-1, 0x8000])
def test_offset_in_a_transparent_file(offset: int) -> None:
    with pytest.raises(ValueError, match="32767"):
        commands.read_binary(offset)
    with pytest.raises(ValueError, match="32767"):
        commands.update_binary(offset, b"")
