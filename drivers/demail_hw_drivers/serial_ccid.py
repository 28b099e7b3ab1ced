"""Readers on a serial line: the addresses of the scheme ``serial:``.

::

    serial:/dev/ttyUSB0             a device (Windows: serial:COM3)
    serial:socket://HOST:PORT       a COM server's raw TCP port, with its line set to 115200 bit/s, 8 N 2
    serial:rfc2217://HOST:PORT      a COM server that lets the line be set (RFC 2217)

They speak the framing of the GemPC Twin. Such a reader has no serial number, and no list names it: ``serial:`` alone
lists the serial ports of this machine without asking what is there. What crosses a COM server crosses the network in
plain, PINs too.
"""

import dataclasses
import importlib
import time
from collections.abc import Sequence
from typing import Any, Final

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import ReaderInfo, Timeouts
from demail_hw_drivers.ccid_reader import reader_over
from demail_hw_drivers.serial_ccid_line import SerialLine, load_pyserial
from demail_hw_drivers.serial_ccid_port import SerialCcidPort

__all__ = ["SerialReaders"]

_NO_DESCRIPTION: Final = "n/a"
"""What pyserial says of a port that it knows nothing of."""


class SerialReaders:
    """The driver of ``serial:`` (:class:`~demail_hw.interfaces.ReaderDriver`).

    Errors: :class:`~demail_hw.errors.ConfigurationError` if pyserial is not installed.
    """

    in_process: Final = False
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self._serial = load_pyserial()

    def open(self, address: Address, *, timeouts: Timeouts) -> CcidReader:
        """Open the line and greet the reader; the card is not touched.

        Errors: :class:`~demail_hw.errors.DeviceNotFound` if there is no such line, or no reader at it;
        :class:`~demail_hw.errors.DeviceBusy`, :class:`~demail_hw.errors.ConfigurationError`.
        """
        url = _url(address)
        if not url:
            raise ConfigurationError(
                "The address names no serial line.",
                remedy="Write serial:/dev/ttyUSB0; demail-hw readers serial: lists the ports of this machine.",
            )
        port = SerialCcidPort(SerialLine(self._serial, url), url)
        try:
            port.configure(deadline=time.monotonic() + timeouts.connect)
        except BaseException:
            port.close()
            raise
        return reader_over(port)

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The reader at this line; without one the serial ports, of which nobody knows whether a reader is there."""
        if not _url(address):
            ports: Any = importlib.import_module("serial.tools.list_ports")
            return [_port_info(address, port) for port in ports.comports()]
        reader = self.open(address, timeouts=timeouts)
        try:
            card = reader.card_present(deadline=time.monotonic() + timeouts.command)
        finally:
            reader.close()
        return [ReaderInfo(str(address), reader.name, reader.serial, card, in_use=False)]


def _url(address: Address) -> str:
    if address.host:
        raise ConfigurationError(
            f"{str(address)!r} names a host and not how to reach its serial port.",
            remedy="Write serial:socket://HOST:PORT or serial:rfc2217://HOST:PORT.",
        )
    return address.selector


def _port_info(address: Address, port: Any) -> ReaderInfo:
    where = dataclasses.replace(address, selector=port.device)
    known = "" if port.description in (None, "", _NO_DESCRIPTION) else f" ({port.description})"
    return ReaderInfo(str(where), f"serial port, not asked{known}", None, card=None, in_use=None)
