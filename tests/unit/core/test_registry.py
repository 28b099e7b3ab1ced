import importlib.metadata

import pytest

from demail_hw import registry
from demail_hw.errors import ConfigurationError


def test_our_own_drivers_are_found_by_entry_points() -> None:
    assert {"sim", "usbip"} <= set(registry.reader_schemes())


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'xyz'") as caught:
        registry.open_reader("xyz:1")
    assert "usbip" in caught.value.remedy


def test_a_driver_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("odd", "no_such_module:Readers", "demail_hw.readers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [point])
    with pytest.raises(ConfigurationError, match="no_such_module"):
        registry.reader_driver("odd")
