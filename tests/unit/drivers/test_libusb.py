"""What can be said of local readers without a USB: who holds one, what libusb's errors and addresses mean."""

import os
import pathlib
import sys
import time

import pytest

from demail_hw.address import Address
from demail_hw.ccid.class_descriptor import find_ccid_interface
from demail_hw.errors import ConfigurationError, DeviceLost, HardwareError, Outcome, TransportError
from demail_hw.interfaces import UsbIdentity
from demail_hw.registry import open_reader
from demail_hw_drivers.libusb import claim
from demail_hw_drivers.libusb_holder import UsbPlace, busy
from demail_hw_drivers.libusb_library import libusb_errors, load_libusb
from demail_hw_drivers.libusb_transport import DeviceTransport
from demail_hw_simulators.ccid_device import SimulatedUsbReader

PLACE = UsbPlace("1-1.2", 1, 7)
NODE = "/dev/bus/usb/001/007"


def link(at: pathlib.Path, to: str) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


def process(root: pathlib.Path, number: int, name: str, *files: str) -> None:
    folder = root / "proc" / str(number)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    for index, file in enumerate(files):
        link(folder / "fd" / str(index), file)


def driver(root: pathlib.Path, name: str) -> None:
    link(root / "sys/bus/usb/devices/1-1.2:1.0/driver", f"../../../bus/usb/drivers/{name}")


def test_pcscd_is_named_with_every_way_round_it(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 100, "bash", "/dev/pts/0")
    process(tmp_path, 101, "pcscd", "/run/pcscd/pcscd.comm", NODE)
    driver(tmp_path, "usbfs")
    error = busy(PLACE, 0, root=tmp_path)
    assert error.message == "The PC/SC service has the reader 1-1.2 (pcscd, process 101)."
    for way in ("pcsc:", "systemctl stop pcscd.socket", "PCSCLITE_IGNORE=1", "PCSCLITE_FILTER_IGNORE_READER_NAMES"):
        assert way in error.remedy


def test_pcscd_of_another_user_is_supposed(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 101, "pcscd")
    error = busy(PLACE, 0, root=tmp_path)
    assert "most likely the PC/SC service" in error.message
    assert "pcscd.socket" in error.remedy


def test_another_program_is_named(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 101, "pcscd", "/dev/bus/usb/001/006")
    process(tmp_path, 102, "scdaemon", NODE)
    error = busy(PLACE, 0, root=tmp_path)
    assert error.message == "Another program has the reader 1-1.2: scdaemon, process 102."
    assert error.remedy == "End that program."


def test_a_reader_that_usbip_exports_is_told_apart(tmp_path: pathlib.Path) -> None:
    link(tmp_path / "sys/bus/usb/devices/1-1.2/driver", "../../../bus/usb/drivers/usbip-host")
    error = busy(PLACE, 0, root=tmp_path)
    assert error.message == "The reader 1-1.2 is exported by USB/IP."
    assert "usbip unbind --busid 1-1.2" in error.remedy


def test_a_driver_of_the_kernel_is_named(tmp_path: pathlib.Path) -> None:
    link(tmp_path / "sys/bus/usb/devices/1-1.2/driver", "../../../bus/usb/drivers/usb")
    driver(tmp_path, "somebody")
    assert busy(PLACE, 0, root=tmp_path).message == "The kernel's driver somebody has the reader 1-1.2."


def test_where_nobody_can_be_seen_root_is_asked(tmp_path: pathlib.Path) -> None:
    process(tmp_path, os.getpid(), "python", NODE)
    error = busy(PLACE, 0, root=tmp_path)
    assert error.message == "Another program has the reader 1-1.2."
    assert NODE in error.remedy


@pytest.mark.parametrize(
    ("name", "kind", "transient", "words"),
    [
        ("USBErrorAccess", TransportError, False, "may not open"),
        ("USBErrorNoDevice", DeviceLost, True, "unplugged"),
        ("USBErrorIO", TransportError, True, "could not"),
    ],
)
def test_libusb_s_errors_become_ours(name: str, kind: type[HardwareError], transient: bool, words: str) -> None:
    usb1 = pytest.importorskip("usb1", reason="libusb1 is not here: pip install 'demail-hw[usb]'")
    with pytest.raises(kind, match=words) as caught, libusb_errors(usb1, "1-1, 04e6:5710"):
        raise getattr(usb1, name)
    assert (caught.value.transient, caught.value.outcome) == (transient, Outcome.NOT_SENT)
    assert caught.value.remedy
    assert "1-1, 04e6:5710" in caught.value.message


def test_a_forked_child_leaves_the_reader_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimulatedUsbReader(None)
    interface = find_ccid_interface(device.configuration_descriptor)
    closed: list[bool] = []
    identity = UsbIdentity(0x04E6, 0x5710, device.serial, None, "1-1")
    transport = DeviceTransport(device, interface, identity, lambda: closed.append(True))
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(DeviceLost) as caught:
        transport.bulk_in(64, deadline=time.monotonic() + 20)
    assert caught.value.outcome is Outcome.NOT_SENT
    transport.close()
    assert closed == []
    monkeypatch.undo()
    transport.close()
    assert closed == [True]


@pytest.mark.parametrize("text", ["libusb://host/", "libusb:Identiv"])
def test_what_names_no_reader_here_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        claim(Address.parse(text))


def test_a_missing_libusb1_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    with pytest.raises(ConfigurationError) as caught:
        open_reader("libusb:")
    assert caught.value.remedy == "Install it: pip install 'demail-hw[usb]'."


def test_a_missing_library_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    usb1 = pytest.importorskip("usb1", reason="libusb1 is not here: pip install 'demail-hw[usb]'")

    def nowhere() -> None:
        raise OSError("libusb-1.0.so.0: cannot open shared object file")

    monkeypatch.setattr(usb1, "loadLibrary", nowhere)
    with pytest.raises(ConfigurationError) as caught:
        load_libusb()
    assert "libusb-1.0-0" in caught.value.remedy
