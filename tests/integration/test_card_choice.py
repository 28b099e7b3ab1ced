"""``?card=`` chooses among the readers of a USB server, over TCP."""

from collections.abc import Iterator

import pytest

import demail_hw
from demail_hw.errors import DeviceNotFound, UnexpectedCard
from demail_hw.keys.card_session import CardSession
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader

CARDS = {"53692013000001": "89490173510080407136", "53692013000002": "89490173510080407144"}


@pytest.fixture
def server() -> Iterator[str]:
    """Two readers with a card, and an empty one between them."""
    first, second = (SimulatedUsbReader(netkey3(iccsn=iccsn), serial=serial) for serial, iccsn in CARDS.items())
    with UsbIpServer([first, SimulatedUsbReader(None, serial="3"), second], port=0) as running:
        yield f"usbip://127.0.0.1:{running.port}"


@pytest.mark.parametrize(("serial", "iccsn"), CARDS.items())
def test_reader_with_the_demanded_card_is_opened_and_the_others_are_free_again(
    server: str, serial: str, iccsn: str
) -> None:
    with demail_hw.open_provider(f"{server}/?card={iccsn}"):
        for other, card in CARDS.items():
            if other != serial:
                CardSession.open(f"{server}/serial={other}?card={card}").close()
    with CardSession.open(f"{server}/?card={iccsn}&reader={serial}") as session:
        assert session.reader.serial == serial


def test_card_that_is_nowhere(server: str) -> None:
    with pytest.raises(UnexpectedCard, match="No reader has the card 8949: ") as caught:
        CardSession.open(f"{server}/?card=8949")
    assert all(iccsn in caught.value.message for iccsn in CARDS.values())
    assert "No card is in the reader" in caught.value.message


def test_several_readers_and_no_card_demanded(server: str) -> None:
    with pytest.raises(DeviceNotFound, match="3 readers") as caught:
        CardSession.open(f"{server}/")
    assert "?card=ICCSN" in caught.value.remedy


def test_reader_that_is_not_there_is_not_made_up_for(server: str) -> None:
    with pytest.raises(DeviceNotFound, match="no reader with the serial number '4'"):
        CardSession.open(f"{server}/serial=4?card={CARDS['53692013000001']}")
