"""Where a command's result goes, and how an error is told."""

import json
import logging
import os
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.cli.output import LogHandler, Report, check_output, deliver, write_output
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard

SIGPIPE_EXIT = 128 + 13


@pytest.fixture(autouse=True)
def _umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() puts its own there
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out"), b"new")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert mode(tmp_path / "out") == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("before", [0o600, 0o640, 0o666])
def test_a_file_that_was_there_keeps_its_mode(tmp_path: Path, before: int) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(before)
    write_output(str(target), b"new")
    assert (target.read_bytes(), mode(target)) == (b"new", before)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    write_output(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out").read_bytes() == b"new"


def test_links_in_a_circle_are_written_over(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    write_output(str(circle), b"new")
    assert circle.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError(13, "Permission denied")])
def test_what_goes_wrong_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_draft: Path, _target: Path) -> None:
        raise error

    target = tmp_path / "out"
    target.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((KeyboardInterrupt, click.FileError)):
        write_output(str(target), b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"old")]


@pytest.mark.parametrize("where", ["", "none/out", "file/out", "x" * 300])
def test_what_cannot_be_written_is_an_error_of_the_command_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(click.FileError):
        write_output(str(tmp_path / where), b"new")
    with pytest.raises(click.FileError):
        check_output(str(tmp_path / where))


@pytest.mark.parametrize("there", [None, b"old"])
def test_looking_whether_a_file_can_be_written_leaves_everything_as_it_was(
    tmp_path: Path, there: bytes | None
) -> None:
    target = tmp_path / "out"
    if there is not None:
        target.write_bytes(there)
    check_output(str(target))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if there is None else [there])


def test_devices_links_and_standard_output_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (os.devnull, "-", str(tmp_path / "link"), str(tmp_path / "circle")):
        check_output(path)


def test_a_file_that_cannot_be_written_is_found_before_the_card_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bytes] = []
    transmit = SimulatedTcosCard.transmit

    def watched(card: SimulatedTcosCard, command: bytes) -> bytes:
        used.append(command)
        return transmit(card, command)

    monkeypatch.setattr(SimulatedTcosCard, "transmit", watched)
    pin = tmp_path / "pin"
    pin.touch(0o600)
    pin.write_text("123456")
    message = tmp_path / "message"
    message.write_bytes(b"x")
    words = ["sign", "sim:", str(message), "--key", "signature", "--pin", f"file:{pin}", "-o"]
    with pytest.raises(SystemExit):
        main([*words, str(tmp_path / "none" / "out")])
    told = capsys.readouterr().err
    assert told.startswith("demail-hw: The file ")
    assert " Remedy: Make its folder first" in told
    assert used == []
    main([*words, str(tmp_path / "out")])
    assert used


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--json"])
    captured = capsys.readouterr()
    error = json.loads(captured.err)["error"]
    assert captured.out == ""
    assert isinstance(error, dict)
    assert stopped.value.code == error["exit_code"]
    return error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("nope", "nope"),
        ("sign", "URI"),
        ("sign sim: --key signature --pin env:X", "IN"),
        ("sign sim: FILE --key signature --pin env:X --no-such-option", "--no-such-option"),
        ("sign nonsense FILE --key signature --pin env:X", "nonsense"),
        ("sign sim: FILE.none --key signature --pin env:X", "FILE.none"),
        ("sign sim: FILE --key signature --pin env:X --format raw --opaque", "--opaque"),
        ("probe sim: --pin env:X --gateway http://gateway --ca FILE", "http://gateway"),
        ("probe sim: --pin env:X --gateway https://gateway:99999 --ca FILE", "99999"),
        ("sign sim: FILE --key signature --pin env:X -o FILE.none/out", "FILE.none/out"),
        ("decrypt sim: FILE --pin env:X -o FILE/out", "FILE/out"),
        ("card info usbip://host:99999/", "usbip://host:99999/"),
        ("simulate ca -o FILE/folder", "FILE"),
    ],
)
def test_every_error_of_the_command_line_is_told_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, named: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    error = error_of(capsys, *arguments.replace("FILE", str(file)).split())
    assert error["exit_code"] == ExitCode.USAGE
    assert error["remedy"]
    assert named.replace("FILE", str(file)) in str(error["message"])


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_an_option_that_goes_before_the_command(capsys: pytest.CaptureFixture[str], option: str) -> None:
    error = error_of(capsys, "card", "info", "sim:", option)
    assert error["remedy"] == f"It goes before the command: demail-hw {option} card info ..."


def test_an_error_of_the_command_line_is_one_line_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["card", "info", "nonsense"])
    usage, said = capsys.readouterr().err.splitlines()
    assert usage == "Usage: demail-hw card info [OPTIONS] URI"
    assert said.startswith("demail-hw: Invalid value for 'URI': 'nonsense' is no reader address")
    assert said.endswith(". Remedy: See demail-hw card info --help.")


def test_only_a_usb_server_hides_readers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["readers", "sim:netkey3?reader=none"])
    assert capsys.readouterr().out == "no reader\n"
    with UsbIpServer([], port=0) as server:
        main(["readers", f"usbip://127.0.0.1:{server.port}/"])
    assert capsys.readouterr().out == "no free reader; a USB server does not list one that somebody uses\n"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("Usage: demail-hw [OPTIONS] COMMAND")


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(address: object) -> NoReturn:
        secret = "97" + "5310"
        raise LookupError(f"{address} {secret}")

    monkeypatch.setattr("demail_hw.cli.readers.find_readers", break_down)


@pytest.mark.usefixtures("_broken")
def test_an_error_that_nobody_foresaw(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "readers", "sim:")
    assert (error["exit_code"], error["type"]) == (ExitCode.INTERNAL, "LookupError")
    with pytest.raises(SystemExit) as stopped:
        main(["readers", "sim:"])
    assert stopped.value.code == ExitCode.INTERNAL
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("demail-hw: Internal error, please report it: LookupError. Remedy: ")


@pytest.mark.usefixtures("_broken")
def test_where_it_was_is_told_with_v_and_no_value_ever(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["readers", "sim:"])
    assert caplog.text == ""
    caplog.set_level(logging.DEBUG)  # so that it is restored
    with pytest.raises(SystemExit):
        main(["-v", "readers", "sim:"])
    assert "LookupError at" in caplog.text
    assert "in break_down" in caplog.text
    assert "975310" not in caplog.text


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        for simulator in ("gateway", "usb-server"):
            error = error_of(capsys, "simulate", simulator, "--listen", listen)
            assert error["exit_code"] == ExitCode.TRANSPORT
            assert listen in str(error["message"])


@pytest.mark.parametrize(("host", "warned"), [("192.0.2.1", 1), ("127.0.0.1", 0)])
def test_a_usb_server_that_others_can_reach_is_warned_about(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, host: str, warned: int
) -> None:
    """Neither can be had: the first address is nobody's (RFC 5737), the port of the second is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = error_of(capsys, "simulate", "usb-server", "--listen", f"{host}:{port}")
    assert error["exit_code"] == ExitCode.TRANSPORT
    assert caplog.text.count(f"whoever reaches {host}:{port} has the card") == warned
    assert len(caplog.records) == warned


def test_a_reader_of_the_output_may_go_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "demail_hw.cli", "card", "info", "sim:"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (SIGPIPE_EXIT, b"")


@pytest.mark.parametrize("words", ["sign sim: - --key signature --pin env:X", "readers sim:"])
def test_a_full_disk_is_told_once(words: str) -> None:
    command = [sys.executable, "-m", "demail_hw.cli", *words.split()]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command,
            input=b"x",
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "X": "123456"},
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.USAGE
    *warned, said = done.stderr.decode().splitlines()
    assert all("warning: the PIN comes from the environment" in line for line in warned)
    assert said.startswith("demail-hw: Standard output cannot be used: No space left on device. Remedy: Make room")


def test_without_a_file_json_holds_the_result(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    deliver(Report(as_json=True), "-", b"\x00\xff", {"key": "signature"}, "")
    told = json.loads(capsysbinary.readouterr().out)
    assert told == {"output": "-", "bytes": 2, "key": "signature", "content": "AP8="}


def test_a_new_private_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    deliver(Report(as_json=True), str(tmp_path / "plain"), b"secret", {}, "", private=True)
    assert mode(tmp_path / "plain") == 0o600


@pytest.mark.parametrize(
    ("as_json", "expected"),
    [(True, '{"warning": "odd: ä", "logger": "demail_hw.x"}\n'), (False, "demail-hw: warning: odd: ä\n")],
)
def test_warnings_are_told_in_the_same_form(as_json: bool, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    LogHandler(as_json=as_json).handle(
        logging.makeLogRecord({"name": "demail_hw.x", "levelname": "WARNING", "levelno": 30, "msg": "odd: ä"})
    )
    assert capsys.readouterr().err == expected
