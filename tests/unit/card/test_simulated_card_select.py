"""SELECT in every variant that the clients use, and the control parameters that come back (tcos.md 3.2, 4.1)."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from demail_hw.iso7816.apdu import ResponseApdu

Send: TypeAlias = Callable[[str], ResponseApdu]

NKS = "D2760000030102"
SIGG = "D27600006601"
FCP_MF = "62078201388302 3F00"
FCP_NKS = "6210820138 8302DF02 8407" + NKS
FCP_GDO = "620B8002000C 820101 83022F02"


@pytest.mark.parametrize(
    ("before", "command", "data"),
    [
        ([], "00A40804 02 2F02 00", FCP_GDO),
        ([], "00A40804 04 3F002F02 00", FCP_GDO),
        ([], "00A40804 04 DF025349 00", "620E8002001C 820404410007 83025349"),
        ([], "00A4000400", FCP_MF),
        ([], "00A40004 02 3F00 00", FCP_MF),
        ([], f"00A40404 07 {NKS} 00", FCP_NKS),
        ([], "00A40404 05 D276000003 00", FCP_NKS),
        ([], "00A40404 01 D2 00", FCP_NKS),
        ([], f"00A40404 06 {SIGG} 00", "620F820138 8302DF01 8406" + SIGG),
        ([], "00A40104 02 DF02 00", FCP_NKS),
        ([], "00A40204 02 2F02 00", FCP_GDO),
        ([], "00A40904 04 DF02C000 00", "620B80020800 820101 8302C000"),
        ([f"00A4040C 07 {NKS}"], "00A40904 02 C000 00", "620B80020800 820101 8302C000"),
        ([f"00A4040C 07 {NKS}"], "00A4030400", FCP_MF),
        ([f"00A4040C 07 {NKS}"], "00A40004 02 3F00 00", FCP_MF),
        ([f"00A4040C 07 {NKS}"], "00A40004 02 DF02 00", FCP_NKS),
    ],
)
def test_it_finds_the_file_and_says_what_it_is(send: Send, before: list[str], command: str, data: str) -> None:
    for earlier in before:
        assert send(earlier).status == 0x9000
    assert send(command) == ResponseApdu(bytes.fromhex(data), 0x9000)


@pytest.mark.parametrize(
    ("command", "status"),
    [("00A40804 04 DF01C000 01", 0x6C0D), ("00A40404 06 D27600006601 01", 0x6C11), ("00A4000401", 0x6C09)],
)
def test_a_selection_that_is_refused_selects_nothing(send: Send, command: str, status: int) -> None:
    send(f"00A4040C 07 {NKS}")
    send("00A4020C 02 C000")
    send("00200081 06 313131313131")
    send("002241B8 03 840182")
    assert send(command).status == status
    assert send("00B0000001").data == b"\x30"
    assert send("00A40904 02 5349 00").status == 0x9000
    assert send(f"002A8086 00 0101 {'00' * 257} 0100").status == 0x9000


def test_fci_is_the_same_in_another_template(send: Send) -> None:
    assert send("00A40800 02 2F02 00").data == bytes.fromhex("6F" + FCP_GDO[2:])


@pytest.mark.parametrize(
    "command",
    [
        "00A4080C 02 2F02",
        "00A4000C",
        "00A4000C 02 3F00",
        "00A4020C 02 2F02",
        f"00A4040C 07 {NKS}",
        "00A40804 02 2F02",
    ],
)
def test_no_data_where_none_are_asked_for(send: Send, command: str) -> None:
    assert send(command) == ResponseApdu(b"", 0x9000)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("00A40804 02 2F00 00", 0x6A82),
        ("00A4080C 02 5015", 0x6A82),
        ("00A40400 06 D27600012401", 0x6A82),
        ("00A4040C 0F E828BD080FA000000167455349474E", 0x6A82),
        ("00A4040C 08 D276000003010200", 0x6A82),
        ("00A4080C 04 DF014331", 0x6A82),
        ("00A4080C 04 2F02DF02", 0x6A82),
        ("00A4000C 02 C000", 0x6A82),
        ("00A4010C 02 2F02", 0x6A82),
        ("00A4020C 02 DF02", 0x6A82),
        ("00A4030C", 0x6A82),
        ("00A4030C 02 3F00", 0x6A87),
        ("00A4080C 03 2F0200", 0x6A87),
        ("00A4080C", 0x6A87),
        ("00A4000C 01 3F", 0x6A87),
        ("00A4040C", 0x6A87),
        ("00A4040C 11 D276000003010200000000000000000000", 0x6A87),
        ("00A4050C 02 3F00", 0x6A86),
        ("00A40808 02 2F02 00", 0x6A86),
        ("00A40402 02 D276 00", 0x6A86),
    ],
)
def test_what_it_refuses(send: Send, command: str, status: int) -> None:
    assert send(command) == ResponseApdu(b"", status)


def test_a_path_makes_the_directory_of_the_file_current(send: Send) -> None:
    send("00A4080C 04 DF025349")
    assert send("00A4020C 02 C200").status == 0x9000


def test_a_sibling_directory_is_not_in_reach_by_identifier(send: Send) -> None:
    send(f"00A4040C 07 {NKS}")
    assert send("00A4000C 02 DF01").status == 0x6A82


def test_a_refused_selection_changes_nothing(send: Send) -> None:
    send("00A4080C 02 2F02")
    assert send("00A4080C 02 2F00").status == 0x6A82
    assert send("00B000000C").data == bytes.fromhex("5A0A89490173510080407136")


def test_selecting_a_directory_leaves_no_file_current(send: Send) -> None:
    send("00A4080C 02 2F02")
    send("00A4000C")
    assert send("00B000000C").status == 0x6986


def test_too_short_an_le_is_corrected(send: Send) -> None:
    assert send("00A40804 02 2F02 01").status == 0x6C0D
    assert send("00A40804 02 2F02 0D").status == 0x9000
