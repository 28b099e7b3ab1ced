"""One contract for every Reader."""

import threading
import time
from typing import TYPE_CHECKING

import pytest

from demail_hw.errors import DeadlineExceeded, Layer, NoCard, Outcome, ReaderBusy
from demail_hw.interfaces import ShareMode

if TYPE_CHECKING:
    from conftest import Bench


def test_it_has_a_name_and_the_serial_number_of_the_device(bench: "Bench") -> None:
    assert bench.reader.name
    assert bench.reader.serial == bench.serial


def test_card_is_present_while_it_is_in(bench: "Bench") -> None:
    assert bench.reader.card_present(deadline=bench.soon())
    bench.remove()
    assert not bench.reader.card_present(deadline=bench.soon())
    bench.insert()
    assert bench.reader.card_present(deadline=bench.soon())


def test_asking_for_a_card_gives_it_no_power(bench: "Bench") -> None:
    bench.reader.card_present(deadline=bench.soon())
    bench.reader.wait_for_card(True, deadline=bench.soon())
    assert bench.card.resets == 0


@pytest.mark.parametrize("present", [True, False])
def test_waiting_for_what_is_so_returns_at_once(bench: "Bench", present: bool) -> None:
    if not present:
        bench.remove()
    bench.reader.wait_for_card(present, deadline=bench.soon())


@pytest.mark.parametrize("present", [True, False])
def test_waiting_ends_with_the_change(bench: "Bench", present: bool) -> None:
    if present:
        bench.remove()
        bench.reader.wait_for_card(False, deadline=bench.soon())
    done = threading.Event()

    def wait() -> None:
        bench.reader.wait_for_card(present, deadline=bench.soon())
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    if present:
        bench.insert()
    else:
        bench.remove()
    assert done.wait(20)
    thread.join(20)
    assert bench.reader.card_present(deadline=bench.soon()) is present


@pytest.mark.parametrize("present", [True, False])
def test_waiting_in_vain_ends_at_the_deadline(bench: "Bench", present: bool) -> None:
    if present:
        bench.remove()
    with pytest.raises(DeadlineExceeded) as caught:
        bench.reader.wait_for_card(present, deadline=bench.short())
    assert (caught.value.layer, caught.value.outcome) == (Layer.READER, Outcome.NOT_SENT)


@pytest.mark.parametrize("share", ShareMode)
def test_connecting_powers_the_card(bench: "Bench", share: ShareMode) -> None:
    connection = bench.reader.connect(share, deadline=bench.soon())
    assert bench.card.powered
    connection.close()
    assert bench.is_off()


def test_connecting_without_a_card_is_no_card(bench: "Bench") -> None:
    bench.remove()
    with pytest.raises(NoCard) as caught:
        bench.reader.connect(deadline=bench.soon())
    assert caught.value.outcome is Outcome.NOT_SENT


def test_second_connection_has_to_wait_for_the_first_to_close(bench: "Bench") -> None:
    first = bench.reader.connect(deadline=bench.soon())
    with pytest.raises(ReaderBusy) as caught:
        bench.reader.connect(deadline=bench.soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    first.close()
    second = bench.reader.connect(deadline=bench.soon())
    with second.transaction(deadline=bench.soon()):
        assert second.transmit((b"\0\xa4\4\0",), deadline=bench.soon()) == b"\x90\0"


def test_connection_to_a_card_that_was_taken_out_is_in_nobodys_way(bench: "Bench") -> None:
    bench.reader.connect(deadline=bench.soon())
    bench.remove()
    bench.insert()
    connection = bench.reader.connect(deadline=bench.soon())
    with connection.transaction(deadline=bench.soon()):
        assert connection.transmit((b"\0\xa4\4\0",), deadline=bench.soon()) == b"\x90\0"


def test_connecting_waits_for_a_transaction_until_its_deadline(bench: "Bench") -> None:
    connection = bench.reader.connect(deadline=bench.soon())
    caught: list[DeadlineExceeded] = []

    def connect() -> None:
        with pytest.raises(DeadlineExceeded) as error:
            bench.reader.connect(deadline=time.monotonic())
        caught.append(error.value)

    with connection.transaction(deadline=bench.soon()):
        thread = threading.Thread(target=connect)
        thread.start()
        thread.join(20)
    assert [error.outcome for error in caught] == [Outcome.NOT_SENT]


def test_closing_takes_the_power_and_may_be_repeated(bench: "Bench") -> None:
    bench.reader.connect(deadline=bench.soon())
    bench.reader.close()
    assert bench.is_off()
    bench.reader.close()


def test_closing_without_a_connection(bench: "Bench") -> None:
    bench.reader.close()
