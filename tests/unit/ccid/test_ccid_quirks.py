"""Which device has which quirk."""

import pytest

from demail_hw.ccid.quirks import NO_ZERO_LENGTH_PACKET, quirk_for
from demail_hw.interfaces import UsbIdentity


def identity(vendor: int, product: int, version: int | None) -> UsbIdentity:
    return UsbIdentity(vendor, product, "1", "reader", "1-1", version)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (identity(0x04E6, 0xE001, 0x0515), "SCM SCR331"),
        (identity(0x04E6, 0xE001, 0x0516), None),
        (identity(0x04E6, 0xE001, None), "SCM SCR331"),
        (identity(0x04E6, 0x5710, 0x0003), None),
        (identity(0x04E7, 0xE001, 0x0001), None),
    ],
)
def test_quirk_of_a_device(device: UsbIdentity, name: str | None) -> None:
    quirk = quirk_for(device)
    assert (quirk and quirk.name) == name


def test_every_quirk_names_its_source() -> None:
    for quirk in NO_ZERO_LENGTH_PACKET:
        assert quirk.source
        assert quirk.first_read % 64 == 0
