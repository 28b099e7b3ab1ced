"""Which kind of card it is, and what it costs to find out."""

from collections.abc import Callable

import pytest

from demail_hw.errors import CardError, Outcome, UnknownCard
from demail_hw.iso7816 import atr as atr_codec
from demail_hw.iso7816.channel import Channel
from demail_hw.tcos.layout import Profile
from demail_hw.tcos.profiles import IDKEY, NETKEY2, NETKEY3, PROFILES, SIGNATURE_CARD_V2
from demail_hw.tcos.recognition import recognise

DEADLINE = 99.0
TCOS3 = "3BBF96008131FE5D00640411030131C073F701D00090007D"
SELECT_NKS, SELECT_IDKEY = "00a4040c07d2760000030102", "00a4040c07d2760000030c01"
NETKEY3_ATRS = [
    TCOS3,
    "3BBF96008131FE5D00640411040F31C073F701D000900074",
    "3BBFB6008131FE5D00640428030231C073F701D000900067",
    "3BBF96008131FE5D0064056D030231C073F701D000900000",  # another chip, another release
]
NETKEY2_ATRS = [
    "3BBA13008131865D0064050A0201318090008B",
    "3BBA14008131865D0064051402023180900091",
    "3BBA96008131865D0064056002033180900066",
    "3BBA96008131865D0064057B0203318090007D",
]


def having(*selectable: str) -> Callable[[bytes], bytes]:
    """A card with these applications alone."""
    return lambda command: bytes.fromhex("9000" if command.hex() in selectable else "6a82")


@pytest.mark.parametrize("atr", NETKEY3_ATRS)
@pytest.mark.parametrize(
    ("application", "profile", "sent"),
    [(SELECT_NKS, NETKEY3, [SELECT_NKS]), (SELECT_IDKEY, IDKEY, [SELECT_NKS, SELECT_IDKEY])],
    ids=["NetKey", "IDKey"],
)
def test_one_atr_for_several_kinds(scripted, atr: str, application: str, profile: Profile, sent: list[str]) -> None:
    connection = scripted(having(application), atr=atr)
    assert recognise(Channel(connection), deadline=DEADLINE) is profile
    assert connection.sent == sent


@pytest.mark.parametrize(
    ("atr", "profile"),
    [
        *((atr, NETKEY2) for atr in NETKEY2_ATRS),
        ("3B9F968131FE9D006405A0030431C073F701D000900028", SIGNATURE_CARD_V2),
    ],
)
def test_an_atr_of_one_kind_costs_no_command(scripted, atr: str, profile: Profile) -> None:
    connection = scripted(having(), atr=atr)
    assert recognise(Channel(connection), deadline=DEADLINE) is profile
    assert connection.sent == []


def test_a_foreign_card_is_asked_nothing(scripted) -> None:
    connection = scripted(having(SELECT_NKS), atr="3B9F96813FC7828031E073FE211F63004502C08F9000")
    with pytest.raises(UnknownCard, match="3B9F96813F") as caught:
        recognise(Channel(connection), deadline=DEADLINE)
    assert connection.sent == []
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_card_of_the_same_system_for_something_else(scripted) -> None:
    with pytest.raises(UnknownCard, match="TCOS 3 NetKey, TCOS 3 IDKey") as caught:
        recognise(Channel(scripted(having(), atr=TCOS3)), deadline=DEADLINE)
    assert "profile of its own" in caught.value.remedy


@pytest.mark.parametrize("status", ["6982", "6f00", "6283"])
def test_only_a_missing_application_is_a_no(scripted, status: str) -> None:
    connection = scripted(lambda command: bytes.fromhex(status), atr=TCOS3)
    with pytest.raises(CardError, match=status.upper()):
        recognise(Channel(connection), deadline=DEADLINE)
    assert connection.sent == [SELECT_NKS]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_profile_is_whole(profile: Profile) -> None:
    assert all(pin.opens <= {key.application for key in profile.keys} for pin in profile.pins)
    assert len({pin.name for pin in profile.pins}) == len(profile.pins)
    for pin in profile.pins:
        assert profile.pin(pin.name) is pin
        opened = profile.keys_opened_by(pin)
        assert len({key.role for key in opened}) == len(opened)  # a provider has one key for each role
    assert {key for pin in profile.pins for key in profile.keys_opened_by(pin)} == set(profile.keys)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_whole_atr_is_one(profile: Profile) -> None:
    for pattern in profile.atrs:
        if "?" not in pattern:
            assert atr_codec.Atr.decode(bytes.fromhex(pattern)).encode().hex().upper() == pattern
            assert profile.has_atr(bytes.fromhex(pattern))
