"""A transparent EF that is open: its length, reading, writing, and what closes it."""

import time
from collections.abc import Iterator

import pytest

from demail_hw.errors import CardRemoved, FileNotFound, Outcome, ProtocolViolation, SecurityStatus
from demail_hw.secrets import Pin
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.layout import CertificateKind, PinName, Profile
from demail_hw.tcos.netkey import NKS, SIGG
from demail_hw.tcos.open_file import size_of
from demail_hw.tcos.profiles import IDKEY, NETKEY2, NETKEY3, PROFILES, SIGNATURE_CARD_V2
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.sim_reader import SimulatedConnection, SimulatedReader
from permits import permit

GLOBAL = NETKEY3.pin(PinName.GLOBAL)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ("620b 80020800 820101 83024331", 2048),
        ("6f0b 80020600 820101 83024331", 1536),
        ("620b 81020010 820101 83024331", 16),
        ("6208 81020010 80020020", 32),  # the size without structural information, where both are there
        ("6205 8003ffffff", 0x8000),  # no more can be reached
    ],
)
def test_how_long_a_file_is(parameters: str, size: int) -> None:
    assert size_of(bytes.fromhex(parameters)) == size


@pytest.mark.parametrize(
    "parameters",
    ["", "6207 820101 83024331", "6202 8000", "80020800", "620b 80020800 820101 830243", "6205 80020800", "ffff"],
)
def test_control_parameters_that_do_not_say_it(parameters: str) -> None:
    with pytest.raises(ProtocolViolation, match="how long") as caught:
        size_of(bytes.fromhex(parameters))
    assert caught.value.outcome is Outcome.REFUSED


@pytest.fixture
def connection() -> Iterator[SimulatedConnection]:
    connection = SimulatedReader(open_card("netkey3")).connect(deadline=soon())
    with connection.transaction(deadline=soon()):
        yield connection


def soon() -> float:
    return time.monotonic() + 30


def verify(card: TcosCard) -> None:
    card.verify(GLOBAL, permit(GLOBAL.reference, Pin(b"123456")), deadline=soon())


def test_it_reads_and_writes_at_any_place(connection: SimulatedConnection) -> None:
    card = TcosCard(connection, NETKEY3)
    verify(card)
    file = card.open_file(NKS, 0x4331, deadline=soon())
    assert file.size == 2048
    file.update(2040, b"12345678", deadline=soon())
    assert file.read(2038, 100, deadline=soon()) == b"\xff\xff12345678"
    assert file.read(0, 1000, deadline=soon()) == b"\xff" * 256
    assert file.read(2048, 1, deadline=soon()) == b""


def test_without_the_pin_nothing_is_written(connection: SimulatedConnection) -> None:
    file = TcosCard(connection, NETKEY3).open_file(NKS, 0x4331, deadline=soon())
    with pytest.raises(SecurityStatus) as caught:
        file.update(0, b"0", deadline=soon())
    assert caught.value.outcome is Outcome.REFUSED
    assert file.read(0, 1, deadline=soon()) == b"\xff"


def test_a_file_that_is_not_there(connection: SimulatedConnection) -> None:
    with pytest.raises(FileNotFound):
        TcosCard(connection, NETKEY3).open_file(SIGG, 0x4331, deadline=soon())


def test_after_a_reset_nothing_is_sent(connection: SimulatedConnection) -> None:
    card = TcosCard(connection, NETKEY3)
    verify(card)
    file = card.open_file(NKS, 0x4331, deadline=soon())
    connection.reset(deadline=soon())
    for use in (lambda: file.update(0, b"0", deadline=soon()), lambda: file.read(0, 1, deadline=soon())):
        with pytest.raises(CardRemoved) as caught:
            use()
        assert caught.value.outcome is Outcome.NOT_SENT


# --- which files there are


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_each_certificate_file_is_in_the_table_once(profile: Profile) -> None:
    names = [file.name for file in profile.certificate_files]
    assert len(names) == len(set(names))
    of_keys = {(key.application, file) for key in profile.keys for file in key.certificate_files}
    places = {(file.application, file.identifier) for file in profile.certificate_files}
    assert places >= of_keys | set(profile.chain_files)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_pin_opens_each_file_that_can_be_written(profile: Profile) -> None:
    writable = [file for file in profile.certificate_files if file.writable]
    assert all(profile.pins_that_open(file.application) for file in writable)
    assert all(file.kind is not CertificateKind.CA for file in writable)


@pytest.mark.parametrize(
    ("profile", "writable"),
    [
        (NETKEY3, "NKS/4331 NKS/4332 NKS/43B1 NKS/43B2 NKS/4371 NKS/4372"),
        (NETKEY2, "NKS/4331 NKS/4332 NKS/43B1 NKS/43B2 NKS/4371 NKS/4372"),
        (IDKEY, "DF07/4331 DF07/4332 DF08/4331 DF07/4333 DF08/4332 DF08/4333"),
        (
            SIGNATURE_CARD_V2,
            "NKS/4331 NKS/4332 NKS/C000 NKS/43B1 NKS/43B2 NKS/C200 NKS/4371 NKS/4372 NKS/C500 NKS/C201",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Profile) else "",
)
def test_which_files_are_the_users(profile: Profile, writable: str) -> None:
    assert [file.name for file in profile.certificate_files if file.writable] == writable.split()


def test_a_file_of_the_same_number_in_another_application_is_another_keys() -> None:
    files = {file.name: file for file in NETKEY3.certificate_files}
    first, second = NETKEY3.key_of(files["NKS/C000"]), NETKEY3.key_of(files["SIGG/C000"])
    assert first is not None
    assert second is not None
    assert (first.application, second.application) == (NKS, SIGG)
    assert NETKEY3.key_of(files["NKS/C008"]) is None
    assert NETKEY3.key_of(files["NKS/C201"]) is None
