"""The simulated card never raises, always answers, and gives no try back to whoever does not know a PIN."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demail_hw.iso7816.apdu import CommandApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.commands.table import COMMANDS
from demail_hw_simulators.card.personalities import netkey3, netkey3_fresh, open_card

SECRETS = (b"123456", b"12345678", b"333333", b"111111", b"222222", b"654321", b"87654321")
NULL_PIN = bytes(6)
MAKERS = {"in use": netkey3, "fresh": netkey3_fresh}

FIELDS = (
    "3F00",
    "DF02",
    "C000",
    "4331",
    "5049",
    "DF02C000",
    "DF025349",
    "D2760000030102",
    "D27600006601",
    "840180",
    "840182",
    "80010A840181",
    "00000000000031323334353637",
    "6F0B8102000A82010183021234",
    "6F0E8102000A82040441000883021234",
    "6F0782013883021235",
    "1234",
)
fields = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([bytes.fromhex(text) for text in FIELDS]),
    st.builds(lambda block: b"\x00\x00" + block, st.binary(min_size=255, max_size=255)),
)
known_commands = st.builds(
    lambda ins, p1, p2, data, ne: CommandApdu(COMMANDS[ins].cla, ins, p1, p2, (data,), ne),
    ins=st.sampled_from(sorted(COMMANDS)),
    p1=st.one_of(st.sampled_from([0, 1, 2, 4, 8, 0x41, 0x80, 0x9E]), st.integers(0, 255)),
    p2=st.one_of(st.sampled_from([0, 1, 4, 0x0C, 0x81, 0x83, 0x86, 0x9A, 0xB6, 0xB8]), st.integers(0, 255)),
    data=fields,
    ne=st.sampled_from([0, 1, 12, 256, 65536]),
).map(lambda command: b"".join(command.encode()))
commands = st.lists(st.one_of(known_commands, st.binary(max_size=300)), max_size=30)


def is_guess(command: bytes) -> bool:
    """Would this command know a PIN?"""
    null_pin = command[1:2] in (b"\x24", b"\x2c") and NULL_PIN in command
    return null_pin or any(secret in command for secret in SECRETS)


def tries(card: SimulatedTcosCard) -> list[int]:
    return [pin.tries for directory in card.file_system.root.walk() for pin in directory.pins.values()]


@pytest.mark.parametrize("kind", MAKERS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(data=st.data())
def test_any_command_is_answered(kind: str, data: st.DataObject) -> None:
    card = MAKERS[kind]()
    card.power_on()
    for command in data.draw(commands):
        assert len(card.transmit(command)) >= 2


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(sent=commands, wrong=st.integers(0, 3))
def test_tries_never_come_back_without_a_secret(sent: list[bytes], wrong: int) -> None:
    card = netkey3()
    card.power_on()
    for _ in range(wrong):
        card.transmit(bytes.fromhex("00200000 06 393939393939"))
    before = tries(card)
    for command in sent:
        if is_guess(command):
            continue
        card.transmit(command)
        after = tries(card)
        assert all(now <= then for now, then in zip(after, before, strict=True))
        before = after


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(sent=commands)
def test_no_key_works_without_a_secret(sent: list[bytes]) -> None:
    card = netkey3()
    card.power_on()
    for command in sent:
        answer = card.transmit(command)
        if command[1:2] == b"\x2a" and not is_guess(command):
            assert answer[-2:] != b"\x90\x00"


PREPARATIONS = (
    "00A4040C 07 D2760000030102",
    "00A4040C 06 D27600006601",
    "00A4000C",
    "00A4080C 04 DF02C000",
    "00200000 06 313233343536",
    "00200081 06 313131313131",
    "00200081 06 363534333231",
    "002241B6 03 840180",
    "002241B8 03 840182",
)
ANSWERED = (
    "00A40404 07 D2760000030102",
    "00A40404 06 D27600006601",
    "00A40804 04 DF02C000",
    "00A40004 02 3F00",
    "002A9E9A 01 00",
    "002A8086 00 0101" + "00" * 257,
    "80AA0100",
    "80AA0200",
    "80AA0600",
    "00B20104",
)
"""Commands that are answered with data, as they are before Le."""
PROBES = ("00B0000001", "00B2010400", "80AA020000", "00200000", "00200081", "002A9E9A 01 00 00", ANSWERED[5] + "0000")
KEEPING = [{"keeps_local_pins": pins, "keeps_environment": rest} for pins in (True, False) for rest in (True, False)]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(
    keeping=st.sampled_from(KEEPING),
    before=st.lists(st.sampled_from(PREPARATIONS), max_size=6),
    command=st.sampled_from(ANSWERED),
    le=st.sampled_from([1, 2, 5]),
)
def test_a_command_with_a_wrong_le_has_done_nothing(
    keeping: dict[str, bool], before: list[str], command: str, le: int
) -> None:
    """Of two cards one gets it, and afterwards they cannot be told apart."""
    extended = command == ANSWERED[5]
    wrong = bytes.fromhex(command) + le.to_bytes(2 if extended else 1, "big")
    cards = [open_card("netkey3", **keeping, seed=1) for _ in range(2)]
    for card in cards:
        card.power_on()
        for earlier in before:
            card.transmit(bytes.fromhex(earlier))
    if cards[0].transmit(wrong)[-2] == 0x6C:
        probed = [[card.transmit(bytes.fromhex(probe)) for probe in PROBES] for card in cards]
        assert probed[0] == probed[1]
