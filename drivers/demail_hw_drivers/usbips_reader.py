"""The driver of ``usbips:``: as that of ``usbip:``, with the TLS files of the configuration."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.config.loading import load_configuration
from demail_hw.interfaces import ReaderInfo, Timeouts
from demail_hw_drivers.usbip_client import UsbIpReaders

__all__ = ["UsbIpsReaders", "with_tls_files"]


_SCHEME: Final = "usbips"
_TABLE: Final = "tls"


class UsbIpsReaders(UsbIpReaders):
    """An address that names no TLS files has those of ``[tls]`` in the configuration
    (:class:`~demail_hw.interfaces.ReaderDriver`)."""

    def open(self, address: Address, *, timeouts: Timeouts) -> CcidReader:
        """As for ``usbip:``. Errors: those of the configuration too."""
        return super().open(with_tls_files(address), timeouts=timeouts)

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """As for ``usbip:``. Errors: those of the configuration too."""
        found = super().find(with_tls_files(address), timeouts=timeouts)
        if _names_files(address):
            return found
        return [info._replace(address=_without_files(info.address)) for info in found]


def with_tls_files(address: Address) -> Address:
    """A ``usbips:`` address that names no files, with those of ``[tls]`` in the configuration. For any other address
    it is not read. Errors: :class:`~demail_hw.errors.ConfigurationError`."""
    if address.scheme != _SCHEME or _names_files(address):
        return address
    tls = load_configuration().tls
    return address if tls is None else tls.of(address, table=_TABLE)


def _names_files(address: Address) -> bool:
    return bool(address.cert or address.key or address.ca)


def _without_files(text: str) -> str:
    """The address of a reader as one writes it where ``[tls]`` has the files."""
    return str(dataclasses.replace(Address.parse(text), cert=None, key=None, ca=None))
