"""Everything that other programs, people and pcscd itself can do to a card that we have open through PC/SC."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demail_hw.errors import (
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Layer,
    NoCard,
    Outcome,
    ReaderBusy,
    TransportError,
)
from demail_hw.interfaces import CardConnection, Deadline, ShareMode, Timeouts
from demail_hw.registry import open_reader
from demail_hw_simulators.card.personalities import netkey3
from pcsc_client import require_pyscard
from pcsc_wire import READER, GatedCard, Wire, open_wire, short, soon
from pcscd import READERS, SECONDS

SELECT_MF = bytes.fromhex("00A4000C023F00")
VERIFY = bytes.fromhex("00200000 06 313233343536")
ASK_PIN = bytes.fromhex("00200000")
OK = b"\x90\x00"
SHARING_VIOLATION = 0x8010000B
RESET_CARD = 0x80100068


@pytest.fixture
def wire(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[Wire]:
    require_pyscard(pytestconfig)
    with open_wire(request.getfixturevalue("pcscd")) as opened:
        yield opened


def transmit(connection: CardConnection, command: bytes = SELECT_MF, *, deadline: Deadline | None = None) -> bytes:
    with connection.transaction(deadline=soon()):
        return connection.transmit((command,), deadline=deadline or soon())


def in_thread(act: Callable[[], object]) -> Callable[[], object]:
    """Begin it in a thread; what it gave or raised, when it is done."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(act())
        except HardwareError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> object:
        thread.join(SECONDS)
        assert not thread.is_alive()
        return results[0]

    return result


def assert_dead(connection: CardConnection, kind: type[HardwareError] = CardRemoved) -> None:
    with pytest.raises(kind) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.NOT_SENT


# --- Another program resets the card ------------------------------------------------------------------------------


def test_f64_card_that_another_program_reset_is_taken_as_it_is_now(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    for reset in (wire.foreign.reset, lambda: wire.foreign.disconnect(1)):
        assert transmit(connection, VERIFY) == OK
        before = connection.epoch
        reset()
        with connection.transaction(deadline=soon()):
            assert connection.epoch != before
            assert connection.transmit((ASK_PIN,), deadline=soon()) == b"\x63\xc3"


def test_f64_card_that_another_program_left_without_power_gets_it_again(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    wire.foreign.disconnect(2)
    assert wire.card.off.wait(SECONDS)
    assert transmit(connection) == OK


def test_looking_at_a_card_that_was_left_without_power_gives_it_none(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    wire.foreign.disconnect(2)
    assert wire.card.off.wait(SECONDS)
    with pytest.raises(ReaderBusy):
        wire.connect(ShareMode.SHARED)
    assert wire.card.off.is_set()
    assert transmit(connection) == OK


# --- Another program uses the card between our transactions -------------------------------------------------------


def test_f65_nothing_is_believed_from_one_shared_transaction_to_the_next(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    epochs = []
    for _ in range(3):
        with connection.transaction(deadline=soon()):
            epochs.append(connection.epoch)
            assert connection.transmit((SELECT_MF,), deadline=soon()) == OK
            assert connection.epoch == epochs[-1]
    assert len(set(epochs)) == 3


def test_pin_of_a_shared_card_is_verified_for_all_until_it_is_closed(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    assert transmit(connection, VERIFY) == OK
    assert wire.foreign.transmit(ASK_PIN) == OK
    connection.close()
    wire.foreign.start("SCardTransmit", "card", "protocol", list(ASK_PIN))
    assert wire.foreign.finish() == (RESET_CARD, [])
    wire.foreign.call("SCardReconnect", "card", 2, 3, 0)
    assert wire.foreign.transmit(ASK_PIN) == b"\x63\xc3"


def test_closing_a_shared_card_that_got_no_command_resets_nobody(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    assert wire.foreign.transmit(VERIFY) == OK
    with connection.transaction(deadline=soon()):
        pass
    connection.close()
    assert wire.foreign.transmit(ASK_PIN) == OK


def test_pin_is_forgotten_with_an_exclusive_connection(wire: Wire) -> None:
    connection = wire.connect()
    assert transmit(connection, VERIFY) == OK
    connection.close()
    assert wire.card.off.wait(SECONDS)
    wire.foreign.connect(READER)
    assert wire.foreign.transmit(ASK_PIN) == b"\x63\xc3"


# --- Another program holds the card -------------------------------------------------------------------------------


def test_f66_transaction_of_another_program_is_waited_for(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    wire.foreign.begin()
    result = in_thread(lambda: transmit(connection))
    wire.foreign.end()
    assert result() == OK


def test_f66_deadline_ends_the_wait_for_another_program_and_the_late_transaction_at_once(wire: Wire) -> None:
    connection = wire.connect(ShareMode.SHARED)
    wire.foreign.connect(READER)
    wire.foreign.begin()
    with pytest.raises(DeadlineExceeded) as caught, connection.transaction(deadline=short()):
        pytest.fail("two transactions at once")
    assert (caught.value.layer, caught.value.outcome, caught.value.transient) == (Layer.CARD, Outcome.NOT_SENT, True)
    assert_dead(connection, DeviceLost)
    wire.foreign.end()
    # Ours may have begun by now: it must not last.
    for _ in range(5):
        wire.foreign.start("SCardBeginTransaction", "card")
        code, _ = wire.foreign.finish()
        assert code in (0, RESET_CARD)
        if code == RESET_CARD:
            wire.foreign.call("SCardReconnect", "card", 2, 3, 0)
        else:
            wire.foreign.end()
    assert wire.card.commands == []
    assert transmit(wire.connect(ShareMode.SHARED)) == OK


@pytest.mark.parametrize("share", ShareMode)
def test_deadline_ends_connecting_and_the_late_connection_is_given_back(wire: Wire, share: ShareMode) -> None:
    wire.foreign.connect(READER)
    wire.foreign.begin()
    with pytest.raises(DeadlineExceeded) as caught:
        wire.reader.connect(share, deadline=short())
    assert caught.value.outcome is Outcome.NOT_SENT
    wire.foreign.disconnect(0)
    wire.foreign.start("SCardConnect", "context", READER, 1, 3)
    while (answer := wire.foreign.finish())[0] == SHARING_VIOLATION:  # until ours is gone
        wire.foreign.start("SCardConnect", "context", READER, 1, 3)
    assert answer[0] == 0
    wire.foreign.disconnect(0)
    assert transmit(wire.connect(share)) == OK


@pytest.mark.parametrize("share", ShareMode)
def test_card_that_another_program_has_exclusively_is_busy(wire: Wire, share: ShareMode) -> None:
    wire.foreign.connect(READER, exclusive=True)
    with pytest.raises(ReaderBusy) as caught:
        wire.connect(share)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert "gpgconf --kill scdaemon" in caught.value.remedy
    assert ("share=shared" in caught.value.remedy) is (share is ShareMode.EXCLUSIVE)
    wire.foreign.disconnect(0)
    assert transmit(wire.connect(share)) == OK


def test_card_that_another_program_shares_cannot_be_had_exclusively(wire: Wire) -> None:
    wire.foreign.connect(READER)
    with pytest.raises(ReaderBusy):
        wire.connect()
    assert transmit(wire.connect(ShareMode.SHARED)) == OK


def test_nobody_gets_a_card_that_we_have_exclusively(wire: Wire) -> None:
    connection = wire.connect()
    wire.foreign.start("SCardConnect", "context", READER, 2, 3)
    assert wire.foreign.finish() == (SHARING_VIOLATION, [])
    assert transmit(connection) == OK


def test_reader_in_another_programs_transaction_is_one_whose_number_is_not_known(wire: Wire) -> None:
    wire.foreign.connect(READER)
    wire.foreign.begin()
    for address in ("pcsc:serial=123", "pcsc:?reader=123"):
        with pytest.raises(DeviceNotFound) as caught:
            open_reader(address, timeouts=Timeouts(connect=1))
        assert all(repr(name) in caught.value.message for name in READERS)
        assert f"{READER!r} (serial number not known, card, in use)" in caught.value.message
    with pytest.raises(DeviceNotFound, match="tells no serial number"):
        open_reader(f"pcsc:{READER}?reader=123", timeouts=Timeouts(connect=1))
    wire.foreign.end()


def test_it_is_seen_from_outside_whether_a_program_has_the_card(wire: Wire) -> None:
    assert wire.reader.card_present(deadline=soon())
    wire.foreign.connect(READER, exclusive=True)
    assert wire.reader.card_present(deadline=soon())


# --- The card is taken out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ShareMode)
def test_f61_card_that_goes_in_the_middle_of_a_command_may_have_done_it(wire: Wire, share: ShareMode) -> None:
    connection = wire.connect(share)
    wire.card.gate.clear()
    result = in_thread(lambda: transmit(connection))
    assert wire.card.busy.wait(SECONDS)
    wire.slot.remove()
    wire.card.gate.set()
    error = result()
    assert isinstance(error, CardRemoved)
    assert error.outcome is Outcome.UNKNOWN
    assert_dead(connection)


@pytest.mark.parametrize("share", ShareMode)
def test_f60_card_that_went_away_between_commands_got_none(wire: Wire, share: ShareMode) -> None:
    connection = wire.connect(share)
    wire.remove()
    with pytest.raises(CardRemoved) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.NOT_SENT
    with pytest.raises(NoCard):
        wire.connect(share)


@pytest.mark.parametrize("share", ShareMode)
def test_f63_another_card_gets_nothing_from_the_connection_to_the_first(wire: Wire, share: ShareMode) -> None:
    connection = wire.connect(share)
    assert transmit(connection, VERIFY) == OK
    other = GatedCard(netkey3(iccsn="89490173510080407144"))
    wire.remove()
    wire.insert(other)
    assert_dead(connection)
    again = wire.connect(share)
    connection.close()
    assert transmit(again, ASK_PIN) == b"\x63\xc3"
    assert other.commands == [ASK_PIN]


def test_f63_card_that_was_swapped_in_the_middle_of_a_command(wire: Wire) -> None:
    """vpcd's own hazard: to PC/SC nothing was ever taken out, and the old handle would work with the new card."""
    connection = wire.connect()
    other = GatedCard(netkey3(iccsn="89490173510080407144"))
    wire.card.gate.clear()
    result = in_thread(lambda: transmit(connection))
    assert wire.card.busy.wait(SECONDS)
    wire.slot.swap(other)
    wire.card.gate.set()
    error = result()
    assert isinstance(error, CardRemoved)
    assert error.outcome is Outcome.UNKNOWN
    assert_dead(connection)
    assert other.commands == []


# --- The card takes its time --------------------------------------------------------------------------------------


def test_command_that_is_not_answered_in_time_may_have_been_done(wire: Wire) -> None:
    connection = wire.connect()
    wire.card.gate.clear()
    with pytest.raises(DeadlineExceeded) as caught:
        transmit(connection, deadline=short())
    assert (caught.value.layer, caught.value.outcome) == (Layer.READER, Outcome.UNKNOWN)
    assert_dead(connection, DeviceLost)
    connection.close()
    assert not wire.card.off.is_set()
    wire.card.gate.set()
    assert wire.card.off.wait(SECONDS)  # the call that nobody waits for has given the card back
    assert wire.card.commands == [SELECT_MF]


# --- pcscd ends, and comes again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ShareMode)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_f67_pcscd_was_restarted(wire: Wire, end: str, share: ShareMode) -> None:
    connection = wire.connect(share)
    getattr(wire.pcscd, end)()
    with pytest.raises(TransportError) as gone:
        wire.reader.card_present(deadline=soon())
    assert gone.value.outcome is Outcome.NOT_SENT
    wire.pcscd.start()
    with pytest.raises(DeviceLost):
        transmit(connection)
    assert_dead(connection, DeviceLost)
    wire.reader.wait_for_card(True, deadline=soon())
    assert transmit(wire.connect(share)) == OK


def test_f67_pcscd_dies_in_the_middle_of_a_command(wire: Wire) -> None:
    connection = wire.connect()
    wire.card.gate.clear()
    result = in_thread(lambda: transmit(connection))
    assert wire.card.busy.wait(SECONDS)
    wire.pcscd.kill()
    error = result()
    assert isinstance(error, DeviceLost)
    assert error.outcome is Outcome.UNKNOWN
    assert_dead(connection, DeviceLost)
    wire.pcscd.start()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_f67_waiting_for_a_card_survives_a_restart(wire: Wire, end: str) -> None:
    wire.remove()
    result = in_thread(lambda: wire.reader.wait_for_card(True, deadline=soon()))
    getattr(wire.pcscd, end)()
    wire.pcscd.start()
    wire.slot.insert(wire.card)
    assert result() is None
    assert wire.reader.card_present(deadline=soon())


def test_restart_is_not_taken_for_a_card_that_was_taken_out(wire: Wire) -> None:
    result = in_thread(lambda: wire.reader.wait_for_card(False, deadline=time.monotonic() + 1.5))
    wire.pcscd.kill()
    error = result()
    assert isinstance(error, DeadlineExceeded)
    wire.pcscd.start()


def test_without_pcscd_there_is_a_sentence(wire: Wire) -> None:
    wire.pcscd.stop()
    with pytest.raises(TransportError, match="no PC/SC service") as caught:
        open_reader("pcsc:")
    assert "pcscd" in caught.value.remedy
    with pytest.raises(TransportError, match="no PC/SC service"):
        wire.connect()
    wire.pcscd.start()


# --- Fork and the end ---------------------------------------------------------------------------------------------

FORKING = """
import os, sys, time
from demail_hw.errors import DeviceLost
from demail_hw.registry import open_reader

def soon():
    return time.monotonic() + 20

def transmit(connection):
    with connection.transaction(deadline=soon()):
        return connection.transmit((bytes.fromhex("00A4000C023F00"),), deadline=soon()).hex()

reader = open_reader(sys.argv[1])
connection = reader.connect(deadline=soon())
child = os.fork()
if not child:
    try:
        transmit(connection)
    except DeviceLost as error:
        print(error.outcome.name, error.remedy, flush=True)
    try:
        reader.connect(deadline=soon())
    except DeviceLost as error:
        print(error.outcome.name, error.remedy, flush=True)
    connection.close()
    reader.close()
    os._exit(0)
os.waitpid(child, 0)
print(transmit(connection))
reader.close()
"""


def test_fork_leaves_the_connection_to_the_parent(wire: Wire) -> None:
    done = wire.pcscd.run(sys.executable, "-W", "ignore", "-c", FORKING, f"pcsc:{READER}")
    lost = "NOT_SENT Open the provider anew after the fork."
    assert done.stdout.splitlines() == [lost, lost, "9000"], done.stderr


def test_hanging_call_does_not_keep_the_interpreter(wire: Wire) -> None:
    program = f"""
import sys, time
from demail_hw.errors import DeadlineExceeded
from demail_hw.registry import open_reader
connection = open_reader("pcsc:{READER}").connect(deadline=time.monotonic() + 20)
with connection.transaction(deadline=time.monotonic() + 20):
    try:
        connection.transmit((bytes.fromhex("0084000008"),), deadline=time.monotonic() + 0.05)
    except DeadlineExceeded as error:
        print(error.outcome.name)
"""
    wire.card.gate.clear()
    done: subprocess.CompletedProcess[str] = wire.pcscd.run(sys.executable, "-c", program)
    assert (done.returncode, done.stdout) == (0, "UNKNOWN\n"), done.stderr
