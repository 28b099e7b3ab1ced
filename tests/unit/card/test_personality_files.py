"""Personalities are data: the form of their files, what extends what, and what a wrong file is told."""

import importlib.resources
import re
from pathlib import Path

import pytest

from demail_hw.errors import ConfigurationError
from demail_hw_simulators.card.personalities import NETKEY3, NETKEY3_FRESH, PERSONALITIES, find_personality, open_card
from demail_hw_simulators.card.personality import Personality
from demail_hw_simulators.card.personality_file import load_personality, parse_personality, personality_tree
from demail_hw_simulators.card.personality_table import Mark, PersonalityText

FOLDER = importlib.resources.files("demail_hw_simulators.card") / "personalities"
FILES = sorted(each.name.removesuffix(".toml") for each in FOLDER.iterdir() if each.name.endswith(".toml"))


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


NETKEY3_TEXT = text_of("netkey3")


def parse(text: str) -> Personality:
    return parse_personality(PersonalityText("card.toml", text))


def changed(before: str, after: str) -> str:
    """The NetKey 3 card with one place changed."""
    assert before in NETKEY3_TEXT
    return NETKEY3_TEXT.replace(before, after, 1)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def error_of(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert caught.value.file == "card.toml"
    assert caught.value.remedy
    return caught.value


def extending(more: str) -> str:
    return f'title = "x"\nextends = "netkey3"\n{more}'


# --- What is there


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_personality(name: str) -> None:
    assert load_personality(name).title


@pytest.mark.parametrize("name", FILES)
def test_every_value_says_how_it_is_known(name: str) -> None:
    _, tree = personality_tree(PersonalityText(name, text_of(name)))
    marks = {value.path: value.mark for value in tree.marked()}
    assert len(marks) > 50
    assert set(marks.values()) <= set(Mark)


@pytest.mark.parametrize("name", FILES)
def test_test_data_is_nobodys_measurement(name: str) -> None:
    _, tree = personality_tree(PersonalityText(name, text_of(name)))
    ours = {value.mark for value in tree.marked() if value.path[-1] in ("value", "test_key", "iccsn")}
    assert ours == {Mark.ASSUMED}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_in_the_readme(name: str) -> None:
    assert f"`{name}.toml`" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_what_is_in_the_file() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example in NETKEY3_TEXT


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_once(name: str) -> None:
    assert load_personality(name) is load_personality(name)


def test_every_file_can_be_opened_by_name() -> None:
    assert set(FILES) <= set(PERSONALITIES)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no personality"):
        load_personality("../netkey3")
    with pytest.raises(ValueError, match="no personality"):
        load_personality("geldkarte")


# --- Extending


def test_a_fresh_card_is_the_other_one_but_for_its_pins() -> None:
    fresh = {pin.reference: pin for pin in NETKEY3_FRESH.pins}
    used = {pin.reference: pin for pin in NETKEY3.pins}
    assert fresh[0x00].value is None
    assert (fresh[0x01].tries, used[0x01].tries) == (0, 3)
    assert fresh[0x01].value == used[0x01].value
    assert NETKEY3_FRESH.applications[0] == NETKEY3.applications[0]
    assert NETKEY3_FRESH.applications[1].keys == NETKEY3.applications[1].keys
    assert (NETKEY3_FRESH.atr, NETKEY3_FRESH.iccsn) == (NETKEY3.atr, NETKEY3.iccsn)


def test_what_extends_replaces_a_value_whatever_its_mark() -> None:
    made = parse(extending('[card]\nmeasured.iccsn = "89490179990000000001"'))
    assert made.iccsn == "89490179990000000001"
    assert made.atr == NETKEY3.atr


def test_what_extends_adds_tables_at_the_end() -> None:
    made = parse(extending('[files.note]\nassumed = { identifier = 0x4711, content = "01 02" }'))
    assert [(file.identifier, file.content) for file in made.files] == [(0x4711, b"\x01\x02")]


def test_what_cannot_be_extended() -> None:
    error = error_of('title = "x"\nextends = "geldkarte"')
    assert "extends names what cannot be extended" in error.message
    assert error.line == 2
    assert error.remedy == f"Only ours can be extended: {', '.join(FILES)}."
    error_of('title = "x"\nextends = "../netkey3"')
    error_of('title = "x"\nextends = 3')


def test_a_fault_in_what_extends_is_told_of_that_file() -> None:
    assert error_of(extending("[pins.puk]\nsource.tries = 99")).line == 4


# --- Somebody's own


def test_an_own_file_is_a_card(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(extending('[pins.global]\nassumed = { value = "987654" }'), encoding="utf-8")
    card = open_card(str(path))
    card.power_on()
    assert card.transmit(bytes.fromhex("00200000 06 393837363534")) == b"\x90\x00"
    assert find_personality(str(path)).title == "x"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"\xff", "UTF-8"), (b"#" * (1 << 19), "more than")]
)
def test_an_own_file_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_card(str(path))
    assert caught.value.file == str(path)


# --- Faults: what is wrong, and where


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("measured = { reference = 0x00 }", "reference = 0x00", "pins.global.reference has to stand under a mark"),
        ("measured.global_data", "guessed.global_data", "card.guessed.global_data has to stand under a mark"),
        ("source = { minimum = 6", "source = { reference = 0, minimum = 6", "stands under two marks, measured and"),
        ("measured.global_data = 0x2F02\n", "", "card lacks global_data"),
        ("tries = 3,", "tries = 3, colour = 3,", "pins.global.colour is not known here"),
        ("[timing.commands]", "[timing.thoughts]", "timing lacks the table commands"),
        ("[certificates]", "[certs]", "the file lacks the table certificates"),
        ("reference = 0x00", 'reference = "00"', "pins.global.reference has to be a number from 0x00 to 0xFF"),
        ("reference = 0x00", "reference = true", "pins.global.reference has to be a number from 0x00 to 0xFF"),
        ("tries = 3,", "tries = 16,", "pins.global.tries has to be a whole number from 0 to 15"),
        ("tries = 3,", "tries = 3.0,", "pins.global.tries has to be a whole number from 0 to 15"),
        ("tries = 3, maximum_tries = 3", "tries = 3, maximum_tries = 2", "pins.global does not fit together"),
        ("initialized = true", "initialized = 1", "pins.global.initialized has to be true or false"),
        ("global_data = 0x2F02", "global_data = 0x3F00", "card.global_data has to be a file identifier"),
        ("3B BF 96", "3B BF 97", "card.atr has to be an answer to reset"),
        ("3B BF 96", "3B BF 9", "card.atr has to be a text of 2 to 33 bytes in hexadecimal"),
        ('aid = "D2 76', 'aid = "' + "00 " * 14, "applications.nks.aid has to be a text of 1 to 16 bytes"),
        ('form = "container"', 'form = "box"', "certificates.form has to be one of these: container, bare"),
        ("rsa-2048", "rsa-4096", "keys.signature.algorithm has to be one of these: rsa-1024, rsa-2048,"),
        ("nks-80", "../80", "keys.signature.test_key has to be a name"),
        ("[0xB000]", "0xB000", "applications.nks.empty has to be a list of at most 32 values"),
        ("[0xB000]", "[0xB000, 0xB000]", "applications.nks.empty has to be a list without repetitions"),
        ("[0xB000]", '["B000"]', "applications.nks.empty has to be a list, of which each value has to be"),
        ("select = 8", 'select = "fast"', "timing.commands.select has to be a number of milliseconds"),
        ("select = 8", "select = nan", "timing.commands.select has to be a number of milliseconds"),
        ("spread = 0.05", "spread = 5", "timing.spread has to be a number from 0 to 1"),
        ("title = ", "titel = ", "lacks a title"),
        ('title = "', 'title = "\\u0007', "title has to be a text of 1 to 200 characters in one line"),
    ],
)
def test_a_fault_is_named(before: str, after: str, said: str) -> None:
    error = error_of(changed(before, after))
    assert said in error.message
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("reference = 0x00", "reference = 0x01", "the same PIN is there twice"),
        ("reference = 0x00", "reference = 0x80", "PIN references are below 0x80 in the MF"),
        ("unblocked_by = 0x01", "unblocked_by = 0x03", "PIN 00 is unblocked or set by a PIN that there is not"),
        ("identifier = 0xDF02", "identifier = 0xDF01", "the same file is there twice"),
        ("ca_certificate = 0xC008", "ca_certificate = 0xC000", "the same file is there twice"),
        ('aid = "D2 76 00 00 66 01"', 'aid = "D2 76 00 00 03 01 02"', "the same AID is there twice"),
        ("reference = 0x81, certificate", "reference = 0x80, certificate", "the same key is there twice"),
        ("opened_by = [0x00, 0x81", "opened_by = [0x03, 0x81", "DF DF02 is opened by a PIN that there is not"),
        ("answer = 128", "answer = 256", "the same answer is there twice"),
        ("nks-80", "nks-99", "there is no such test_key"),
        ("nks-80", "nks-83", "the test_key is rsa-1024"),
        ('"123456"', '"12345"', "the value is shorter than the minimum"),
        ("minimum = 6, unblocked_by = 0x01", "minimum = 4, unblocked_by = 0x01", "the minimum of a PIN is 6 or more"),
        ('"123456"', f'"{"1" * 17}"', "PIN 00 of the MF is longer than the longest_pin of the dialect"),
        ('"111111"', f'"{"1" * 17}"', "PIN 81 of DF DF02 is longer than the longest_pin of the dialect"),
        ("longest_pin = 16", "longest_pin = 7", "PIN 01 of the MF is longer than the longest_pin of the dialect"),
        ("unblocked_by = 0x01", "unblocked_by = 0x81", "PIN 00 is unblocked or set by a PIN that there is not"),
        ("6, unblocked_by = 0x00 }", "6, unblocked_by = 0x05 }", "PIN 81 of DF DF02 is unblocked or set by a PIN"),
        ("unblocked_by = 0x83", "unblocked_by = 0x85", "PIN 81 is unblocked or set by a PIN that there is not"),
        ("8, unblocked_by = 0x81 }", "8, set_by = [0x05] }", "PIN 83 of DF DF01 is unblocked or set by a PIN"),
    ],
)
def test_what_does_not_fit_together(before: str, after: str, said: str) -> None:
    assert said in error_of(changed(before, after)).message


def test_what_does_not_fit_into_what_is_extended_is_told_of_the_file_that_extends() -> None:
    message = error_of(extending(f'[pins.global]\nassumed.value = "{"1" * 17}"')).message
    assert message.startswith("In card.toml, the file does not fit together: PIN 00 of the MF")


def test_an_initial_puk_is_a_pin() -> None:
    text = 'title = "x"\nextends = "netkey2"\n[initial_puk]\nassumed.value = '
    assert parse(f'{text}"{"1" * 16}"').initial_puk
    assert "initial_puk is longer" in error_of(f'{text}"{"1" * 17}"').message


def test_a_description_needs_a_record_to_stand_in() -> None:
    text = NETKEY3_TEXT.replace("measured.key_descriptions = 0x5349\n# One", "# One")
    assert "a description needs key_descriptions" in error_of(text).message


@pytest.mark.parametrize(
    ("before", "after", "at"),
    [
        ("minimum = 8, unblocked_by = 0x00", "minimum = 99, unblocked_by = 0x00", "minimum = 99"),
        ("global_data = 0x2F02", 'global_data = ""', 'global_data = ""'),
        ("answer = 128", "question = 128", "[timing.operations.rsa-1024]"),
        ('"89490173510080407136"', '"8949017351008040713"', 'iccsn = "8949017351008040713"'),
        ("answer = 128", "answer = 128, question = 128", "question = 128"),
        ("[timing.commands]", "[timing.commands.of]", "[timing.commands.of]"),
    ],
)
def test_a_fault_has_its_line(before: str, after: str, at: str) -> None:
    text = changed(before, after)
    error = error_of(text)
    expected = line_of(text, at)
    assert error.line == expected
    assert f"card.toml, line {expected}, " in error.message


def test_an_iccsn_that_is_none() -> None:
    error = error_of(changed("89490173510080407136", "8949017351008040713"))
    assert error.message.endswith("card.iccsn is none: an ICCSN has 20 digits.")


def test_what_is_known_is_told_where_something_is_not() -> None:
    error = error_of(changed("measured.global_data", "measured.colour = 3\nmeasured.global_data"))
    known = "atr, information, iccsn, global_data, password_descriptions"
    assert error.remedy == f"Known here are: {known}."
    error = error_of(changed("[pins.global]", "[pins]\nassumed.colour = 3\n[pins.global]"))
    assert error.remedy == "This table only holds tables."


def test_a_title_is_wanted_beside_what_is_extended_too() -> None:
    error = error_of('extends = "netkey3"')
    assert "the file lacks a title" in error.message
    assert 'title = "..."' in error.remedy


def test_what_is_no_toml_at_all_says_where() -> None:
    assert "is not TOML" in error_of("title = ").message
    assert "(at line 2, column" in error_of('title = "x"\n= 3').message
    assert "too deep" in error_of('title = "x"\na = ' + "[" * 100_000).message
    assert "is too deep" in error_of('title = "x"\n' + ".".join("abcdefghijk") + " = 1").message


def test_an_error_is_one_line() -> None:
    message = error_of('title = "x"\n"a\\nb" = 3').message
    assert message == "In card.toml, 'a\\nb' has to stand under a mark: measured, source, assumed."


def test_no_error_repeats_a_pin() -> None:
    for value in ('"1234ö6"', "123456.5", '"12\\n456"', "[123456]"):
        error = error_of(changed('"123456"', value))
        assert "has to be a text of ASCII characters" in error.message
        assert not re.search("123|456", str(error))
    assert "1234" not in str(error_of(changed('"123456"', '"1234"')))
    assert "123456" not in repr(NETKEY3)


# --- Layouts of other cards


def test_what_a_card_need_not_have() -> None:
    """No EF.PWDD and no EF.KEYD, a DF without AID, certificates as they are."""
    text = NETKEY3_TEXT.replace("measured.password_descriptions = 0x5049\n", "")
    text = text.replace('measured.aid = "D2 76 00 00 66 01"\n', "").replace('"container"', '"bare"')
    text = text.replace("measured.key_descriptions = 0x5349\nmeasured.empty", "measured.empty")
    personality = parse(text)
    assert personality.password_descriptions is None
    assert [application.name.hex() for application in personality.applications] == ["d2760000030102", ""]
