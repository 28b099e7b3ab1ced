"""One contract for every CardConnection."""

import threading
import time
from typing import TYPE_CHECKING

import pytest

from demail_hw.errors import CardRemoved, DeadlineExceeded, DeviceLost, HardwareError, Layer, Outcome
from demail_hw.interfaces import CardConnection

if TYPE_CHECKING:
    from conftest import Bench

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SELECT = (b"\0\xa4\4\0",)
OK = b"\x90\0"


@pytest.fixture
def connection(bench: "Bench") -> CardConnection:
    return bench.reader.connect(deadline=bench.soon())


def transmit(bench: "Bench", connection: CardConnection, *command: bytes | bytearray | memoryview) -> bytes:
    with connection.transaction(deadline=bench.soon()):
        return connection.transmit(command, deadline=bench.soon())


def echo(length: int) -> tuple[bytes, bytes, bytes]:
    """A command with this much data, which the card gives back: header and extended Lc, data, extended Le."""
    return b"\0\xee\0\0\0" + length.to_bytes(2, "big"), bytes(i & 0xFF for i in range(length)), b"\0\0"


def test_answer_to_reset(connection: CardConnection) -> None:
    assert connection.atr == ATR


def test_extended_length_fits_through(bench: "Bench", connection: CardConnection) -> None:
    assert connection.limits == bench.limits


@pytest.mark.parametrize("length", [1, 45, 46, 255, 256, 1015, 1016, 1022, 1023, 2037, 2038, 65535])
def test_apdus_of_any_length_go_through(bench: "Bench", connection: CardConnection, length: int) -> None:
    head, data, le = echo(min(length, bench.limits.max_command - 9))
    assert transmit(bench, connection, head, data, le) == data + OK
    assert bench.card.commands == [head + data + le]


@pytest.mark.parametrize("length", [0, 52, 116, 1012, 1022, 2046, 65535])
def test_answers_of_any_length_come_back(bench: "Bench", connection: CardConnection, length: int) -> None:
    length = min(length, bench.limits.max_response - 2)
    command = b"\0\xb0" + length.to_bytes(2, "big") + b"\0"
    assert transmit(bench, connection, command) == bytes(length) + OK


def test_command_is_a_gather_list_of_any_buffers(bench: "Bench", connection: CardConnection) -> None:
    assert transmit(bench, connection, b"\0\x20\0\x81", b"\x06", bytearray(b"123"), memoryview(b"456")) == OK
    assert bench.card.commands == [b"\0\x20\0\x81\x06123456"]


def test_command_over_the_limits_is_the_callers_mistake(bench: "Bench", connection: CardConnection) -> None:
    with pytest.raises(ValueError):
        transmit(bench, connection, bytes(bench.limits.max_command + 1))
    assert bench.card.commands == []
    assert transmit(bench, connection, *SELECT) == OK


# --- Transactions ------------------------------------------------------------------------------------------------


def test_no_command_outside_a_transaction(bench: "Bench", connection: CardConnection) -> None:
    with pytest.raises(RuntimeError):
        connection.transmit(SELECT, deadline=bench.soon())
    assert bench.card.commands == []


def in_another_thread(act: object) -> None:
    """Do it there, to its end; what it asserts counts here."""
    assert callable(act)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_transaction_of_another_thread_is_not_enough(bench: "Bench", connection: CardConnection) -> None:
    def act() -> None:
        with pytest.raises(RuntimeError):
            connection.transmit(SELECT, deadline=bench.soon())

    with connection.transaction(deadline=bench.soon()):
        in_another_thread(act)
        assert connection.transmit(SELECT, deadline=bench.soon()) == OK


def test_transaction_excludes_others_until_their_deadline(bench: "Bench", connection: CardConnection) -> None:
    def act() -> None:
        with (
            pytest.raises(DeadlineExceeded) as caught,
            connection.transaction(deadline=time.monotonic()),
        ):
            pytest.fail("two transactions at once")
        assert (caught.value.layer, caught.value.outcome) == (Layer.CARD, Outcome.NOT_SENT)

    with connection.transaction(deadline=bench.soon()):
        in_another_thread(act)


def test_transaction_ends_with_its_block_even_on_an_error(bench: "Bench", connection: CardConnection) -> None:
    with pytest.raises(ZeroDivisionError), connection.transaction(deadline=bench.soon()):
        raise ZeroDivisionError
    in_another_thread(lambda: transmit(bench, connection, *SELECT))


# --- Deadlines ---------------------------------------------------------------------------------------------------


def test_nothing_is_sent_after_the_deadline_and_the_card_is_as_before(
    bench: "Bench", connection: CardConnection
) -> None:
    epoch = connection.epoch
    with connection.transaction(deadline=bench.soon()):
        with pytest.raises(DeadlineExceeded) as caught:
            connection.transmit(SELECT, deadline=time.monotonic())
        assert caught.value.outcome is Outcome.NOT_SENT
        assert bench.card.commands == []
        assert connection.epoch == epoch
        assert connection.transmit(SELECT, deadline=bench.soon()) == OK


# --- Reset, removal, close ---------------------------------------------------------------------------------------


def test_epoch_stays_while_nothing_happens_to_the_card(bench: "Bench", connection: CardConnection) -> None:
    epoch = connection.epoch
    for _ in range(3):
        transmit(bench, connection, *SELECT)
    assert connection.epoch == epoch


def test_reset_takes_the_power_and_changes_the_epoch(bench: "Bench", connection: CardConnection) -> None:
    epoch = connection.epoch
    connection.reset(deadline=bench.soon())
    assert bench.card.resets == 2
    assert connection.epoch != epoch
    assert connection.atr == ATR
    assert transmit(bench, connection, *SELECT) == OK


def test_reset_inside_a_transaction_keeps_it(bench: "Bench", connection: CardConnection) -> None:
    with connection.transaction(deadline=bench.soon()):
        connection.reset(deadline=bench.soon())
        assert connection.transmit(SELECT, deadline=bench.soon()) == OK


def test_removed_card_is_lost_for_good(bench: "Bench", connection: CardConnection) -> None:
    epoch = connection.epoch
    bench.remove()
    with pytest.raises(CardRemoved):
        transmit(bench, connection, *SELECT)
    assert connection.epoch != epoch
    bench.insert()
    with pytest.raises(CardRemoved) as caught:
        transmit(bench, connection, *SELECT)
    assert caught.value.outcome is Outcome.NOT_SENT
    with pytest.raises(CardRemoved):
        connection.reset(deadline=bench.soon())
    assert bench.card.commands == []


@pytest.mark.parametrize("loss", ["remove", "unplug"])
def test_lost_connection_says_the_same_each_time(bench: "Bench", connection: CardConnection, loss: str) -> None:
    """Whoever tries it again must not be told something else then."""
    assert transmit(bench, connection, *SELECT) == OK
    getattr(bench, loss)()
    errors = [refusal(bench, connection) for _ in range(3)]
    with pytest.raises((CardRemoved, DeviceLost)) as caught:
        connection.reset(deadline=bench.soon())
    errors.append(caught.value)
    assert len({(type(error), error.transient) for error in errors}) == 1
    assert {error.outcome for error in errors[1:]} == {Outcome.NOT_SENT}
    connection.close()
    assert "was closed" in refusal(bench, connection).message


def refusal(bench: "Bench", connection: CardConnection) -> HardwareError:
    with pytest.raises((CardRemoved, DeviceLost)) as caught:
        transmit(bench, connection, *SELECT)
    return caught.value


def test_card_that_was_swapped_unseen_gets_no_command(bench: "Bench", connection: CardConnection) -> None:
    bench.replace_unseen()
    with pytest.raises(CardRemoved):
        transmit(bench, connection, *SELECT)
    assert bench.card.commands == []


def test_new_connection_after_a_removal(bench: "Bench", connection: CardConnection) -> None:
    bench.remove()
    with pytest.raises(CardRemoved):
        transmit(bench, connection, *SELECT)
    bench.insert()
    again = bench.reader.connect(deadline=bench.soon())
    assert transmit(bench, again, *SELECT) == OK
    connection.close()
    assert bench.card.powered


def test_closed_connection_sends_nothing(bench: "Bench", connection: CardConnection) -> None:
    connection.close()
    connection.close()
    assert bench.is_off()
    with pytest.raises(CardRemoved, match=r"^The connection to the card was closed\.") as caught:
        transmit(bench, connection, *SELECT)
    assert (caught.value.outcome, caught.value.remedy) == (Outcome.NOT_SENT, "Open the provider anew.")
    assert bench.card.commands == []


def test_closing_inside_a_transaction(bench: "Bench", connection: CardConnection) -> None:
    with connection.transaction(deadline=bench.soon()):
        connection.close()
    assert bench.is_off()
