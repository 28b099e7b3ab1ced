"""Debian's pcscd, libccid and libusb judge the simulated reader in every profile: through usbfs, our USB/IP client,
TCP, and our server (tests/support/umockdev.py)."""

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509 import load_pem_x509_certificate

from demail_hw import KeyRole, open_provider
from demail_hw.ccid.class_descriptor import ExchangeLevel
from demail_hw.ccid.code_points import PowerSelect
from demail_hw.interfaces import ExportedDevice
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card.personality import TimingSpec
from demail_hw_simulators.card.timing import TimedCard, TimingModel, waiting_time
from demail_hw_simulators.card_link import CardLine, CardOfClasses, CardWithAtr
from demail_hw_simulators.card_link_faults import (
    DroppedAnswer,
    DroppedBlock,
    FaultyLink,
    LineFault,
    NoiseToCard,
    WrongEdc,
    WrongMultiplier,
    WrongSendSequence,
)
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.composite_reader import CompositeReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.reader_profiles import reader_profile, reader_profiles
from opensc import OpenSc
from pcsc_client import ForeignProgram, PcscClient, require_pyscard
from umockdev import BUNDLE, SECONDS, UsbPcscd

ATR: Final = bytes.fromhex("3bbf96008131fe5d00640411030131c073f701d00090007d")
T0_ATR: Final = bytes.fromhex("3b1f96 0064041103 0131c073f701d0009000")
SERIAL: Final = "53692013000000"
NAMES: Final = {
    "ext_apdu": "Identive CLOUD 2700 F Smart Card Reader [CCID Interface]",
    "cloud_2700_r": "Identive CLOUD 2700 R Smart Card Reader [CCID Interface]",
    "cloud_2980_f": "Identiv CLOUD 2980 F Smart Card Reader [CCID Interface]",
    "tpdu_auto_ifsd": "Identive CLOUD 2700 F Smart Card Reader [CCID Interface]",
    "utrust_2900_r": "Identiv uTrust 2900 R Smart Card Reader [CCID Interface]",
    "tpdu": "Identive CLOUD 2700 F Smart Card Reader [CCID Interface]",
    "utrust_4701_f": "Identiv Identiv uTrust 4701 F Dual Interface Reader [uTrust 4701 F Contact Reader]",
    "utrust_4701_f_cl": "Identiv Identiv uTrust 4701 F Dual Interface Reader [uTrust 4701 F CL Reader]",
    "scr3310": "SCM Microsystems Inc. SCR 3310",
    "host_pps": "Gemalto PC Twin Reader",
    "short_apdu": "Alcor Micro AU9520",
}
"""What libccid calls them; the number behind it is ours."""
TPDU_PROFILES: Final = ("tpdu", "tpdu_auto_ifsd", "host_pps")
NOT_TRANSACTED: Final = 0x80100016
REMOVED: Final = 0x80100069
ESCAPE: Final = 0x42000001


class EchoCard:
    """A NetKey 3 card that also gives back what INTERNAL AUTHENTICATE says, and counts these."""

    def __init__(self, card: SimulatedCard) -> None:
        self._card = card
        self.echoes = 0

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        if command[1] != 0x88:
            return self._card.transmit(command)
        self.echoes += 1
        start = 5 if command[4] else 7
        length = int.from_bytes(command[4:start], "big")
        return command[start : start + length] + b"\x90\x00"


def echo(length: int) -> tuple[bytes, bytes]:
    """INTERNAL AUTHENTICATE with so many bytes, and the response."""
    data = bytes(number % 251 for number in range(length))
    short = length < 256
    size, ending = (bytes((length,)), b"\0") if short else (b"\0" + length.to_bytes(2, "big"), b"\0\0")
    return b"\0\x88\0\0" + size + data + ending, data + b"\x90\x00"


Plug: TypeAlias = Callable[[ExportedDevice], UsbPcscd]


@pytest.fixture
def plug(tool: Callable[[str], str], pcscd_folder: pathlib.Path, pytestconfig: pytest.Config) -> Iterator[Plug]:
    """Plug a reader in: a pcscd that has it. One in a test."""
    require_pyscard(pytestconfig)
    for program in ("umockdev-run", str(BUNDLE), "unshare"):
        tool(program)
    program = tool("pcscd")
    running: list[UsbPcscd] = []

    def start(reader: ExportedDevice) -> UsbPcscd:
        pcscd = UsbPcscd(pcscd_folder, reader, program=program)
        running.append(pcscd.__enter__())
        return pcscd

    yield start
    for pcscd in running:
        pcscd.__exit__(None, None, None)


def reader_name(program: ForeignProgram) -> str:
    """The only reader, as soon as there is one."""
    (name,) = reader_names(program, 1)
    return name


def reader_names(program: ForeignProgram, count: int) -> list[str]:
    """All readers, as soon as there are so many."""
    deadline = time.monotonic() + SECONDS
    while True:
        program.start("SCardListReaders", "context", [])
        code, values = program.finish()
        if code == 0 and len(values[0]) >= count:
            return [str(name) for name in values[0]]
        assert time.monotonic() < deadline, f"pcscd found no reader ({code:#010x})"


def test_every_profile_has_a_name_here() -> None:
    assert set(NAMES) == set(reader_profiles())


@pytest.mark.parametrize("profile", NAMES)
def test_it_lists_the_reader_and_exchanges_apdus(plug: Plug, profile: str) -> None:
    card = EchoCard(netkey3())
    pcscd = plug(SimulatedUsbReader(card, profile=reader_profile(profile)))
    extended = profile != "short_apdu"
    with ForeignProgram(pcscd.environment) as program:
        name = reader_name(program)
        program.connect(name)
        _, _, protocol, atr = program.call("SCardStatus", "card")
        for number in range(200):
            command, response = echo(number)
            assert program.transmit(command) == response
        for length in (300, 1100, 3000) if extended else (254, 255):
            command, response = echo(length)
            assert program.transmit(command) == response

    assert name == f"{NAMES[profile]} ({SERIAL}) 00 00"
    assert (protocol, bytes(atr)) == (2, ATR)
    assert card.echoes == 200 + (3 if extended else 2)


def test_a_device_of_two_interfaces_is_two_readers(plug: Plug) -> None:
    cards = [EchoCard(netkey3()), EchoCard(netkey3())]
    both = ("utrust_4701_f", "utrust_4701_f_cl")
    readers = (SimulatedUsbReader(card, profile=reader_profile(n)) for card, n in zip(cards, both, strict=True))
    pcscd = plug(CompositeReader(*readers))
    with ForeignProgram(pcscd.environment) as program:
        names = reader_names(program, 2)
        assert names == [f"{NAMES[n]} ({SERIAL}) {number:02} 00" for number, n in enumerate(both)]
        for card, name in zip(cards, names, strict=True):
            program.connect(name)
            for length in (200, 1100, 3000):
                assert program.transmit(echo(length)[0]) == echo(length)[1]
            assert card.echoes == 3


@pytest.mark.parametrize("profile", NAMES)
def test_it_sees_the_card_go_and_come(plug: Plug, profile: str) -> None:
    reader = SimulatedUsbReader(EchoCard(netkey3()), profile=reader_profile(profile))
    pcscd = plug(reader)
    with ForeignProgram(pcscd.environment) as program, PcscClient() as watcher:
        name = reader_name(program)
        watcher.wait_for_card(name, present=True)
        program.connect(name)
        assert program.transmit(echo(1)[0]) == echo(1)[1]

        reader.remove()
        watcher.wait_for_card(name, present=False)
        program.start("SCardTransmit", "card", "protocol", list(echo(1)[0]))
        assert program.finish()[0] == REMOVED

        reader.insert(EchoCard(netkey3()))
        watcher.wait_for_card(name, present=True)
        program.connect(name)
        assert program.transmit(echo(2)[0]) == echo(2)[1]


def sign(address: str) -> None:
    """Our own keys over all of that, verified with the certificate."""
    with open_provider(address, pin=lambda: b"123456") as provider:
        key = cast("rsa.RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
        signature = key.sign(b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"De-Mail", padding.PKCS1v15(), hashes.SHA256())


# For each signature of a TCOS 3 card OpenSC sends 258 bytes, which is no short APDU.
@pytest.mark.parametrize("profile", sorted(set(NAMES) - {"short_apdu"}))
def test_opensc_and_our_own_keys_sign(
    plug: Plug, tool: Callable[[str], str], tmp_path: pathlib.Path, profile: str
) -> None:
    tool("opensc-tool")
    pcscd = plug(SimulatedUsbReader(netkey3(), profile=reader_profile(profile)))
    opensc = OpenSc(pcscd, tmp_path)
    with ForeignProgram(pcscd.environment) as program:
        reader_name(program)
    opensc.good(
        *("pkcs15-crypt", "--sign", "--key", "46", "--pkcs1", "--sha-256", "--pin", "222222", "--raw"),
        *("-i", opensc.file("input", bytes(32)), "-o", opensc.file("output")),
    )
    certificate = opensc.good("pkcs15-tool", "--read-certificate", "46")

    public = load_pem_x509_certificate(certificate.encode()).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify((tmp_path / "output").read_bytes(), bytes(32), padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    sign("pcsc:*")


def test_our_own_keys_sign_by_short_apdus(plug: Plug) -> None:
    pcscd = plug(SimulatedUsbReader(netkey3(), profile=reader_profile("short_apdu")))
    with ForeignProgram(pcscd.environment) as program:
        reader_name(program)
    sign("pcsc:*")


SIGNATURE: Final = (
    bytes.fromhex("00a4040c 07 d2760000030102"),
    bytes.fromhex("00200000 06 313233343536"),
    bytes.fromhex("002241b6 03 840180"),
    bytes.fromhex("002a9e9a 33 3031300d060960864801650304020105000420") + bytes(32) + b"\0",
)


def follow(transmit: Callable[[bytes], bytes], command: bytes) -> bytes:
    """What a program does that has a card of the protocol T=0: GET RESPONSE, and the right Le."""
    response = transmit(command)
    if response[-2] == 0x6C:
        response = transmit(command[:4] + response[-1:])
    while response[-2] == 0x61:
        response = response[:-2] + transmit(b"\0\xc0\0\0" + response[-1:])
    return response


@pytest.mark.parametrize("profile", ["ext_apdu", "short_apdu", "tpdu", "host_pps"])
def test_it_takes_a_card_of_the_protocol_t_0(plug: Plug, profile: str) -> None:
    reference = netkey3()
    reference.power_on()
    tpdu = reader_profile(profile).descriptor.exchange_level is ExchangeLevel.TPDU
    pcscd = plug(SimulatedUsbReader(CardWithAtr(netkey3(), T0_ATR), profile=reader_profile(profile)))
    with ForeignProgram(pcscd.environment) as program:
        program.connect(reader_name(program))
        _, _, protocol, atr = program.call("SCardStatus", "card")
        for command in SIGNATURE:
            # A TPDU of T=0 has data or Le, not both.
            sent = command[:-1] if tpdu and command is SIGNATURE[-1] else command
            response = follow(program.transmit, sent)
            assert response == reference.transmit(command)

    assert (protocol, bytes(atr)) == (1, T0_ATR)
    assert len(response) == 258


def test_it_answers_escape_commands(plug: Plug) -> None:
    pcscd = plug(SimulatedUsbReader(netkey3()))
    with ForeignProgram(pcscd.environment) as program:
        program.connect(reader_name(program))
        [info] = program.call("SCardControl", "card", ESCAPE, [0x1E])
        [waiting] = program.call("SCardControl", "card", ESCAPE, [0x81, 0x00, 0x01])

    assert bytes(info) == bytes.fromhex("000303 0300 0000 00 01 1c") + SERIAL.encode("utf-16-le")
    assert bytes(waiting) == bytes.fromhex("0000035d")


class FaultyLine:
    """The lines of the cards in a reader, which have a fault."""

    def __init__(self, fault: LineFault, *, after: int) -> None:
        self._fault = fault
        self._after = after
        self._links: list[FaultyLink] = []

    def __call__(self, card: SimulatedCard) -> FaultyLink:
        link = FaultyLink(CardLine(card), self._fault, after=self._after)
        self._links.append(link)
        return link

    @property
    def struck(self) -> int:
        """How often the fault did."""
        return sum(link.struck for link in self._links)


@pytest.mark.parametrize("fault", [WrongEdc(), WrongSendSequence(), NoiseToCard()])
@pytest.mark.parametrize("profile", TPDU_PROFILES)
def test_its_t_1_gets_over_noise(plug: Plug, profile: str, fault: LineFault) -> None:
    card = EchoCard(netkey3())
    line = FaultyLine(fault, after=6)
    reader = SimulatedUsbReader(card, profile=reader_profile(profile), link=line)
    with ForeignProgram(plug(reader).environment) as program:
        program.connect(reader_name(program))
        for length in (1000, 3000, 10):
            command, response = echo(length)
            assert program.transmit(command) == response

    assert card.echoes == 3
    assert line.struck


def at_once(_seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """No time passes before what was to come later."""
    function()
    return lambda: None


# The first two blocks to the card are the PPS and S(IFS request), the third is the command.
@pytest.mark.parametrize(
    ("fault", "after"),
    [
        (WrongEdc(), 2),  # S(WTX request)
        (NoiseToCard(), 3),  # S(WTX response)
        (WrongEdc(), 3),  # the response
        (WrongMultiplier(0), 2),
        (WrongMultiplier(255), 2),
    ],
)
def test_its_t_1_gets_over_noise_while_the_card_takes_its_time(plug: Plug, fault: LineFault, after: int) -> None:
    card = EchoCard(netkey3())
    spec = TimingSpec(commands={}, other=2 * waiting_time(ATR), operations=(), spread=0.0)
    line = FaultyLine(fault, after=after)
    reader = SimulatedUsbReader(
        TimedCard(card, TimingModel(spec, atr=ATR, seed=0)),
        profile=reader_profile("tpdu"),
        later=at_once,
        link=line,
    )
    with ForeignProgram(plug(reader).environment) as program:
        program.connect(reader_name(program))
        for length in (10, 20):
            command, response = echo(length)
            assert program.transmit(command) == response

    assert card.echoes == 2
    assert line.struck


@pytest.mark.parametrize("fault", [DroppedBlock(), DroppedAnswer()])
def test_it_reports_a_silent_card_and_does_nothing_twice(plug: Plug, fault: LineFault) -> None:
    card = EchoCard(netkey3())
    line = FaultyLine(fault, after=2)
    reader = SimulatedUsbReader(card, profile=reader_profile("tpdu"), link=line)
    with ForeignProgram(plug(reader).environment) as program:
        program.connect(reader_name(program))
        program.start("SCardTransmit", "card", "protocol", list(echo(10)[0]))
        code, _ = program.finish()

    assert code == NOT_TRANSACTED
    assert card.echoes == (0 if fault == DroppedBlock() else 1)
    assert line.struck


@pytest.mark.parametrize("voltage", [PowerSelect.VOLTAGE_5_0, PowerSelect.VOLTAGE_3_0, PowerSelect.VOLTAGE_1_8])
def test_it_finds_the_voltage_of_a_card(plug: Plug, voltage: PowerSelect) -> None:
    card = CardOfClasses(EchoCard(netkey3()), voltage)
    pcscd = plug(SimulatedUsbReader(card, profile=reader_profile("host_pps")))
    with ForeignProgram(pcscd.environment) as program:
        program.connect(reader_name(program))
        assert program.transmit(echo(10)[0]) == echo(10)[1]
