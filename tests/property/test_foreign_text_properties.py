"""Any text, fit to be shown."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.foreign_text import printable


@given(st.text(st.characters()))
def test_any_text_becomes_one_line_that_can_be_written(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
