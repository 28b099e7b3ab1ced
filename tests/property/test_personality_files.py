"""Whatever stands in a personality's file: a card, or a typed error that names the file. Never anything else."""

import importlib.resources
import json
import math
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demail_hw.errors import ConfigurationError
from demail_hw_simulators.card.build import build_card
from demail_hw_simulators.card.personality import Personality
from demail_hw_simulators.card.personality_file import load_personality, parse_personality
from demail_hw_simulators.card.personality_table import PersonalityText

NETKEY3 = (importlib.resources.files("demail_hw_simulators.card") / "personalities" / "netkey3.toml").read_text(
    "utf-8"
)
MARKS = ("measured", "source", "assumed")

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["00", "3B 00", "rsa-2048", "signature", "netkey3", "digital-signature", "123456"]),
    st.dates(),
    st.times(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from([*MARKS, "x", "value"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def toml(value: object) -> str:
    """A value in TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            # JSON's escapes are TOML's, but for lone surrogates and DEL, which stands as it is in JSON.
            return json.dumps(value.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")
        case float():
            return str(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)} = {toml(each)}" for name, each in value.items()) + "}"
        case _:
            return str(value)


def leaves(raw: dict[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in raw.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def dump(raw: dict[str, object]) -> str:
    """The whole file again, one value a line."""
    return "\n".join(f"{'.'.join(map(json.dumps, path))} = {toml(value_at(raw, path))}" for path in leaves(raw))


def value_at(raw: dict[str, object], path: tuple[str, ...]) -> object:
    value: object = raw
    for name in path:
        assert isinstance(value, dict)
        value = value[name]
    return value


def parent_of(raw: dict[str, object], path: tuple[str, ...]) -> dict[str, object]:
    parent = value_at(raw, path[:-1])
    assert isinstance(parent, dict)
    return parent


PATHS = sorted(leaves(tomllib.loads(NETKEY3)))


def parsed(text: str) -> Personality | None:
    """A personality that makes a card, or ``None`` where the file was refused."""
    try:
        return parse_personality(PersonalityText("card.toml", text))
    except ConfigurationError as error:
        check(error, lines=text.count("\n") + 1)
        return None


def check(error: ConfigurationError, *, lines: int) -> None:
    assert error.file == "card.toml"
    assert error.message.startswith("In card.toml, ")
    assert error.line is None or 1 <= error.line <= lines


def test_the_dump_is_the_same_card() -> None:
    assert parsed(dump(tomllib.loads(NETKEY3))) == load_personality("netkey3")


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    assert parsed(text) is None


tables = st.dictionaries(st.sampled_from([*MARKS, "card", "pins", "applications", "timing", "x"]), values, max_size=5)
heads = st.sampled_from(["", 'title = "x"\n', 'title = "x"\nextends = "netkey3"\n', "extends = 1\n"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(head=heads, table=tables)
def test_any_tables(head: str, table: dict[str, object]) -> None:
    made = parsed(head + "\n".join(f"{name} = {toml(value)}" for name, value in table.items()))
    if made is not None:
        assert "extends" in head
        build_card(made)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(path=st.sampled_from(PATHS), value=values)
def test_any_value_in_the_place_of_another(path: tuple[str, ...], value: object) -> None:
    """What is not refused is a card."""
    raw = tomllib.loads(NETKEY3)
    parent_of(raw, path)[path[-1]] = value
    made = parsed(dump(raw))
    if made is not None:
        build_card(made).power_on()


@pytest.mark.parametrize("path", PATHS)
def test_no_value_can_be_left_out_but_what_a_card_need_not_have(path: tuple[str, ...]) -> None:
    raw = tomllib.loads(NETKEY3)
    del parent_of(raw, path)[path[-1]]
    optional = {
        "aid", "ca_certificate", "root_certificate", "user_certificates", "empty", "description",
        "password_descriptions", "key_descriptions", "unblocked_by", "information", "certificate", "public_key",
        "once",
    }  # fmt: skip
    may_go = path[-1] in optional or path[:2] == ("timing", "commands")
    assert (parsed(dump(raw)) is not None) is (may_go and not (path[1] == "sigg" and path[-1] == "key_descriptions"))


@given(path=st.sampled_from([path for path in PATHS if len(path) > 2]), mark=st.sampled_from(MARKS))
def test_a_value_has_one_mark_whichever(path: tuple[str, ...], mark: str) -> None:
    raw = tomllib.loads(NETKEY3)
    *table, before, name = path
    value = value_at(raw, path)
    parent = value_at(raw, tuple(table))
    assert isinstance(parent, dict)
    parent.setdefault(mark, {})[name] = value
    if mark == before:
        assert parsed(dump(raw)) == load_personality("netkey3")
        return
    assert parsed(dump(raw)) is None
    del parent_of(raw, path)[name]
    made = parsed(dump(raw))
    assert made is not None
