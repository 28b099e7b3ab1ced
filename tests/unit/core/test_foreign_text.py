"""Text of foreign origin, fit to be shown."""

import pytest

from demail_hw.cli import output
from demail_hw.foreign_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Identiv uTrust 2700 F", "Identiv uTrust 2700 F"),
        ("Köln", "Köln"),
        ("\x1b[31m\r\n", r"\x1b[31m\r\n"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("\udc80", r"\udc80"),
        ("\U000e0001", r"\U000e0001"),
        ("", ""),
    ],
)
def test_what_is_not_to_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_command_line_has_no_other() -> None:
    assert output.printable is printable
