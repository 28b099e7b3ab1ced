"""The port of a serial reader on a line that does what it is told, and the ways in which a line cannot be had."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from demail_hw.address import Address
from demail_hw.ccid.serial_framing import NAK_FRAME, encode_frame
from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    Outcome,
    TransferStalled,
    TransportError,
)
from demail_hw.interfaces import Buffers, Timeouts
from demail_hw.registry import find_readers, open_reader
from demail_hw.usb.setup import SetupPacket
from demail_hw_drivers import serial_ccid_port
from demail_hw_drivers.serial_ccid import SerialReaders
from demail_hw_drivers.serial_ccid_port import SerialCcidPort
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card.timing import TimedCard
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import reader_profile
from demail_hw_simulators.serial_reader import FIRMWARE, ReaderOnPty, ReaderOnTcp, SerialReader

SELECT_MF = bytes.fromhex("00A4000C023F00")
COMMAND = bytes.fromhex("65000000000007000000")
ANSWER = bytes.fromhex("81000000000007010000")
OLD_ANSWER = bytes.fromhex("81000000000006010000")
ABORT = SetupPacket(0x21, 1, 0x0700, 0).encode()
LONG, SHORT = 20.0, 0.02


def frame(message: bytes) -> bytes:
    return b"".join(encode_frame((message,)))


GOOD = frame(ANSWER)
DAMAGED = GOOD[:-1] + b"\x00"


def soon(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


class ScriptedLine:
    """Says what the script has for each thing that is written to it."""

    def __init__(self, *script: bytes) -> None:
        self.script = list(script)
        self.written: list[bytes] = []
        self.incoming = bytearray()
        self.broken = False
        self.closed = False

    def read(self, wanted: int) -> bytes:
        if self.broken:
            raise OSError("gone")
        data = bytes(self.incoming[:wanted])
        del self.incoming[:wanted]
        return data

    def read_now(self) -> bytes:
        return self.read(len(self.incoming))

    def write(self, data: Buffers) -> None:
        self.written.append(b"".join(data))
        if self.script:
            self.incoming += self.script.pop(0)

    def close(self) -> None:
        self.closed = True


def port_on(line: ScriptedLine) -> SerialCcidPort:
    return SerialCcidPort(line, "/dev/ttyX")  # type: ignore[arg-type]


def exchange(line: ScriptedLine, seconds: float = LONG) -> bytes:
    return port_on(line).exchange((COMMAND[:4], COMMAND[4:]), 271, deadline=soon(seconds))


@pytest.mark.parametrize(
    "said",
    [GOOD, frame(COMMAND) + GOOD, b"\x50\x03" + GOOD, b"\x81\x82" + GOOD, b"\x00\x03" + GOOD],
    ids=["plain", "echo", "slot change", "more time", "noise"],
)
def test_the_answer_is_found_among_what_the_line_says(said: bytes) -> None:
    line = ScriptedLine(said)
    assert exchange(line) == ANSWER
    assert line.written == [frame(COMMAND)]


def test_a_damaged_answer_is_asked_for_again_and_the_command_is_not_sent_again() -> None:
    line = ScriptedLine(DAMAGED, DAMAGED, GOOD)
    assert exchange(line) == ANSWER
    assert line.written == [frame(COMMAND), NAK_FRAME, NAK_FRAME]


def test_an_answer_whose_end_got_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_ccid_port, "_SILENT_SECONDS", 0.0)
    line = ScriptedLine(GOOD[:-3], GOOD)
    assert exchange(line) == ANSWER
    assert line.written == [frame(COMMAND), NAK_FRAME]


def test_an_answer_that_is_always_damaged_leaves_the_command_in_doubt() -> None:
    line = ScriptedLine(*[DAMAGED] * 9)
    with pytest.raises(TransportError, match="damages") as caught:
        exchange(line)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert line.written == [frame(COMMAND), *[NAK_FRAME] * 3]


def test_a_command_that_the_reader_did_not_get_is_not_sent_again() -> None:
    line = ScriptedLine(NAK_FRAME, GOOD)
    with pytest.raises(TransportError, match="thrown away") as caught:
        exchange(line)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert line.written == [frame(COMMAND)]


def test_a_nak_to_a_nak_proves_nothing_about_the_command() -> None:
    with pytest.raises(TransportError) as caught:
        exchange(ScriptedLine(DAMAGED, NAK_FRAME))
    assert caught.value.outcome is Outcome.UNKNOWN


def test_no_answer_costs_the_deadline_and_the_late_one_is_not_lost_in_the_line() -> None:
    line = ScriptedLine(b"", frame(OLD_ANSWER) + GOOD)
    port = port_on(line)
    with pytest.raises(DeadlineExceeded) as caught:
        port.exchange((COMMAND,), 271, deadline=soon(SHORT))
    assert caught.value.outcome is Outcome.UNKNOWN
    assert port.exchange((COMMAND,), 271, deadline=soon()) == OLD_ANSWER
    assert port.bulk_in(271, deadline=soon()) == ANSWER


def test_nothing_is_sent_after_the_deadline() -> None:
    line = ScriptedLine(GOOD)
    with pytest.raises(DeadlineExceeded) as caught:
        exchange(line, 0)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert line.written == []


def test_news_of_the_card_are_kept_in_order_and_none_is_made_up() -> None:
    line = ScriptedLine(b"\x50\x03" + GOOD, b"\x50\x02" + GOOD)
    port = port_on(line)
    for _ in range(2):
        port.exchange((COMMAND,), 271, deadline=soon())
    assert [port.interrupt_in(deadline=soon()) for _ in range(3)] == [b"\x50\x03", b"\x50\x02", b"\x50"]


def test_a_line_that_breaks_takes_the_reader_with_it() -> None:
    line = ScriptedLine()
    port = port_on(line)
    line.broken = True
    with pytest.raises(DeviceLost) as caught:
        port.exchange((COMMAND,), 271, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    line.broken = False
    with pytest.raises(DeviceLost):
        port.exchange((COMMAND,), 271, deadline=soon())
    assert line.written == []


def test_a_forked_child_leaves_the_line_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ScriptedLine(GOOD)
    port = port_on(line)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(DeviceLost) as caught:
        port.exchange((COMMAND,), 271, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    assert line.written == []
    monkeypatch.undo()
    assert port.exchange((COMMAND,), 271, deadline=soon()) == ANSWER


def test_there_is_no_control_pipe_but_an_abort_passes() -> None:
    line = ScriptedLine()
    port = port_on(line)
    assert port.control(ABORT, deadline=soon()) == b""
    port.clear_halt(0x01, deadline=soon())
    with pytest.raises(TransferStalled):
        port.control(SetupPacket(0x80, 6, 0x0100, 0, 18).encode(), deadline=soon())
    assert line.written == []


def test_closing_wakes_whoever_waits_for_the_card() -> None:
    line = ScriptedLine()
    port = port_on(line)
    errors: list[DeviceLost] = []

    def listen() -> None:
        try:
            while True:
                port.interrupt_in(deadline=soon())
        except DeviceLost as error:
            errors.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    port.close()
    port.close()
    listener.join(LONG)
    assert len(errors) == 1
    assert line.closed


# --- On a pseudo-terminal, with pyserial ---------------------------------------------------------------------------


@pytest.fixture
def slot() -> SimulatedUsbReader:
    return SimulatedUsbReader(None, profile=reader_profile("host_pps"))


@pytest.fixture
def path(slot: SimulatedUsbReader) -> Iterator[str]:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    with ReaderOnPty(SerialReader(slot)) as line:
        yield line.path


def test_a_reader_says_its_firmware_and_no_serial_number(path: str) -> None:
    with contextlib.closing(open_reader(f"serial:{path}")) as reader:
        assert (reader.name, reader.serial) == (FIRMWARE.decode(), None)
        assert not reader.card_present(deadline=soon())


def test_a_command_that_is_aborted_leaves_the_reader_usable() -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    card = TimedCard(netkey3(), Endless())  # type: ignore[arg-type]
    slot = SimulatedUsbReader(card, profile=reader_profile("host_pps"), later=lambda seconds, then: bool)
    with ReaderOnPty(SerialReader(slot)) as line, contextlib.closing(open_reader(f"serial:{line.path}")) as reader:
        connection = reader.connect(deadline=soon())
        with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded) as caught:
            connection.transmit((SELECT_MF,), deadline=soon(10 * SHORT))
        assert caught.value.outcome is Outcome.UNKNOWN
        assert reader.connect(deadline=soon()).atr == netkey3().power_on()


def test_a_line_is_one_program_s(path: str) -> None:
    with contextlib.closing(open_reader(f"serial:{path}")), pytest.raises(DeviceBusy) as caught:
        open_reader(f"serial:{path}")
    assert "pcscd" in caught.value.remedy


class Endless:
    """How long a card takes that never answers."""

    def seconds(self, command: bytes, response: bytes) -> float:
        return 3600.0


class MuteReader(SerialReader):
    def receive(self, data: bytes) -> None:
        """Nothing at the line listens."""


def test_a_line_where_nobody_answers_has_no_reader(slot: SimulatedUsbReader) -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    with ReaderOnPty(MuteReader(slot)) as mute, pytest.raises(DeviceNotFound, match="GemPC Twin"):
        open_reader(f"serial:{mute.path}", timeouts=Timeouts(connect=0.3))


def test_a_com_server_that_hangs_up_is_a_lost_reader(slot: SimulatedUsbReader) -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    with ReaderOnTcp(SerialReader(slot)) as server:
        reader = open_reader(f"serial:socket://127.0.0.1:{server.port}")
    with contextlib.closing(reader), pytest.raises(DeviceLost):
        reader.card_present(deadline=soon())


@pytest.mark.parametrize(
    ("selector", "kind", "words"),
    [
        ("/dev/there-is-none", DeviceNotFound, "There is no serial device"),
        ("socket://127.0.0.1:1", DeviceNotFound, "cannot be opened: Connection refused[.]"),
        ("/dev/null", DeviceNotFound, "cannot be opened: Inappropriate ioctl for device[.]"),
        ("nonsense://x", ConfigurationError, "no serial line"),
        ("", ConfigurationError, "names no serial line"),
    ],
)
def test_what_cannot_be_opened_says_why(selector: str, kind: type[Exception], words: str) -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    with pytest.raises(kind, match=words):
        open_reader(f"serial:{selector}")


def test_a_host_is_no_serial_line() -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    with pytest.raises(ConfigurationError) as caught:
        open_reader("serial://com-server/")
    assert "socket://" in caught.value.remedy


def test_the_ports_of_this_machine_are_listed_without_being_asked() -> None:
    pytest.importorskip("serial", reason="pyserial is not here: pip install 'demail-hw[serial]'")
    assert all("not asked" in info.name and info.card is None for info in find_readers("serial:"))


def test_a_missing_pyserial_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(ConfigurationError) as caught:
        open_reader("serial:/dev/ttyUSB0")
    assert caught.value.remedy == "Install it: pip install 'demail-hw[serial]'."


@pytest.mark.parametrize(
    "text", ["serial:/dev/ttyUSB0", "serial:socket://10.0.0.7:8000", "serial:rfc2217://[::1]:2217"]
)
def test_addresses_come_back(text: str) -> None:
    address = Address.parse(text)
    assert Address.parse(str(address)) == address
    assert address.selector == text.removeprefix("serial:")


def test_the_same_host_takes_it_as_any_reader(path: str) -> None:
    opened = SerialReaders().open(Address.parse(f"serial:{path}"), timeouts=Timeouts())
    assert opened.descriptor.features == 0x00010230
    opened.close()
