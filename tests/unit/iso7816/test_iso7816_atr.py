import pytest

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816.atr import (
    MAX_ATR,
    Atr,
    CardCapabilities,
    Checksum,
    ClockRate,
    CompactTlv,
    Convention,
    HistoricalBytes,
    InterfaceBytes,
    SpecificMode,
)

P5CT072 = "3BBF96008131FE5D00640411030131C073F701D00090007D"
# TeleSec NetKey and signature cards: ATR, Fi, Di, N, IFSC, BWI.
TCOS = [
    ("3BBA13008131865D0064050A0201318090008B", 372, 4, 0, 0x86, 5),
    ("3BBA14008131865D0064051402023180900091", 372, 8, 0, 0x86, 5),
    ("3BBA96008131865D0064056002033180900066", 512, 32, 0, 0x86, 5),
    ("3BBA96008131865D0064057B0203318090007D", 512, 32, 0, 0x86, 5),
    (P5CT072, 512, 32, 0, 0xFE, 5),
    ("3BBF96008131FE5D00640411040F31C073F701D000900074", 512, 32, 0, 0xFE, 5),
    ("3BBFB6008131FE5D00640428030231C073F701D000900067", 1024, 32, 0, 0xFE, 5),
    ("3B9F968131FE9D006405A0030431C073F701D000900028", 512, 32, 0, 0xFE, 9),
    ("3BBF96008131FE5D00645411040031C073F701D00090002B", 512, 32, 0, 0xFE, 5),
]


def with_tck(body: str) -> bytes:
    encoded = bytes.fromhex(body)
    check = 0
    for byte in encoded[1:]:
        check ^= byte
    return encoded + bytes((check,))


@pytest.mark.parametrize(("text", "fi", "di", "n", "ifsc", "bwi"), TCOS)
def test_telesec_cards(text: str, fi: int, di: int, n: int, ifsc: int, bwi: int) -> None:
    encoded = bytes.fromhex(text)
    atr = Atr.decode(encoded)
    assert atr.encode() == encoded
    assert atr.convention is Convention.DIRECT
    assert atr.protocols == (1,)
    assert atr.specific_mode is None
    assert atr.clock_rate is not None
    assert (atr.clock_rate.fi, atr.di, atr.extra_guard_time) == (fi, di, n)
    assert atr.t1 == (ifsc, bwi, 13, Checksum.LRC)
    assert atr.tck == encoded[-1]
    assert atr.historical == encoded[-1 - len(atr.historical) : -1]


def test_every_interface_byte_is_kept_with_its_index() -> None:
    assert Atr.decode(bytes.fromhex(P5CT072)).interface == (
        InterfaceBytes(1, None, ta=0x96, tb=0x00, td=0x81),
        InterfaceBytes(2, 1, td=0x31),
        InterfaceBytes(3, 1, ta=0xFE, tb=0x5D),
    )


def test_historical_bytes_of_tcos_3() -> None:
    historical = Atr.decode(bytes.fromhex(P5CT072)).historical
    read = HistoricalBytes.decode(historical)
    assert read.objects == (
        CompactTlv(6, bytes.fromhex("04110301")),
        CompactTlv(3, b"\xc0"),
        CompactTlv(7, bytes.fromhex("F701D0")),
    )
    assert read.status == bytes.fromhex("009000")
    assert read.card_capabilities == CardCapabilities(command_chaining=True, extended_length=True)
    assert read.encode() == historical


def test_historical_bytes_of_tcos_2_have_a_short_status() -> None:
    historical = bytes.fromhex("0064050A020131809000")
    read = HistoricalBytes.decode(historical)
    assert read.objects == (CompactTlv(6, bytes.fromhex("050A0201")), CompactTlv(3, b"\x80"))
    assert read.status == bytes.fromhex("9000")
    assert read.card_capabilities is None
    assert read.encode() == historical


def test_historical_bytes_of_category_80_are_objects_to_the_end() -> None:
    read = HistoricalBytes.decode(bytes.fromhex("8073C02140829000"))
    assert read.objects == (CompactTlv(7, bytes.fromhex("C02140")), CompactTlv(8, bytes.fromhex("9000")))
    assert read.status == b""
    assert read.card_capabilities == CardCapabilities(command_chaining=False, extended_length=True)


@pytest.mark.parametrize("historical", ["", "10", "5A01", "0064041103", "8064041103"])
def test_other_historical_bytes_are_refused(historical: str) -> None:
    with pytest.raises(ProtocolViolation, match="historical bytes"):
        HistoricalBytes.decode(bytes.fromhex(historical))


def test_the_shortest_atr_offers_t0_with_all_defaults() -> None:
    atr = Atr.decode(bytes.fromhex("3B00"))
    assert atr.protocols == (0,)
    assert (atr.ta1, atr.clock_rate, atr.di) == (0x11, ClockRate(372, 5000), 1)
    assert (atr.extra_guard_time, atr.wi, atr.tck) == (0, 10, None)
    assert atr.t1 == (32, 4, 13, Checksum.LRC)


def test_t0_named_alone_has_no_check_character() -> None:
    atr = Atr.decode(bytes.fromhex("3BE2000040204906"))
    assert atr.protocols == (0,)
    assert (atr.interface[0].tc, atr.wi, atr.historical) == (0, 0x20, b"\x49\x06")
    assert atr.tck is None


def test_protocols_in_the_order_offered() -> None:
    # TD1: T=0, TD2: T=1, TD3: T=15 (no protocol), with its class and clock stop indicator.
    atr = Atr.decode(with_tck("3B80 80 81 1F C7"))
    assert atr.protocols == (0, 1)
    assert atr.interface[3] == InterfaceBytes(4, 15, ta=0xC7)
    assert atr.t1.ifsc == 32


def test_t15_requires_the_check_character() -> None:
    atr = Atr.decode(with_tck("3B80 80 1F C7"))
    assert atr.protocols == (0,)
    assert atr.tck is not None


def test_the_first_bytes_for_t1_count() -> None:
    # TD2 and TD3 say T=1: TA3 and TC3 belong to the first group, TB4 is the first TB; TC3 bit 1 means CRC.
    atr = Atr.decode(with_tck("3B80 81 D1 20 01 31 40 75"))
    assert atr.t1 == (0x20, 7, 5, Checksum.CRC)


def test_the_bytes_of_the_second_group_do_not_count_for_t1() -> None:
    # TA2 is the specific mode byte, though TD1 says T=1.
    atr = Atr.decode(with_tck("3B80 91 01 31 FE 45"))
    assert atr.t1 == (0xFE, 4, 5, Checksum.LRC)
    assert Atr.decode(with_tck("3B80 11 05")).t1.ifsc == 32


def test_bytes_of_another_protocol_do_not_count_for_t1() -> None:
    # TA3 and TB3 belong to T=0 here.
    atr = Atr.decode(with_tck("3B80 80 30 55 66")[:-1])
    assert atr.t1 == (32, 4, 13, Checksum.LRC)


@pytest.mark.parametrize(("ta3", "ifsc"), [("00", 32), ("01", 1), ("FE", 254), ("FF", 254)])
def test_reserved_information_field_sizes(ta3: str, ifsc: int) -> None:
    assert Atr.decode(with_tck("3B808111" + ta3)).t1.ifsc == ifsc


@pytest.mark.parametrize(
    ("ta2", "mode"),
    [
        ("01", SpecificMode(1, False, True)),
        ("91", SpecificMode(1, True, False)),
        ("80", SpecificMode(0, False, False)),
    ],
)
def test_specific_mode(ta2: str, mode: SpecificMode) -> None:
    atr = Atr.decode(with_tck("3B8091" + ta2 + "01"))
    assert atr.specific_mode == mode


# ISO 7816-3, table 7 and 8.
FI = {0: 372, 1: 372, 2: 558, 3: 744, 4: 1116, 5: 1488, 6: 1860, 9: 512, 10: 768, 11: 1024, 12: 1536, 13: 2048}
DI = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 12, 9: 20}


@pytest.mark.parametrize("code", range(16))
def test_fi_and_di(code: int) -> None:
    clock = Atr.decode(bytes((0x3B, 0x10, code << 4 | 1))).clock_rate
    assert (clock and clock.fi) == FI.get(code)
    assert Atr.decode(bytes((0x3B, 0x10, 0x10 | code))).di == DI.get(code)


def test_inverse_convention_and_extra_guard_time() -> None:
    atr = Atr.decode(bytes.fromhex("3F40FF"))
    assert atr.convention is Convention.INVERSE
    assert atr.extra_guard_time == 255


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("", "shorter than TS and T0"),
        ("3B", "shorter than TS and T0"),
        ("0300", "TS is 03"),
        ("3B10", "cut off at i=1"),
        ("3B8080", "cut off at i=2"),
        ("3B02AA", "3 bytes where 4 are announced"),
        ("3B01AABB", "4 bytes where 3 are announced"),  # a check character that T=0 alone does not have
        ("3B8001", "3 bytes where 4 are announced"),
        ("3B800182", "TCK is wrong"),
        (P5CT072[:-2] + "7C", "TCK is wrong"),
        (P5CT072 + "00", "25 bytes where 24"),
        ("3B" + "F0" * 33, "34 bytes, at most 33"),
        ("3B" + "F0" * 32, "cut off"),
    ],
)
def test_what_breaks_the_rules_is_refused(encoded: str, why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why) as caught:
        Atr.decode(bytes.fromhex(encoded))
    assert caught.value.layer is Layer.CARD


def test_any_changed_bit_of_a_checked_atr_is_found() -> None:
    good = bytes.fromhex(P5CT072)
    for position in range(1, len(good)):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            with pytest.raises(ProtocolViolation):
                Atr.decode(bytes(damaged))


def test_the_longest_atr() -> None:
    encoded = with_tck("3BFF 960000F1 000000F1 FE5D0071 FE5D00" + "80" * 15)
    assert len(encoded) == MAX_ATR
    atr = Atr.decode(encoded)
    assert [group.index for group in atr.interface] == [1, 2, 3, 4]
    assert atr.encode() == encoded
