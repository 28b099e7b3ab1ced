"""Reading, writing, making and deleting files (tcos.md 3.2, 3.8)."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from demail_hw.iso7816.apdu import ResponseApdu

Send: TypeAlias = Callable[[str], ResponseApdu]

GDO = "5A0A89490173510080407136"
SELECT_GDO = "00A4080C 02 2F02"
SELECT_NKS = "00A4040C 07 D2760000030102"
SELECT_KEYD = "00A4080C 04 DF025349"
SELECT_USER_CERTIFICATE = "00A4080C 04 DF024331"
VERIFY_GLOBAL = "00200000 06 313233343536"
FREE_ACL = "8618 A4000000FFFF B0000000FFFF D6000000FFFF 60000000FFFF"
# What opensc-explorer sends.
CREATE_EF = "80E00000 2B 6F29 8102000A 820100 83021235 85020100 " + FREE_ACL
CREATE_DF = "80E00000 3A 6F38 81020064 820138 83021234 840E666F6F2D31373934353839323431 850101 " + FREE_ACL
CREATE_RECORDS = "80E00000 10 6F0E 81020010 820404410008 83021236"


@pytest.fixture
def owner(send: Send) -> Send:
    """In the NKS application, with the global PIN verified."""
    assert send(SELECT_NKS).status == 0x9000
    assert send(VERIFY_GLOBAL).status == 0x9000
    return send


@pytest.mark.parametrize(
    ("command", "data", "status"),
    [
        ("00B000000C", GDO, 0x9000),
        ("00B0000000", GDO, 0x6282),
        ("00B000000D", GDO, 0x6282),
        ("00B00000 000000", GDO, 0x6282),
        ("00B00000 00000C", GDO, 0x9000),
        ("00B0000A02", GDO[20:], 0x9000),
        ("00B0000A03", GDO[20:], 0x6282),
        ("00B0000C01", "", 0x6B00),
        ("00B0000C00", "", 0x6B00),
        ("00B07FFF00", "", 0x6B00),
        ("00B0820000", "", 0x6A82),
        ("00B00000", "", 0x6700),
        ("00B00000 01 00 00", "", 0x6700),
        ("00B2010400", "", 0x6981),
        ("00D6000001 00", "", 0x6982),
    ],
)
def test_a_transparent_file(send: Send, command: str, data: str, status: int) -> None:
    send(SELECT_GDO)
    assert send(command) == ResponseApdu(bytes.fromhex(data), status)


def test_a_read_that_ends_with_the_file_is_no_warning(send: Send) -> None:
    send("00A4080C 04 DF02C000")
    assert send("00B0070000").status == 0x9000
    assert send("00B0070100").status == 0x6282
    assert send("00B0080000").status == 0x6B00


def test_an_extended_read_returns_the_whole_file(send: Send) -> None:
    send("00A4080C 04 DF02C000")
    answer = send("00B00000 000800")
    assert (len(answer.data), answer.status) == (2048, 0x9000)
    assert send("00B00000 000000") == ResponseApdu(answer.data, 0x6282)


@pytest.mark.parametrize(
    ("command", "data", "status"),
    [
        ("00B2010400", "A003830180B600", 0x9000),
        ("00B2020400", "A003830181B800", 0x9000),
        ("00B2040407", "A003830183B800", 0x9000),
        ("00B2010406", "", 0x6C07),
        ("00B2050400", "", 0x6A83),
        ("00B2000400", "", 0x6A83),
        ("00B2FF0400", "", 0x6A83),
        ("00B2010500", "", 0x6A86),
        ("00B2010000", "", 0x6A86),
        ("00B2010C00", "", 0x6A82),
        ("00B20104", "", 0x6700),
        ("00B0000000", "", 0x6981),
        ("00D6000001 00", "", 0x6981),
        ("00DC010401 00", "", 0x6982),
        ("00E2000001 00", "", 0x6982),
    ],
)
def test_a_record_file(send: Send, command: str, data: str, status: int) -> None:
    send(SELECT_KEYD)
    assert send(command) == ResponseApdu(bytes.fromhex(data), status)


@pytest.mark.parametrize("command", ["00B0000001", "00B2010400", "00D6000001 00", "00DC010401 00", "00E2000001 00"])
def test_without_a_current_file(send: Send, command: str) -> None:
    assert send(command).status == 0x6986


def test_user_certificates_are_written_by_their_owner_alone(owner: Send) -> None:
    owner(SELECT_USER_CERTIFICATE)
    assert owner("00B0000002").data == b"\xff\xff"
    assert owner("00D60000 02 3082").status == 0x9000
    assert owner("00B0000003").data == b"\x30\x82\xff"


def test_user_certificates_are_not_written_without_a_pin(send: Send) -> None:
    send(SELECT_USER_CERTIFICATE)
    assert send("00D60000 02 3082").status == 0x6982


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("00D607FF 01 30", 0x9000),
        ("00D607FF 02 3082", 0x6A84),
        ("00D60800 01 30", 0x6B00),
        ("00D68400 01 30", 0x6A82),
        ("00D60000", 0x6700),
    ],
)
def test_update_binary(owner: Send, command: str, status: int) -> None:
    owner(SELECT_USER_CERTIFICATE)
    assert owner(command).status == status


@pytest.mark.parametrize("path", ["DF02C000", "DF02C008", "DF025049", "DF025349", "DF024531"])
def test_the_maker_s_files_are_written_by_nobody(owner: Send, path: str) -> None:
    owner(f"00A4080C 04 {path}")
    assert {owner("00D6000001 00").status, owner("00DC010401 00").status} <= {0x6981, 0x6982}


def test_list(send: Send) -> None:
    assert send("80AA010000").data == bytes.fromhex("DF02DF01")
    assert send("80AA020000").data == bytes.fromhex("2F025049")
    send(SELECT_NKS)
    assert send("80AA010000") == ResponseApdu(b"", 0x6A82)
    files = "C000C200C500C201C008 433143324 3B143B24371 4372B000 453145B1457145B2 53495049".replace(" ", "")
    assert send("80AA020000").data == bytes.fromhex(files)


def test_card_information(send: Send) -> None:
    answer = send("80AA060000")
    assert answer == ResponseApdu(bytes.fromhex("04111922216A20800303010101000000"), 0x9000)
    assert answer.data[8] == 3  # what GnuPG reads as TCOS 3
    assert send("80AA06000F").status == 0x6C10


@pytest.mark.parametrize(
    ("command", "status"),
    [("80AA030000", 0x6A86), ("80AA010100", 0x6A86), ("80AA0100", 0x6700), ("80AA010001 00 00", 0x6700)],
)
def test_list_refuses(send: Send, command: str, status: int) -> None:
    assert send(command).status == status


def test_a_file_is_made_written_and_deleted(owner: Send) -> None:
    assert owner(CREATE_EF).status == 0x9000
    assert owner("00D60000 0A 00010203040506070809").status == 0x9000
    answer = owner("00A40204 02 1235 00")
    assert answer == ResponseApdu(bytes.fromhex("620E8002000A 820101 83021235 8A0101"), 0x9000)
    assert owner("00B0000000") == ResponseApdu(bytes(range(10)), 0x6282)
    assert owner("80E40000 02 1235").status == 0x9000
    assert owner("00A4020C 02 1235").status == 0x6A82


def test_a_record_file_is_made_and_filled(owner: Send) -> None:
    assert owner(CREATE_RECORDS).status == 0x9000
    assert owner("00E20000 08 0102030405060708").status == 0x9000
    assert owner("00E20000 09 010203040506070809").status == 0x6700
    assert owner("00E20000 07 01020304050607").status == 0x9000
    assert owner("00E20000 02 0102").status == 0x6A84
    assert owner("00DC0204 01 AA").status == 0x9000
    assert owner("00DC0304 01 AA").status == 0x6A83
    assert owner("00B2020400").data == b"\xaa"


def test_a_directory_is_made_and_deleted_with_what_is_in_it(owner: Send) -> None:
    assert owner(CREATE_DF).status == 0x9000
    assert owner(CREATE_EF).status == 0x9000
    assert owner("00A40404 03 666F6F 00").data.hex() == ("621a82013883021234840e666f6f2d313739343538393234318a0101")
    owner(SELECT_NKS)
    assert owner("80AA010000").data == bytes.fromhex("1234")
    assert owner("80E40000 02 1234").status == 0x9000
    assert owner("80AA010000").status == 0x6A82


def test_a_new_file_says_so_until_it_is_permanent(owner: Send) -> None:
    owner(CREATE_EF)
    assert owner("80EE0000").status == 0x9000
    assert owner("00A40204 02 1235 00").data == bytes.fromhex("620B8002000A 820101 83021235")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("6F0B 8102000A 820101 8302C000", 0x6A89),
        ("6F0B 8102000A 820101 83023F00", 0x6A89),
        ("6F10 820138 83021234 8407D2760000030102", 0x6A8A),
        ("6F0B 8102FFFF 820101 83021234", 0x6A84),
        ("6F07 8102000A 820101", 0x6A80),
        ("6F08 8102000A 83021234", 0x6A80),
        ("6F07 820101 83021234", 0x6A80),
        ("6F0A 8102000A 820101 830112", 0x6A80),
        ("6F0B 8102000A 820106 83021234", 0x6A80),
        ("6F0B 8102000A 820109 83021234", 0x6A80),
        ("6F0D 8102000A 820101 83021234 8600", 0x9000),
        ("6F0E 8102000A 820101 83021234 860100", 0x6A80),
        ("8102000A", 0x6A80),
        ("62 0B 8102000A 820101 83021234 6F00", 0x6A80),
        ("6F0B 8102000A", 0x6A80),
        ("6F1A 820138 83021234 8411" + "00" * 17, 0x6A80),
    ],
)
def test_create_judges_the_template(owner: Send, data: str, status: int) -> None:
    assert owner(f"80E00000 {len(bytes.fromhex(data)):02X} {data}").status == status


def test_access_entries_are_kept(owner: Send) -> None:
    # READ after the local PIN 81 only, UPDATE free, nothing said of the rest.
    assert owner("80E00000 1B 6F19 8102000A 820101 83021235 860C B0810000FFFF D6000000FFFF").status == 0x9000
    assert owner("00D60000 01 55").status == 0x9000
    assert owner("00B0000001").status == 0x6982
    assert owner("00200081 06 313131313131").status == 0x9000
    assert owner("00B0000001").data == b"\x55"


def test_access_entries_hold_for_records_too(owner: Send) -> None:
    assert owner("80E00000 1E 6F1C 8102000A 820404410008 83021235 860C B0810000FFFF D6000000FFFF").status == 0x9000
    assert owner("00E20000 01 55").status == 0x9000
    assert owner("00B2010400").status == 0x6982
    assert owner("00200081 06 313131313131").status == 0x9000
    assert owner("00B2010400").data == b"\x55"


def test_without_access_entries_a_file_is_its_maker_s(owner: Send) -> None:
    assert owner("80E00000 0D 6F0B 8102000A 820101 83021235").status == 0x9000
    assert owner("00D60000 01 55").status == 0x9000
    owner("00200000 06 393939393939")
    assert owner("00B0000001").data == b"\x55"
    assert owner("00D60000 01 66").status == 0x6982
    assert owner("80E40000 02 1235").status == 0x6982


def test_a_deleted_file_is_not_current(owner: Send) -> None:
    owner(CREATE_EF)
    owner("80E40000 02 1235")
    assert owner("00B0000001").status == 0x6986


def test_making_and_deleting_need_the_global_pin(send: Send) -> None:
    send(SELECT_NKS)
    assert send(CREATE_EF).status == 0x6982
    assert send("80EE0000").status == 0x6982
    send("00200081 06 313131313131")
    assert send(CREATE_EF).status == 0x6982
    send(VERIFY_GLOBAL)
    assert send(CREATE_EF).status == 0x9000


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("80E40000 02 C000", 0x6982),
        ("80E40000 02 1234", 0x6A82),
        ("80E40000 01 12", 0x6700),
        ("80E40000", 0x6700),
        ("80E40001 02 C000", 0x6A86),
        ("80E00000", 0x6700),
        ("80E00001 02 6F00", 0x6A86),
        ("80EE0001", 0x6A86),
        ("00E20001 01 00", 0x6A86),
    ],
)
def test_administration_refuses(owner: Send, command: str, status: int) -> None:
    assert owner(command).status == status


def test_nothing_is_made_in_the_master_file(send: Send) -> None:
    send(VERIFY_GLOBAL)
    assert send(CREATE_EF).status == 0x6982


def test_memory_ends_and_comes_back(owner: Send) -> None:
    create = "80E00000 0D 6F0B 81026000 820101 8302{}"
    assert owner(create.format("1240")).status == 0x9000
    assert owner(create.format("1241")).status == 0x6A84
    assert owner("80E40000 02 1240").status == 0x9000
    assert owner(create.format("1241")).status == 0x9000


def test_a_deactivated_file_is_selected_with_a_warning_and_not_read(owner: Send) -> None:
    owner(CREATE_EF)
    assert owner("00040000").status == 0x9000
    answer = owner("00A40204 02 1235 00")
    assert answer == ResponseApdu(bytes.fromhex("620E8002000A 820101 83021235 8A0104"), 0x6283)
    assert owner("00B0000001").status == 0x6985
    assert owner("00440000").status == 0x9000
    assert owner("00B0000001").status == 0x9000


def test_life_cycles_need_a_file_and_a_right(owner: Send) -> None:
    assert owner("00040000").status == 0x6986
    owner("00A4020C 02 C000")
    assert owner("00040000").status == 0x6982
    assert owner("00440001").status == 0x6A86
