"""Readers by name, from a real PC/SC service. pyscard's SCardGetStatusChange ends the process over a name that is not
ASCII, such as the one of Gemalto's K3000."""

import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demail_hw.address import Address
from demail_hw.errors import DeadlineExceeded, DeviceNotFound, Outcome, ReaderBusy, UnexpectedCard
from demail_hw.interfaces import ShareMode
from demail_hw.keys.card_session import CardSession
from demail_hw.registry import find_readers, open_reader
from demail_hw_simulators.card.personalities import netkey3
from pcsc_client import ForeignProgram, require_pyscard
from pcscd import READERS, SECONDS, PrivatePcscd

FULLWIDTH = "Gemalto USB Key Smart Card Reader \N{FULLWIDTH COMMERCIAL AT}"
NAMES = pytest.mark.parametrize("pcscd_named", ["Virtual PCD", FULLWIDTH], indirect=True, ids=["ascii", "fullwidth"])
SELECT_MF = bytes.fromhex("00A4000C023F00")


def soon() -> float:
    return time.monotonic() + SECONDS


def address_of(name: str) -> str:
    return str(Address("pcsc", selector=name))


@pytest.fixture
def pcscd_named(
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
    tool: Callable[[str], str],
    pcscd_folder: pathlib.Path,
) -> Iterator[tuple[PrivatePcscd, str]]:
    """A service whose two readers have this name, and the first one's whole name."""
    require_pyscard(pytestconfig)
    program, library = tool("pcscd"), pathlib.Path(tool("/usr/lib/pcsc/drivers/serial/libifdvpcd.so"))
    tool("unshare")
    before = set(threading.enumerate())
    with PrivatePcscd(pcscd_folder, program=program, library=library, name=request.param) as pcscd:
        yield pcscd, f"{request.param} 00 00"
    assert set(threading.enumerate()) <= before


@NAMES
def test_reader_is_found_and_opened_by_its_name(pcscd_named: tuple[PrivatePcscd, str]) -> None:
    pcscd, name = pcscd_named
    slot = pcscd.slot(netkey3())
    first, second = find_readers("pcsc:")
    assert (first.name, first.card, second.card) == (name, True, False)
    assert find_readers(f"pcsc:{name.replace('00 00', '00 0?').replace('?', '%3F')}") == (first, second)
    reader = open_reader(first.address)
    assert reader.name == name
    for share in ShareMode:
        connection = reader.connect(share, deadline=soon())
        with connection.transaction(deadline=soon()):
            assert connection.transmit((SELECT_MF,), deadline=soon()) == b"\x90\x00"
        connection.close()
    reader.close()
    slot.close()


@NAMES
def test_card_is_waited_for(pcscd_named: tuple[PrivatePcscd, str]) -> None:
    pcscd, name = pcscd_named
    slot = pcscd.slot(netkey3())
    reader = open_reader(address_of(name))
    for present in (False, True):
        done = threading.Event()

        def wait(present: bool = present, done: threading.Event = done) -> None:
            reader.wait_for_card(present, deadline=soon())
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        if present:
            slot.insert(netkey3())
        else:
            slot.remove()
        assert done.wait(SECONDS)
        thread.join(SECONDS)
        assert reader.card_present(deadline=soon()) is present
    with pytest.raises(DeadlineExceeded) as caught:
        reader.wait_for_card(False, deadline=time.monotonic() + 0.1)
    assert caught.value.outcome is Outcome.NOT_SENT
    reader.close()


@NAMES
def test_closing_the_reader_ends_the_wait(pcscd_named: tuple[PrivatePcscd, str]) -> None:
    _, name = pcscd_named
    reader = open_reader(address_of(name))
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            reader.wait_for_card(True, deadline=soon())
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    reader.close()
    thread.join(SECONDS / 2)
    assert not thread.is_alive()
    assert "closed" in str(errors[0])


@pytest.mark.parametrize("pcscd_named", [FULLWIDTH], indirect=True, ids=["fullwidth"])
def test_whoever_has_the_card_exclusively_says_whether_it_is_there(pcscd_named: tuple[PrivatePcscd, str]) -> None:
    pcscd, name = pcscd_named
    slot = pcscd.slot(netkey3())
    reader = open_reader(address_of(name))
    reader.connect(deadline=soon())
    assert reader.card_present(deadline=soon())
    assert next(iter(find_readers(address_of(name)))).in_use
    slot.remove()
    reader.wait_for_card(False, deadline=soon())
    slot.insert(netkey3())
    reader.wait_for_card(True, deadline=soon())
    with ForeignProgram(pcscd.environment) as foreign:
        foreign.connect(name, exclusive=True)
        with pytest.raises(ReaderBusy):
            reader.card_present(deadline=soon())
    reader.close()


@pytest.mark.parametrize("address", ["pcsc:", "pcsc:Virtual*"])
def test_of_several_the_only_one_with_a_card_is_meant(
    pytestconfig: pytest.Config, pcscd: PrivatePcscd, address: str
) -> None:
    require_pyscard(pytestconfig)
    with pytest.raises(DeviceNotFound, match="a card is in none of them"):
        open_reader(address)
    pcscd.slot(netkey3(), 1)
    reader = open_reader(address)
    assert reader.name == READERS[1]
    reader.close()
    pcscd.slot(netkey3(), 0)
    with pytest.raises(DeviceNotFound, match=r"several readers.* with a card") as caught:
        open_reader(address)
    assert all(f"{name!r} (card)" in caught.value.message for name in READERS)


def test_one_of_several_must_be_named(pytestconfig: pytest.Config, pcscd: PrivatePcscd) -> None:
    require_pyscard(pytestconfig)
    with pytest.raises(DeviceNotFound) as caught:
        open_reader("pcsc:")
    assert all(name in str(caught.value) for name in READERS)
    with pytest.raises(DeviceNotFound):
        open_reader("pcsc:Nobody's reader")
    with pytest.raises(DeviceNotFound):
        open_reader("pcsc:serial=123")
    open_reader("pcsc:*01").close()


ICCSNS = ("89490173510080407136", "89490173510080407144")


@pytest.fixture
def two_cards(pytestconfig: pytest.Config, pcscd: PrivatePcscd) -> PrivatePcscd:
    require_pyscard(pytestconfig)
    for number, iccsn in enumerate(ICCSNS):
        pcscd.slot(netkey3(iccsn=iccsn), number)
    return pcscd


@pytest.mark.parametrize("share", ["exclusive", "shared"])
def test_of_several_with_a_card_the_demanded_card_is_meant(two_cards: PrivatePcscd, share: str) -> None:
    for name, iccsn in zip(READERS, ICCSNS, strict=True):
        with CardSession.open(f"pcsc:?card={iccsn}&share={share}") as session:
            assert (session.reader.name, session.serial) == (name, iccsn)
    with pytest.raises(UnexpectedCard, match="No reader has the card 89"):
        CardSession.open(f"pcsc:?card=89&share={share}")


def test_program_that_has_a_card_is_not_disturbed_by_the_search(two_cards: PrivatePcscd) -> None:
    with ForeignProgram(two_cards.environment) as foreign:
        foreign.connect(READERS[0])
        with CardSession.open(f"pcsc:?card={ICCSNS[1]}") as session:
            assert session.reader.name == READERS[1]
        with pytest.raises(ReaderBusy, match=f"'{READERS[0]}': Another program has the card"):
            CardSession.open(f"pcsc:?card={ICCSNS[0]}")
        assert foreign.transmit(SELECT_MF) == b"\x90\x00"  # it would be told of a reset
