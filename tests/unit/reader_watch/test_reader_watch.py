"""Watching readers, look by look."""

import contextlib
import logging
import time
from collections.abc import Iterator

import pytest

from demail_hw.address import Address
from demail_hw.errors import HardwareError
from demail_hw.reader_watch import ReaderWatch, watch_readers
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


def test_a_watch_ends_at_its_deadline_after_one_look_at_the_least() -> None:
    with watch_readers(["sim:netkey3"], deadline=time.monotonic() - 1) as found:
        assert [each.event.value for each in found] == ["reader arrived", "card inserted"]


def test_a_watch_goes_on_until_somebody_has_seen_enough() -> None:
    device = SimulatedUsbReader(None)
    with UsbIpServer([device], port=0) as server:
        address = f"usbip://127.0.0.1:{server.port}/"
        with watch_readers([Address.parse(address)], interval=3600) as found:
            assert next(found).event.value == "reader arrived"
            device.insert(netkey3())
            assert next(found).event.value == "card inserted"
            device.remove()
            assert next(found).event.value == "card removed"
        with watch_readers([address]) as found:  # it was let go
            assert next(found).event.value == "reader arrived"


def test_what_is_in_the_way_of_a_watch_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with watch_readers(["xyz:"], deadline=0) as found:
        assert list(found) == []
    ((name, level, message),) = caplog.record_tuples
    assert (name, level) == ("demail_hw.reader_watch.watch", logging.WARNING)
    assert message.startswith("xyz:: No driver")


def test_what_is_no_address_is_not_watched() -> None:
    with pytest.raises(ValueError, match="address"), watch_readers(["sim:", "nothing"]):
        pass
