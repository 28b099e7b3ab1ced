"""The memory of a process that has sent a PIN through PC/SC: nothing of ours leaves a copy there."""

from pathlib import Path

import pytest

from demail_hw_simulators.card.personalities import open_card
from pcsc_client import require_pyscard
from pcscd import READERS, PrivatePcscd
from pin_hunt import random_pin
from watched_client import LOCKED, PinChannel, WatchedClient, from_environment, from_file, from_pipe, personality_with


@pytest.fixture
def pin() -> str:
    return random_pin()


@pytest.fixture
def card(pytestconfig: pytest.Config, request: pytest.FixtureRequest, tmp_path: Path, pin: str) -> str:
    require_pyscard(pytestconfig)
    pcscd: PrivatePcscd = request.getfixturevalue("pcscd")
    pcscd.slot(open_card(str(personality_with(pin, tmp_path))))
    return f"pcsc:{READERS[0]}"


@pytest.mark.parametrize("mode", ["", "?share=shared"])
@pytest.mark.parametrize("channel", [from_file, from_pipe])
def test_one_copy_in_a_locked_page_and_none_afterwards(
    card: str, tmp_path: Path, pin: str, channel: PinChannel, mode: str
) -> None:
    """But for the last digits of a long PIN: pyscard's own copy of the command lies in freed memory, where the
    allocator overwrites the first 16 bytes."""
    with channel(tmp_path, pin) as given, WatchedClient(card + mode, given) as client:
        found = client.copies(pin, client.until("verified"))
        assert [copy.spelling for copy in found] == ["bytes"]
        assert client.flags(found[0]) >= LOCKED
        assert client.copies(pin, client.until("signed")) == []


def test_what_python_copies_is_found(card: str, tmp_path: Path, pin: str) -> None:
    with from_environment(tmp_path, pin) as given, WatchedClient(card, given) as client:
        assert client.copies(pin, client.until("verified"))
        assert client.copies(pin, client.until("signed"))
