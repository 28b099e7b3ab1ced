"""``demail-hw trace show | replay`` and ``replay:`` with files that anybody may have made."""

import contextlib
import io
import json
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS
from demail_hw_simulators.card.card import SimulatedTcosCard

TAILS = ["", "02****", "00"]
STATUS = ["9000", "6282", "63c2", "****", "9"]
DIGITS = st.binary(max_size=24).map(bytes.hex)
HEADERS = st.tuples(
    st.sampled_from([0x00, 0x10, 0x80, 0xFF]),
    st.sampled_from([0xA4, 0xB0, 0xCA, 0xC0, 0x84, 0x22, 0x2A, 0x88, 0xD6, 0xC2, 0xE0, *sorted(SECRET_INSTRUCTIONS)]),
    st.integers(0, 0xFF),
    st.integers(0, 0xFF),
).map(lambda header: bytes(header).hex())
COMMANDS = st.builds(lambda header, rest: f"> {header}{rest}", HEADERS, DIGITS | st.sampled_from(TAILS))
ANSWERS = st.builds(lambda data, status: f"< {data} {status}", DIGITS, st.sampled_from(STATUS))
WORDS = st.text(st.characters(), max_size=20)
COMMENTS = st.builds(
    lambda kind, words: f"# {kind}{words}",
    st.sampled_from(["", "reader: ", "reader serial: ", "connected ATR ", "no answer: ", "x ATR 3b"]),
    WORDS | DIGITS,
)
LINES = st.lists(COMMANDS | ANSWERS | COMMENTS | WORDS, max_size=12).map("\n".join)
FILES = (
    st.lists(st.tuples(COMMANDS, ANSWERS).map("\n".join) | COMMENTS, max_size=8).map("\n".join)
    | LINES
    | st.text(st.characters())
).map(lambda text: text.encode(errors="surrogatepass")) | st.binary()
CODES = {
    "show": {ExitCode.OK, ExitCode.CONFIGURATION},
    "replay": {ExitCode.OK, ExitCode.CONFIGURATION, ExitCode.CARD},
    "info": {ExitCode.CONFIGURATION, ExitCode.CARD, ExitCode.NOT_FOUND, ExitCode.KEY},
}


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """What the command line logs goes to a stream of the example that was the first to log."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run(content: bytes, words: Callable[[str], list[str]]) -> tuple[int, str, str]:
    """The exit code, and what went to both streams."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "hostile.trace"
        path.write_bytes(content)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(words(str(path)))
            except SystemExit as stop:
                return int(stop.code or 0), out.getvalue(), err.getvalue()
        return ExitCode.OK, out.getvalue(), err.getvalue()


def check(content: bytes, kind: str, words: Callable[[str], list[str]]) -> None:
    """Text and JSON say the same; nothing commands the terminal, and nobody is told of an internal error."""
    code, out, err = run(content, words)
    assert code in CODES[kind], err
    assert (out + err).replace("\n", "").isprintable()
    as_json, out, err = run(content, lambda path: [*words(path), "--json"])
    assert as_json == code
    assert (out + err).replace("\n", "").isprintable()
    for line in (out + err).splitlines():
        json.loads(line)


@given(FILES)
def test_any_file_is_shown_or_is_no_trace(content: bytes) -> None:
    check(content, "show", lambda path: ["trace", "show", path])


@given(FILES)
def test_any_file_as_a_card_is_a_card_or_an_error(content: bytes) -> None:
    check(content, "info", lambda path: ["card", "info", f"replay:{path}"])


@pytest.mark.parametrize("options", [[], ["--use-keys"]], ids=["reads", "uses keys"])
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(content=FILES)
def test_any_file_that_is_replayed_changes_nothing_on_a_card(
    content: bytes, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it send a PIN, or what might be one. The card behind the address is asked, not what is said of it."""
    cards: dict[int, SimulatedTcosCard] = {}
    sent: list[bytes] = []
    answers = SimulatedTcosCard.transmit

    def watch(card: SimulatedTcosCard, command: bytes) -> bytes:
        cards[id(card)] = card
        sent.append(bytes(command))
        return answers(card, command)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedTcosCard, "transmit", watch)
        check(content, "replay", lambda path: ["trace", "replay", *options, path, "sim:netkey3"])
    assert [command for command in sent if command[1] in SECRET_INSTRUCTIONS and len(command) > 4] == []
    assert [command for command in sent if command[1] in (0xD6, 0xE0, 0xC2, 0xDA)] == []
    if not options:
        assert [command for command in sent if command[1] in (0x2A, 0x88)] == []
    assert {pin.tries for card in cards.values() for pin in card.file_system.root.pins.values()} <= {3}
