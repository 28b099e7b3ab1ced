"""A connection on a scripted service: what no real one can be made to do when a test wants it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeadlineExceeded,
    DeviceLost,
    HardwareError,
    NoCard,
    Outcome,
    ProtocolViolation,
    ReaderBusy,
)
from demail_hw.interfaces import CardConnection, CardLimits, ShareMode
from demail_hw_drivers.pcsc_reader import PcscReader
from demail_hw_drivers.pcsc_service import PcscService
from fake_scard import ATR, GARBAGE, UNPOWERED, FakeScard, Gate

SELECT = bytes.fromhex("00A4000C023F00")
OK = b"\x90\x00"
LEAVE, RESET, UNPOWER = 0, 1, 2
NO_SMARTCARD, NOT_TRANSACTED, SHARING_VIOLATION = 0x8010000C, 0x80100016, 0x8010000B
RESET_CARD, REMOVED_CARD, UNPOWERED_CARD = 0x80100068, 0x80100069, 0x80100067
SERVICE_STOPPED = 0x8010001E
SHARES = pytest.mark.parametrize(
    ("share", "disposition"), [(ShareMode.EXCLUSIVE, UNPOWER), (ShareMode.SHARED, RESET)]
)
PLATFORMS = pytest.mark.parametrize(
    ("platform", "outcome"), [("linux", Outcome.NOT_SENT), ("win32", Outcome.UNKNOWN), ("darwin", Outcome.UNKNOWN)]
)


def soon() -> float:
    return time.monotonic() + 20


def short() -> float:
    return time.monotonic() + 0.05


@pytest.fixture
def reader(scard: FakeScard) -> PcscReader:
    return PcscReader(PcscService(scard), "Reader 00 00", serial=None)


@pytest.fixture
def connect(reader: PcscReader) -> "Callable[..., CardConnection]":
    return lambda share=ShareMode.EXCLUSIVE, deadline=None: reader.connect(share, deadline=deadline or soon())


def transmit(connection: CardConnection, command: bytes = SELECT, deadline: float | None = None) -> bytes:
    with connection.transaction(deadline=soon()):
        return connection.transmit((command,), deadline=deadline or soon())


def transmit_from(platform: str, connection: CardConnection) -> CardRemoved:
    """The error of a command on such a system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        with pytest.raises(CardRemoved) as caught:
            transmit(connection)
    return caught.value


def assert_dead(
    connection: CardConnection,
    scard: FakeScard,
    kind: type[HardwareError] = CardRemoved,
    *,
    transient: bool = False,
) -> None:
    sent = len(scard.commands)
    with pytest.raises(kind, match="was lost before") as caught:
        transmit(connection)
    assert (caught.value.outcome, caught.value.transient) == (Outcome.NOT_SENT, transient)
    assert len(scard.commands) == sent
    assert scard.cards == {}


# --- Answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [[], [0x90]])
def test_answer_without_a_status_word_is_a_card_that_went_away(
    scard: FakeScard, connect: Callable[..., CardConnection], answer: list[int]
) -> None:
    connection = connect()
    scard.script["SCardTransmit"].append([0, answer])
    with pytest.raises(CardRemoved) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(connection, scard)


def test_answer_over_the_limit_is_not_taken(scard: FakeScard, connect: Callable[..., CardConnection]) -> None:
    scard.properties = bytes.fromhex("0A0400010000")
    connection = connect()
    assert connection.limits == CardLimits(extended=True, max_command=265, max_response=258)
    scard.script["SCardTransmit"].append([0, [0] * 259])
    with pytest.raises(ProtocolViolation) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(connection, scard)


@pytest.mark.parametrize("code", [NOT_TRANSACTED, NOT_TRANSACTED - (1 << 32)])
def test_return_code_comes_before_the_garbage_beside_it(
    scard: FakeScard, connect: Callable[..., CardConnection], code: int
) -> None:
    connection = connect()
    scard.script["SCardTransmit"].append([code, GARBAGE])
    with pytest.raises(CardRemoved) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert_dead(connection, scard)


def test_command_over_the_limit_is_not_sent(scard: FakeScard, connect: Callable[..., CardConnection]) -> None:
    scard.properties = bytes.fromhex("0A0400000000")
    connection = connect()
    with pytest.raises(ValueError):
        transmit(connection, bytes(262))
    assert transmit(connection, bytes(261)) == OK
    connection.close()


# --- A card that was reset ----------------------------------------------------------------------------------------


@PLATFORMS
def test_reset_before_a_command_is_accepted_and_the_command_not_sent_again(
    scard: FakeScard, connect: Callable[..., CardConnection], platform: str, outcome: Outcome
) -> None:
    connection = connect()
    epoch = connection.epoch
    scard.script["SCardTransmit"].append([RESET_CARD, GARBAGE])
    error = transmit_from(platform, connection)
    assert "reset" in error.message
    assert (error.outcome, error.transient) == (outcome, True)
    assert len(scard.commands) == 1
    assert connection.epoch != epoch
    assert transmit(connection) == OK
    connection.close()


@PLATFORMS
@pytest.mark.parametrize("share", ShareMode)
def test_reset_card_with_another_atr_is_another_card(
    scard: FakeScard, connect: Callable[..., CardConnection], share: ShareMode, platform: str, outcome: Outcome
) -> None:
    connection = connect(share)
    scard.atr = ATR[:-1]
    where = "SCardBeginTransaction" if share is ShareMode.SHARED else "SCardTransmit"
    scard.script[where].append(RESET_CARD if share is ShareMode.SHARED else [RESET_CARD, GARBAGE])
    error = transmit_from(platform, connection)
    assert "Another card" in error.message
    assert error.outcome is (Outcome.NOT_SENT if share is ShareMode.SHARED else outcome)
    assert_dead(connection, scard)
    assert scard.dispositions == [LEAVE]


def test_reset_that_cannot_be_acknowledged_proves_no_more_than_the_command(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect()
    scard.script["SCardTransmit"].append([RESET_CARD, GARBAGE])
    scard.script["SCardReconnect"].append([UNPOWERED_CARD, 0])
    assert transmit_from("win32", connection).outcome is Outcome.UNKNOWN
    assert_dead(connection, scard)


def test_card_that_is_reset_without_end_is_given_up(scard: FakeScard, connect: Callable[..., CardConnection]) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardBeginTransaction"].extend([RESET_CARD] * 100)
    with pytest.raises(CardRemoved) as caught:
        transmit(connection)
    assert caught.value.transient
    assert scard.commands == []
    assert UNPOWER not in scard.reconnects  # it has never been ours alone
    scard.script.clear()
    scard.atr = ATR[:-1]
    with pytest.raises(CardRemoved, match="Another card"):
        transmit(connection)


def test_several_resets_before_a_transaction_are_one_new_state(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardBeginTransaction"].extend([RESET_CARD, RESET_CARD])
    assert transmit(connection) == OK
    connection.close()


def test_looking_at_a_card_that_was_reset_gives_it_no_power_and_the_next_transaction_does(
    scard: FakeScard, reader: PcscReader, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    unpowered = [0, "", UNPOWERED, 2, list(ATR)]
    scard.script["SCardStatus"].extend([[RESET_CARD, "", 0, 0, []], unpowered])
    with pytest.raises(ReaderBusy):
        reader.connect(deadline=soon())
    assert scard.reconnects == []
    scard.script["SCardBeginTransaction"].append(RESET_CARD)
    assert transmit(connection) == OK
    assert scard.reconnects == [LEAVE, UNPOWER]
    connection.close()


def test_reset_that_is_seen_when_a_transaction_ends_gives_no_power(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardEndTransaction"].append(RESET_CARD)
    scard.script["SCardStatus"].append([0, "", UNPOWERED, 2, list(ATR)])
    assert transmit(connection) == OK
    assert scard.reconnects == []
    scard.script.clear()
    assert_dead(connection, scard, transient=True)


def test_reset_in_the_first_moment_of_a_transaction_leaves_none_open(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardBeginTransaction"].append(RESET_CARD)
    scard.script["SCardStatus"].append([RESET_CARD, "", 0, 0, []])
    ended: list[None] = []
    scard.script["SCardEndTransaction"].append(lambda: ended.append(None))
    with pytest.raises(CardRemoved, match="reset"):
        transmit(connection)
    assert ended == [None]
    assert transmit(connection) == OK
    connection.close()


# --- The end ------------------------------------------------------------------------------------------------------


@SHARES
def test_closing_takes_what_was_verified(
    scard: FakeScard, connect: Callable[..., CardConnection], share: ShareMode, disposition: int
) -> None:
    connection = connect(share)
    transmit(connection)
    connection.close()
    connection.close()
    assert scard.dispositions == [disposition]
    assert (scard.contexts, scard.cards) == (set(), {})


@pytest.mark.parametrize(("share", "disposition"), [(ShareMode.EXCLUSIVE, UNPOWER), (ShareMode.SHARED, LEAVE)])
def test_shared_card_that_got_no_command_is_not_taken_from_others(
    scard: FakeScard, connect: Callable[..., CardConnection], share: ShareMode, disposition: int
) -> None:
    connection = connect(share)
    with connection.transaction(deadline=soon()):
        pass
    connection.close()
    assert scard.dispositions == [disposition]


def test_command_that_did_not_come_back_leaves_no_shared_card_open(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    gate = Gate(lambda: [0, [0x90, 0x00]])
    scard.script["SCardTransmit"].append(gate)
    with pytest.raises(DeadlineExceeded):
        transmit(connection, deadline=short())
    gate.open.set()
    wait_until_given_back(scard)
    assert scard.dispositions == [RESET]


@SHARES
@pytest.mark.parametrize(("code", "gone"), [(REMOVED_CARD, True), (NO_SMARTCARD, True), (NOT_TRANSACTED, False)])
def test_card_that_may_be_there_is_not_left_open_and_the_next_one_is_left_alone(
    scard: FakeScard,
    connect: Callable[..., CardConnection],
    share: ShareMode,
    disposition: int,
    code: int,
    gone: bool,
) -> None:
    connection = connect(share)
    scard.script["SCardTransmit"].append([code, GARBAGE])
    with pytest.raises(CardRemoved):
        transmit(connection)
    assert scard.dispositions == [LEAVE if gone else disposition]
    assert_dead(connection, scard)


def test_disconnecting_is_tried_again_while_others_are_faster(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardDisconnect"].extend([SHARING_VIOLATION] * 3)
    connection.close()
    assert scard.dispositions == [LEAVE]


def test_what_was_done_in_a_transaction_counts_even_if_it_cannot_be_ended(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardEndTransaction"].append(SERVICE_STOPPED)
    assert transmit(connection) == OK
    assert_dead(connection, scard, DeviceLost, transient=True)


@pytest.mark.parametrize(
    ("function", "answer"), [("SCardBeginTransaction", SERVICE_STOPPED), ("SCardTransmit", [SERVICE_STOPPED, []])]
)
def test_connection_that_was_lost_with_the_service_says_so_each_time(
    scard: FakeScard, connect: Callable[..., CardConnection], function: str, answer: object
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script[function].append(answer)
    with pytest.raises(DeviceLost) as caught:
        transmit(connection)
    assert caught.value.transient
    for _ in range(2):
        assert_dead(connection, scard, DeviceLost, transient=True)


def test_error_in_a_transaction_is_not_hidden_by_its_end(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardEndTransaction"].append(SERVICE_STOPPED)
    with pytest.raises(ZeroDivisionError), connection.transaction(deadline=soon()):
        raise ZeroDivisionError


def test_late_answer_is_thrown_away_and_the_card_loses_its_power(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect()
    gate = Gate(lambda: [0, [0x90, 0x00]])
    scard.script["SCardTransmit"].append(gate)
    with pytest.raises(DeadlineExceeded) as caught:
        transmit(connection, deadline=short())
    assert caught.value.outcome is Outcome.UNKNOWN
    connection.close()
    assert scard.dispositions == []
    gate.open.set()
    wait_until_given_back(scard)
    assert scard.dispositions == [UNPOWER]


def test_transaction_that_begins_too_late_ends_with_its_connection(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    gate = Gate(lambda: 0)
    scard.script["SCardBeginTransaction"].append(gate)
    with pytest.raises(DeadlineExceeded) as caught, connection.transaction(deadline=short()):
        pytest.fail("it has not begun")
    assert caught.value.outcome is Outcome.NOT_SENT
    gate.open.set()
    wait_until_given_back(scard)
    assert scard.dispositions == [LEAVE]
    assert scard.commands == []


def wait_until_given_back(scard: FakeScard) -> None:
    for thread in threading.enumerate():
        if thread.name == "PC/SC card":
            thread.join(20)
    assert scard.cards == {}


# --- Connecting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"), [(NO_SMARTCARD, NoCard), (UNPOWERED_CARD, CardMute), (SERVICE_STOPPED, HardwareError)]
)
def test_connection_that_fails_leaves_nothing_open(
    scard: FakeScard, connect: Callable[..., CardConnection], code: int, kind: type[HardwareError]
) -> None:
    scard.script["SCardConnect"].append([code, 0, 0])
    with pytest.raises(kind) as caught:
        connect()
    assert caught.value.outcome is Outcome.NOT_SENT
    assert scard.contexts == set()
    connect().close()


def test_connection_that_comes_too_late_is_given_back(
    scard: FakeScard, reader: PcscReader, connect: Callable[..., CardConnection]
) -> None:
    gate = Gate(lambda: None)  # and then it connects
    scard.script["SCardConnect"].append(gate)
    with pytest.raises(DeadlineExceeded) as caught:
        connect(deadline=short())
    assert caught.value.outcome is Outcome.NOT_SENT
    gate.open.set()
    wait_until_given_back(scard)
    assert scard.dispositions == [UNPOWER]
    connect().close()


def test_reader_learns_its_serial_number_from_the_connection(
    scard: FakeScard, reader: PcscReader, connect: Callable[..., CardConnection]
) -> None:
    scard.serials["Reader 00 00"] = b"53692013000000\0"
    assert reader.serial is None
    connect().close()
    assert reader.serial == "53692013000000"


def test_closed_reader_connects_no_more(reader: PcscReader, connect: Callable[..., CardConnection]) -> None:
    reader.close()
    reader.close()
    with pytest.raises(DeviceLost) as caught:
        connect()
    assert caught.value.outcome is Outcome.NOT_SENT


def test_forked_process_is_told_that_the_connection_is_its_parents(
    reader: PcscReader, connect: Callable[..., CardConnection]
) -> None:
    connection = connect()
    with pytest.MonkeyPatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(DeviceLost, match="forked") as caught:
            connect()
    assert caught.value.outcome is Outcome.NOT_SENT
    assert "fork" in caught.value.remedy
    assert transmit(connection) == OK
    connection.close()


def test_reset_looks_first_whether_the_card_was_out(scard: FakeScard, connect: Callable[..., CardConnection]) -> None:
    connection = connect()
    scard.script["SCardStatus"].append([REMOVED_CARD, "", 0, 0, []])
    with pytest.raises(CardRemoved):
        connection.reset(deadline=soon())
    assert_dead(connection, scard)


# --- Interrupts ---------------------------------------------------------------------------------------------


def test_interrupt_while_others_have_the_card_leaves_no_transaction(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    main = threading.get_ident()
    gate = Gate(lambda: 0)

    def interrupted() -> int:
        signal.pthread_kill(main, signal.SIGINT)
        return int(gate())

    scard.script["SCardBeginTransaction"].append(interrupted)
    with pytest.raises(KeyboardInterrupt), connection.transaction(deadline=soon()):
        pytest.fail("it has not begun")
    gate.open.set()
    wait_until_given_back(scard)
    assert scard.dispositions == [LEAVE]
    assert_dead(connection, scard)


def test_transaction_that_was_not_begun_is_not_ended(
    scard: FakeScard, connect: Callable[..., CardConnection]
) -> None:
    connection = connect(ShareMode.SHARED)
    scard.script["SCardEndTransaction"].append(NOT_TRANSACTED)
    with pytest.raises(DeadlineExceeded), connection.transaction(deadline=time.monotonic()):
        pytest.fail("the deadline was over")
    scard.script.clear()
    assert transmit(connection) == OK
    connection.close()
