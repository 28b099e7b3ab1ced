"""PPS (ISO/IEC 7816-3:2006, 9), and which speed is asked for."""

import pytest

from demail_hw.errors import Layer, ProtocolViolation
from demail_hw.iso7816.atr import Atr
from demail_hw.iso7816.pps import Pps, fastest

TCOS = Atr.decode(bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019"))


def atr(ta1: int) -> Atr:
    return Atr.decode(bytes((0x3B, 0x10, ta1)))


@pytest.mark.parametrize(
    ("pps", "encoded"),
    [
        (Pps(1, 0x96), "ff119678"),  # As libccid sent it.
        (Pps(0, 0x18), "ff1018f7"),
        (Pps(1), "ff01fe"),
    ],
)
def test_pps(pps: Pps, encoded: str) -> None:
    assert pps.encode().hex() == encoded
    assert Pps.decode(bytes.fromhex(encoded)) == pps


@pytest.mark.parametrize(
    "encoded", ["", "ff01", "ff01ff", "fe01ff", "ff119679", "ff1196", "ff2196ed00", "ff110196f9"]
)
def test_bytes_that_are_no_pps_are_a_violation(encoded: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        Pps.decode(bytes.fromhex(encoded))
    assert caught.value.layer is Layer.CARD


def test_card_agrees_by_the_same_pps_or_by_one_without_the_speed() -> None:
    request = Pps(1, 0x96)
    assert request.answers(request)
    assert Pps(1).answers(request)
    assert Pps(1).agreed == 0x11
    assert request.agreed == 0x96
    assert not Pps(0, 0x96).answers(request)
    assert not Pps(1, 0x95).answers(request)


@pytest.mark.parametrize(
    ("ta1", "speed"),
    [
        (0x96, 0x96),  # 300000 bit/s.
        (0x97, 0x96),  # 600000 bit/s are too many.
        (0x16, 0x16),  # 412903 bit/s, what the reader names as its most.
        (0x19, 0x19),
        (0x17, 0x16),
        (0x11, 0x11),
        (0x9F, 0x11),  # Reserved.
        (0x71, 0x11),
    ],
)
def test_fastest_that_card_and_reader_can(ta1: int, speed: int) -> None:
    assert fastest(atr(ta1), clock=4800, max_rate=412903) == speed


def test_reader_that_names_no_rate_follows_the_card() -> None:
    assert fastest(atr(0x97), clock=0, max_rate=412903) == 0x97
    assert fastest(atr(0x97), clock=4800, max_rate=0) == 0x97


def test_where_nothing_fits_the_default_is_left() -> None:
    assert fastest(TCOS, clock=4800, max_rate=9000) == 0x11
