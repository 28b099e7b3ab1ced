"""The table of simulated readers, and what a reader does at each exchange level."""

from collections.abc import Callable

import pytest

from demail_hw.ccid.class_descriptor import CcidDescriptor, ExchangeLevel, Features, find_ccid_interface
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.usb.descriptors import DeviceDescriptor
from demail_hw_simulators.card.personality import TimingSpec
from demail_hw_simulators.card.timing import TimedCard, TimingModel
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import DEFAULT_PROFILE, reader_profile, reader_profiles

ATR = bytes.fromhex("3bbf96008131fe5d00640411030131c073f701d00090007d")
T1_FAST = "61070000000000 010000 9610005d00fe00"
POWER_ON = "62000000000000 000000"
IFS = "00c101fc3c"
LONG_SECONDS = 100.0


def test_default_profile_is_the_dump_of_2013() -> None:
    profile = reader_profile(DEFAULT_PROFILE)

    assert profile.descriptor.encode().hex() == (
        "36211001000703000000c0120000e02e00000067320000e74c060000fe0000000000000000000000ba0404000a040000ffff00000001"
    )


@pytest.mark.parametrize(
    ("name", "device", "features", "longest", "ifsd"),
    [
        ("ext_apdu", (0x04E6, 0x5710, 0x0003), 0x000404BA, 1034, 254),
        ("cloud_2700_r", (0x04E6, 0x5810, 0x0100), 0x000404BA, 271, 254),
        ("cloud_2980_f", (0x04E6, 0x5713, 0x0202), 0x000104BA, 271, 254),
        ("tpdu_auto_ifsd", (0x04E6, 0x5710, 0x0202), 0x000104BA, 271, 254),
        ("utrust_2900_r", (0x04E6, 0x5811, 0x0202), 0x000100BA, 271, 252),
        ("tpdu", (0x04E6, 0x5710, 0x0202), 0x000100BA, 271, 252),
        ("utrust_4701_f", (0x04E6, 0x5724, 0x0104), 0x000104BA, 271, 254),
        ("utrust_4701_f_cl", (0x04E6, 0x5724, 0x0104), 0x000404BE, 1034, 1024),
        ("scr3310", (0x04E6, 0x5116, 0x0523), 0x000100BA, 271, 252),
        ("host_pps", (0x08E6, 0x3437, 0x0100), 0x00010230, 271, 254),
        ("short_apdu", (0x058F, 0x9520, 0x0102), 0x000204BE, 271, 254),
    ],
)
def test_profile(name: str, device: tuple[int, int, int], features: int, longest: int, ifsd: int) -> None:
    profile = reader_profile(name)
    head = DeviceDescriptor.decode(profile.device_descriptor())
    found = find_ccid_interface(profile.configuration_descriptor()).descriptor

    assert (head.vendor_id, head.product_id, head.device_version) == device
    assert (found.features, found.max_message_length, found.max_ifsd) == (features, longest, ifsd)
    assert CcidDescriptor.decode(found.encode()) == profile.descriptor


def test_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'nonsense'; there are ext_apdu, "):
        reader_profile("nonsense")


def test_every_exchange_level_with_whole_messages_has_a_profile() -> None:
    levels = {profile.descriptor.exchange_level for profile in reader_profiles().values()}

    assert levels == set(ExchangeLevel) - {ExchangeLevel.CHARACTER}


class Card:
    """Answers everything with 9000."""

    def __init__(self, response: bytes = b"\x90\0") -> None:
        self.response = response
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        return ATR

    def power_off(self) -> None:
        self.commands.clear()

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.response


class Clock:
    """Seconds go by when somebody says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, function: Callable[[], None]) -> Callable[[], object]:
        entry = (seconds, function)
        self.due.append(entry)
        return lambda: self.due.remove(entry)

    def tick(self) -> float:
        seconds, function = self.due.pop(0)
        function()
        return seconds


class Host:
    def __init__(self, name: str, card: Card | TimedCard, clock: Clock | None = None) -> None:
        self.reader = SimulatedUsbReader(card, profile=reader_profile(name), later=(clock or Clock()).later)
        self.answers: list[TransferResult] = []

    def send(self, command: str) -> None:
        done: list[TransferResult] = []
        self.reader.submit(Transfer(0x01, data=bytes.fromhex(command)), done.append)
        self.reader.submit(Transfer(0x82, 1088), self.answers.append)

    def ask(self, command: str) -> str:
        self.send(command)
        return self.answers.pop().data.hex()

    def transfer(self, data: str, *, waiting: int = 0, level: str = "0000") -> str:
        length = (len(data) // 2).to_bytes(4, "little").hex()
        return self.ask(f"6f{length}0000{waiting:02x}{level}{data}")


def powered(name: str, card: Card | None = None) -> Host:
    host = Host(name, card or Card())
    select = "01" if Features.AUTO_VOLTAGE not in reader_profile(name).descriptor.features else "00"
    assert host.ask(f"62000000000000{select}0000").endswith(ATR.hex())
    return host


def test_tpdu_reader_does_pps_from_the_parameters_and_leaves_ifs_to_the_host() -> None:
    host = powered("tpdu")

    assert host.ask(T1_FAST) == "82070000000000000001" + "9610005d00fe00"
    assert host.transfer(IFS) == "80050000000000000000" + "00e101fc1c"
    assert host.transfer("00000400a40400a4") == "80060000000000000000" + "000002900092"
    assert host.ask("6c000000000000000000") == "82070000000000000001" + "9610005d00fe00"


def test_tpdu_reader_refuses_a_protocol_that_the_card_does_not_speak() -> None:
    host = powered("tpdu")

    assert host.ask("61050000000000 000000 1100000a00") == "8200000000000040f600"
    assert host.ask("6c000000000000000000")[18:20] == "01"  # the parameters are as they were


def test_tpdu_reader_takes_the_same_parameters_a_second_time_without_a_pps() -> None:
    host = powered("tpdu")

    assert [host.ask(T1_FAST)[:2] for _ in range(2)] == ["82", "82"]
    assert host.ask(T1_FAST)[14:16] == "00"


def test_reader_without_pps_passes_it_on() -> None:
    host = powered("host_pps")

    assert host.transfer("ff119678") == "80040000000000000000" + "ff119678"
    assert host.ask(T1_FAST)[14:16] == "00"
    assert host.transfer("00c101fe3e")[20:] == "00e101fe1e"


def test_reader_without_automatic_voltage_wants_to_be_told_one() -> None:
    assert Host("host_pps", Card()).ask(POWER_ON) == "80000000000000410700"


@pytest.mark.parametrize("name", ["tpdu", "short_apdu"])
def test_below_the_extended_level_there_are_no_chains(name: str) -> None:
    host = powered(name)

    assert host.transfer("00a40400", level="0100") == "80000000000000400800"
    assert host.transfer("aa" * 262) == "80000000000000400100"
    assert host.transfer("") == "80000000000000400100"


def test_short_apdu_reader_passes_apdus() -> None:
    card = Card(bytes(256) + b"\x90\0")
    host = powered("short_apdu", card)

    assert host.transfer("00b0000000") == "80020100000000000000" + bytes(256).hex() + "9000"
    assert card.commands == [bytes.fromhex("00b0000000")]


def test_card_that_says_more_than_fits_is_an_overrun() -> None:
    host = powered("short_apdu", Card(bytes(300) + b"\x90\0"))

    assert host.transfer("00b0000000") == "8000000000000040fc00"


def test_silence_is_a_mute_card() -> None:
    assert powered("tpdu", Card(b"")).transfer("00000400a40400a4") == "8000000000000040fe00"


def slow(seconds: float) -> TimedCard:
    spec = TimingSpec(spread=0.0, other=seconds, commands={}, operations=())
    return TimedCard(Card(), TimingModel(spec, atr=ATR, seed=1))


def test_slow_card_asks_for_time_by_wtx_and_the_reader_adds_nothing() -> None:
    clock = Clock()
    host = Host("tpdu", slow(LONG_SECONDS), clock)
    assert host.ask(POWER_ON)
    host.send("6f080000000000 000000 00000400a40400a4")
    assert not host.answers
    half = clock.tick()
    asked = host.answers.pop().data
    # BWI 5: 2.38 s. 100 s are 43 times that, or a bit less.
    assert (half, asked[10:13].hex()) == (pytest.approx(1.19, abs=0.01), "00c301")
    multiplier = asked[13]

    answer = bytes((0x00, 0xE3, 0x01, multiplier, 0xE2 ^ multiplier)).hex()
    host.send(f"6f050000000000 {multiplier:02x}0000 {answer}")
    rest = clock.tick()
    assert half + rest == pytest.approx(LONG_SECONDS, abs=0.1)
    assert host.answers.pop().data[10:].hex() == "000002900092"


def test_card_that_is_silent_for_longer_than_it_was_given_is_mute() -> None:
    clock = Clock()
    host = Host("tpdu", slow(LONG_SECONDS), clock)
    host.ask(POWER_ON)
    host.send("6f080000000000 000000 00000400a40400a4")
    clock.tick()
    multiplier = host.answers.pop().data[13]
    # The host grants what was asked for, and forgets to say so to the reader.
    host.send(f"6f050000000000 000000 00e301{multiplier:02x}{0xE2 ^ multiplier:02x}")
    waited = clock.tick()

    assert waited == pytest.approx(2.38, abs=0.01)
    assert host.answers.pop().data.hex() == "8000000000000040fe00"


def test_reader_of_another_family_knows_no_utrust_escapes() -> None:
    assert Host("host_pps", Card()).ask("6b0100000000 00000000 1e") == "83000000000000410000"
