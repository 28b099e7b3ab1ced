"""The memory of a process that has used a PIN: one copy while it is needed, in a locked page, and none afterwards.

The card is in another process, with a PIN that nothing here holds by chance.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demail_hw.cli.simulator_process import running_simulator
from pin_hunt import copies, random_pin
from watched_client import (
    LOCKED,
    PinChannel,
    WatchedClient,
    from_bytearray_function,
    from_credential,
    from_descriptor_of_a_file,
    from_environment,
    from_file,
    from_function,
    from_pipe,
    from_terminal,
    personality_with,
)


@pytest.fixture
def pin() -> str:
    return random_pin()


@pytest.fixture
def card(tmp_path: Path, pin: str) -> Iterator[str]:
    card = personality_with(pin, tmp_path)
    with running_simulator("usb-server", "--listen", "127.0.0.1:0", "--personality", str(card)) as address:
        yield address


@pytest.mark.parametrize("channel", [from_file, from_credential, from_pipe, from_descriptor_of_a_file])
def test_f93_one_copy_in_a_locked_page_while_it_is_needed_and_none_afterwards(
    card: str, tmp_path: Path, pin: str, channel: PinChannel
) -> None:
    with channel(tmp_path, pin) as given, WatchedClient(card, given) as client:
        addresses = client.until("verified")
        found = client.copies(pin, addresses)
        assert [copy.spelling for copy in found] == ["bytes"]
        assert client.flags(found[0]) >= LOCKED
        assert client.copies(pin, client.until("signed")) == []
        assert copies(client.told(), pin) == []


def test_f93_a_function_that_hands_over_a_bytearray_leaves_none(card: str, tmp_path: Path, pin: str) -> None:
    with from_bytearray_function(tmp_path, pin) as given, WatchedClient(card, given) as client:
        assert [copy.spelling for copy in client.copies(pin, client.until("verified"))] == ["bytes"]
        assert client.copies(pin, client.until("signed")) == []


@pytest.mark.parametrize(
    ("channel", "most"), [(from_environment, ["", "[stack]"]), (from_function, [""]), (from_terminal, ["", "[heap]"])]
)
def test_f93_of_what_python_copies_no_more_stays_than_is_documented(
    card: str, tmp_path: Path, pin: str, channel: PinChannel, most: list[str]
) -> None:
    """Python's own texts, which are bytes in memory, and of a variable the kernel's. Which of them are overwritten
    meanwhile is chance where nobody keeps them: of what was typed nothing need be left. While the PIN is needed
    there are several copies, and so one sees that the search finds what there is.

    ``most``: the mappings that they are in, unnamed ones and the heap being Python's.
    """
    with channel(tmp_path, pin) as given, WatchedClient(card, given) as client:
        assert len(client.copies(pin, client.until("verified"))) > 1
        left = client.copies(pin, client.until("signed"))
        assert {copy.spelling for copy in left} <= {"bytes"}
        assert {copy.mapping for copy in left} <= set(most)
        assert [copy for copy in left if client.flags(copy) & LOCKED] == []  # that page was wiped
        if channel is not from_terminal:
            assert sorted(copy.mapping for copy in left) == most
