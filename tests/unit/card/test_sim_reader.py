"""The in-process reader behind ``sim:`` addresses."""

import threading
import time
from collections.abc import Iterator

import pytest

from demail_hw.address import Address
from demail_hw.errors import (
    CardRemoved,
    ConfigurationError,
    DeadlineExceeded,
    DeviceNotFound,
    HardwareError,
    NoCard,
    Outcome,
    ReaderBusy,
)
from demail_hw.interfaces import Timeouts
from demail_hw.registry import find_readers, open_reader
from demail_hw_simulators.card.personalities import NETKEY3, PERSONALITIES, netkey3
from demail_hw_simulators.sim_reader import SimulatedConnection, SimulatedReader, SimulatedReaders

SELECT_GDO = (b"\x00\xa4\x08\x0c", b"\x02\x2f\x02")
READ_GDO = (b"\x00\xb0\x00\x00\x0c",)
VERIFY_STATUS = (b"\x00\x20\x00\x00",)


def soon() -> float:
    return time.monotonic() + 30


def past() -> float:
    return time.monotonic() - 1


@pytest.fixture
def reader() -> Iterator[SimulatedReader]:
    opened = SimulatedReader(netkey3(), name="test", serial="T-1")
    yield opened
    opened.close()


@pytest.fixture
def connection(reader: SimulatedReader) -> SimulatedConnection:
    return reader.connect(deadline=soon())


@pytest.mark.parametrize(
    ("address", "serial"),
    [("sim:", "SIM-NETKEY3"), ("sim:netkey3", "SIM-NETKEY3"), ("sim:telesec?reader=SIM-TELESEC", "SIM-TELESEC")],
)
def test_addresses(address: str, serial: str) -> None:
    opened = open_reader(address)
    assert opened.serial == serial
    assert opened.card_present(deadline=soon())
    connected = opened.connect(deadline=soon())
    with connected.transaction(deadline=soon()):
        assert connected.transmit(SELECT_GDO, deadline=soon()) == b"\x90\x00"
        assert connected.transmit(READ_GDO, deadline=soon()).hex() == f"5a0a{NETKEY3.iccsn}9000"
    opened.close()


@pytest.mark.parametrize(
    ("address", "kind"), [("sim:geldkarte", ConfigurationError), ("sim:netkey3?reader=SIM-TELESEC", DeviceNotFound)]
)
def test_addresses_of_nothing(address: str, kind: type[HardwareError]) -> None:
    with pytest.raises(kind) as caught:
        open_reader(address)
    assert caught.value.remedy
    assert caught.value.outcome is Outcome.NOT_SENT


def test_the_known_personalities_are_named() -> None:
    for ask in (SimulatedReaders().open, SimulatedReaders().find):
        with pytest.raises(ConfigurationError, match="'geldkarte'") as caught:
            ask(Address.parse("sim:geldkarte"), timeouts=Timeouts())
        assert "sim:netkey3, sim:netkey3-fresh, sim:telesec" in caught.value.remedy
        assert "--personality FILE.toml" in caught.value.remedy


def test_find() -> None:
    found = find_readers("sim:")
    assert [info.address for info in found] == [f"sim:{name}" for name in PERSONALITIES]
    assert [info.address for info in find_readers("sim:telesec")] == ["sim:telesec"]
    assert [info.address for info in find_readers("sim:?reader=SIM-NETKEY3")] == ["sim:netkey3"]
    assert {open_reader(info.address).serial for info in found} == {info.serial for info in found}


def test_what_people_read_fits_every_name() -> None:
    assert [info.name for info in find_readers("sim:idkey")] == ["Simulated reader with the card idkey"]


def test_every_opening_is_a_new_card() -> None:
    for _ in range(2):
        connected = open_reader("sim:").connect(deadline=soon())
        with connected.transaction(deadline=soon()):
            wrong = (b"\x00\x20\x00\x00\x06", b"999999")
            assert connected.transmit(wrong, deadline=soon()) == b"\x63\xc2"


def test_a_connection(connection: SimulatedConnection) -> None:
    assert connection.atr.hex().upper() == "3BBF96008131FE5D00640411030131C073F701D00090007D"
    assert connection.limits == (True, 65544, 65538)
    with connection.transaction(deadline=soon()):
        assert connection.transmit(VERIFY_STATUS, deadline=soon()) == b"\x63\xc3"


def test_no_command_outside_a_transaction(connection: SimulatedConnection) -> None:
    with pytest.raises(RuntimeError):
        connection.transmit(VERIFY_STATUS, deadline=soon())


def test_no_command_in_the_transaction_of_another_thread(connection: SimulatedConnection) -> None:
    caught: list[BaseException] = []

    def intrude() -> None:
        try:
            connection.transmit(VERIFY_STATUS, deadline=soon())
        except RuntimeError as error:
            caught.append(error)

    with connection.transaction(deadline=soon()):
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_the_limit(connection: SimulatedConnection) -> None:
    with connection.transaction(deadline=soon()):
        longest = (b"\x00\x20\x00\x00\x00\xff\xff", bytes(65535), b"\x00\x00")
        assert connection.transmit(longest, deadline=soon()) == b"\x67\x00"
        with pytest.raises(ValueError):
            connection.transmit((*longest, b"\x00"), deadline=soon())


def test_nothing_is_sent_after_the_deadline(connection: SimulatedConnection) -> None:
    with connection.transaction(deadline=soon()):
        with pytest.raises(DeadlineExceeded) as caught:
            connection.transmit((b"\x00\x20\x00\x00\x06", b"999999"), deadline=past())
        assert caught.value.outcome is Outcome.NOT_SENT
        assert connection.transmit(VERIFY_STATUS, deadline=soon()) == b"\x63\xc3"


def test_a_reset_changes_the_epoch_and_forgets(connection: SimulatedConnection) -> None:
    with connection.transaction(deadline=soon()):
        connection.transmit((b"\x00\x20\x00\x00\x06", b"123456"), deadline=soon())
        epoch = connection.epoch
        connection.reset(deadline=soon())
        assert connection.epoch != epoch
        assert connection.transmit(VERIFY_STATUS, deadline=soon()) == b"\x63\xc3"


def test_a_reset_outside_a_transaction_waits_for_its_turn(connection: SimulatedConnection) -> None:
    epoch = connection.epoch
    connection.reset(deadline=soon())
    assert connection.epoch != epoch


def test_one_connection_at_a_time(reader: SimulatedReader) -> None:
    first = reader.connect(deadline=soon())
    with pytest.raises(ReaderBusy):
        reader.connect(deadline=soon())
    first.close()
    assert reader.connect(deadline=soon()).alive


def test_a_closed_connection_is_dead(connection: SimulatedConnection) -> None:
    connection.close()
    connection.close()
    assert not connection.alive
    with connection.transaction(deadline=soon()), pytest.raises(CardRemoved) as caught:
        connection.transmit(VERIFY_STATUS, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    with pytest.raises(CardRemoved):
        connection.reset(deadline=soon())


def test_closing_takes_the_power() -> None:
    card = netkey3()
    connected = SimulatedReader(card).connect(deadline=soon())
    assert card.powered
    connected.close()
    assert not card.powered


def test_a_card_that_is_taken_out_and_put_in_again(reader: SimulatedReader, connection: SimulatedConnection) -> None:
    epoch = connection.epoch
    card = reader.remove()
    assert connection.epoch != epoch
    assert not reader.card_present(deadline=soon())
    with pytest.raises(NoCard):
        reader.connect(deadline=soon())
    with pytest.raises(RuntimeError):
        reader.remove()
    reader.insert(card)
    with pytest.raises(RuntimeError):
        reader.insert(card)
    with connection.transaction(deadline=soon()), pytest.raises(CardRemoved):
        connection.transmit(VERIFY_STATUS, deadline=soon())
    again = reader.connect(deadline=soon())
    with again.transaction(deadline=soon()):
        assert again.transmit(VERIFY_STATUS, deadline=soon()) == b"\x63\xc3"


def test_the_power_of_a_new_connection_outlives_an_old_one(reader: SimulatedReader) -> None:
    old = reader.connect(deadline=soon())
    reader.insert(reader.remove())
    new = reader.connect(deadline=soon())
    old.close()
    with new.transaction(deadline=soon()):
        assert new.transmit(VERIFY_STATUS, deadline=soon()) == b"\x63\xc3"


def test_waiting_for_a_card() -> None:
    reader = SimulatedReader(None)
    waiting = threading.Thread(target=reader.wait_for_card, args=(True,), kwargs={"deadline": soon()})
    waiting.start()
    reader.insert(netkey3())
    waiting.join(timeout=30)
    assert not waiting.is_alive()
    reader.wait_for_card(True, deadline=past())
    with pytest.raises(DeadlineExceeded):
        reader.wait_for_card(False, deadline=past())
