"""Commands by the names of the standard."""

import pytest

from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS
from demail_hw.iso7816.command_names import CommandView, answer_meaning, command_name

PIN = "06" + "**" * 6


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("00a4000c023f00", "SELECT MF"),
        ("00a40000", "SELECT MF"),
        ("00a4000c02df02", "SELECT file"),
        ("00a4010c02df02", "SELECT DF"),
        ("00a4020c024531", "SELECT EF"),
        ("00a4030c", "SELECT parent DF"),
        ("00a4040c07d2760000030102", "SELECT application"),
        ("00a4080c04df024331", "SELECT by path from the MF"),
        ("00a4090c024331", "SELECT by path"),
        ("00a47f0c024331", "SELECT"),
        ("00b0000000", "READ BINARY"),
        ("00b2010400", "READ RECORD"),
        ("0020008106" + "**" * 6, "VERIFY 81"),
        ("00200081", "VERIFY 81 (status)"),
        ("0020008100", "VERIFY 81 (status)"),
        ("00240000" + PIN, "CHANGE REFERENCE DATA 00"),
        ("002c0000" + PIN, "RESET RETRY COUNTER 00"),
        ("002241b606840180", "MANAGE SECURITY ENVIRONMENT: SET"),  # malformed: Lc says more
        ("0022c1b603840180", "MANAGE SECURITY ENVIRONMENT: SET"),
        ("0022f301", "MANAGE SECURITY ENVIRONMENT: RESTORE"),
        ("002200b6", "MANAGE SECURITY ENVIRONMENT"),
        ("002a9e9a0131", "COMPUTE DIGITAL SIGNATURE"),
        ("002a808601aa00", "DECIPHER"),
        ("002a8084", "DECIPHER"),
        ("002a8480", "ENCIPHER"),
        ("002a8680", "ENCIPHER"),
        ("002a9080", "HASH"),
        ("002a00a8", "VERIFY DIGITAL SIGNATURE"),
        ("002a1234", "PERFORM SECURITY OPERATION"),
        ("00c0000010", "GET RESPONSE"),
        ("0084000008", "GET CHALLENGE"),
        ("10db0000ff" + "00" * 255, "PUT DATA, chained"),
        ("0ca4040c", "SELECT application, secure messaging"),
        ("02b00000", "READ BINARY, channel 2"),
        ("73b00000", "READ BINARY, chained, secure messaging, channel 7"),
        ("80aa060000", "proprietary command, INS AA"),
        ("8020008106" + "**" * 6, "proprietary command, INS 20"),
        ("ffca000000", "invalid class FF, INS CA"),
        ("00000000", "unknown command, INS 00"),
        ("0020", "a piece of a command"),
        ("", "a piece of a command"),
    ],
)
def test_names(command: str, name: str) -> None:
    assert command_name(command) == name


@pytest.mark.parametrize("ins", sorted(SECRET_INSTRUCTIONS))
def test_every_secret_command_has_a_name_with_its_reference(ins: int) -> None:
    assert command_name(f"00{ins:02x}0081{PIN}").endswith(" 81")


def test_a_masked_command_taken_apart() -> None:
    view = CommandView.of("0020008106" + "**" * 6)
    assert view == CommandView((0x00, 0x20, 0x00, 0x81), "**" * 6, 6, 0)
    assert view.masked


@pytest.mark.parametrize(
    ("command", "data", "nc", "ne"),
    [
        ("00b0000000", "", 0, 256),
        ("00a4000c023f00", "3f00", 2, 0),
        ("002a80860301aabb02", "01aabb", 3, 2),
        ("002a8086000003" + "01aabb" + "0000", "01aabb", 3, 65536),
        ("00a4000c05", "", 0, 5),
        ("00a4000c053f00", "053f00", None, None),
        ("0020008107" + "**" * 2, "07****", None, None),
        ("00200081" + "**" * 3, "******", None, None),  # with zeros it would be well formed
        ("00200081" + "**", "**", None, None),
    ],
)
def test_lengths(command: str, data: str, nc: int | None, ne: int | None) -> None:
    view = CommandView.of(command)
    assert view is not None
    assert (view.data, view.nc, view.ne) == (data, nc, ne)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("00200081", 0x63C2, "Tries left: 2 (63C2)."),
        ("00200081", 0x6983, "The authentication method is blocked (6983)."),
        ("00200081" + PIN, 0x63C2, "It failed, and tries are left: 2 (63C2)."),
        ("80200081", 0x63C2, "It failed, and tries are left: 2 (63C2)."),
        ("00", 0x9000, "The command was done (9000)."),
    ],
)
def test_meanings(command: str, status: int, said: str) -> None:
    assert answer_meaning(command, status) == said
