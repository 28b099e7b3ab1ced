"""Which reader an address means, what a listing shows, and waiting: on a scripted service."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeadlineExceeded, DeviceLost, DeviceNotFound, Outcome, TransportError
from demail_hw.interfaces import ReaderInfo, Timeouts
from demail_hw_drivers.pcsc import PcscReaders
from demail_hw_drivers.pcsc_reader import PcscReader
from demail_hw_drivers.pcsc_service import PcscService
from fake_scard import EMPTY, EXCLUSIVE, GARBAGE, INUSE, PRESENT, FakeScard, Gate

LIBCCID = "Identive CLOUD 2700 F Smart Card Reader [CCID Interface] (53692013000000) 00 00"
OTHER = "Identiv uTrust 3700 00 00"
NO_SERVICE, NO_READERS, SHARING_VIOLATION = 0x8010001D, 0x8010002E, 0x8010000B
UNKNOWN_READER, REFUSED = 0x80100009, 0x8010006A


@pytest.fixture
def two(scard: FakeScard) -> FakeScard:
    scard.states = {LIBCCID: PRESENT, OTHER: EMPTY}
    scard.serials = {LIBCCID: b"53692013000000\0", OTHER: b"55021722297869"}
    return scard


def open_reader(scard: FakeScard, address: str, *, connect: float = 20) -> PcscReader:
    return PcscReaders(scard).open(Address.parse(address), timeouts=Timeouts(connect=connect))


def find(scard: FakeScard, address: str) -> list[ReaderInfo]:
    return list(PcscReaders(scard).find(Address.parse(address), timeouts=Timeouts()))


def names(found: list[ReaderInfo]) -> list[str]:
    return [info.name for info in found]


# --- Addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        f"pcsc:{LIBCCID}",  # as a pattern, its brackets would not match itself
        "pcsc:*CLOUD 2700 F*",
        "pcsc:Identive%3F*",
        "pcsc:serial=53692013000000",
        "pcsc:Ident*?reader=53692013000000",
        "pcsc:?reader=53692013000000",
    ],
)
@pytest.mark.parametrize("others", [EMPTY, PRESENT, PRESENT | INUSE])
def test_address_means_one_reader(two: FakeScard, address: str, others: int) -> None:
    two.states[OTHER] = others
    reader = open_reader(two, address)
    assert (reader.name, reader.serial) == (LIBCCID, "53692013000000")
    assert names(find(two, address)) == [LIBCCID]


def test_only_reader_needs_no_name(scard: FakeScard) -> None:
    assert open_reader(scard, "pcsc:").name == "Reader 00 00"


def test_name_is_taken_before_a_pattern(scard: FakeScard) -> None:
    scard.states = {"Reader *": EMPTY, "Reader 1": EMPTY}
    assert open_reader(scard, "pcsc:Reader *").name == "Reader *"


# --- Several readers ----------------------------------------------------------------------------------------------


def refusal(scard: FakeScard, address: str) -> str:
    """The sentence, of an error that says what to do."""
    with pytest.raises(DeviceNotFound) as caught:
        open_reader(scard, address)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert all(word in caught.value.remedy for word in ("demail-hw readers pcsc:", "'pcsc:NAME'", "?card=", "quoted"))
    return caught.value.message


@pytest.mark.parametrize("address", ["pcsc:", "pcsc:Ident*"])
@pytest.mark.parametrize("name", [LIBCCID, OTHER])
def test_only_reader_with_a_card_is_meant(two: FakeScard, address: str, name: str) -> None:
    two.states = {LIBCCID: EMPTY, OTHER: EMPTY} | {name: PRESENT}
    assert open_reader(two, address).name == name
    assert len(find(two, address)) == 2


@pytest.mark.parametrize("address", ["pcsc:serial=7", "pcsc:?reader=7"])
def test_of_two_slots_with_one_number_the_one_with_a_card_is_meant(two: FakeScard, address: str) -> None:
    two.states |= {"Third": PRESENT}
    two.serials = {LIBCCID: b"7", OTHER: b"7", "Third": b"8"}
    assert open_reader(two, address).name == LIBCCID


def test_several_readers_with_a_card(two: FakeScard) -> None:
    two.states |= {OTHER: PRESENT | EXCLUSIVE, "Empty": EMPTY}
    listed = f"{LIBCCID!r} (card), {OTHER!r} (card, in use)"
    assert refusal(two, "pcsc:") == f"PC/SC has several readers with a card: {listed}."
    assert refusal(two, "pcsc:Ident*") == f"PC/SC has several readers 'Ident*' with a card: {listed}."


def test_several_readers_and_no_card(two: FakeScard) -> None:
    two.states |= {LIBCCID: EMPTY, "Third": PRESENT}
    message = refusal(two, "pcsc:Ident*")
    assert message.startswith("PC/SC has several readers 'Ident*', and a card is in none of them: ")
    assert f"{LIBCCID!r} (no card), {OTHER!r} (no card)" in message
    assert "Third" not in message


def test_no_reader_of_this_name(two: FakeScard) -> None:
    two.states[OTHER] = PRESENT | INUSE
    listed = f"{LIBCCID!r} (card), {OTHER!r} (card, in use)"
    assert refusal(two, "pcsc:Nob*") == f"PC/SC has no reader 'Nob*'; it has {listed}."


def test_no_reader_of_this_number(two: FakeScard) -> None:
    listed = f"{LIBCCID!r} (serial number 53692013000000, card), {OTHER!r} (serial number not known, no card)"
    del two.serials[OTHER]
    assert refusal(two, "pcsc:serial=1") == f"PC/SC has no reader with the serial number '1'; it has {listed}."
    message = refusal(two, "pcsc:Ident*?reader=1")
    assert message == f"PC/SC has no reader 'Ident*' with the serial number '1'; it has {listed}."


@pytest.mark.parametrize("state", [PRESENT, EMPTY])
def test_card_in_a_reader_of_which_nobody_can_say_is_not_passed_over(two: FakeScard, state: int) -> None:
    two.states = {"K3000 ＠": PRESENT, "Plain": state}  # noqa: RUF001
    two.script["SCardConnect"].append([SHARING_VIOLATION, 0, 0])
    two.script["SCardConnect"].append([SHARING_VIOLATION, 0, 0])
    if state == PRESENT:
        assert "'K3000 ＠' (card not known, in use)" in refusal(two, "pcsc:")  # noqa: RUF001
    else:
        assert open_reader(two, "pcsc:").name == "K3000 ＠"  # noqa: RUF001


class Clock:
    """In place of the module ``time``: the deadline is over once all have answered that can.

    ``held``: the reader that cannot. Each is asked in a thread that has its name.
    """

    def __init__(self, held: str) -> None:
        self._held = held

    def monotonic(self) -> float:
        threads = {thread.name: thread for thread in threading.enumerate()}
        if self._held not in threads:
            return time.monotonic()
        if OTHER in threads:
            threads[OTHER].join(20)
        return math.inf


@pytest.fixture
def hold(two: FakeScard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A program begins a transaction with the card in this reader, and ends it after the test."""

    def begin(name: str) -> None:
        two.held[name] = Gate(lambda: None)
        monkeypatch.setattr("demail_hw_drivers.pcsc_calls.time", Clock(name))

    yield begin
    for gate in two.held.values():
        gate.open.set()


@pytest.mark.parametrize("address", ["pcsc:serial=55021722297869", "pcsc:?reader=55021722297869"])
@pytest.mark.parametrize("held", [LIBCCID, "K3000 ＠"])  # noqa: RUF001
def test_reader_that_is_kept_busy_does_not_hold_up_the_others(
    two: FakeScard, hold: Callable[[str], None], address: str, held: str
) -> None:
    two.states = {held: PRESENT | INUSE, OTHER: EMPTY}
    hold(held)
    assert open_reader(two, address).name == OTHER


def test_number_of_a_reader_that_is_kept_busy_is_not_known(two: FakeScard, hold: Callable[[str], None]) -> None:
    two.states[LIBCCID] = PRESENT | INUSE
    hold(LIBCCID)
    message = refusal(two, "pcsc:serial=53692013000000")
    assert f"{LIBCCID!r} (serial number not known, card, in use)" in message


@pytest.mark.parametrize("answer", [[NO_READERS, []], [0, []]])
def test_no_reader_at_all(scard: FakeScard, answer: list[object]) -> None:
    scard.script["SCardListReaders"].extend([answer] * 3)
    assert find(scard, "pcsc:") == []
    with pytest.raises(DeviceNotFound, match="no reader"):
        open_reader(scard, "pcsc:")


def test_host_in_the_address_is_a_mistake(scard: FakeScard) -> None:
    with pytest.raises(ConfigurationError, match="host"):
        open_reader(scard, "pcsc://localhost/")


# --- The listing --------------------------------------------------------------------------------------------------


def test_listing(two: FakeScard) -> None:
    address = str(Address("pcsc", selector=LIBCCID))
    assert find(two, "pcsc:") == [
        ReaderInfo(address, LIBCCID, "53692013000000", card=True, in_use=False),
        ReaderInfo("pcsc:Identiv%20uTrust%203700%2000%2000", OTHER, "55021722297869", card=False, in_use=False),
    ]
    assert open_reader(two, address).serial == "53692013000000"


def test_what_is_demanded_stands_in_the_addresses(two: FakeScard) -> None:
    [info] = find(two, "pcsc:*uTrust*?card=1234&share=shared")
    assert info.address == "pcsc:Identiv%20uTrust%203700%2000%2000?card=1234&share=shared"


@pytest.mark.parametrize("state", [PRESENT | EXCLUSIVE, PRESENT | INUSE])
def test_reader_in_use_is_left_alone_unless_its_number_is_demanded(scard: FakeScard, state: int) -> None:
    scard.states = {"Reader 00 00": state}
    scard.serials = {"Reader 00 00": b"1"}
    assert [(info.serial, info.in_use) for info in find(scard, "pcsc:")] == [(None, True)]
    assert scard.dispositions == []
    assert open_reader(scard, "pcsc:serial=1").serial == "1"


def test_reader_that_cannot_be_asked_has_no_known_number(scard: FakeScard) -> None:
    scard.script["SCardConnect"].extend([[SHARING_VIOLATION, 0, 0]] * 4)
    assert [info.serial for info in find(scard, "pcsc:")] == [None]
    with pytest.raises(DeviceNotFound):
        open_reader(scard, "pcsc:serial=1")


def test_reader_that_another_program_takes_in_this_moment_has_no_known_number(two: FakeScard) -> None:
    def taken() -> int:
        two.cards.clear()  # they go with their context
        return SHARING_VIOLATION

    two.states = {LIBCCID: PRESENT}
    two.script["SCardDisconnect"].append(taken)
    assert [info.serial for info in find(two, "pcsc:")] == [None]


def test_a_card_can_be_shared(scard: FakeScard) -> None:
    assert PcscReaders(scard).can_share


def test_name_that_is_not_ascii_is_looked_at_by_connecting_to_the_reader(scard: FakeScard) -> None:
    scard.states = {"K3000 ＠": PRESENT, "Plain": EMPTY}  # noqa: RUF001
    assert [(info.card, info.in_use) for info in find(scard, "pcsc:")] == [(True, None), (False, False)]
    assert set(scard.dispositions) == {0}
    scard.script["SCardConnect"].append([SHARING_VIOLATION, 0, 0])
    assert [(info.card, info.in_use) for info in find(scard, "pcsc:K3000*")] == [(None, True)]


def test_service_that_hangs_ends_at_the_deadline(scard: FakeScard) -> None:
    gate = Gate(lambda: [0, []])
    scard.script["SCardListReaders"].append(gate)
    with pytest.raises(DeadlineExceeded) as caught:
        open_reader(scard, "pcsc:", connect=0.05)
    assert caught.value.outcome is Outcome.NOT_SENT
    gate.open.set()


def test_without_pyscard_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartcard", None)
    monkeypatch.delitem(sys.modules, "smartcard.scard", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        PcscReaders()
    assert all(word in caught.value.remedy for word in ("demail-hw[pcsc]", "libpcsclite-dev", "gcc"))


# --- Waiting ------------------------------------------------------------------------------------------------------


def reader_of(scard: FakeScard) -> PcscReader:
    [name] = scard.states
    return PcscReader(PcscService(scard), name, serial=None)


def soon() -> float:
    return time.monotonic() + 20


@pytest.mark.parametrize("name", ["Reader", "Reader ＠"])  # noqa: RUF001
@pytest.mark.parametrize("code", [NO_SERVICE, 0x8010001E, 0x80100013])
def test_wait_survives_a_service_that_went_away(scard: FakeScard, name: str, code: int) -> None:
    scard.states = {name: PRESENT}
    scard.script["SCardEstablishContext"].extend([[code, GARBAGE]] * 2)
    reader_of(scard).wait_for_card(True, deadline=soon())
    assert not scard.script["SCardEstablishContext"]


def test_reader_that_the_service_does_not_know_yet_is_not_an_empty_one(scard: FakeScard) -> None:
    scard.script["SCardGetStatusChange"].extend([[UNKNOWN_READER, []]] * 100)
    with pytest.raises(DeadlineExceeded, match="taken out"):
        reader_of(scard).wait_for_card(False, deadline=time.monotonic() + 0.3)


@pytest.mark.parametrize("name", ["Reader", "Reader ＠"])  # noqa: RUF001
def test_service_that_refuses_twice_has_refused(scard: FakeScard, name: str) -> None:
    scard.states = {name: PRESENT}
    scard.script["SCardEstablishContext"].extend([[REFUSED, 0]] * 2)
    with pytest.raises(TransportError, match="does not let this user"):
        reader_of(scard).wait_for_card(True, deadline=soon())
    scard.script["SCardEstablishContext"].extend([[REFUSED, 0], [NO_SERVICE, 0], [REFUSED, 0]])
    reader_of(scard).wait_for_card(True, deadline=soon())


def test_card_present_does_not_wait_for_a_service(scard: FakeScard) -> None:
    scard.script["SCardEstablishContext"].append([NO_SERVICE, 0])
    with pytest.raises(TransportError):
        reader_of(scard).card_present(deadline=soon())


@pytest.mark.parametrize("name", ["Reader", "Reader ＠"])  # noqa: RUF001
def test_closing_ends_the_wait(scard: FakeScard, name: str) -> None:
    scard.states = {name: EMPTY}
    gate = Gate(lambda: None)
    scard.script["SCardGetStatusChange" if name.isascii() else "SCardConnect"].append(gate)
    reader = reader_of(scard)
    errors: list[DeviceLost] = []

    def wait() -> None:
        with pytest.raises(DeviceLost) as caught:
            reader.wait_for_card(True, deadline=soon())
        errors.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    assert gate.reached.wait(20)
    gate.open.set()
    reader.close()
    thread.join(20)
    assert [error.outcome for error in errors] == [Outcome.NOT_SENT]
