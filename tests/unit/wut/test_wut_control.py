"""The control socket's password and answers."""

import pytest

from demail_hw.errors import ConfigurationError
from demail_hw.secrets import Pin
from demail_hw.wut.control import Verdict, password_message, verdict_on


def test_the_password_ends_with_a_zero_byte() -> None:
    assert b"".join(password_message(Pin(b"geheim"))) == b"geheim\0"


def test_a_zero_byte_in_it_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        password_message(Pin(b"ge\0heim"))
    assert "heim" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"", Verdict.RESTARTS),
        (b"PASSWD?\0", Verdict.REFUSED),
        (b"PASSWD?", Verdict.UNCLEAR),
        (b"HTTP/1.0 400 Bad Request\r\n", Verdict.UNCLEAR),
    ],
)
def test_verdicts(answer: bytes, verdict: Verdict) -> None:
    assert verdict_on(answer) is verdict
