"""A capture of a session, on either side, with readers of every level: no byte of a PIN is in the file."""

import contextlib
import itertools
import json
import logging
import os
import pathlib
import stat
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from captured import flows
from demail_hw.address import Address
from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import Timeouts
from demail_hw.registry import open_reader
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import reader_profile

SECONDS = 20.0
PIN = b"918273"
LONG = b"".join(itertools.islice(map(b"<%06d>".__mod__, itertools.count(100000)), 38))
"""Longer than a T=1 block, and than a message of a reader that takes 271 bytes."""
SELECT = bytes.fromhex("00A4000C023F00")
VERIFY = bytes.fromhex("0020000006") + PIN
CHANGE = bytes.fromhex("00240000 00") + len(LONG).to_bytes(2, "big") + LONG


def talk(address: str, commands: Sequence[bytes]) -> list[bytes]:
    deadline = time.monotonic() + SECONDS
    with contextlib.closing(open_reader(Address.parse(address), timeouts=Timeouts())) as reader:
        connection = reader.connect(deadline=deadline)
        with contextlib.closing(connection), connection.transaction(deadline=deadline):
            return [connection.transmit((command,), deadline=deadline) for command in commands]


def assert_nothing_of(secret: bytes, file: bytes) -> None:
    """No four bytes in a row."""
    for start in range(len(secret) - 3):
        assert secret[start : start + 4] not in file


@pytest.mark.parametrize("profile", ["ext_apdu", "cloud_2700_r", "short_apdu", "tpdu", "host_pps"])
def test_both_sides_capture_the_same_and_no_pin(profile: str, tmp_path: pathlib.Path) -> None:
    ours, theirs = tmp_path / "client", tmp_path / "server"
    reader = SimulatedUsbReader(open_card("netkey3"), profile=reader_profile(profile))
    commands = [SELECT, VERIFY] + ([CHANGE] if profile != "short_apdu" else [])
    with UsbIpServer([reader], port=0, capture=CaptureFile(str(theirs))) as server:
        answers = talk(f"usbip://127.0.0.1:{server.port}/1-1?capture={ours}", commands)
    assert [answer.hex() for answer in answers[:2]] == ["9000", "63c2"]
    for path in (ours, theirs):
        file = path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert SELECT in file
        assert VERIFY[:5] + b"******" in file
        assert_nothing_of(PIN, file)
        assert_nothing_of(LONG, file)
    assert flows(ours.read_bytes()) == flows(theirs.read_bytes())


def test_sessions_are_appended(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "capture"
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0) as server:
        for count in (1, 2):
            talk(f"usbip://127.0.0.1:{server.port}/1-1?capture={path}", [SELECT])
            assert path.read_bytes().count(SELECT) == count


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: pathlib.Path) -> None:
    with UsbIpServer([SimulatedUsbReader(None)], port=0) as server:
        address = Address.parse(f"usbip://127.0.0.1:{server.port}/1-1?capture={tmp_path / 'none' / 'file'}")
        with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
            open_reader(address, timeouts=Timeouts())


def test_what_is_no_capture_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    mail, link, shared = tmp_path / "mail.eml", tmp_path / "link", tmp_path / "shared"
    mail.write_text("important")
    link.symlink_to(mail)
    with pytest.raises(ConfigurationError, match=r"is there already and is no capture"):
        CaptureFile(str(mail))
    with pytest.raises(ConfigurationError, match="it is a link to a file"):
        CaptureFile(str(link))
    assert mail.read_text() == "important"
    shared.touch(0o644)
    CaptureFile(str(shared))
    assert stat.S_IMODE(shared.stat().st_mode) == 0o600


def test_what_is_private_is_not_added_to_a_file_of_somebody_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capture"
    CaptureFile(str(path))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigurationError, match="it belongs to another user"):
        CaptureFile(str(path))


def test_a_capture_that_is_taken_away_begins_anew(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "capture"
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0, capture=CaptureFile(str(path))) as server:
        path.unlink()
        talk(f"usbip://127.0.0.1:{server.port}/1-1", [SELECT])
    assert SELECT in path.read_bytes()
    CaptureFile(str(path))  # it is one


def test_a_capture_that_breaks_off_stops_nobody(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    path = folder / "capture"
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0, capture=CaptureFile(str(path))) as server:
        path.unlink()
        folder.rmdir()
        with caplog.at_level(logging.ERROR):
            answers = talk(f"usbip://127.0.0.1:{server.port}/1-1", [SELECT])
    assert answers == [b"\x90\x00"]
    assert [record.getMessage() for record in caplog.records] == [
        f"the capture in {path} ends here: {os.strerror(2)}"
    ]


def test_serve_captures(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "capture"
    program = (sys.executable, "-m", "demail_hw.cli", "serve", "sim:", "--listen", "127.0.0.1:0")
    words = ("--capture", str(path), "--until-eof", "--json")
    pipe = subprocess.PIPE
    with subprocess.Popen((*program, *words), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        talk(json.loads(process.stdout.readline())["address"], [SELECT, VERIFY])
        process.communicate(timeout=SECONDS)
    file = path.read_bytes()
    assert SELECT in file
    assert_nothing_of(PIN, file)


@pytest.mark.parametrize("scheme", ["pcsc", "sim", "libusb"])
def test_only_usbip_is_captured(scheme: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match=r"takes no \?capture="):
        open_reader(f"{scheme}:?capture={tmp_path / 'file'}", timeouts=Timeouts())
