"""Who has a USB reader when libusb says that it is busy, and what can be done about it (Linux)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from demail_hw.errors import DeviceBusy

__all__ = ["UsbPlace", "busy"]

_PCSCD: Final = "pcscd"
_USBFS: Final = "usbfs"
_USBIP_HOST: Final = "usbip-host"
_WAYS_WITH_PCSCD: Final = (
    "Use the reader through it, with an address pcsc:. Or stop it: systemctl stop pcscd.socket pcscd.service. "
    "Or have it leave this reader alone: by the udev property PCSCLITE_IGNORE=1 of the device (pcsc-lite 2.3.2 and "
    "later), or by PCSCLITE_FILTER_IGNORE_READER_NAMES in the environment of pcscd."
)
_UNBIND: Final = "Take it back from USB/IP: usbip unbind --busid {bus_id}."


class UsbPlace(NamedTuple):
    """Where a device is: its bus id, and the numbers of its file under /dev/bus/usb."""

    bus_id: str
    bus: int
    address: int


def busy(place: UsbPlace, interface: int, *, root: Path = Path("/")) -> DeviceBusy:
    """The error for an interface that cannot be claimed. ``root``: where /proc and /sys are."""
    driver = _kernel_driver(root, place, interface)
    who, remedy = _program(root, place) if driver in (None, _USBFS) else _driver(place, driver)
    return DeviceBusy(who, remedy=remedy)


def _driver(place: UsbPlace, driver: str) -> tuple[str, str]:
    if driver == _USBIP_HOST:
        return f"The reader {place.bus_id} is exported by USB/IP.", _UNBIND.format(bus_id=place.bus_id)
    return f"The kernel's driver {driver} has the reader {place.bus_id}.", "Unbind that driver from it."


def _program(root: Path, place: UsbPlace) -> tuple[str, str]:
    """Usbfs has it for a program. Only root sees the files of others' programs."""
    holders = list(_holders(root, place))
    pcscd = next((holder for holder in holders if holder.startswith(_PCSCD)), None)
    if pcscd:
        return f"The PC/SC service has the reader {place.bus_id} ({pcscd}).", _WAYS_WITH_PCSCD
    another = f"Another program has the reader {place.bus_id}"
    if holders:
        return f"{another}: {', '.join(holders)}.", "End that program."
    if _running(root, _PCSCD):
        return f"{another}, most likely the PC/SC service, which runs.", _WAYS_WITH_PCSCD
    return f"{another}.", f"Find it as root: fuser -v {_node(place)}"


def _node(place: UsbPlace) -> str:
    return f"/dev/bus/usb/{place.bus:03}/{place.address:03}"


def _kernel_driver(root: Path, place: UsbPlace, interface: int) -> str | None:
    devices = root / "sys/bus/usb/devices"
    for folder in (devices / place.bus_id, *devices.glob(f"{place.bus_id}:*.{interface}")):
        with contextlib.suppress(OSError):
            name = (folder / "driver").readlink().name
            if name != "usb":
                return name
    return None


def _holders(root: Path, place: UsbPlace) -> Iterator[str]:
    """The processes that have the device open and let us see it."""
    node = _node(place)
    for process in _processes(root):
        if int(process.name) != os.getpid() and node in _open_files(process):
            yield f"{_name(process)}, process {process.name}"


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(link.readlink())


def _running(root: Path, name: str) -> bool:
    return any(_name(process) == name for process in _processes(root))


def _processes(root: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path for path in (root / "proc").iterdir() if path.name.isdecimal())


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a program"
