"""On which line a key of a TOML document stands."""

import tomllib

import pytest

from demail_hw.config.positions import KeyPath, key_lines, line_of

DOCUMENT = '''# a comment
top = 1

[a]
"b c" = """
x = 2
[no.table]
"""
list = [
  1, # one
  2,
]
d.e = { f = 3, g = [4] }

[[a.rows]]
x = 1
[[a.rows]]
x = 2
[a.rows.inner]
y = 1
[z.'q.r']
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("a",), 4),
        (("a", "b c"), 5),
        (("a", "list"), 9),
        (("a", "list", 1), 9),
        (("a", "d", "e", "g", 0), 13),
        (("a", "rows", 0), 15),
        (("a", "rows", 0, "x"), 16),
        (("a", "rows", 1), 17),
        (("a", "rows", 1, "x"), 18),
        (("a", "rows", 1, "inner"), 19),
        (("a", "rows", 1, "inner", "y"), 20),
        (("z", "q.r"), 21),
    ],
)
def test_lines(path: KeyPath, line: int) -> None:
    assert key_lines(DOCUMENT)[path] == line


def test_a_long_list_is_not_read_again_for_each_of_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: (read.append(text), loads(text))[1])
    document = "a = [\n" + '  "x",\n' * 500 + "]\nb = 1\n"
    assert key_lines(document)["b",] == 503
    assert len(read) == 3


def test_lists_in_lists_are_not_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: (read.append(len(text)), loads(text))[1])
    document = "first = 1\na = [\n" + "  [1],\n" * 1500 + "]\nb = 1\n"
    assert line_of(("first", 0), key_lines(document)) == 1
    assert sum(read) <= 1 << 20


def test_what_is_very_deep_has_the_line_of_what_is_around_it() -> None:
    path = ("x",) * 900
    assert line_of(path, key_lines("\n" + ".".join(path) + " = 1")) == 2


def test_nothing_else_is_a_key() -> None:
    assert not {("x",), ("no",), ("a", "x")} & key_lines(DOCUMENT).keys()


def test_a_key_that_is_missing_has_the_line_of_its_table() -> None:
    lines = key_lines(DOCUMENT)
    assert line_of(("a", "rows", 1, "inner", "missing", "more"), lines) == 19
    assert line_of(("nowhere",), lines) is None
