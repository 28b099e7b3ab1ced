"""A recorded card in the place of a real one."""

import logging
import pathlib

import pytest

from demail_hw.address import Address
from demail_hw.errors import (
    CardMute,
    CardRemoved,
    ConfigurationError,
    DeadlineExceeded,
    DeviceNotFound,
    NoCard,
    Outcome,
    ProtocolViolation,
)
from demail_hw.interfaces import CardConnection, CardLimits, Reader, ReaderDriver, Timeouts
from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.trace import PowerUp, Recorder, Trace, TraceEntry
from demail_hw.registry import open_reader
from demail_hw.traces.replay import Playback, ReplayConnection, ReplayReader, ReplayReaders
from demail_hw.transaction_lock import TransactionLock

DEADLINE = 1e12
ATR = "3bbf96008131fe5d00640411030131c073f701d00090007d"
OTHER_ATR = "3b00"
MASTER_FILE = bytes.fromhex("00a4000c023f00")

TEXT = f"""\
# connected ATR {ATR}
# ctl power on
> 00a4000c023f00
<  9000

> 00b0000004
< 5a0a8949 6282
> 0020008106313233343536
<  63c2
"""


def replay(text: str) -> ReplayConnection:
    return ReplayConnection(Playback(Trace.parse(text)), TransactionLock())


def transmit(connection: CardConnection, command: bytes = MASTER_FILE) -> bytes:
    with connection.transaction(deadline=DEADLINE):
        return connection.transmit((command,), deadline=DEADLINE)


# --- Connection ----------------------------------------------------------------------------------------------------


def test_a_recorded_card_answers() -> None:
    connection: CardConnection = replay(TEXT)
    assert connection.atr == bytes.fromhex(ATR)
    assert connection.limits == EXTENDED_LIMITS
    with connection.transaction(deadline=DEADLINE):
        assert connection.transmit((bytes.fromhex("00a4000c02"), b"\x3f\0"), deadline=DEADLINE) == b"\x90\0"
        assert connection.transmit((bytes.fromhex("00b0000004"),), deadline=DEADLINE).hex() == "5a0a89496282"
        assert connection.transmit((bytes.fromhex("0020008106"), b"999999"), deadline=DEADLINE).hex() == "63c2"


def test_what_was_recorded_can_be_replayed() -> None:
    source, recorder = replay(TEXT), Recorder()
    commands = [
        CommandApdu(0, 0xA4, 0, 0x0C, (b"\x3f\0",)),
        CommandApdu(0, 0xB0, 0, 0, ne=4),
        CommandApdu(0, 0x20, 0, 0x81, (b"123456",)),
    ]
    with source.transaction(deadline=DEADLINE):
        channel = Channel(source, tracer=recorder)
        first = [channel.send(command, deadline=DEADLINE) for command in commands]
    copy = replay(recorder.recorded().format())
    with copy.transaction(deadline=DEADLINE):
        channel = Channel(copy)
        assert [channel.send(command, deadline=DEADLINE) for command in commands] == first
    assert copy.atr == source.atr


@pytest.mark.parametrize(
    ("skip", "command", "message"),
    [
        (0, "00b0000004", "Line 3 of the trace has 00a4000c023f00, and 00b0000004 came."),
        (2, "002000810731323334353637", "Line 8 of the trace has 0020008106************, and"),
        (2, "002c008106313233343536", "and 002c008106************ came."),
        (3, "0020008106313233343536", "The trace has ended, and 0020008106************ came."),
    ],
)
def test_another_command_is_a_violation_that_names_the_line(skip: int, command: str, message: str) -> None:
    trace = Trace.parse(TEXT)
    connection = ReplayConnection(Playback(trace), TransactionLock())
    with connection.transaction(deadline=DEADLINE):
        for sent in ("00a4000c023f00", "00b0000004", "0020008106303030303030")[:skip]:
            connection.transmit((bytes.fromhex(sent),), deadline=DEADLINE)
        with pytest.raises(ProtocolViolation) as caught:
            connection.transmit((bytes.fromhex(command),), deadline=DEADLINE)
    assert message in str(caught.value)
    assert "3132" not in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_long_command_is_named_by_its_beginning() -> None:
    connection = replay("> 002a9e9a" + "ff" * 200)
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation) as caught:
        connection.transmit((bytes(200),), deadline=DEADLINE)
    assert len(caught.value.message) < 200


def test_an_entry_from_memory_is_named_by_its_number() -> None:
    connection = ReplayConnection(Playback(Trace((TraceEntry("00a4000c", "9000"),))), TransactionLock())
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation, match="Exchange 1 of the trace"):
        connection.transmit((b"\0\0\0\0",), deadline=DEADLINE)


def test_a_mismatch_does_not_move_the_trace_on() -> None:
    connection = replay(TEXT)
    with connection.transaction(deadline=DEADLINE):
        with pytest.raises(ProtocolViolation):
            connection.transmit((b"\0\0\0\0",), deadline=DEADLINE)
        assert connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=DEADLINE) == b"\x90\0"


def test_a_missing_response_is_a_mute_card() -> None:
    connection = replay("> 00a4000c\n")
    with connection.transaction(deadline=DEADLINE), pytest.raises(CardMute, match="Line 1"):
        connection.transmit((bytes.fromhex("00a4000c"),), deadline=DEADLINE)


def test_a_masked_response_cannot_be_replayed() -> None:
    connection = replay("> 00a4000c\n< ** 9000\n")
    with connection.transaction(deadline=DEADLINE), pytest.raises(ProtocolViolation, match="masked response"):
        connection.transmit((bytes.fromhex("00a4000c"),), deadline=DEADLINE)


def test_no_command_outside_a_transaction_or_after_the_end() -> None:
    connection = replay(TEXT)
    with pytest.raises(RuntimeError):
        connection.transmit((bytes.fromhex("00a4000c023f00"),), deadline=DEADLINE)
    connection.close()
    connection.close()
    with pytest.raises(CardRemoved) as caught:
        transmit(connection)
    assert caught.value.outcome is Outcome.NOT_SENT
    with pytest.raises(CardRemoved):
        connection.reset(deadline=DEADLINE)


def test_a_reset_begins_a_new_epoch() -> None:
    connection = replay(TEXT)
    before = connection.epoch
    connection.reset(deadline=DEADLINE)
    assert connection.epoch != before


def test_the_limits_can_be_chosen() -> None:
    limits = CardLimits(False, 261, 258)
    assert ReplayConnection(Playback(Trace(())), TransactionLock(), limits=limits).limits == limits


@pytest.mark.parametrize(("at", "byte"), [(17, 18), (203, 204)])
def test_two_long_commands_are_told_apart_by_the_first_byte_that_differs(at: int, byte: int) -> None:
    command = bytearray.fromhex("002a9e9ac8") + bytes(200)
    connection = replay(f"> {command.hex()}\n<  9000")
    command[at] ^= 1
    with pytest.raises(ProtocolViolation, match=f"with another byte {byte}\\."):
        transmit(connection, bytes(command))


def test_a_command_that_is_longer_differs_behind_the_end() -> None:
    connection = replay("> 00d6000010" + "00" * 16 + "\n<  9000")
    with pytest.raises(ProtocolViolation, match="with another byte 22\\."):
        transmit(connection, bytes.fromhex("00d6000010" + "00" * 17))


def test_nothing_is_taken_after_the_deadline() -> None:
    connection = replay(TEXT)
    with connection.transaction(deadline=DEADLINE):
        with pytest.raises(DeadlineExceeded):
            connection.transmit((MASTER_FILE,), deadline=0.0)
        assert connection.transmit((MASTER_FILE,), deadline=DEADLINE) == b"\x90\0"


# --- Power -----------------------------------------------------------------------------------------------------

POWERED = f"""\
# connected ATR {ATR}
> 00a4000c023f00
<  9000
# connected ATR {ATR}
> 00a4000c023f00
<  9000
> 00a4000c023f00
# no answer: CardRemoved: It was taken out.
# connected ATR {OTHER_ATR}
> 00a4000c023f00
<  6a82
"""


def test_the_epoch_changes_where_it_did() -> None:
    connection = replay(POWERED)
    seen = []
    with connection.transaction(deadline=DEADLINE):
        seen.append((connection.epoch, connection.atr.hex()))
        connection.transmit((MASTER_FILE,), deadline=DEADLINE)
        seen.append((connection.epoch, connection.atr.hex()))
    with connection.transaction(deadline=DEADLINE):
        seen.append((connection.epoch, connection.atr.hex()))
        connection.transmit((MASTER_FILE,), deadline=DEADLINE)
        with pytest.raises(CardMute, match=r"Line 7 of the trace has no response\. CardRemoved: It was taken out\."):
            connection.transmit((MASTER_FILE,), deadline=DEADLINE)
        seen.append((connection.epoch, connection.atr.hex()))
        assert connection.transmit((MASTER_FILE,), deadline=DEADLINE) == b"\x6a\x82"
    assert seen == [(0, ATR), (0, ATR), (1, ATR), (2, OTHER_ATR)]


def test_a_recorded_reset_is_one_change_of_the_epoch() -> None:
    connection = replay(POWERED)
    with connection.transaction(deadline=DEADLINE):
        connection.transmit((MASTER_FILE,), deadline=DEADLINE)
        connection.reset(deadline=DEADLINE)
        assert connection.epoch == 1
    with connection.transaction(deadline=DEADLINE):
        assert connection.epoch == 1


# --- Reader ----------------------------------------------------------------------------------------------------


def test_it_has_the_name_and_the_number_of_the_recorded_reader() -> None:
    reader: Reader = ReplayReader(Trace((), reader="uTrust", serial="1"), name="x")
    assert (reader.name, reader.serial) == ("uTrust", "1")
    assert (ReplayReader(Trace(()), name="x").name, ReplayReader(Trace(())).serial) == ("x", None)


def test_connections_follow_one_another_in_the_trace() -> None:
    reader = ReplayReader(Trace.parse(POWERED))
    first = reader.connect(deadline=DEADLINE)
    transmit(first)
    first.close()
    second = reader.connect(deadline=DEADLINE)
    assert second.epoch == 1
    transmit(second)
    with pytest.raises(CardRemoved):
        transmit(first)


@pytest.mark.parametrize("text", ["", "# connected ATR\n", "# reader: uTrust\n# reader serial: 1\n"])
def test_a_trace_without_a_card(text: str) -> None:
    reader = ReplayReader(Trace.parse(text))
    assert not reader.card_present(deadline=DEADLINE)
    with pytest.raises(NoCard):
        reader.connect(deadline=DEADLINE)
    with pytest.raises(DeadlineExceeded):
        reader.wait_for_card(True, deadline=DEADLINE)


def test_an_end_before_the_end_of_the_trace_is_told(caplog: pytest.LogCaptureFixture) -> None:
    reader = ReplayReader(Trace.parse(TEXT))
    transmit(reader.connect(deadline=DEADLINE))
    reader.close()
    reader.close()
    assert caplog.messages == ["The trace goes on at line 6; of its exchanges 2 were not replayed."]


def test_an_end_is_not_told_of_twice(caplog: pytest.LogCaptureFixture) -> None:
    whole, diverged = ReplayReader(Trace.parse("> 00a4000c023f00\n<  9000")), ReplayReader(Trace.parse(TEXT))
    transmit(whole.connect(deadline=DEADLINE))
    with pytest.raises(ProtocolViolation):
        transmit(diverged.connect(deadline=DEADLINE), b"\0\0\0\0")
    for reader in (whole, diverged, ReplayReader(Trace.parse(TEXT))):
        reader.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- Driver ----------------------------------------------------------------------------------------------------


def test_it_is_found_by_its_scheme(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "card trace?.txt"
    path.write_text(f"# reader: uTrust\n# reader serial: 77\n{TEXT}")
    address = Address("replay", selector=str(path))
    reader = open_reader(str(address))
    assert isinstance(reader, ReplayReader)
    assert transmit(reader.connect(deadline=DEADLINE)) == b"\x90\0"
    reader.close()
    with pytest.raises(DeviceNotFound):
        open_reader(f"{address}?reader=78")


def test_readers_are_listed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text(TEXT)
    driver: ReaderDriver = ReplayReaders()
    address = Address.parse(f"replay:{tmp_path}/a")
    (info,) = driver.find(address, timeouts=Timeouts())
    assert info == (str(address), f"Recorded card in {tmp_path}/a", None, True, False)
    assert driver.find(Address.parse(f"{address}?reader=1"), timeouts=Timeouts()) == ()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("replay:", "names no trace"),
        ("replay://host/file", "names a host"),
        ("replay:no/such/file", "No such file or directory"),
        ("replay:/", "Is a directory"),
        ("replay:a%00b", "null byte"),
    ],
)
def test_an_address_that_is_none(address: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        open_reader(address)


def test_the_word_powered_holds_positions() -> None:
    assert Trace.parse(POWERED).powered == (PowerUp(1, bytes.fromhex(ATR)), PowerUp(3, bytes.fromhex(OTHER_ATR)))
