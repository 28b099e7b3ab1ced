"""DNS names and mail addresses for a certificate: whatever is given is a good one, or refused in a sentence."""

import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demail_hw.card_manager.general_names import alternative_names
from demail_hw.card_manager.requests import parse_subject

HOST: Final = r"([A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}"
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
host = st.tuples(st.lists(label, min_size=1, max_size=4), st.just("example")).map(
    lambda each: ".".join((*each[0], each[1]))
)
local_part = st.from_regex(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}){0,2}", fullmatch=True
)


@given(host, st.booleans())
def test_good_dns_names_are_taken_as_they_are(name: str, wildcard: bool) -> None:
    text = f"*.{name}" if wildcard else name
    assert [each.value for each in alternative_names([text], [])] == [text]


@given(local_part, host)
def test_good_addresses_are_taken_as_they_are(local: str, name: str) -> None:
    assert [each.value for each in alternative_names([], [f"{local}@{name}"])] == [f"{local}@{name}"]


def refusal(call: Callable[[], object]) -> str | None:
    """The sentence; None if it is taken."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


@given(st.text(max_size=80))
@example("a@b\r\nc: d")
@example("<a@b>")
@example("a@b,c@d")
@example("\x00@b")
def test_whatever_is_taken_is_a_name(text: str) -> None:
    if (told := refusal(lambda: alternative_names([text], []))) is None:
        assert re.fullmatch(rf"(\*\.)?{HOST}", text)
    assert told != ""
    if (told := refusal(lambda: alternative_names([], [text]))) is None:
        assert re.fullmatch(rf"[!-~]{{1,64}}@{HOST}", text)
    assert told != ""


@given(st.text(alphabet='CNOU=,+\\"#;<> ax1\n', max_size=30))
def test_a_subject_is_refused_in_a_sentence(text: str) -> None:
    assert refusal(lambda: parse_subject(text)) != ""


def test_a_subject_is_refused_by_its_part() -> None:
    with pytest.raises(ValueError, match="'O'"):
        parse_subject(r"CN=a\,b,O")
