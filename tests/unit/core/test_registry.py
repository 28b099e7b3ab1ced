import importlib.metadata
from collections.abc import Callable

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
    closed = False

    def __init__(self, serial: str | None = "0001") -> None:
        self.serial = serial

    def close(self) -> None:
        self.closed = True


class ForeignReaders:
    """A driver of somebody else, who thinks nothing of ?reader=."""

    def __init__(self, reader: ForeignReader, *, can_share: bool = False) -> None:
        self.reader = reader
        self.can_share = can_share
        self.parameters = frozenset({"profile"})

    def open(self, address: Address, *, timeouts: Timeouts) -> ForeignReader:
        return self.reader


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[ForeignReaders], None]:
    return lambda driver: monkeypatch.setattr(registry, "reader_driver", lambda scheme: driver)


def test_reader_is_demanded_of_any_driver(install: Callable[[ForeignReaders], None]) -> None:
    reader = ForeignReader()
    install(ForeignReaders(reader))
    assert registry.open_reader("foreign:?reader=0001") is reader
    assert not reader.closed
    with pytest.raises(DeviceNotFound, match="'0001', not '77'"):
        registry.open_reader("foreign:?reader=77")
    assert reader.closed


def test_reader_without_a_number_is_not_said_to_have_one(install: Callable[[ForeignReaders], None]) -> None:
    reader = ForeignReader(serial=None)
    install(ForeignReaders(reader))
    with pytest.raises(DeviceNotFound, match="tells no serial number, and '77'") as caught:
        registry.open_reader("foreign:?reader=77")
    assert "None" not in str(caught.value)
    assert "in use" in caught.value.remedy
    assert reader.closed


@pytest.mark.parametrize("can_share", [False, True])
def test_sharing_is_refused_where_a_card_cannot_be_shared(
    install: Callable[[ForeignReaders], None], can_share: bool
) -> None:
    reader = ForeignReader()
    install(ForeignReaders(reader, can_share=can_share))
    assert registry.open_reader("foreign:?share=exclusive") is reader
    if can_share:
        assert registry.open_reader("foreign:?share=shared") is reader
    else:
        with pytest.raises(ConfigurationError, match="foreign: cannot be shared") as caught:
            registry.open_reader("foreign:?share=shared")
        assert "share=shared" in caught.value.remedy


@pytest.mark.parametrize(("scheme", "can_share"), [("usbip", False), ("sim", False)])
def test_our_own_drivers_say_whether_a_card_can_be_shared(scheme: str, can_share: bool) -> None:
    assert registry.reader_driver(scheme).can_share is can_share


@pytest.mark.parametrize("use", [registry.open_reader, registry.find_readers])
@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("usbip://127.0.0.1/?profile=tpdu", "sim:netkey3?profile=tpdu"),
        ("binding:desk?profile=tpdu", "simulated readers"),
        ("replay:file?profile=tpdu", "simulated readers"),
        ("sim:?cert=file", "usbips://HOST/"),
        ("binding:desk?ca=file", "usbips://HOST/"),
        ("replay:file?key=file", "usbips://HOST/"),
    ],
)
def test_a_parameter_that_the_scheme_does_not_take(use: Callable[[str], object], address: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes no \?(profile|cert|ca|key)=") as caught:
        use(address)
    assert remedy in caught.value.remedy


def test_a_parameter_that_the_scheme_takes(install: Callable[[ForeignReaders], None]) -> None:
    reader = ForeignReader()
    install(ForeignReaders(reader))
    assert registry.open_reader("foreign:?profile=tpdu") is reader
    with pytest.raises(ConfigurationError, match="foreign: takes no"):
        registry.open_reader("foreign:?cert=file")


def test_a_driver_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("odd", "no_such_module:Readers", "demail_hw.readers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [point])
    with pytest.raises(ConfigurationError, match="no_such_module"):
        registry.reader_driver("odd")
