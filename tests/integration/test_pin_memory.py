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
    from_credential,
    from_descriptor_of_a_file,
    from_environment,
    from_file,
    from_function,
    from_pipe,
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
def test_one_copy_in_a_locked_page_while_it_is_needed_and_none_afterwards(
    card: str, tmp_path: Path, pin: str, channel: PinChannel
) -> None:
    with channel(tmp_path, pin) as given, WatchedClient(card, given) as client:
        addresses = client.until("verified")
        found = client.copies(pin, addresses)
        assert [copy.spelling for copy in found] == ["bytes"]
        assert client.flags(found[0]) >= LOCKED
        assert client.copies(pin, client.until("signed")) == []
        assert copies(client.told(), pin) == []


@pytest.mark.parametrize("channel", [from_environment, from_function])
def test_what_python_copies_is_found(card: str, tmp_path: Path, pin: str, channel: PinChannel) -> None:
    """The documents say so of these sources; and it shows that the search finds what there is."""
    with channel(tmp_path, pin) as given, WatchedClient(card, given) as client:
        assert len(client.copies(pin, client.until("verified"))) > 1
        assert client.copies(pin, client.until("signed"))
