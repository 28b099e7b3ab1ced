"""Linux' own USB/IP client, vhci_hcd, as sysfs shows it: virtual ports, and a device on one of them.

Source: Linux 6.1, drivers/usb/usbip/vhci_sysfs.c, and tools/usb/usbip/libsrc/vhci_driver.c for the port files.
"""

import contextlib
import enum
import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from demail_hw.errors import ConfigurationError, DeviceBusy, DeviceNotFound, HardwareError, Outcome, TransportError
from demail_hw.usbip.messages import UsbDevice, UsbSpeed

__all__ = ["Origin", "PortState", "Vhci", "VhciPort", "parse_ports"]

_LOG = logging.getLogger(__name__)

_SYSFS: Final = Path("/sys/devices/platform/vhci_hcd.0")
_PORT_FILES: Final = Path("/run/vhci_hcd")
_FOLDER_MODE: Final = 0o700
_HIGH_SPEED_HUB: Final = "hs"
_SUPER_SPEED_HUB: Final = "ss"
_SPEEDS: Final = {UsbSpeed.SUPER_PLUS: UsbSpeed.SUPER}
"""vhci_hcd refuses the faster one; what it does with a device is the same."""
_FIELDS: Final = 7
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class PortState(enum.IntEnum):
    """VDEV_ST_* (usbip_common.h), as far as a client has them."""

    FREE = 4
    NOT_ASSIGNED = 5
    USED = 6
    ERROR = 7


class VhciPort(NamedTuple):
    """One line of a status file. ``hub``: ``hs`` or ``ss``. ``local_bus_id``: the kernel's name of the device."""

    hub: str
    number: int
    state: int
    speed: int
    devid: int
    local_bus_id: str


class Origin(NamedTuple):
    """Where a device comes from: what a port file says. ``address``: by which it was attached; empty of others."""

    host: str
    port: int
    bus_id: str
    address: str = ""

    def encode(self) -> str:
        """The line that ``usbip port`` shows, and one that it does not read."""
        return f"{self.host} {self.port} {self.bus_id}\n" + (f"{self.address}\n" if self.address else "")

    @classmethod
    def decode(cls, text: str) -> "Origin":
        """``ValueError`` for what is no port file."""
        first, _, second = text.partition("\n")
        host, port, bus_id = first.split()
        return cls(host, int(port), bus_id, second.strip())


def parse_ports(text: str) -> Sequence[VhciPort]:
    """A status file: a header, then a line for each port. ``ValueError`` for any other."""
    return [_port(line.split()) for line in text.splitlines()[1:]]


def _port(fields: Sequence[str]) -> VhciPort:
    if len(fields) != _FIELDS:
        raise ValueError(f"{len(fields)} fields in a status of vhci_hcd")
    hub, number, state, speed, devid, _, local_bus_id = fields
    return VhciPort(hub, int(number), int(state), int(speed), int(devid, 16), local_bus_id)


class Vhci:
    """The virtual host controllers of this machine. ``sysfs`` and ``port_files``: folders, other ones in tests.

    All errors are such that nothing was sent to a card.
    """

    def __init__(self, *, sysfs: Path = _SYSFS, port_files: Path = _PORT_FILES) -> None:
        self._sysfs = sysfs
        self._port_files = port_files

    def check(self) -> None:
        """Find out whether :meth:`attach` can work, before a server is asked for anything.

        Errors: :class:`~demail_hw.errors.ConfigurationError`.
        """
        if not self._sysfs.is_dir():
            raise _not_loaded()
        if not os.access(self._sysfs / "attach", os.W_OK):
            raise _not_allowed()

    def ports(self) -> Sequence[VhciPort]:
        """Every port of every controller. Errors: as :meth:`check`."""
        with _sysfs_errors():
            first = (self._sysfs / "status").read_text(encoding="ascii")
            files = sorted(self._sysfs.glob("status.*"), key=lambda path: int(path.suffix[1:]))
            return [port for text in (first, *map(_read, files)) for port in parse_ports(text)]

    def used(self) -> Sequence[int]:
        """The numbers of the ports with a device, or one on its way. Errors: as :meth:`check`."""
        return [port.number for port in self.ports() if port.state != PortState.FREE]

    def attach(self, sock: socket.socket, device: UsbDevice) -> int:
        """Have the kernel speak USB/IP on a connected stream socket; it takes a hold of its own on it. The port.

        Errors: as :meth:`check`; :class:`~demail_hw.errors.DeviceBusy` without a free port;
        :class:`~demail_hw.errors.TransportError` for a device that it refuses.
        """
        speed = _SPEEDS.get(UsbSpeed(device.speed), device.speed) if device.speed in tuple(UsbSpeed) else 0
        hub = _SUPER_SPEED_HUB if speed == UsbSpeed.SUPER else _HIGH_SPEED_HUB
        for port in self.ports():
            free = port.hub == hub and port.state == PortState.FREE
            if free and self._try(port.number, f"{port.number} {sock.fileno()} {device.devid} {speed}"):
                return port.number
        raise DeviceBusy(
            "Every virtual USB port of this kernel is in use.",
            remedy="Detach a device: usbip port shows them. The kernel's VHCI_HC_PORTS says how many there are.",
            outcome=Outcome.NOT_SENT,
        )

    def _try(self, number: int, line: str) -> bool:
        """False if somebody else took the port meanwhile."""
        try:
            self._write_attach(line)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise _mapped(error, f"The kernel refused the device on port {number}: {error.strerror}.") from error
        return True

    def _write_attach(self, line: str) -> None:
        (self._sysfs / "attach").write_text(line, encoding="ascii")

    def detach(self, number: int) -> None:
        """Take the device off a port; whoever carries its USB/IP sees the end of the connection.

        Errors: as :meth:`check`; :class:`~demail_hw.errors.DeviceNotFound` if there is none.
        """
        used = self.used()
        if number not in used:
            listed = ", ".join(map(str, used)) or "none"
            raise DeviceNotFound(
                f"No device is attached to port {number}; ports in use: {listed}.", remedy="See usbip port."
            )
        before = self._port_text(number)
        with _sysfs_errors():
            (self._sysfs / "detach").write_text(str(number), encoding="ascii")
        self._remove(number, before)

    def origin(self, number: int) -> Origin | None:
        """What the port file says; None without a good one."""
        try:
            return Origin.decode(self._port_text(number))
        except ValueError:
            return None

    def remember(self, number: int, origin: Origin) -> None:
        """Write the port file; without one ``usbip port`` knows no host, and all the rest works."""
        try:
            self._port_files.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            self._port_file(number).write_text(origin.encode(), encoding="utf-8")
        except OSError as error:
            _LOG.warning("usbip port will not name the server: %s: %s.", error.filename, error.strerror)

    def forget(self, number: int, origin: Origin) -> None:
        """Remove the port file, if it says this: the port may be somebody else's by now."""
        self._remove(number, origin.encode())

    def _remove(self, number: int, text: str) -> None:
        with contextlib.suppress(OSError):
            if self._port_text(number) == text:
                self._port_file(number).unlink()

    def _port_text(self, number: int) -> str:
        """Empty without a port file."""
        with contextlib.suppress(OSError):
            return self._port_file(number).read_text(encoding="utf-8", errors="replace")
        return ""

    def _port_file(self, number: int) -> Path:
        return self._port_files / f"port{number}"


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii")


@contextlib.contextmanager
def _sysfs_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _mapped(error, f"{error.filename} cannot be used: {error.strerror}.") from error
    except ValueError as error:
        raise TransportError(
            f"The status of vhci_hcd is in a form that is not known: {error}.",
            transient=False,
            remedy="Use the usbip: address without the kernel, and report the kernel's version.",
            outcome=Outcome.NOT_SENT,
        ) from error


def _mapped(error: OSError, text: str) -> HardwareError:
    if isinstance(error, FileNotFoundError):
        return _not_loaded()
    if error.errno in _NOT_ALLOWED:
        return _not_allowed()
    return TransportError(text, transient=False, remedy="See what the kernel says: dmesg.", outcome=Outcome.NOT_SENT)


def _not_loaded() -> ConfigurationError:
    return ConfigurationError(
        "This kernel has no USB/IP client: its module vhci_hcd is not loaded.",
        remedy="Load it as root: modprobe vhci-hcd. Without it, usbip: addresses need no kernel.",
    )


def _not_allowed() -> ConfigurationError:
    return ConfigurationError(
        "This process may not attach a device to this kernel.",
        remedy="Run it as root, where /sys can be written; or use the usbip: address without the kernel.",
    )
