"""Whatever text a configuration is, it is one or a typed error; and keys stand where they were written."""

import contextlib

import hypothesis.strategies as st
from hypothesis import example, given

from demail_hw.config import Configuration, parse_configuration, problems_in
from demail_hw.config.positions import key_lines
from demail_hw.errors import ConfigurationError

KEYS = st.sampled_from(
    ["bindings", "server", "cards", "a", "host", "port", "retry", "first", "tls", "exports", "pin"]
)
VALUES = st.sampled_from(
    ["1", "nan", "inf", '"x"', "true", "2026-01-01", "07:00:00", "[]", "{}", "[{}]", '"""\n[x]\n"""']
)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds("{}.{} = {}".format, KEYS, KEYS, VALUES),
    st.builds("[{}]".format, KEYS),
    st.builds("[{}.{}]".format, KEYS, KEYS),
    st.builds("[[{}.{}]]".format, KEYS, KEYS),
    st.builds("{} = [\n  {},\n]".format, KEYS, VALUES),
    st.just("# a comment"),
)


def parsed_or_refused(text: str) -> None:
    for problem in problems_in(text):
        assert problem.line is None or 1 <= problem.line <= text.count("\n") + 1
        assert problem.message
    with contextlib.suppress(ConfigurationError):
        assert isinstance(parse_configuration(text), Configuration)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_any_document(text: str) -> None:
    parsed_or_refused(text)


@given(st.text())
@example("x = " + "1" * 5000)
@example("x = " + "[" * 20_000)
@example("x = " + "{a=" * 500 + "1" + "}" * 500)
@example("# \u2028x = 1")
@example("x = '\x85'")
def test_any_text(text: str) -> None:
    parsed_or_refused(text)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["1", "[\n1,\n2]", "'''\nx = 1\n[y]\n'''"])), max_size=8)
)
def test_keys_stand_where_they_were_written(entries: list[tuple[int, str]]) -> None:
    text, expected = "", {}
    for number, (blanks, value) in enumerate(entries):
        text += "\n" * blanks
        expected[(f"key{number}",)] = text.count("\n") + 1
        text += f"key{number} = {value}\n"
    lines = key_lines(text)
    assert {path: line for path, line in lines.items() if len(path) == 1} == expected
