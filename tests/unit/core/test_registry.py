import importlib.metadata

import pytest

from demail_hw import registry
from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeviceNotFound
from demail_hw.interfaces import Timeouts


def test_our_own_drivers_are_found_by_entry_points() -> None:
    assert {"sim", "usbip"} <= set(registry.reader_schemes())


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'xyz'") as caught:
        registry.open_reader("xyz:1")
    assert "usbip" in caught.value.remedy


class ForeignReader:
    serial = "0001"
    closed = False

    def close(self) -> None:
        self.closed = True


READER = ForeignReader()


class ForeignReaders:
    """A driver of somebody else, who thinks nothing of ?reader=."""

    def open(self, address: Address, *, timeouts: Timeouts) -> ForeignReader:
        return READER


def test_reader_is_demanded_of_any_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reader_driver", lambda scheme: ForeignReaders())
    assert registry.open_reader("foreign:?reader=0001") is READER
    assert not READER.closed
    with pytest.raises(DeviceNotFound, match="'0001', not '77'"):
        registry.open_reader("foreign:?reader=77")
    assert READER.closed


def test_a_driver_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("odd", "no_such_module:Readers", "demail_hw.readers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [point])
    with pytest.raises(ConfigurationError, match="no_such_module"):
        registry.reader_driver("odd")
