"""Watching readers, look by look."""

import contextlib
from collections.abc import Iterator

import pytest

from demail_hw.address import Address
from demail_hw.cli.reader_watch import ReaderWatch
from demail_hw.errors import HardwareError
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import PERSONALITIES, netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader


class Complaints:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, address: str, error: HardwareError) -> None:
        self.heard.append(f"{address} {type(error).__name__}")


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


def events(watch: ReaderWatch) -> list[str]:
    return [each.event.value for each in watch.look()]


@contextlib.contextmanager
def watching(server: UsbIpServer, complaints: Complaints) -> Iterator[ReaderWatch]:
    with ReaderWatch([Address.parse(f"usbip://127.0.0.1:{server.port}/")], complaints) as watch:
        yield watch


def test_readers_whose_listing_tells_what_is_in_them(complaints: Complaints) -> None:
    with ReaderWatch([Address("sim")], complaints) as watch:
        assert events(watch) == ["reader arrived"] * len(PERSONALITIES) + ["card inserted"] * len(PERSONALITIES)
        assert events(watch) == []
    assert complaints.heard == []


def test_a_card_that_comes_and_goes_in_a_reader_behind_a_server(complaints: Complaints) -> None:
    device = SimulatedUsbReader(None, serial="53692013000000")
    with UsbIpServer([device], port=0) as server, watching(server, complaints) as watch:
        (arrived,) = watch.look()
        assert arrived.event.value == "reader arrived"
        assert arrived.reader.serial == "53692013000000"
        assert arrived.at.tzinfo is not None
        assert events(watch) == []
        device.insert(netkey3())
        assert events(watch) == ["card inserted"]
        assert events(watch) == []
        device.remove()
        assert events(watch) == ["card removed"]
    assert complaints.heard == []


def test_a_server_that_goes_takes_its_reader_along(complaints: Complaints) -> None:
    with UsbIpServer([SimulatedUsbReader(netkey3())], port=0) as server:
        port = server.port
        watch = ReaderWatch([Address.parse(f"usbip://127.0.0.1:{port}/")], complaints)
        assert events(watch) == ["reader arrived", "card inserted"]
    with watch:
        assert events(watch) == ["reader left"]
        heard = len(complaints.heard)
        assert events(watch) == []
        assert len(complaints.heard) == heard >= 1  # the same trouble is told once


def test_a_reader_is_free_after_the_watch(complaints: Complaints) -> None:
    with UsbIpServer([SimulatedUsbReader(netkey3())], port=0) as server:
        for _ in range(2):
            with watching(server, complaints) as watch:
                assert events(watch) == ["reader arrived", "card inserted"]
    assert complaints.heard == []


def test_an_address_that_means_nothing(complaints: Complaints) -> None:
    with ReaderWatch([Address("sim", selector="nothing"), Address("xyz")], complaints) as watch:
        assert events(watch) == events(watch) == []
    assert complaints.heard == ["sim:nothing ConfigurationError", "xyz: ConfigurationError"]


def test_the_pause_ends_when_the_card_of_the_only_reader_goes(complaints: Complaints) -> None:
    device = SimulatedUsbReader(netkey3())
    with UsbIpServer([device], port=0) as server, watching(server, complaints) as watch:
        events(watch)
        device.remove()
        watch.pause(3600)
        assert events(watch) == ["card removed"]
