"""``demail-hw trace`` and ``--trace``, in this process."""

import json
import os
import pathlib
import stat

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.iso7816.trace import Trace

VECTORS = pathlib.Path(__file__).parents[1] / "card" / "vectors"
PINS = {"20", "24", "2c"}
ATR = "3BBF96008131FE5D00640411030131C073F701D00090007D"
TEXT = f"""\
# reader: uTrust
# reader serial: 77
# connected ATR {ATR}
> 00a4020c022f02
<  9000
> 00b0000000
< 5a0a89490173510080407136 6282
> 0020008106************
<  63c2
# connected ATR {ATR}
> 0022c1b80684018080010a
<  9000
> 00a40804022f0200
< 620b8002000c82010183022f02 9000
> 002a808601aa00
< **** 9000
> 00b0000000
< {"ab" * 100} 9000
> 00a4000c023f00
# no answer: CardRemoved: It was taken out.
> 00a4000c
< 90
"""
SHOWN = f"""\
reader: uTrust, serial number 77
ATR: {ATR}
   1  SELECT EF  [00A4020C, line 4]
      sent 2: 2f02
      The command was done (9000).
   2  READ BINARY  [00B00000, line 6]
      got 12: 5a0a89490173510080407136
          = 5A(89490173510080407136)
      The end of the file or record was reached before all bytes were read (6282).
   3  VERIFY 81  [00200081, line 8]
      sent 6: masked
      It failed, and tries are left: 2 (63C2).
powered anew, or changed without us, ATR: {ATR}
   4  MANAGE SECURITY ENVIRONMENT: SET  [0022C1B8, line 11]
      sent 6: 84018080010a
           = 84(80) 80(0a)
      The command was done (9000).
   5  SELECT by path from the MF  [00A40804, line 13]
      sent 2: 2f02
      got 13: 620b8002000c82010183022f02
          = 62(80(000c) 82(01) 83(2f02))
      The command was done (9000).
   6  DECIPHER  [002A8086, line 15]
      sent 1: aa
      got 2: masked
      The command was done (9000).
   7  READ BINARY  [00B00000, line 17]
      got 100: {"ab" * 32}...
      The command was done (9000).
   8  SELECT MF  [00A4000C, line 19]
      sent 2: 3f00
      No answer: CardRemoved: It was taken out.
   9  SELECT MF  [00A4000C, line 21]
      The response holds no status word that could be read.
9 exchanges
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "card.trace"
    made.write_text(TEXT)
    return made


def run(*words: str | pathlib.Path) -> int | str | None:
    """The exit code."""
    try:
        main([*map(str, words)])
    except SystemExit as stop:
        return stop.code
    return ExitCode.OK


def test_show_tells_it_in_words(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run("trace", "show", path)
    assert capsys.readouterr().out == SHOWN


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_stranger_does_not_command_the_terminal(
    path: pathlib.Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    path.write_text("# reader: R\x1b]0;x\x07\n# reader serial: 7\x9b2J\n> 00a4000c\n# no answer: \x1b[31mred\u202e\n")
    assert not run("trace", "show", path, *words)
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    if not words:
        assert shown.startswith("reader: R\\x1b]0;x\\x07, serial number 7\\x9b2J\n")
        assert "No answer: \\x1b[31mred\\u202e\n" in shown
    else:
        assert json.loads(shown)["reader"] == {"name": "R\x1b]0;x\x07", "serial": "7\x9b2J"}


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_error_that_quotes_a_trace_does_not_command_the_terminal(
    path: pathlib.Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    path.unlink()
    assert not run("--trace", path, "card", "info", "sim:")
    first = Trace.parse(path.read_text()).entries[0].command
    path.write_text(f"# connected ATR {ATR}\n> {first}\n# no answer: \x1b[2J\x9b2J\n")
    capsys.readouterr()
    assert run("card", "info", f"replay:{path}", *words) == ExitCode.CARD
    told = capsys.readouterr()
    assert "x1b[2J" in told.err or "u001b[2J" in told.err
    assert (told.out + told.err).replace("\n", "").isprintable()


def test_show_tells_it_in_json(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run("trace", "show", path, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["reader"] == {"name": "uTrust", "serial": "77"}
    assert shown["atr"] == ATR
    assert shown["powered"] == [{"before": 4, "atr": ATR}]
    assert shown["exchanges"][2] == {
        "number": 3, "line": 8, "name": "VERIFY 81", "command": "0020008106************",
        "cla": "00", "ins": "20", "p1": "00", "p2": "81", "nc": 6, "ne": 0, "data": "*" * 12, "masked": True,
        "response": "", "status": "63C2", "meaning": "It failed, and tries are left: 2 (63C2).", "objects": [],
    }  # fmt: skip
    template = {"tag": "62", "objects": [{"tag": "80", "value": "000c"}, {"tag": "82", "value": "01"}]}
    (found,) = shown["exchanges"][4]["objects"]
    assert {**found, "objects": found["objects"][:2]} == template
    assert (shown["exchanges"][7]["response"], shown["exchanges"][7]["status"]) == (None, None)
    assert shown["exchanges"][8]["status"] is None


def recorded(name: str) -> list[tuple[str, str]]:
    """Commands and responses of foreign clients (the README beside them), as far as the whole of both is there."""
    lines = [line.split() for line in (VECTORS / f"{name}.txt").read_text().splitlines() if line[0] not in "@#"]
    return [(words[0], ("" if words[1] == "-" else words[1]) + words[2]) for words in lines if words[1] != "*"]


@pytest.mark.parametrize("name", sorted(path.stem for path in VECTORS.glob("*.txt")))
def test_show_takes_what_foreign_clients_sent(
    path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    exchanges = recorded(name)
    path.write_text("".join(f"> {command}\n< {response}\n" for command, response in exchanges))
    assert run("trace", "show", path) == ExitCode.OK
    text = capsys.readouterr().out
    assert text.endswith(f"\n{len(exchanges)} exchanges\n")
    assert "unknown command" not in text
    assert "malformed" not in text
    assert not [command for command, _ in exchanges if command[2:4] in PINS and command[10:] and command[10:] in text]


@pytest.mark.parametrize("line", ["> 00", "> 0020008107****\n< ** **", "> 00a4000c05ff\n< 61"])
def test_show_takes_what_is_malformed(path: pathlib.Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    path.write_text(line)
    assert not run("trace", "show", path)
    assert "not known" in capsys.readouterr().out
    assert not run("trace", "show", path, "--json")
    assert len(json.loads(capsys.readouterr().out)["exchanges"]) == 1


@pytest.mark.parametrize("words", [("trace", "show"), ("trace", "replay"), ("card", "info")])
@pytest.mark.parametrize(
    ("content", "said"), [(b"> 00a4000c\n\x7fELF\0", "Line 2 of the trace"), (None, "No such file")]
)
def test_what_is_no_trace(
    path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    content: bytes | None,
    said: str,
) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    rest = {"show": [path], "replay": [path, "sim:"], "info": [f"replay:{path}"]}[words[1]]
    assert run(*words, *rest, "--json") == ExitCode.CONFIGURATION
    error = json.loads(capsys.readouterr().err)["error"]
    assert said in error["message"]
    assert str(path) in error["message"]


# --- --trace -----------------------------------------------------------------------------------------------------


def test_a_command_is_recorded(path: pathlib.Path) -> None:
    path.unlink()
    before = os.umask(0)
    try:
        assert not run("--trace", path, "card", "info", "sim:")
    finally:
        os.umask(before)
    trace = Trace.parse(path.read_text())
    assert (trace.serial, trace.atr.hex().upper()) == ("SIM-NETKEY3", ATR)
    assert len(trace.entries) > 10
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "none/card.trace"])
def test_a_trace_that_cannot_be_written_is_told_before_the_card_is_touched(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ("card", "info", "usbip://127.0.0.1:1/", "--json")  # would be another error if it were tried
    assert run("--trace", tmp_path / name, *words) == ExitCode.CONFIGURATION
    assert "cannot be written" in json.loads(capsys.readouterr().err)["error"]["message"]


def test_a_file_that_is_no_trace_is_left_as_it_is(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("Dear Sir")
    assert run("--trace", path, "card", "info", "usbip://127.0.0.1:1/", "--json") == ExitCode.CONFIGURATION
    error = json.loads(capsys.readouterr().err)["error"]
    assert "left as it is" in error["message"]
    assert error["remedy"]
    assert path.read_text() == "Dear Sir"


def test_a_command_without_a_card_makes_no_trace(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run("--trace", path, "trace", "show", path)
    assert capsys.readouterr().out == SHOWN
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    "words",
    [
        ("card", "info", "replay:FILE"),
        ("trace", "replay", "FILE", "sim:"),
        ("trace", "replay", "/dev/null", "replay:FILE"),
    ],
)
def test_a_trace_is_not_overwritten_by_its_own_replay(
    path: pathlib.Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run("--trace", path, *(word.replace("FILE", str(path)) for word in words), "--json") == ExitCode.USAGE
    assert "would overwrite" in json.loads(capsys.readouterr().err)["error"]["message"]
    assert path.read_text() == TEXT


# --- trace replay ------------------------------------------------------------------------------------------------


def test_the_same_card_answers_the_same(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.unlink()
    assert not run("--trace", path, "card", "info", "sim:")
    capsys.readouterr()
    assert not run("trace", "replay", path, "sim:")
    count = len(Trace.parse(path.read_text()).entries)
    assert capsys.readouterr().out == f"{count} commands sent, 0 differences, 0 not sent\n"


AFTER_DIFFERENCES = (
    "If the card is another one, or was changed, record it anew: demail-hw --trace FILE COMMAND. If not, see what "
    "was sent before those lines: demail-hw trace show."
)


def test_another_card_answers_otherwise(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(f"{TEXT.splitlines()[2]}\n> 00a4000c023f00\n< aa 9000\n> 0020008106************\n<  9000\n")
    second = path.with_name("second")
    assert run("--trace", second, "trace", "replay", path, "sim:") == ExitCode.CARD
    assert capsys.readouterr().out.splitlines() == [
        "line 4: VERIFY 81: not sent: it may carry a PIN",
        "line 2: SELECT MF: the card answered otherwise",
        "      trace: aa9000",
        "      card:  9000",
        "1 commands sent, 1 differences, 1 not sent",
        AFTER_DIFFERENCES,
    ]
    assert [entry.response for entry in Trace.parse(second.read_text()).entries] == ["9000"]


def test_differences_in_json(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("> 00a4000c023f00\n< aa 9000\n> 00d60000013f\n<  9000\n")
    assert run("trace", "replay", path, "sim:", "--json") == ExitCode.CARD
    assert json.loads(capsys.readouterr().out) == {
        "sent": 1,
        "differences": [
            {"line": 1, "command": "SELECT MF", "expected": "aa9000", "got": "9000", "failure": None},
        ],
        "skipped": [{"line": 3, "command": "UPDATE BINARY", "why": "it may change the card"}],
    }


def test_a_replay_demands_the_card_of_its_address(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("> 00a4000c023f00\n<  9000\n")
    assert run("trace", "replay", path, "sim:?card=99", "--json") == ExitCode.CARD
    assert json.loads(capsys.readouterr().err)["error"]["type"] == "UnexpectedCard"
    assert not run("trace", "replay", path, "sim:?card=89490173510080407136")


def test_a_trace_against_itself(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("> 00a4000c023f00\n<  9000\n> 00b0000000\n< aa 9000\n")
    assert not run("trace", "replay", path, f"replay:{path}")
    assert capsys.readouterr().out.startswith("2 commands sent, 0 differences")
